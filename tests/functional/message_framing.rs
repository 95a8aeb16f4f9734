//! Where the body of a request begins and ends: an unsound length, two ways to end, an expectation, and a coding that does not exist.

use crate::kit::*;
use crate::raw::*;
use crate::refusals::{exchanged, request};

#[tokio::test]
async fn an_expectation_is_met_before_an_answer_and_none_is_taken_for_a_refusal() {
    let world = World::start(Protocol::Rest).await;
    let key = format!(
        "authorization: Bearer {}\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n",
        world.key.secret
    );
    let body = r#"{"portfolio_id":"p","name":"Fund"}"#;
    let bytes =
        request("POST /v1/portfolios", &format!("{key}content-length: {}\r\n", body.len()), body);
    let answer = String::from_utf8(
        closed(&mut sent(world.server.addresses.http, &bytes).await, "a body").await,
    )
    .unwrap();
    assert!(
        answer.contains("HTTP/1.1 201 Created") && !answer.contains("validation_failed"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_length_that_is_none_or_too_large_is_refused_at_every_port() {
    let world = World::start(Protocol::Grpc).await;
    let addresses = world.server.addresses;
    for address in [addresses.http, addresses.admin, addresses.grpc] {
        for (length, status) in [
            ("18446744073709551615", 413),
            ("99999999999999999999999", 413),
            ("+5", 400),
            ("5, 6", 400),
            ("5\r\ncontent-length: 6", 400),
        ] {
            let reply = exchanged(
                address,
                &request("POST /livez", &format!("Content-Length: {length}\r\n"), "hello"),
            )
            .await;
            assert_eq!(
                (reply.status, reply.json()["status"].as_u64()),
                (status, Some(status.into())),
                "{length}: {}",
                reply.text()
            );
            assert!(
                status == 413 || reply.text().contains("Content-Length"),
                "{length}: {}",
                reply.text()
            );
            assert_eq!(
                reply.json()["request_id"].as_str(),
                reply.header("x-request-id"),
                "{length}"
            );
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_in_two_ways_is_refused_and_nothing_behind_it_is_read() {
    let world = World::start(Protocol::Rest).await;
    let within = "GET /v1/portfolios/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let (length, coding) = ("content-length: 5\r\n", "transfer-encoding: chunked\r\n");
    for address in [world.server.addresses.http, world.server.addresses.admin] {
        for headers in [
            format!("{length}{coding}"),
            format!("{coding}{length}"),
            "Content-LENGTH: 5\r\nx: y\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        ] {
            let bytes =
                format!("POST /livez HTTP/1.1\r\nhost: x\r\n{headers}\r\n0\r\n\r\n{within}");
            let answer = String::from_utf8(
                closed(&mut sent(address, bytes.as_bytes()).await, &headers).await,
            )
            .unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.contains("and not both"),
                "{headers}: {answer}"
            );
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{headers}: {answer}");
        }
        // A request before it is served.
        let bytes = format!(
            "GET /nothing HTTP/1.1\r\nhost: x\r\n\r\nPOST /livez HTTP/1.1\r\nhost: x\r\n{length}{coding}\r\n0\r\n\r\n{within}"
        );
        let answer = String::from_utf8(
            closed(&mut sent(address, bytes.as_bytes()).await, "behind another").await,
        )
        .unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 404 ")
                && answer.contains("HTTP/1.1 400 ")
                && answer.matches("HTTP/1.1 ").count() == 2,
            "{answer}"
        );
    }
    // A line may end without its carriage return (RFC 9112, section 2.2): that is read in one way by all who read it so.
    let bare = closed(
        &mut sent(
            world.server.addresses.http,
            b"GET /nothing HTTP/1.1\nhost: x\nconnection: close\n\n",
        )
        .await,
        "bare",
    )
    .await;
    assert!(bare.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&bare));
}

#[tokio::test]
async fn a_body_of_grpc_web_that_is_no_base64_is_reported_so() {
    let world = World::start(Protocol::Rest).await;
    let bearer = format!("Bearer {}", world.key.secret);
    let headers =
        [("content-type", "application/grpc-web-text"), ("authorization", bearer.as_str())];
    for body in ["!!!!", "AAAAAAI", "AAA"] {
        let path = "/offboard.v1.PortfolioService/GetPortfolio";
        let reply = http(world.server.addresses.http, "POST", path, &headers, body).await;
        let message = reply.header("grpc-message").unwrap_or_default();
        assert!(
            reply.header("grpc-status") == Some("3") && message.contains("not%20base64"),
            "{body}: {reply:?}"
        );
    }
}
