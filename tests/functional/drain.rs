//! Connections that the end of a server does not wait for.

use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;

use crate::kit::*;
use crate::raw::*;

#[tokio::test]
async fn what_is_no_whole_request_is_not_waited_for() {
    let mut world = World::start_with(
        Protocol::Rest,
        &["--drain-timeout=600", "--head-timeout=600", "--request-timeout=600"],
    )
    .await;
    let Addresses { grpc, http, .. } = world.server.addresses;
    let key = format!("authorization: Bearer {}\r\n", world.key.secret);
    let half_body = format!(
        "POST /v1/entities HTTP/1.1\r\nhost: x\r\n{key}content-type: application/json\r\ncontent-length: 500\r\n\r\n{{\"type\":"
    );
    let mut open = Vec::new();
    for address in [grpc, http] {
        for half in [b"".as_slice(), b"PRI * HT", PREFACE] {
            open.push(sent(address, half).await);
        }
    }
    open.push(sent(http, b"GET /v1/entities HTTP/1.1\r\nhos").await);
    open.push(sent(http, half_body.as_bytes()).await);
    // The same by gRPC: a message of 100 bytes, of which 3 are there.
    let bearer = format!("Bearer {}", world.key.secret);
    let more = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut half_message = sent(grpc, PREFACE).await;
    half_message
        .write_all(&frame(
            HEADERS,
            0x4,
            1,
            &head(3, "/offboard.v1.EntityService/CreateEntity", &more),
        ))
        .await
        .unwrap();
    half_message.write_all(&frame(0, 0, 1, b"\0\0\0\0\x64abc")).await.unwrap();
    open.push(half_message);
    // All that was sent before is there before the response to this, since the server reads what has come.
    world.call("EntityService/ListEntities", json!({})).await.unwrap();
    world.server.signal(Signal::SIGTERM);
    assert_eq!(world.server.ended().await.code(), Some(0));
    assert!(!world.server.log().contains("cut off"), "{}", world.server.log());
    drop(open);
}
