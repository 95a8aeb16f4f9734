//! The calls of browsers: they ask before they send, speak gRPC-Web, and compress.

use bytes::Bytes;
use offboard::proto::v1::{GetPortfolioRequest, Portfolio};
use prost::Message;

use crate::kit::*;

const ORIGIN: (&str, &str) = ("origin", "https://app.example.com");
const PREFLIGHT: &[(&str, &str)] = &[
    ORIGIN,
    ("access-control-request-method", "DELETE"),
    ("access-control-request-headers", "authorization"),
];

#[tokio::test]
async fn pages_of_named_origins_may_call() {
    let world = World::start_with(
        Protocol::Rest,
        &["--cors-origins=https://app.example.com,http://localhost:3000"],
    )
    .await;
    let address = world.server.addresses.http;
    let answer = http(address, "OPTIONS", "/v1/portfolios/p/entities/e", PREFLIGHT, "").await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (204, Some(ORIGIN.1))
    );
    assert!(answer.header("access-control-allow-methods").unwrap().contains("DELETE"));
    assert!(answer.header("access-control-allow-headers").unwrap().contains("authorization"));
    let refused = http(address, "GET", "/v1/portfolios/p", &[ORIGIN], "").await;
    assert_eq!(
        (refused.status, refused.header("access-control-allow-origin"), refused.header("vary")),
        (401, Some(ORIGIN.1), Some("origin"))
    );
    // All that responses have and that a page does not see by itself (the Fetch standard, section 2.2.6).
    let exposed = refused.header("access-control-expose-headers").unwrap();
    for header in [
        "x-request-id",
        "link",
        "content-disposition",
        "retry-after",
        "etag",
        "accept-post",
        "accept-encoding",
        "www-authenticate",
        "offboard-realm",
    ] {
        assert!(exposed.split(", ").any(|name| name == header), "{header} is not in {exposed}");
    }
    for (name, _) in &refused.headers {
        let by_itself =
            ["cache-control", "content-length", "content-type", "x-content-type-options"]
                .contains(&name.as_str());
        assert!(
            by_itself
                || name.starts_with("access-control-")
                || exposed.split(", ").any(|shown| shown == name),
            "{name} is hidden"
        );
    }

    // The requests of clients of the four contracts.
    let asked = "apikey, api-version, authorization, content-type, idempotency-key, if-match, if-none-match, last-event-id, matter-version, \
                 traceparent, x-request-id, x-request-timeout";
    let answer = http(
        address,
        "OPTIONS",
        "/v1/offboarding/entities",
        &[ORIGIN, PREFLIGHT[1], ("access-control-request-headers", asked)],
        "",
    )
    .await;
    let allowed = answer.header("access-control-allow-headers").unwrap();
    for header in asked.split(", ") {
        assert!(allowed.split(", ").any(|name| name == header), "{header} is not in {allowed}");
    }

    let stranger = http(
        address,
        "OPTIONS",
        "/v1/portfolios/p",
        &[("origin", "https://evil.example"), PREFLIGHT[1]],
        "",
    )
    .await;
    assert_eq!(
        (stranger.header("access-control-allow-origin"), stranger.header("vary")),
        (None, Some("origin"))
    );
    let plain = http(address, "OPTIONS", "/v1/portfolios/p", &[ORIGIN], "").await;
    assert!(
        plain.header("allow").unwrap().contains("PATCH"),
        "a request that is not a preflight is served by the routes"
    );
}

#[tokio::test]
async fn no_page_may_call_unless_it_is_configured() {
    let world = World::start(Protocol::Rest).await;
    let answer =
        http(world.server.addresses.http, "OPTIONS", "/v1/portfolios/p", PREFLIGHT, "").await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin"), answer.header("vary")),
        (204, None, None)
    );
    let wrong = run(&["serve", "--cors-origins=app.example.com"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

/// The frames of a gRPC-Web body: their flags and bytes.
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [flags, a, b, c, d, rest @ ..] = body {
        let (frame, rest) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        frames.push((*flags, frame.to_vec()));
        body = rest;
    }
    frames
}

#[tokio::test]
async fn grpc_web_is_spoken_at_the_http_door() {
    let world = World::start(Protocol::Rest).await;
    world.portfolios(&["p"]).await;
    let call = async |portfolio_id: &str| {
        let message =
            GetPortfolioRequest { portfolio_id: portfolio_id.to_owned(), ..Default::default() }
                .encode_to_vec();
        let frame =
            [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat();
        let bearer = format!("Bearer {}", world.key.secret);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/grpc-web+proto"),
            ("x-grpc-web", "1"),
        ];
        http(
            world.server.addresses.http,
            "POST",
            "/offboard.v1.PortfolioService/GetPortfolio",
            &headers,
            Bytes::from(frame),
        )
        .await
    };
    let answer = call("p").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/grpc-web+proto"))
    );
    let frames = frames(&answer.body);
    assert_eq!(Portfolio::decode(frames[0].1.as_slice()).unwrap().id, "p");
    assert_eq!(
        (frames[1].0, String::from_utf8_lossy(&frames[1].1).contains("grpc-status:0")),
        (0x80, true),
        "{frames:?}"
    );
    let missing = call("q").await;
    assert_eq!((missing.status, missing.header("grpc-status")), (200, Some("5")), "{missing:?}");
    assert!(
        missing.header("grpc-status-details-bin").is_some()
            && missing.header("x-request-id").is_some()
    );
}

/// The faults of a body are the caller's doing, in whichever of the layers they come to light.
#[tokio::test]
async fn a_body_of_grpc_web_that_cannot_be_read_is_the_callers_fault() {
    let world = World::start(Protocol::Rest).await;
    let bearer = format!("Bearer {}", world.key.secret);
    let message =
        GetPortfolioRequest { portfolio_id: "p".to_owned(), ..Default::default() }.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    let frame = |flag: u8, length: u32| [&[flag][..], &length.to_be_bytes(), &message].concat();
    for (text, body) in [
        (true, b"!!!!".to_vec()),
        (true, b"AAAAAAMKAXA".to_vec()),
        (true, b"AA=AAAAA".to_vec()),
        (true, b"A".to_vec()),
        (false, frame(0, length + 5)),
        (false, frame(0, u32::MAX)),
        (false, frame(1, length)),
        (false, frame(7, length)),
        (false, frame(0x80, length)),
        (false, vec![0, 0]),
        (false, Vec::new()),
    ] {
        let media_type =
            if text { "application/grpc-web-text+proto" } else { "application/grpc-web+proto" };
        let headers =
            [("authorization", bearer.as_str()), ("content-type", media_type), ("x-grpc-web", "1")];
        for method in ["PortfolioService/GetPortfolio", "EntityService/ImportEntities"] {
            let answer = http(
                world.server.addresses.http,
                "POST",
                &format!("/offboard.v1.{method}"),
                &headers,
                Bytes::from(body.clone()),
            )
            .await;
            let status = answer
                .header("grpc-status")
                .map(str::to_owned)
                .unwrap_or_else(|| trailer(&answer, text));
            // Nothing is an import of nothing; and what is announced may be too large rather than wrong.
            let wanted = match body.as_slice() {
                [] if method.ends_with("ImportEntities") => "0",
                [0, 255, ..] => "8",
                _ => "3",
            };
            assert_eq!(status, wanted, "{method} {body:?}: {answer:?} {}", answer.text());
        }
    }
}

/// The status in the trailers of a body of gRPC-Web.
fn trailer(answer: &Reply, text: bool) -> String {
    use base64::Engine;
    let body = if text {
        base64::engine::general_purpose::STANDARD.decode(&answer.body).unwrap_or_default()
    } else {
        answer.body.clone()
    };
    let reported = String::from_utf8_lossy(&body).into_owned();
    let status =
        reported.split("grpc-status:").nth(1).unwrap_or_else(|| panic!("no status: {answer:?}"));
    status.chars().take_while(char::is_ascii_digit).collect()
}

#[tokio::test]
async fn bodies_are_compressed_as_curl_does_it() {
    let world = World::start(Protocol::Rest).await;
    let bearer = format!("authorization: Bearer {}", world.key.secret);
    let url = |path: &str| format!("http://{}{path}", world.server.addresses.http);
    let body = json!({"portfolio_id": "p", "name": "a", "metadata": {"text": "x".repeat(5000)}})
        .to_string();
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("body.gz");
    let mut gzip = std::process::Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::fs::File::create(&packed).unwrap())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut gzip.stdin.take().unwrap(), body.as_bytes()).unwrap();
    assert!(gzip.wait().unwrap().success());
    let data = format!("@{}", packed.display());
    let made = curl(&[
        "-H",
        &bearer,
        "-H",
        "content-type: application/json",
        "-H",
        "content-encoding: gzip",
        "--data-binary",
        &data,
        &url("/v1/portfolios"),
    ]);
    assert_eq!(made.status, 201, "{}", made.text());
    let answer = curl(&["-H", &bearer, "-H", "accept-encoding: gzip", &url("/v1/portfolios/p")]);
    assert_eq!((answer.header("content-encoding"), answer.body.len() < 1000), (Some("gzip"), true));
    let answer = curl(&["-H", &bearer, "--compressed", &url("/v1/portfolios/p")]);
    assert_eq!(answer.json()["metadata"]["text"].as_str().map(str::len), Some(5000));
    assert_eq!(curl(&["-H", &bearer, &url("/v1/portfolios/p")]).header("content-encoding"), None);
}
