//! Refusals, whoever makes them: a service, a layer, a listener, or the HTTP library before there is a request. All report the same.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::kit::*;
use crate::raw::*;

/// The headers of every response of the REST port.
const ALWAYS: &[&str] = &[
    "api-version",
    "date",
    "ratelimit",
    "ratelimit-policy",
    "x-content-type-options",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-request-id",
];
/// Headers that a response may have because of its refusal.
const SOMETIMES: &[&str] = &[
    "accept-encoding",
    "accept-post",
    "allow",
    "connection",
    "offboard-realm",
    "retry-after",
    "transfer-encoding",
    "vary",
    "www-authenticate",
];

/// Sends bytes as they are, and reads the one response to the end of the connection.
pub async fn exchanged(address: SocketAddr, bytes: &[u8]) -> Reply {
    let what = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    let answer = closed(&mut sent(address, bytes).await, &what).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) =
        text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{what}: no answer: {text}"));
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .unwrap_or_else(|| panic!("{what}: {text}"));
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Reply { status, headers: headers.collect(), body: body.as_bytes().to_vec() }
}

/// A request of this head on a connection of its own.
pub fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n{body}").into_bytes()
}

/// Fails unless it is a problem document of this status, with a request id and what else every one has.
fn assert_problem(what: &str, reply: &Reply, status: u16, always: &[&str]) {
    assert_eq!(reply.status, status, "{what}: {}", reply.text());
    let names: BTreeSet<&str> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
    let expected: BTreeSet<&str> =
        always.iter().copied().chain(["cache-control", "content-length", "content-type"]).collect();
    let reported: BTreeSet<&str> =
        names.iter().copied().filter(|name| !SOMETIMES.contains(name)).collect();
    assert_eq!(reported, expected, "{what}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}");
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{what}");
    assert_eq!(reply.json()["status"], json!(status), "{what}");
    assert_eq!(reply.json()["request_id"].as_str(), reply.header("x-request-id"), "{what}");
}

#[tokio::test]
async fn every_refusal_over_rest_is_a_problem_with_all_that_answers_report() {
    let world = World::start_with(Protocol::Rest, &["--max-body-bytes=2000"]).await;
    let http = world.server.addresses.http;
    let reader = Key::create(&world.database, "acme", "test", &["portfolios:read"]);
    let key = format!("authorization: Bearer {}\r\n", world.key.secret);
    let json = format!("{key}content-type: application/json\r\n");
    let long = "x".repeat(40_000);
    let longer = "x".repeat(70_000);
    let many: String = (0..200).map(|n| format!("h{n}: 1\r\n")).collect();
    let cases = [
        ("an unknown route", request("GET /nothing", &key, ""), 404),
        ("an unknown route, without a key", request("GET /nothing", "", ""), 404),
        ("an unknown thing", request("GET /v1/portfolios/p", &key, ""), 404),
        ("no such method", request("PUT /v1/portfolios/p", &key, ""), 405),
        (
            "another media type",
            request(
                "POST /v1/portfolios",
                &format!("{key}content-type: text/plain\r\ncontent-length: 2\r\n"),
                "{}",
            ),
            415,
        ),
        (
            "another coding",
            request(
                "POST /v1/portfolios",
                &format!("{json}content-encoding: br\r\ncontent-length: 2\r\n"),
                "{}",
            ),
            415,
        ),
        (
            "no JSON",
            request("POST /v1/portfolios", &format!("{json}content-length: 1\r\n"), "{"),
            400,
        ),
        (
            "a large body",
            request(
                "POST /v1/portfolios",
                &format!("{json}content-length: 3000\r\n"),
                &"x".repeat(3000),
            ),
            413,
        ),
        ("no key", request("GET /v1/portfolios", "", ""), 401),
        (
            "a key that does not exist",
            request("GET /v1/portfolios", "authorization: Bearer nothing\r\n", ""),
            401,
        ),
        (
            "a key without the scope",
            request("GET /v1/entities", &format!("apikey: {}\r\n", reader.secret), ""),
            403,
        ),
        (
            "a version that does not exist",
            request("GET /v1/portfolios", &format!("{key}api-version: 2019-01-01\r\n"), ""),
            400,
        ),
        ("a long path", request(&format!("GET /{long}"), &key, ""), 414),
        ("long headers", request("GET /nothing", &format!("{key}x: {long}\r\n"), ""), 431),
        ("two hosts", request("GET /nothing", &format!("{key}host: y\r\n"), ""), 400),
        // From here on the library refuses.
        ("a longer path", request(&format!("GET /{longer}"), &key, ""), 414),
        ("longer headers", request("GET /nothing", &format!("x: {longer}\r\n"), ""), 431),
        ("many headers", request("GET /nothing", &many, ""), 431),
        ("an odd length", request("POST /v1/portfolios", "content-length: -1\r\n", ""), 400),
        (
            "two lengths",
            request("POST /v1/portfolios", "content-length: 1\r\ncontent-length: 2\r\n", "a"),
            400,
        ),
        (
            "a length with a sign",
            request("POST /v1/portfolios", "content-length: +5\r\n", "hello"),
            400,
        ),
        (
            "the largest length",
            request("POST /v1/portfolios", "content-length: 18446744073709551615\r\n", "a"),
            413,
        ),
        (
            "a larger length",
            request("POST /v1/portfolios", "content-length: 99999999999999999999\r\n", "a"),
            413,
        ),
        (
            "a coding that does not exist",
            request("POST /v1/portfolios", "transfer-encoding: identity\r\n", ""),
            400,
        ),
        (
            "chunks in HTTP/1.0",
            b"POST /v1/portfolios HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
            400,
        ),
        ("another version", b"GET / HTTP/3.7\r\nhost: x\r\n\r\n".to_vec(), 400),
        ("a folded header", request("GET /nothing", "x: a\r\n b\r\n", ""), 400),
        ("a blank before a colon", request("GET /nothing", "content-length : 1\r\n", ""), 400),
        ("no request", b"\x00\x01\x02\x03\r\n\r\n".to_vec(), 400),
    ];
    let mut refusals = serde_json::Map::new();
    for (what, bytes, status) in cases {
        let refusal = exchanged(http, &bytes).await;
        assert_problem(what, &refusal, status, ALWAYS);
        refusals.insert(what.to_owned(), refusal.seen());
    }
    assert_seen!("every_refusal_by_rest", Value::Object(refusals));
    let behind =
        [request("GET /v1/portfolios", &key, "").as_slice(), b"\x00garbage\r\n\r\n"].concat();
    let behind = String::from_utf8(behind).unwrap().replace("connection: close\r\n", "");
    let answers =
        String::from_utf8(closed(&mut sent(http, behind.as_bytes()).await, "two at once").await)
            .unwrap();
    let (first, second) = answers.split_once("HTTP/1.1 400 ").expect("a refusal behind an answer");
    assert!(
        first.starts_with("HTTP/1.1 200 ")
            && second.contains("x-request-id")
            && second.contains("validation_failed"),
        "{answers}"
    );
}

/// The contract of offboarding requests knows no problem documents, whoever refuses.
#[tokio::test]
async fn refusals_of_a_contract_without_problems_are_errors_alone_also_where_the_library_makes_them()
 {
    let world = World::start_with(Protocol::Rest, &["--max-body-bytes=2000"]).await;
    let http = world.server.addresses.http;
    let key = format!("authorization: Bearer {}\r\n", world.key.secret);
    let json = format!("{key}content-type: application/json\r\n");
    let (long, longer) = ("x".repeat(40_000), "x".repeat(70_000));
    let many: String = (0..200).map(|n| format!("h{n}: 1\r\n")).collect();
    let path = "/v1/offboarding/entities";
    let named = "accept: application/problem+json\r\n";
    let mut refusals = serde_json::Map::new();
    for (what, line, headers, body, status) in [
        ("long headers", format!("GET {path}"), format!("x: {long}\r\n"), "", 431),
        ("a long path", format!("GET {path}/{long}"), String::new(), "", 414),
        (
            "a large body",
            format!("POST {path}"),
            format!("{json}content-length: 3000\r\n"),
            &long[..3000],
            413,
        ),
        (
            "a large body where none belongs",
            format!("PATCH {path}/a/cancel"),
            format!("{json}content-length: 3000\r\n"),
            &long[..3000],
            413,
        ),
        (
            "another coding where none belongs",
            format!("GET {path}"),
            format!("{key}content-encoding: br\r\n"),
            "",
            415,
        ),
        ("two hosts", format!("GET {path}"), "host: y\r\n".to_owned(), "", 400),
        // From here on the library refuses.
        ("longer headers", format!("GET {path}"), format!("x: {longer}\r\n"), "", 431),
        ("many headers", format!("GET {path}/a"), many, "", 431),
        ("a longer path", format!("GET {path}/{longer}"), String::new(), "", 414),
        ("an odd length", format!("POST {path}"), "content-length: -1\r\n".to_owned(), "", 400),
        ("a folded header", format!("PATCH {path}/a/cancel"), "x: a\r\n b\r\n".to_owned(), "", 400),
    ] {
        let plain = exchanged(http, &request(&line, &headers, body)).await;
        let media_type = plain.header("content-type");
        assert_eq!(
            (plain.status, media_type, plain.header("vary")),
            (status, Some("application/json"), Some("accept")),
            "{what}"
        );
        refusals.insert(what.to_owned(), plain.seen());
        // A path that fills all that is read leaves no room for a header.
        if what != "a longer path" {
            let problem =
                exchanged(http, &request(&line, &format!("{named}{headers}"), body)).await;
            assert_problem(what, &problem, status, ALWAYS);
            assert_eq!(problem.header("vary"), Some("accept"), "{what}");
        }
    }
    assert_seen!("every_refusal_without_problems", Value::Object(refusals));
}

#[tokio::test]
async fn a_key_that_has_used_up_its_calls_is_reported_so_with_every_refusal() {
    let world = World::start_with(Protocol::Rest, &["--rate-limit=3"]).await;
    let key = format!("authorization: Bearer {}\r\n", world.key.secret);
    let mut refused = Vec::new();
    for _ in 0..40 {
        let reply =
            exchanged(world.server.addresses.http, &request("GET /v1/portfolios", &key, "")).await;
        refused.extend((reply.status == 429).then_some(reply));
    }
    assert_problem("too many calls", refused.last().expect("one of forty"), 429, ALWAYS);
    // The calls with a key count, whatever became of them.
    let mut left = BTreeSet::new();
    for _ in 0..40 {
        let reply =
            exchanged(world.server.addresses.http, &request("GET /nothing", &key, "")).await;
        assert_problem("an unknown route", &reply, 404, ALWAYS);
        left.insert(reply.header("x-ratelimit-remaining").unwrap().to_owned());
    }
    assert!(left.contains("0") && !left.contains("3"), "{left:?}");
    let stranger = exchanged(world.server.addresses.http, &request("GET /nothing", "", "")).await;
    assert_eq!(
        (stranger.header("x-ratelimit-limit"), stranger.header("x-ratelimit-remaining")),
        (Some("3"), Some("3"))
    );
}

#[tokio::test]
async fn every_refusal_of_the_admin_port_is_a_problem() {
    let world = World::start(Protocol::Rest).await;
    let admin = world.server.addresses.admin;
    let always = &["date", "x-content-type-options", "x-request-id"];
    for (what, bytes, status) in [
        ("an unknown route", request("GET /nothing", "", ""), 404),
        ("no such method", request("POST /livez", "", ""), 405),
        ("no host", b"GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n".to_vec(), 400),
        (
            "longer headers",
            request("GET /livez", &format!("x: {}\r\n", "x".repeat(70_000)), ""),
            431,
        ),
        (
            "the largest length",
            request("GET /livez", "content-length: 18446744073709551615\r\n", "a"),
            413,
        ),
        ("no length", request("GET /livez", "content-length: +5\r\n", "hello"), 400),
        ("no request", b"\x00\x01\x02\x03\r\n\r\n".to_vec(), 400),
    ] {
        assert_problem(what, &exchanged(admin, &bytes).await, status, always);
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        let reply =
            exchanged(admin, &request(&format!("GET {path}"), "x-request-id: mine\r\n", "")).await;
        assert_eq!(
            (reply.status, reply.header("x-request-id"), reply.header("x-content-type-options")),
            (200, Some("mine"), Some("nosniff"))
        );
    }
}

#[tokio::test]
async fn every_refusal_over_grpc_reports_what_answers_report() {
    let world = World::start(Protocol::Grpc).await;
    let reader = world.client("acme", "test", &["portfolios:read"]);
    let nobody = world.client.with_secret("nothing");
    let long = "x".repeat(40_000);
    let get = json!({"portfolio_id": "p"});
    let refusals = [
        (
            "an unknown thing",
            world.call("PortfolioService/GetPortfolio", get.clone()).await,
            "not_found",
        ),
        (
            "a fault",
            world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "a b"})).await,
            "validation_failed",
        ),
        (
            "no scope",
            reader.call("EntityService/ListEntities", json!({})).await,
            "permission_denied",
        ),
        (
            "no key",
            nobody.call("PortfolioService/GetPortfolio", get.clone()).await,
            "invalid_credentials",
        ),
        (
            "no version",
            world
                .client
                .call_with("PortfolioService/GetPortfolio", get.clone(), &[("api-version", "1")])
                .await,
            "validation_failed",
        ),
        (
            "long metadata",
            world
                .client
                .call_with("PortfolioService/GetPortfolio", get.clone(), &[("x", &long)])
                .await,
            "headers_too_large",
        ),
        (
            "longer metadata",
            world
                .client
                .call_with("PortfolioService/GetPortfolio", get, &[("x", &long), ("y", &long)])
                .await,
            "headers_too_large",
        ),
    ];
    for (what, refusal, code) in refusals {
        let failure = refusal.expect_err(what);
        assert_eq!(failure.code, code, "{what}");
        for name in [
            "api-version",
            "ratelimit",
            "ratelimit-policy",
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            "x-request-id",
        ] {
            assert!(failure.header(name).is_some(), "{what}: no {name} in {:?}", failure.headers);
        }
        assert_eq!(failure.request_id.as_deref(), failure.header("x-request-id"), "{what}");
    }
}

#[tokio::test]
async fn options_of_the_whole_service_report_its_methods() {
    let world = World::start(Protocol::Rest).await;
    let reply = exchanged(world.server.addresses.http, &request("OPTIONS *", "", "")).await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (204, Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")),
        "{reply:?}"
    );
}
