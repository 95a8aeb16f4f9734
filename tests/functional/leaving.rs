//! Callers who leave before all of their request has come: that is nobody's fault, and is reported as such.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;

use crate::kit::*;
use crate::raw::*;

const TIMES: usize = 20;

/// The statuses that the log has of calls of this method.
fn statuses(server: &Server, method: &str) -> Vec<String> {
    let log = server.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let fields = lines.map(|line| line.get("fields").unwrap_or(&line).clone());
    let ended = fields.filter(|fields| {
        fields["message"] == "call ended"
            && fields["method"].as_str().is_some_and(|name| name.ends_with(method))
    });
    ended.map(|fields| fields["status"].as_str().unwrap().to_owned()).collect()
}

/// Begins a call over HTTP/2, and cancels it in the middle of its body.
async fn cancel(address: SocketAddr, path: &str, headers: &[(&str, &str)], begun: &[u8]) {
    let mut connection = sent(address, PREFACE).await;
    connection.write_all(&frame(HEADERS, 0x4, 1, &head(3, path, headers))).await.unwrap();
    connection.write_all(&frame(0, 0, 1, begun)).await.unwrap();
    // As much of it is read as has come.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    connection.write_all(&frame(RESET, 0, 1, &[0, 0, 0, 8])).await.unwrap();
    // Nobody else is on the connection, and it stays.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
}

/// The log has most of the calls, since some are canceled before they are taken up, and no other status of any.
async fn assert_canceled(server: &Server, method: &str, before: usize, what: &str) {
    until(&format!("{what}: the log has them"), || {
        statuses(server, method).len() >= before + TIMES / 2
    })
    .await;
    let reported = statuses(server, method).split_off(before);
    assert!(reported.iter().all(|status| status == "CANCELLED"), "{what}: {reported:?}");
}

#[tokio::test]
async fn a_caller_who_leaves_has_canceled_the_call() {
    let world = World::start(Protocol::Rest).await;
    let bearer = format!("Bearer {}", world.key.secret);
    let Addresses { grpc, http, .. } = world.server.addresses;
    let method = "EntityService/CreateEntity";
    let path = format!("/offboard.v1.{method}");
    let headers = |kind: &'static str| {
        [
            ("authorization", bearer.clone()),
            ("content-type", kind.to_owned()),
            ("te", "trailers".to_owned()),
        ]
    };
    // By the text form too, whose beginning is base64.
    let half = [&[0, 0, 0, 0, 90][..], &[b'x'; 40]].concat();
    for (address, path, kind, begun) in [
        (http, "/v1/entities", "application/json", b"{\"type\":\"T\",".to_vec()),
        (http, &path, "application/grpc-web+proto", half.clone()),
        (http, &path, "application/grpc-web-text", b"AAAAAFp4".to_vec()),
        (grpc, &path, "application/grpc", half.clone()),
    ] {
        let before = statuses(&world.server, method).len();
        let headers = headers(kind);
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for _ in 0..TIMES {
            cancel(address, path, &headers, &begun).await;
        }
        assert_canceled(&world.server, method, before, kind).await;
    }
    // The same over HTTP/1.1, where the connection ends.
    for (path, kind, begun) in [
        ("/v1/entities", "application/json", b"{\"type\":\"T\",".to_vec()),
        (&path, "application/grpc-web+proto", half),
    ] {
        let before = statuses(&world.server, method).len();
        for _ in 0..TIMES {
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\ncontent-type: {kind}\r\ncontent-length: 95\r\n\r\n"
            );
            let mut connection = sent(http, head.as_bytes()).await;
            connection.write_all(&begun).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_canceled(&world.server, method, before, &format!("{kind} over HTTP/1.1")).await;
    }
}
