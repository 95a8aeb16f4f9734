//! Refusals that are ready before their requests have arrived: they reach clients that are still sending, and say whether the connection can be
//! used again.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::*;
use crate::raw::*;

/// The response to a client that sends all of a body before it reads.
async fn answered(address: SocketAddr, head: &str, length: usize) -> String {
    let mut connection =
        sent(address, format!("{head}host: x\r\ncontent-length: {length}\r\n\r\n").as_bytes())
            .await;
    let sending = async {
        for _ in 0..length / 65_536 {
            connection.write_all(&[b'x'; 65_536]).await?;
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.map(|_| answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(60), sending).await.expect("an answer");
    answer.unwrap_or_else(|error| panic!("{head}: {error}"))
}

#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_is_still_sending() {
    let world = World::start(Protocol::Rest).await;
    let http = world.server.addresses.http;
    let key = format!("authorization: Bearer {}\r\n", world.key.secret);
    let json = "content-type: application/json\r\n";
    let grpc_web = "content-type: application/grpc-web+proto\r\n";
    for (head, status) in [
        (format!("POST /v1/entities HTTP/1.1\r\n{key}{json}"), "413"),
        (format!("POST /nothing HTTP/1.1\r\n{key}{json}"), "404"),
        (format!("PUT /v1/entities HTTP/1.1\r\n{key}{json}"), "405"),
        (format!("POST /v1/entities HTTP/1.1\r\n{key}content-type: text/plain\r\n"), "415"),
        (format!("POST /v1/entities HTTP/1.1\r\n{json}"), "401"),
        (format!("POST /offboard.v1.EntityService/CreateEntity HTTP/1.1\r\n{grpc_web}"), "200"),
        (format!("POST /v1/entities HTTP/1.1\r\nhost: twice\r\n{json}"), "400"),
        (format!("POST /v1/entities HTTP/1.1\r\n{json}x: {}\r\n", "x".repeat(70_000)), "431"),
    ] {
        for length in [5 << 20, 16 << 20] {
            let answer = answered(http, &head, length).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{}: {answer}",
                &head[..60]
            );
        }
    }
}

#[tokio::test]
async fn an_early_refusal_reaches_a_client_of_http2_that_is_still_sending() {
    let world = World::start(Protocol::Rest).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![b'x'; 6 << 20]).unwrap();
    let body = format!("@{}", file.path().display());
    let key = format!("authorization: Bearer {}", world.key.secret);
    let json = "content-type: application/json";
    for (address, method, path, headers, status) in [
        (world.server.addresses.http, "POST", "/v1/entities", [&key, json], 413),
        (world.server.addresses.http, "POST", "/nothing", [&key, json], 404),
        (world.server.addresses.http, "PUT", "/v1/entities", [&key, json], 405),
        (
            world.server.addresses.http,
            "POST",
            "/v1/entities",
            [&key, "content-type: text/plain"],
            415,
        ),
        (world.server.addresses.http, "POST", "/v1/entities", ["x: y", json], 401),
        (
            world.server.addresses.http,
            "POST",
            "/v1/entities:import",
            [&key, "content-type: application/x-ndjson"],
            413,
        ),
        (world.server.addresses.admin, "POST", "/livez", ["x: y", json], 405),
    ] {
        let url = format!("http://{address}{path}");
        let [first, second] = headers;
        let reply = curl(&[
            "--http2-prior-knowledge",
            "-X",
            method,
            "-H",
            first,
            "-H",
            second,
            "--data-binary",
            &body,
            &url,
        ]);
        assert_eq!(
            (reply.status, reply.json()["status"].as_u64()),
            (status, Some(status.into())),
            "{method} {path}"
        );
    }
}

/// What comes first: a head, and the body that it announces.
async fn refusal(address: SocketAddr, head: &str, body: &[u8]) -> (tokio::net::TcpStream, String) {
    let mut connection = sent(address, head.as_bytes()).await;
    connection.set_nodelay(true).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    connection.write_all(body).await.unwrap();
    let mut answer = vec![0; 64 << 10];
    let read = connection.read(&mut answer).await.unwrap();
    (connection, String::from_utf8_lossy(&answer[..read]).to_lowercase())
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_refusal_that_does_not_say_that_it_is_closed() {
    let world = World::start(Protocol::Rest).await;
    let http = world.server.addresses.http;
    let key = format!("authorization: Bearer {}\r\n", world.key.secret);
    for (head, status) in [
        (format!("POST /nothing HTTP/1.1\r\n{key}"), 404),
        (format!("PUT /v1/entities HTTP/1.1\r\n{key}"), 405),
        (format!("POST /v1/entities HTTP/1.1\r\n{key}content-type: text/plain\r\n"), 415),
        ("POST /v1/entities HTTP/1.1\r\n".to_owned(), 401),
    ] {
        let request = |length: usize| format!("{head}host: x\r\ncontent-length: {length}\r\n\r\n");
        // The body comes a moment later.
        let (mut connection, answer) = refusal(http, &request(7), b"{\"a\":1}").await;
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
        connection.write_all(b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut next = [0; 12];
        connection.read_exact(&mut next).await.unwrap_or_else(|error| panic!("{head}: {error}"));
        assert!(next.starts_with(b"HTTP/1.1 40"), "{head}");
        // It does not come, or there is too much of it.
        for length in [7, 1 << 20] {
            let (_connection, answer) = refusal(http, &request(length), b"{").await;
            assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer}");
            assert!(answer.contains("connection: close"), "{length}: {answer}");
        }
    }
}
