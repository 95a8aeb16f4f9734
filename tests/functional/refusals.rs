//! Refusals, whoever makes them: a service, a layer, a listener, or the HTTP library before there is a request. All report the same.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::kit::*;
use crate::raw::*;

/// The headers of every response of the REST port.
const ALWAYS: &[&str] = &[
    "api-version",
    "date",
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

/// Sends bytes as they are, and reads the one answer to the end of the connection.
async fn exchanged(address: SocketAddr, bytes: &[u8]) -> Reply {
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
fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
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
            "a key that there is not",
            request("GET /v1/portfolios", "authorization: Bearer nothing\r\n", ""),
            401,
        ),
        (
            "a key without the scope",
            request("GET /v1/entities", &format!("apikey: {}\r\n", reader.secret), ""),
            403,
        ),
        (
            "a version that there is not",
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
            "a coding that is none",
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
    for (what, bytes, status) in cases {
        assert_problem(what, &exchanged(http, &bytes).await, status, ALWAYS);
    }
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
        let members =
            |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(members(&plain.json()), ["errors"], "{what}: {}", plain.text());
        assert_eq!(
            members(&plain.json()["errors"][0]),
            ["code", "message", "description"],
            "{what}"
        );
        // A path that fills all that is read leaves no room for a header.
        if what != "a longer path" {
            let problem =
                exchanged(http, &request(&line, &format!("{named}{headers}"), body)).await;
            assert_problem(what, &problem, status, ALWAYS);
            assert_eq!(problem.header("vary"), Some("accept"), "{what}");
        }
    }
}

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
        // A request before it is answered.
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
async fn options_of_the_whole_service_report_its_methods() {
    let world = World::start(Protocol::Rest).await;
    let reply = exchanged(world.server.addresses.http, &request("OPTIONS *", "", "")).await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (204, Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")),
        "{reply:?}"
    );
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

scenario! {
    async fn two_credentials_are_refused(world: &World) {
        let other = Key::create(&world.database, "other", "test", SCOPES);
        let list = |secret: String| async move { world.client.call_with("PortfolioService/ListPortfolios", json!({}), &[("apikey", &secret)]).await };
        list(world.key.secret.clone()).await.expect("the same key in both headers");
        assert_eq!(list(other.secret.clone()).await.unwrap_err().code, "invalid_credentials");
        assert_eq!(list("nothing".to_owned()).await.unwrap_err().code, "invalid_credentials");
    }
}

#[tokio::test]
async fn a_credential_is_given_once() {
    let world = World::start(Protocol::Rest).await;
    let (one, other) = (
        format!("authorization: Bearer {}\r\n", world.key.secret),
        "authorization: Bearer nothing\r\n",
    );
    let apikey = format!("apikey: {}\r\n", world.key.secret);
    for headers in [
        format!("{one}{other}"),
        format!("{other}{one}"),
        format!("{one}{one}"),
        format!("{apikey}apikey: nothing\r\n"),
    ] {
        let reply =
            exchanged(world.server.addresses.http, &request("GET /v1/portfolios", &headers, ""))
                .await;
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (401, Some("invalid_credentials")),
            "{}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn an_answer_stays_small_however_many_faults_it_reports() {
    let world = World::start(Protocol::Rest).await;
    let bearer = format!("Bearer {}", world.key.secret);
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    let member = |n: usize| format!("\"{n:04}{}\":1", "\\\"\\u0001".repeat(120));
    let body = format!("{{{}}}", (0..1000).map(member).collect::<Vec<_>>().join(","));
    let reply = http(world.server.addresses.http, "POST", "/v1/portfolios", &headers, body).await;
    assert_eq!(reply.status, 400);
    // The faults, and the rest of the document.
    assert!(reply.body.len() <= (320 << 10) + 1024, "{}", reply.body.len());
    let errors = reply.json()["errors"].as_array().unwrap().clone();
    assert!(errors.len() > 30 && errors.last().unwrap()["code"] == "too_many", "{}", errors.len());
}
