//! `google.api.HttpBody`, in requests and in responses, and bodies that are compressed.

use axum::body::Body;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

use super::service::{Answer, TestGateway};
use crate::gateway::compression::{Coding, Wire, compressed, converted, decompressed};
use crate::limits::responses::ResponseMemory;

async fn send(
    gateway: &TestGateway,
    uri: &str,
    content_type: &str,
    body: impl Into<Body>,
) -> Answer {
    gateway
        .send(Request::post(uri).header("content-type", content_type).body(body.into()).unwrap())
        .await
}

#[tokio::test]
async fn a_body_of_any_kind_reaches_the_service_and_comes_back() {
    let gateway = TestGateway::new();
    let answer = send(&gateway, "/files/a%20b?loud=true", "text/plain", &b"\xff\x00{"[..]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type"), &answer.body[..]),
        (200, "text/csv", &b"A B:\xff\x00{"[..])
    );
    let answer = send(&gateway, "/echo", "image/png", "x").await;
    assert_eq!((answer.header("content-type"), &answer.body[..]), ("image/png", &b"x"[..]));
    let bare = gateway.request("POST", "/echo", "").await;
    assert_eq!(
        (bare.status.as_u16(), bare.header("content-type"), bare.body.len()),
        (200, "application/octet-stream", 0)
    );
    assert_eq!(gateway.request("GET", "/files/f", "").await.body, "f:");
}

#[tokio::test]
async fn a_body_of_any_kind_has_the_limit_of_others() {
    let gateway = TestGateway::new();
    assert_eq!(send(&gateway, "/echo", "image/png", "x".repeat(4096)).await.status, 200);
    assert_eq!(
        send(&gateway, "/echo", "image/png", "x".repeat(4097)).await.json()["code"],
        "payload_too_large"
    );
    assert_eq!(
        send(&gateway, "/files/f?loud=1", "image/png", "x").await.faults(),
        ["loud: invalid_type"]
    );
}

fn pieces(pieces: &'static [&'static str]) -> Body {
    Body::from_stream(futures::stream::iter(
        pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece.as_bytes()))),
    ))
}

#[tokio::test]
async fn a_stream_of_bytes_is_passed_on_piece_by_piece() {
    let gateway = TestGateway::new();
    let answer = send(&gateway, "/pieces/p?loud=true", "text/plain", pieces(&["ab", "c"])).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type"), &answer.body[..]),
        (200, "text/csv", &b"P:abP:c"[..])
    );
    assert_eq!(
        send(&gateway, "/pieces/p", "text/plain", "").await.body,
        "p:",
        "path and query are said also where there is no body"
    );
    assert_eq!(
        send(&gateway, "/pieces/p?x=1", "text/plain", "").await.faults(),
        ["x: unknown_parameter"]
    );
}

#[tokio::test]
async fn a_failure_at_the_start_is_a_problem_and_a_later_one_breaks_off() {
    let gateway = TestGateway::new();
    assert_eq!(
        send(&gateway, "/pieces/p", "text/plain", pieces(&["fail"])).await.json()["code"],
        "unavailable"
    );
    let request = Request::post("/pieces/p").body(pieces(&["ok", "fail"])).unwrap();
    let response = gateway.gateway.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap_err();
}

async fn packed(text: String, coding: Coding) -> Bytes {
    let mut plain = http::Response::new(Body::from(text));
    plain
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    compressed(plain, Some(coding), &ResponseMemory::new(4 << 20).open())
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
}

#[tokio::test]
async fn requests_and_answers_may_be_compressed() {
    let gateway = TestGateway::new();
    let text = json!({"object": {"text": "x".repeat(3000)}}).to_string();
    for (name, coding) in [("gzip", Coding::Gzip), ("zstd", Coding::Zstd)] {
        let request = Request::post("/everything")
            .header("content-encoding", name)
            .header("accept-encoding", name);
        let answer = gateway
            .send(request.body(Body::from(packed(text.clone(), coding).await)).unwrap())
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-encoding"), answer.header("vary")),
            (200, name, "accept-encoding")
        );
        let body = decompressed(Body::from(answer.body), Some(coding), Wire::default())
            .collect()
            .await
            .unwrap()
            .to_bytes();
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["object"]["text"].as_str().map(str::len), Some(3000));
    }
}

#[tokio::test]
async fn a_compressed_body_has_the_limit_of_what_is_in_it() {
    let gateway = TestGateway::new();
    for (name, coding) in [("gzip", Coding::Gzip), ("zstd", Coding::Zstd)] {
        let bomb = packed(" ".repeat(50_000_000), coding).await;
        assert!(bomb.len() < 300_000);
        let request = Request::post("/orders:upload")
            .header("content-type", "application/x-ndjson")
            .header("content-encoding", name);
        let answer = gateway.send(request.body(Body::from(bomb)).unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["limit_bytes"]),
            (413, &json!(4096)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_compressed_body_that_becomes_nothing_has_a_limit_too() {
    let gateway = TestGateway::new();
    for (name, coding) in [("gzip", Coding::Gzip), ("zstd", Coding::Zstd)] {
        let nothing = converted(&Bytes::new(), None, Some(coding)).unwrap();
        for uri in ["/everything", "/orders:upload"] {
            let pieces = std::iter::repeat_n(nothing.clone(), 100_000).map(Ok::<_, std::io::Error>);
            let body = Body::from_stream(futures::stream::iter(pieces));
            let media_type =
                if uri == "/everything" { "application/json" } else { "application/x-ndjson" };
            let request = Request::post(uri)
                .header("content-type", media_type)
                .header("content-encoding", name);
            let answer = gateway.send(request.body(body).unwrap()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.faults()),
                (400, vec!["body: empty".to_owned()]),
                "{name} {uri}"
            );
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_it_says_is_refused() {
    let gateway = TestGateway::new();
    let send = async |name: &str| {
        gateway
            .send(
                Request::post("/everything")
                    .header("content-encoding", name)
                    .body(Body::from("{}"))
                    .unwrap(),
            )
            .await
    };
    assert_eq!(send("gzip").await.faults(), ["body: invalid_encoding"]);
    assert_eq!(send("zstd").await.faults(), ["body: invalid_encoding"]);
    for (uri, media_type) in [
        ("/orders:upload", "application/x-ndjson"),
        ("/echo", "image/png"),
        ("/pieces/p", "text/plain"),
    ] {
        let request = Request::post(uri)
            .header("content-type", media_type)
            .header("content-encoding", "gzip");
        let answer = gateway.send(request.body(Body::from("{}")).unwrap()).await;
        assert_eq!(answer.faults(), ["body: invalid_encoding"], "{uri}");
    }
    let other = send("br").await;
    assert_eq!((other.status.as_u16(), other.header("accept-encoding")), (415, "zstd, gzip"));
    assert_eq!(send("identity").await.status, 200);
}
