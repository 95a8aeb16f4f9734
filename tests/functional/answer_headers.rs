//! The headers of every response, and the limits on those of a request.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::answers::send;
use crate::kit::*;

/// Sends bytes and reads what comes to its end: the head and the body.
async fn raw(address: SocketAddr, request: &[u8]) -> (String, String) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    // The listener may have responded and closed before all of it was sent.
    let _ = connection.write_all(request).await;
    let mut read = Vec::new();
    let _ = connection.read_to_end(&mut read).await;
    let text = String::from_utf8(read).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    (head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn every_answer_of_http_keeps_browsers_from_guessing() {
    let world =
        World::start_with(Protocol::Rest, &["--cors-origins=https://app.example.com"]).await;
    let http_address = world.server.addresses.http;
    let preflight =
        [("origin", "https://app.example.com"), ("access-control-request-method", "GET")];
    let answers = [
        send(&world, "GET", "/v1/entities", &[], "").await,
        send(&world, "GET", "/v1/entities/e", &[], "").await,
        send(&world, "GET", "/nothing", &[], "").await,
        send(&world, "GET", "/v1/tombstones", &[("accept", "text/csv")], "").await,
        send(&world, "GET", "/docs", &[], "").await,
        send(&world, "HEAD", "/v1/entities", &[], "").await,
        send(
            &world,
            "POST",
            "/offboard.v1.EntityService/GetEntity",
            &[("content-type", "application/grpc-web+proto")],
            "",
        )
        .await,
        http(http_address, "GET", "/v1/entities", &[], "").await,
        http(http_address, "OPTIONS", "/v1/entities", &preflight, "").await,
        http(world.server.addresses.admin, "GET", "/readyz", &[], "").await,
        http(world.server.addresses.admin, "GET", "/metrics", &[], "").await,
        http(world.server.addresses.admin, "GET", "/nothing", &[], "").await,
    ];
    for answer in answers {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
    }
}

#[tokio::test]
async fn every_form_of_an_answer_that_has_more_than_one_says_what_it_varies_by() {
    let world = World::start(Protocol::Rest).await;
    let task = world
        .call("BulkDeleteService/StartBulkDelete", json!({"entity_type": "T", "mode": "soft"}))
        .await
        .unwrap();
    let failures = format!("/api/acme/tasks/{}/failures", task.json["id"].as_str().unwrap());
    for path in ["/v1/tombstones", failures.as_str()] {
        for accept in ["text/csv", "application/json", "*/*"] {
            let answer = send(&world, "GET", path, &[("accept", accept)], "").await;
            let varies =
                answer.headers.iter().any(|(name, value)| name == "vary" && value == "accept");
            assert!(answer.status == 200 && varies, "{path} {accept}: {answer:?}");
        }
    }
    let one = send(&world, "GET", "/v1/removal-policy", &[], "").await;
    assert_eq!((one.status, one.header("vary")), (200, None), "it has one form");
}

#[tokio::test]
async fn head_reports_the_length_that_get_has() {
    let world = World::start(Protocol::Rest).await;
    world
        .call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "n"}))
        .await
        .unwrap();
    for (path, headers) in [
        ("/v1/portfolios/p", &[][..]),
        ("/v1/portfolios/q", &[]),
        ("/nothing", &[]),
        ("/v1/tombstones", &[("accept", "text/csv")]),
        ("/docs", &[]),
        ("/openapi.json", &[("accept-encoding", "gzip")]),
        ("/docs/swagger-ui.js", &[("accept-encoding", "gzip")]),
    ] {
        let (get, head) = (
            send(&world, "GET", path, headers, "").await,
            send(&world, "HEAD", path, headers, "").await,
        );
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        for name in ["content-length", "content-type", "content-encoding", "etag"] {
            // Responses differ from one another only in the ids of requests, which are all of one length.
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        assert_eq!(
            head.header("content-length"),
            Some(get.body.len().to_string().as_str()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_request_line_or_headers_that_are_too_long_are_refused_by_a_document() {
    let world = World::start_with(Protocol::Rest, &["--public-url=https://api.example.com"]).await;
    let address = world.server.addresses.http;
    let uri = |bytes: usize| {
        format!(
            "GET /v1/entities/{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "x".repeat(bytes)
        )
    };
    let header = |bytes: usize| {
        format!(
            "GET /v1/entities HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-long: {}\r\n\r\n",
            "x".repeat(bytes)
        )
    };
    let headers = |count: usize| {
        let many: String = (0..count).map(|n| format!("x-{n}: 1\r\n")).collect();
        format!("GET /v1/entities HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{many}\r\n")
    };
    for (request, status, code) in [
        (uri(40_000), 414, "uri_too_long"),
        (header(40_000), 431, "headers_too_large"),
        (headers(99), 431, "headers_too_large"),
    ] {
        let (head, body) = raw(address, request.as_bytes()).await;
        let start = &request[..request.len().min(40)];
        assert!(
            head.starts_with(&format!("http/1.1 {status} ")),
            "{start:?} of {}: {head}",
            request.len()
        );
        for wanted in [
            "content-type: application/problem+json",
            "x-content-type-options: nosniff",
            "x-request-id: req_",
        ] {
            assert!(head.contains(wanted), "{start:?} of {}: no {wanted} in {head}", request.len());
        }
        let problem: Value =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        assert_eq!(
            (&problem["code"], &problem["status"]),
            (&json!(code), &json!(status)),
            "{start:?}"
        );
        assert_eq!(problem["type"], format!("https://api.example.com/errors/{code}"));
    }
    let (head, _) = raw(address, headers(90).as_bytes()).await;
    assert!(head.starts_with("http/1.1 401 "), "{head}");
    let long = format!("/v1/entities?filter={}", "x".repeat(30_000));
    assert_eq!(
        send(&world, "GET", &long, &[], "").await.json()["code"],
        "invalid_filter",
        "what is within the limits is read"
    );
    let web = [("content-type", "application/grpc-web+proto"), ("x-long", &"x".repeat(40_000))];
    let web = send(&world, "POST", "/offboard.v1.EntityService/GetEntity", &web, "").await;
    assert_eq!(
        (web.status, web.header("grpc-status"), web.header("content-type")),
        (200, Some("8"), Some("application/grpc-web+proto"))
    );
}
