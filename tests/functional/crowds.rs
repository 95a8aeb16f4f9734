//! Many connections at once: callers without a key take no permit of those with one, and all permits are given back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::kit::*;
use crate::probes::probe;
use crate::raw::*;

/// A connection from this host.
pub async fn connected(address: SocketAddr, host: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn who_shows_no_key_shuts_nobody_out() {
    let world = World::start_with(
        Protocol::Rest,
        &[
            "--max-connections-per-address=3",
            "--max-connections=6",
            "--max-connections-per-realm=6",
            "--head-timeout=300",
        ],
    )
    .await;
    for (protocol, address) in [
        (Protocol::Rest, world.server.addresses.http),
        (Protocol::Grpc, world.server.addresses.grpc),
    ] {
        // Silent, with half of something, and idle after a response to who has no key.
        let refused = b"GET /v1/portfolios HTTP/1.1\r\nhost: x\r\n\r\n".as_slice();
        let mut held = Vec::new();
        for host in [2, 2, 2, 3, 3, 3] {
            let mut connection = connected(address, host).await;
            let kinds = if protocol == Protocol::Rest { 4 } else { 3 };
            connection
                .write_all([b"".as_slice(), b"POST / HT", PREFACE, refused][held.len() % kinds])
                .await
                .unwrap();
            held.push(connection);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let client = world.through(protocol);
        client.call("EntityService/ListEntities", json!({})).await.unwrap();
        closed(&mut held[0], "the one that was idle for the longest").await;
        // From their own address too, more often than there are permits, and each of those may stay.
        let get = format!(
            "GET /v1/portfolios HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
            world.key.secret
        );
        let mut with_key = Vec::new();
        for host in [2, 3, 2] {
            let mut connection = connected(address, host).await;
            if protocol == Protocol::Rest {
                connection.write_all(get.as_bytes()).await.unwrap();
                let mut answer = [0; 12];
                connection.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer, b"HTTP/1.1 200");
            } else {
                connection.write_all(PREFACE).await.unwrap();
                assert!(
                    frame_until(&mut connection, |kind, _| kind == SETTINGS).await.is_some(),
                    "it is served"
                );
            }
            with_key.push(connection);
        }
        for host in [3, 4, 5, 6, 7, 8, 9] {
            held.push(connected(address, host).await);
        }
        client.call("EntityService/ListEntities", json!({})).await.unwrap();
    }
    let metrics = probe(&world.server, "/metrics").await.text();
    assert!(
        metrics
            .lines()
            .any(|line| line.contains("limit_reached") && line.contains("\"connections\"")),
        "{metrics}"
    );
    assert!(world.server.log().contains("there are too many"));
}

#[tokio::test]
async fn calls_with_a_key_go_on_however_many_come_without_one() {
    let world = World::start_with(
        Protocol::Rest,
        &["--max-connections-per-address=4", "--max-connections=8"],
    )
    .await;
    for protocol in [Protocol::Rest, Protocol::Grpc] {
        let address = if protocol == Protocol::Rest {
            world.server.addresses.http
        } else {
            world.server.addresses.grpc
        };
        let mut watch = world
            .through(protocol)
            .stream("EventService/WatchEvents", json!({}), &[])
            .await
            .unwrap();
        let mut held = Vec::new();
        for host in (1..60).cycle().take(240) {
            held.push(connected(address, host).await);
        }
        world.through(protocol).call("EntityService/ListEntities", json!({})).await.unwrap();
        world.entities(&[if protocol == Protocol::Rest { "a" } else { "b" }]).await;
        while watch.message().await["event"].is_null() {}
    }
}

/// Sends a request over HTTP/1.1 with this key, and returns how its response begins.
async fn called(connection: &mut TcpStream, key: &str) -> String {
    let request =
        format!("GET /v1/portfolios HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    let mut answer = vec![0; 4096];
    connection.write_all(request.as_bytes()).await.unwrap();
    let length = connection.read(&mut answer).await.unwrap();
    answer.truncate(length);
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn one_realm_does_not_have_all_connections() {
    let world = World::start_with(
        Protocol::Rest,
        &["--max-connections-per-address=8", "--max-connections=8"],
    )
    .await;
    let http = world.server.addresses.http;
    let other = Key::create(&world.database, "other", "test", SCOPES);
    // More than there are, from several addresses, and each calls as often as it can.
    let (mut served, mut reported) = (Vec::new(), Vec::new());
    for host in [2, 3].repeat(8) {
        let mut connection = connected(http, host).await;
        let answer = called(&mut connection, &world.key.secret).await;
        if answer.starts_with("HTTP/1.1 200") {
            served.push(connection)
        } else {
            reported.push((answer, connection))
        }
    }
    assert_eq!(served.len(), 4, "half");
    for (answer, _) in &reported {
        assert!(
            answer.starts_with("HTTP/1.1 429") && answer.contains("rate_limit_exceeded"),
            "{answer}"
        );
        assert!(
            answer.contains("retry-after: 5") && answer.contains("as many connections as it may"),
            "{answer}"
        );
    }
    let mut others = Vec::new();
    for host in [4, 4] {
        let mut connection = connected(http, host).await;
        assert!(
            called(&mut connection, &other.secret).await.starts_with("HTTP/1.1 200"),
            "another realm is served"
        );
        others.push(connection);
    }
    for connection in &mut served {
        assert!(
            called(connection, &world.key.secret).await.starts_with("HTTP/1.1 200"),
            "nobody has lost what it had"
        );
    }
    // One that is not used gives way to the next of its realm.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut next = connected(http, 5).await;
    assert!(called(&mut next, &world.key.secret).await.starts_with("HTTP/1.1 200"));
    closed(&mut served[0], "the one that was idle for the longest").await;
    for connection in &mut others {
        assert!(
            called(connection, &other.secret).await.starts_with("HTTP/1.1 200"),
            "and none of another realm"
        );
    }
    let metrics = probe(&world.server, "/metrics").await.text();
    assert!(
        metrics.lines().any(
            |line| line.contains("limit_reached") && line.contains("\"connections_per_realm\"")
        ),
        "{metrics}"
    );
}

#[tokio::test]
async fn pages_are_sent_to_an_address_as_often_as_fits_a_minute() {
    let world = World::start(Protocol::Rest).await;
    let http = world.server.addresses.http;
    let get = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let asked = async |host| {
        let mut connection = connected(http, host).await;
        connection.write_all(get).await.unwrap();
        closed(&mut connection, "one page").await
    };
    let mut reported = 0;
    let refused = loop {
        let answer = asked(2).await;
        if !answer.starts_with(b"HTTP/1.1 200") {
            break String::from_utf8(answer).unwrap();
        }
        reported += answer.len();
        assert!(reported < 64 << 20, "there is no end to it");
    };
    assert!(
        refused.starts_with("HTTP/1.1 429") && refused.contains("application/problem+json"),
        "{refused}"
    );
    assert!(
        refused.contains("rate_limit_exceeded") && refused.contains("retry-after: 60"),
        "{refused}"
    );
    assert!((8 << 20..20 << 20).contains(&reported), "{reported}");
    assert!(asked(3).await.starts_with(b"HTTP/1.1 200"), "another address has its own");
    world.call("EntityService/ListEntities", json!({})).await.unwrap();
}

#[tokio::test]
async fn who_has_shown_a_key_may_be_idle_for_longer() {
    let world = World::start_with(
        Protocol::Rest,
        &["--idle-timeout-without-key=0.5", "--head-timeout=0.5"],
    )
    .await;
    let get = |key: &str| {
        format!("GET /v1/portfolios HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n")
    };
    let http = world.server.addresses.http;
    let mut with_key = sent(http, get(&world.key.secret).as_bytes()).await;
    assert!(
        closed(&mut sent(http, get("sk_test_nobody").as_bytes()).await, "refused")
            .await
            .starts_with(b"HTTP/1.1 401")
    );
    for address in [http, world.server.addresses.grpc] {
        let mut begun = sent(address, PREFACE).await;
        assert!(
            frame_until(&mut begun, |kind, _| kind == GO_AWAY).await.is_some(),
            "{address}: announced before it is closed"
        );
    }
    assert!(with_key.read(&mut [0; 4096]).await.unwrap() > 0, "it was answered");
    with_key.write_all(get(&world.key.secret).as_bytes()).await.unwrap();
    assert!(with_key.read(&mut [0; 4096]).await.unwrap() > 0, "and is served again");
}

/// How much memory a server has, in MiB.
fn memory(server: &Server) -> f64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

#[tokio::test]
async fn memory_goes_back_when_connections_are_closed() {
    let world = World::start_with(Protocol::Rest, &["--max-connections-per-address=2000"]).await;
    let Addresses { grpc, http, .. } = world.server.addresses;
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        world.through(protocol).call("EntityService/ListEntities", json!({})).await.unwrap();
    }
    let before = memory(&world.server);
    let mut open = Vec::new();
    for n in 0..800 {
        open.push(sent([grpc, http][n % 2], PREFACE).await);
    }
    for connection in &mut open {
        assert!(frame_until(connection, |kind, _| kind == SETTINGS).await.is_some());
    }
    let peak = memory(&world.server);
    drop(open);
    until(&format!("memory is back from {peak} to about {before} MiB"), || {
        memory(&world.server) < before * 1.2
    })
    .await;
}
