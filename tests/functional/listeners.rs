//! Connections that do nothing, or half of something, and what they cost others: nothing.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::crowds::connected;
use crate::kit::*;
use crate::probes::probe;
use crate::raw::*;

const IMPATIENT: &[&str] = &["--head-timeout=0.5", "--idle-timeout=0.5"];

fn files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

/// Each listener, and whether it speaks HTTP/1.1.
pub fn listeners(server: &Server) -> [(SocketAddr, bool); 3] {
    let Addresses { grpc, http, admin } = server.addresses;
    [(grpc, false), (http, true), (admin, true)]
}

async fn get(address: SocketAddr) -> String {
    let mut connection =
        sent(address, b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    String::from_utf8(closed(&mut connection, "one request").await).unwrap()
}

#[tokio::test]
async fn who_sends_nothing_or_half_of_something_is_not_waited_for() {
    let world = World::start_with(Protocol::Rest, IMPATIENT).await;
    for (address, speaks_http1) in listeners(&world.server) {
        for half in [
            b"".as_slice(),
            b"P",
            &PREFACE[..14],
            &PREFACE[..24],
            b"GET / HT",
            b"POST /v1/entities HTTP/1.1\r\nhost: x\r\nconte",
        ] {
            closed(
                &mut sent(address, half).await,
                &format!("{address}: {:?}", String::from_utf8_lossy(half)),
            )
            .await;
        }
        // One that has begun, and then has nothing to say.
        let mut begun = sent(address, PREFACE).await;
        assert!(
            frame_until(&mut begun, |kind, _| kind == GO_AWAY).await.is_some(),
            "{address}: announced before it is closed"
        );
        closed(&mut begun, &format!("{address}: after the preface")).await;
        if speaks_http1 {
            let mut idle = sent(address, b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n").await;
            let answer = closed(&mut idle, &format!("{address}: idle")).await;
            assert!(answer.starts_with(b"HTTP/1.1 404"), "{address}: it was answered first");
        }
    }
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_keep_a_connection() {
    let world = World::start_with(Protocol::Rest, IMPATIENT).await;
    for (address, speaks_http1) in listeners(&world.server) {
        let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        let dripping = tokio::spawn(async move {
            let bytes = if speaks_http1 {
                b"GET / HTTP/1.1\r\nx: xxxxxxxxxxxxx".iter()
            } else {
                PREFACE[..30].iter()
            };
            for byte in bytes.cycle() {
                if writer.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut read = Vec::new();
        let ended =
            tokio::time::timeout(Duration::from_secs(30), reader.read_to_end(&mut read)).await;
        assert!(ended.is_ok(), "{address}");
        dripping.abort();
    }
}

#[tokio::test]
async fn a_call_that_takes_long_keeps_its_connection() {
    let world = World::start_with(Protocol::Rest, IMPATIENT).await;
    for protocol in [Protocol::Rest, Protocol::Grpc] {
        let mut watch = world
            .through(protocol)
            .stream("EventService/WatchEvents", json!({}), &[])
            .await
            .unwrap();
        // For longer than anything may take that is not a call.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        world.entities(&[if protocol == Protocol::Rest { "a" } else { "b" }]).await;
        while watch.message().await["event"].is_null() {}
    }
}

#[tokio::test]
async fn a_body_of_empty_frames_is_cut_off() {
    let world = World::start(Protocol::Grpc).await;
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let mut connection = under_way(&world, protocol).await;
        let most = offboard::limits::listeners::EMPTY_FRAMES_AT_MOST as usize;
        connection.write_all(&frame(0, 0, 1, b"").repeat(most + 1)).await.unwrap();
        let reported = closed(&mut connection, &format!("{protocol:?}")).await;
        assert!(
            reported.ends_with(b"too_many_data_frames"),
            "{protocol:?}: {}",
            String::from_utf8_lossy(&reported)
        );
        world.through(protocol).call("EntityService/ListEntities", json!({})).await.unwrap();
    }
}

#[tokio::test]
async fn an_address_has_its_part_of_the_connections_and_others_have_theirs() {
    let world = World::start_with(
        Protocol::Rest,
        &[
            "--max-connections-per-address=3",
            "--max-connections=5",
            "--max-connections-per-realm=5",
        ],
    )
    .await;
    let http = world.server.addresses.http;
    let from = async |host: u8| connected(http, host).await;
    // Callers with a key, whose connections do not give way.
    let get_with_key = format!(
        "GET /v1/portfolios HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        world.key.secret
    );
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut connection = from(1).await;
        connection.write_all(get_with_key.as_bytes()).await.unwrap();
        assert!(connection.read(&mut [0; 4096]).await.unwrap() > 0, "it is served");
        open.push(connection);
    }
    assert_eq!(closed(&mut from(1).await, "the fourth of an address").await, b"");
    for host in [2, 3] {
        let mut connection = from(host).await;
        connection.write_all(get_with_key.as_bytes()).await.unwrap();
        assert!(connection.read(&mut [0; 4096]).await.unwrap() > 0, "another address is served");
        open.push(connection);
    }
    assert_eq!(closed(&mut from(4).await, "the sixth of all").await, b"");
    let metrics = probe(&world.server, "/metrics").await.text();
    for limit in ["connections", "connections_per_address"] {
        assert!(
            metrics.lines().any(
                |line| line.contains("limit_reached") && line.contains(&format!("\"{limit}\""))
            ),
            "{limit}: {metrics}"
        );
    }
    open.clear();
    let mut again = Vec::new();
    for _ in 0..1500 {
        if let Ok(answer) =
            tokio::time::timeout(Duration::from_secs(5), async { get(http).await }).await
            && answer.starts_with("HTTP/1.1 404")
        {
            again.push(answer);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(again.len(), 1, "who has left makes room");
}

#[tokio::test]
async fn files_are_closed_when_connections_are() {
    let world = World::start_with(Protocol::Rest, &["--head-timeout=300"]).await;
    world.entities(&["e"]).await;
    world
        .through(Protocol::Grpc)
        .call("EntityService/GetEntity", json!({"entity_id": "e"}))
        .await
        .unwrap();
    let before = files(&world.server);
    let mut open = Vec::new();
    for (address, _) in listeners(&world.server) {
        for n in 0..15 {
            open.push(sent(address, [b"".as_slice(), b"PRI * H", PREFACE][n % 3]).await);
        }
    }
    // A call's own connection may have been counted before.
    until("all are accepted", || files(&world.server) >= before + 40).await;
    drop(open);
    until("all are closed", || files(&world.server) <= before + 2).await;
}

#[tokio::test]
async fn a_process_that_may_open_no_more_files_says_so_and_answers_probes() {
    let world = World::start_with(Protocol::Rest, &["--head-timeout=300"]).await;
    world.entities(&["e"]).await;
    let Addresses { grpc, http, .. } = world.server.addresses;
    let most = files(&world.server) + 4;
    let limited = Command::new("prlimit")
        .args([format!("--pid={}", world.server.pid()), format!("--nofile={most}:{most}")])
        .status();
    assert!(limited.unwrap().success());
    let mut open = Vec::new();
    for address in [http, grpc].repeat(10) {
        open.push(TcpStream::connect(address).await.unwrap());
    }
    until("the log shows it", || world.server.log().contains("cannot accept connections")).await;
    for _ in 0..20 {
        assert_eq!(probe(&world.server, "/livez").await.status, 200);
    }
    assert!(
        world.server.log().matches("cannot accept connections").count() <= 3,
        "it is reported now and then, by each listener"
    );
    drop(open);
    // The waiting connection is accepted, and then every other.
    assert!(get(http).await.starts_with("HTTP/1.1 404"));
    world
        .through(Protocol::Grpc)
        .call("EntityService/GetEntity", json!({"entity_id": "e"}))
        .await
        .unwrap();
}

/// A call under way, with its key, on a connection of the gRPC or the HTTP listener.
pub async fn under_way(world: &World, protocol: Protocol) -> TcpStream {
    let bearer = format!("Bearer {}", world.key.secret);
    let (address, path, kind) = match protocol {
        Protocol::Grpc => (
            world.server.addresses.grpc,
            "/offboard.v1.EntityService/ImportEntities",
            "application/grpc",
        ),
        Protocol::Rest => {
            (world.server.addresses.http, "/v1/entities:import", "application/x-ndjson")
        }
    };
    let mut connection = sent(address, PREFACE).await;
    let more = [("authorization", bearer.as_str()), ("content-type", kind), ("te", "trailers")];
    connection.write_all(&frame(HEADERS, 0x4, 1, &head(3, path, &more))).await.unwrap();
    connection
}

#[tokio::test]
async fn a_request_names_one_host_and_one_way_to_end() {
    let world = World::start(Protocol::Rest).await;
    let Addresses { http, admin, .. } = world.server.addresses;
    for (wrong, why) in [
        ("GET /nothing HTTP/1.1\r\n\r\n", "Host"),
        ("GET /nothing HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "Host"),
        ("GET /nothing HTTP/1.1\r\nhost: a b\r\n\r\n", "Host"),
        (
            "POST /v1/entities HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding",
        ),
    ] {
        for address in [http, admin] {
            let answer = closed(&mut sent(address, wrong.as_bytes()).await, wrong).await;
            let answer = String::from_utf8(answer).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.contains(why),
                "{wrong}: {answer}"
            );
            assert!(
                address == admin
                    || answer.contains("application/problem+json")
                        && answer.contains("x-request-id"),
                "{answer}"
            );
        }
    }
    let old = closed(&mut sent(http, b"GET /nothing HTTP/1.0\r\n\r\n").await, "HTTP/1.0").await;
    assert!(
        old.starts_with(b"HTTP/1.0 404 ") || old.starts_with(b"HTTP/1.1 404 "),
        "{}",
        String::from_utf8_lossy(&old)
    );
}
