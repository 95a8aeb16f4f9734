//! What callers make the process keep: streams, responses that nobody reads, bodies that become large, and what those leave who have left.

use std::time::{Duration, Instant};

use async_compression::tokio::bufread::GzipEncoder;
use bytes::Bytes;
use futures::future::join_all;
use http_body_util::Full;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::kit::*;

/// How much memory a server has, in MiB.
fn memory(server: &Server) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// How many files a server has open.
fn files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("the server runs").count()
}

async fn gzip(data: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    GzipEncoder::new(data).read_to_end(&mut packed).await.unwrap();
    packed
}

/// Creates entities of a megabyte each, that cannot be compressed to nothing, and returns the path that shows all of them.
async fn large_entities(world: &World, count: usize) -> String {
    for n in 0..count {
        let text: String = (0..60_000_u64)
            .map(|m| format!("{:016x}", (m + n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        let entity =
            json!({"entity_id": format!("large-{n}"), "type": "L", "attributes": {"a": text}});
        world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
    }
    let ids: Vec<String> = (0..count).map(|n| format!("entity_ids=large-{n}")).collect();
    format!("/v1/entities:batchGet?{}", ids.join("&"))
}

/// A connection whose peer reads little at a time, with this request sent on it.
async fn unread(world: &World, secret: &str, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut connection = socket.connect(world.server.addresses.http).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection
}

#[tokio::test]
async fn bodies_that_become_larger_than_they_said_do_not_keep_each_other_waiting() {
    let world = World::start_with(
        Protocol::Rest,
        &["--body-memory-bytes=8388608", "--max-body-bytes=1048576", "--body-memory-wait=5"],
    )
    .await;
    // Half a kilobyte becomes several hundred, of which a realm has room for two at once.
    let body = gzip(
        format!("{{\"type\":\"t\",\"crosswalks\":[{}{{}}]}}", "{},".repeat(150_000)).as_bytes(),
    )
    .await;
    let bearer = format!("Bearer {}", world.key.secret);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ];
    let begun = Instant::now();
    let many = join_all((0..20).map(|_| {
        http(world.server.addresses.http, "POST", "/v1/entities", &headers, body.clone())
    }));
    let neighbour = async {
        let mut longest = Duration::ZERO;
        while begun.elapsed() < Duration::from_secs(3) {
            let (asked, large) = (Instant::now(), "x".repeat(100_000));
            let entity = json!({"entity": {"type": "t", "attributes": {"a": large}}});
            let _ = world.call("EntityService/CreateEntity", entity).await;
            longest = longest.max(asked.elapsed());
        }
        longest
    };
    let (answers, longest) = tokio::join!(many, neighbour);
    for answer in answers {
        assert!(matches!(answer.status, 400 | 503), "{}", answer.text());
    }
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

#[tokio::test]
async fn streams_that_last_are_not_compressed_and_cost_little() {
    let world = World::start(Protocol::Rest).await;
    world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "t"}}))
        .await
        .unwrap();
    let request = json!({"entity_id": "e", "grace_period": "3600s"});
    let request = world.call("OffboardingService/RequestOffboarding", request).await.unwrap();
    let id = request.json["id"].as_str().unwrap().to_owned();
    for path in [format!("/v1/offboarding/entities/{id}:watch"), "/v1/events:watch".to_owned()] {
        let client =
            HttpClient::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
        let watch = async || {
            let request =
                http::Request::get(format!("http://{}{path}", world.server.addresses.http))
                    .header("authorization", format!("Bearer {}", world.key.secret))
                    .header("accept-encoding", "zstd, gzip")
                    .body(Full::default())
                    .unwrap();
            let answer = client.request(request).await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), answer.headers().get("content-encoding")),
                (200, None),
                "{path}"
            );
            answer.into_body()
        };
        let first = watch().await;
        let before = memory(&world.server);
        let streams = join_all((0..180).map(|_| watch())).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let after = memory(&world.server);
        assert!(after < before + 40, "{path}: from {before} to {after} MiB");
        drop((first, streams));
    }
    let one_page = [
        ("authorization", format!("Bearer {}", world.key.secret)),
        ("accept-encoding", "zstd".to_owned()),
    ];
    let one_page: Vec<_> = one_page.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for n in 0..20 {
        let entity = json!({"entity_id": format!("page-{n}"), "type": "t", "attributes": {"a": "x".repeat(100)}});
        world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
    }
    let page = http(world.server.addresses.http, "GET", "/v1/entities", &one_page, "").await;
    assert_eq!(page.header("content-encoding"), Some("zstd"), "what ends is compressed");
}

#[tokio::test]
async fn responses_that_nobody_reads_share_the_memory_that_there_is() {
    let world = World::start(Protocol::Rest).await;
    let path = large_entities(&world, 12).await;
    let other = world.client("other", "live", SCOPES);
    let large = json!({"entity": {"entity_id": "e", "type": "T", "attributes": {"a": "x".repeat(200_000)}}});
    other.call("EntityService/CreateEntity", large).await.unwrap();
    let before = memory(&world.server);
    let mut connections = Vec::new();
    for _ in 0..20 {
        connections.push(unread(&world, &world.key.secret, &path).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A fifth of what they ask for.
    let mut peak = 0;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        peak = peak.max(memory(&world.server));
    }
    assert!(peak < before + 150, "from {before} to {peak} MiB");
    let mut refused = 0;
    for connection in &mut connections {
        let mut head = [0; 12];
        connection.read_exact(&mut head).await.unwrap();
        assert!(
            [b"HTTP/1.1 200", b"HTTP/1.1 503"].contains(&&head),
            "{}",
            String::from_utf8_lossy(&head)
        );
        refused += usize::from(head.ends_with(b"503"));
    }
    assert!(refused > 10, "{refused}");
    other.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
    world.call("EntityService/ListTombstones", json!({})).await.unwrap();
    drop(connections);
    let bearer = format!("Bearer {}", world.key.secret);
    let whole = async || {
        http(world.server.addresses.http, "GET", &path, &[("authorization", &bearer)], "").await
    };
    let mut answer = whole().await;
    for _ in 0..100 {
        if answer.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = whole().await;
    }
    assert!(
        answer.status == 200 && answer.body.len() > 11_000_000,
        "{} with {} bytes",
        answer.status,
        answer.body.len()
    );
}

#[tokio::test]
async fn responses_that_have_no_window_share_the_memory_too() {
    use prost::Message;

    let world = World::start(Protocol::Grpc).await;
    large_entities(&world, 12).await;
    let ids = (0..12).map(|n| format!("large-{n}")).collect();
    let message = offboard::proto::v1::BatchGetEntitiesRequest { entity_ids: ids }.encode_to_vec();
    let frame = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    let client = HttpClient::builder(TokioExecutor::new())
        .http2_only(true)
        .http2_initial_stream_window_size(0)
        .build_http::<Full<Bytes>>();
    let call = async || {
        let request = http::Request::post(format!(
            "http://{}/offboard.v1.EntityService/BatchGetEntities",
            world.server.addresses.grpc
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", world.key.secret));
        client.request(request.body(Full::new(Bytes::from(frame.clone()))).unwrap()).await.unwrap()
    };
    let before = memory(&world.server);
    let answers = join_all((0..20).map(|_| call())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = memory(&world.server);
    assert!(after < before + 100, "from {before} to {after} MiB");
    let refused = answers
        .iter()
        .filter(|answer| answer.headers().get("grpc-status").is_some_and(|status| status == "14"))
        .count();
    assert!((10..20).contains(&refused), "{refused}");
    drop(answers);
}

#[tokio::test]
async fn what_waits_for_memory_ends_when_its_caller_has_gone() {
    let world = World::start_with(
        Protocol::Rest,
        &["--body-memory-bytes=4194304", "--body-memory-wait=60", "--body-timeout=120"],
    )
    .await;
    let head = |path: &str, more: &str| {
        let key = &world.key.secret;
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/x-ndjson\r\n{more}\r\n\r\n"
        )
    };
    let before = files(&world.server);
    // One has all that the realm may have for what is received.
    let mut first = TcpStream::connect(world.server.addresses.http).await.unwrap();
    first
        .write_all(head("/v1/entities:import", "transfer-encoding: chunked").as_bytes())
        .await
        .unwrap();
    first.write_all(&[b"80000\r\n".as_slice(), &[b' '; 500_000]].concat()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut connection = TcpStream::connect(world.server.addresses.http).await.unwrap();
        connection
            .write_all(head("/v1/entities:import", "transfer-encoding: chunked").as_bytes())
            .await
            .unwrap();
        connection.write_all(b"200000\r\n").await.unwrap();
        // Some of it is not read, and no more than the kernel takes: the end of a connection comes behind all that was sent.
        let _ = tokio::time::timeout(
            Duration::from_millis(50),
            connection.write_all(&[b' '; 48 << 10]),
        )
        .await;
        waiting.push(connection);
    }
    until("they are there", || files(&world.server) >= before + 20).await;
    drop(waiting);
    let gone = Instant::now();
    until("those that waited are closed", || files(&world.server) < before + 5).await;
    assert!(gone.elapsed() < Duration::from_secs(10), "{:?}", gone.elapsed());
    drop(first);
}
