//! Deadlines, down to the statements, and the ends of connections.

use std::net::SocketAddr;

use bytes::Bytes;
use diesel::connection::SimpleConnection;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic_types::StatusExt;

use crate::kit::*;

const RUNNING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'offboard' AND state <> 'idle' AND query LIKE '%portfolio%'";

/// Calls a method with one id for its message and a deadline of so many milliseconds, and reports the code of the failure. The clock of no
/// client has a part in it.
async fn fail(world: &World, path: &str, method: &str, id: &str, millis: u32) -> String {
    let bearer = format!("Bearer {}", world.key.secret);
    if world.protocol == Protocol::Rest {
        let timeout = (f64::from(millis) / 1000.0).to_string();
        let headers = [("authorization", bearer.as_str()), ("x-request-timeout", timeout.as_str())];
        let answer = http(world.server.addresses.http, "GET", path, &headers, "").await;
        let document: Value = serde_json::from_str(answer.text().lines().last().unwrap()).unwrap();
        return document.get("error").unwrap_or(&document)["code"].as_str().unwrap().to_owned();
    }
    let field =
        if id.is_empty() { Vec::new() } else { [&[0x0a, id.len() as u8], id.as_bytes()].concat() };
    let message = [&[0, 0, 0, 0, field.len() as u8], field.as_slice()].concat();
    let client =
        legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let request = ::http::Request::post(format!(
        "http://{}/offboard.v1.{method}",
        world.server.addresses.grpc
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .header("authorization", bearer)
    .header("grpc-timeout", format!("{millis}m"));
    let (head, body) =
        client.request(request.body(Full::from(message)).unwrap()).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let status = tonic::Status::from_header_map(&head.headers)
        .or_else(|| tonic::Status::from_header_map(body.trailers()?))
        .unwrap();
    // Where the machine is busy, the gRPC library's own clock may be the first.
    if status.message() == "Timeout expired" {
        return "deadline_exceeded".to_owned();
    }
    status.get_error_details().error_info().unwrap().reason.to_lowercase()
}

scenario! {
    async fn a_call_whose_deadline_has_passed_leaves_no_statement_running(world: &World) {
        // Neither of the other bounds would end the statement while the test waits.
        let world = World::start_with(world.protocol, &["--db-lock-timeout=600", "--db-statement-timeout=600"]).await;
        world.portfolios(&["p"]).await;
        let mut held = world.database.connection();
        held.batch_execute("BEGIN; LOCK TABLE portfolio IN ACCESS EXCLUSIVE MODE").unwrap();
        for millis in [50, 400] {
            let code = fail(&world, "/v1/portfolios/p", "PortfolioService/GetPortfolio", "p", millis).await;
            assert_eq!(code, "deadline_exceeded", "{millis}");
        }
        until("the statements are given up", || world.database.count(RUNNING) == 0).await;
        held.batch_execute("ROLLBACK").unwrap();
        world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await.unwrap();
    }

    async fn a_stream_ends_by_the_deadline_of_its_caller(world: &World) {
        assert_eq!(fail(world, "/v1/events:watch", "EventService/WatchEvents", "", 500).await, "deadline_exceeded");
    }
}

/// Reads the frames of a silent HTTP/2 connection until the server closes it, and reports their types.
async fn frames_of_a_silent_client(address: SocketAddr) -> Vec<u8> {
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    connection
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        .await
        .unwrap();
    let mut bytes = Vec::new();
    // A reset ends it as well.
    let _ = connection.read_to_end(&mut bytes).await;
    let mut types = Vec::new();
    let mut rest = bytes.as_slice();
    while let [a, b, c, kind, _, _, _, _, _, after @ ..] = rest {
        types.push(*kind);
        rest = &after[usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap()..];
    }
    types
}

const PING: u8 = 6;
const GO_AWAY: u8 = 7;

#[tokio::test]
async fn an_old_connection_is_closed_and_its_client_makes_another() {
    let world = World::start_with(
        Protocol::Grpc,
        &[
            "--grpc-max-connection-age=0.3",
            "--grpc-max-connection-age-grace=3",
            "--grpc-keepalive-interval=0",
        ],
    )
    .await;
    let frames = frames_of_a_silent_client(world.server.addresses.grpc).await;
    let reported = frames
        .iter()
        .position(|kind| *kind == GO_AWAY)
        .expect("it is reported before it is closed");
    assert!(
        !frames[..reported].contains(&PING),
        "no one asked whether anyone is there: {frames:?}"
    );
    // For longer than the first connection may live.
    for _ in 0..8 {
        world.call("PortfolioService/ListPortfolios", json!({})).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn a_connection_at_which_nobody_is_any_more_is_closed() {
    let arguments = [
        "--grpc-max-connection-age=0",
        "--grpc-keepalive-interval=0.3",
        "--grpc-keepalive-timeout=0.3",
    ];
    let world = World::start_with(Protocol::Grpc, &arguments).await;
    let frames = frames_of_a_silent_client(world.server.addresses.grpc).await;
    assert!(frames.contains(&PING), "{frames:?}");
}
