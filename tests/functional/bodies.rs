//! Bodies made to hurt: what they cost is bounded, the response is small, and others are served meanwhile.

use std::time::Duration;

use async_compression::tokio::bufread::{GzipEncoder, ZstdEncoder};
use bytes::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use offboard::proto::v1;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as Any};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Status;
use tonic_types::StatusExt;

use crate::kit::*;

/// How much memory a server may have taken at its peak, in MiB. One that builds a node for each value of these bodies takes several times that.
pub const PEAK_MIB: u64 = 400;

pub fn peak_mib(server: &Server) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

pub async fn gzip(data: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    GzipEncoder::new(data).read_to_end(&mut packed).await.unwrap();
    packed
}

pub async fn zstd(data: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    ZstdEncoder::new(data).read_to_end(&mut packed).await.unwrap();
    packed
}

/// Sends bytes to a path of REST.
pub async fn post(world: &World, path: &str, coding: Option<&str>, body: Vec<u8>) -> Reply {
    let bearer = format!("Bearer {}", world.key.secret);
    let media_type =
        if path.ends_with(":import") { "application/x-ndjson" } else { "application/json" };
    let mut headers = vec![("authorization", bearer.as_str()), ("content-type", media_type)];
    headers.extend(coding.map(|coding| ("content-encoding", coding)));
    http(world.server.addresses.http, "POST", path, &headers, body).await
}

pub fn framed(compressed: bool, message: &[u8]) -> Vec<u8> {
    let mut frame = vec![compressed.into()];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// Sends the bytes of a gRPC call. The response is its status and how many bytes its headers and trailers had.
pub async fn grpc(
    world: &World,
    method: &str,
    coding: Option<&str>,
    frames: Vec<u8>,
) -> (Status, usize) {
    let mut request =
        http::Request::post(format!("http://{}/offboard.v1.{method}", world.server.addresses.grpc))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", world.key.secret));
    if let Some(coding) = coding {
        request = request.header("grpc-encoding", coding);
    }
    let client =
        HttpClient::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let answer =
        client.request(request.body(Full::new(Bytes::from(frames))).unwrap()).await.unwrap();
    let headers = answer.headers().clone();
    let body = answer.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let size = |map: &http::HeaderMap| {
        map.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
    };
    let status = Status::from_header_map(&trailers)
        .or_else(|| Status::from_header_map(&headers))
        .expect("a status");
    (status, size(&headers) + size(&trailers))
}

pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// A request for an entity with these attributes, as the generated types write it.
fn create(attributes: Struct) -> Vec<u8> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Request {
        #[prost(message, optional, tag = "1")]
        entity: Option<Entity>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Entity {
        #[prost(string, tag = "2")]
        kind: String,
        #[prost(message, optional, tag = "4")]
        attributes: Option<Struct>,
    }
    Request { entity: Some(Entity { kind: "T".to_owned(), attributes: Some(attributes) }) }
        .encode_to_vec()
}

fn attribute(kind: Option<Kind>) -> Struct {
    Struct { fields: [("a".to_owned(), Any { kind })].into() }
}

fn list(values: Vec<Any>) -> Option<Kind> {
    Some(Kind::ListValue(ListValue { values }))
}

pub async fn is_alive(world: &World) {
    world.portfolios(&["alive"]).await;
    let found = world
        .call("PortfolioService/GetPortfolio", json!({"portfolio_id": "alive"}))
        .await
        .unwrap();
    assert_eq!(found.json["id"], "alive");
}

#[tokio::test]
async fn a_compressed_body_that_becomes_nothing_is_not_read_for_ever() {
    let world = World::start(Protocol::Rest).await;
    let nothing = (gzip(b"").await, "gzip", zstd(b"").await, "zstd");
    for (empty, coding) in [(&nothing.0, nothing.1), (&nothing.2, nothing.3)] {
        let reply =
            post(&world, "/v1/entities", Some(coding), empty.repeat((1 << 20) / empty.len())).await;
        assert_eq!(
            (reply.status, &reply.json()["errors"][0]["code"]),
            (400, &json!("empty")),
            "{coding}"
        );
    }
    is_alive(&world).await;
}

/// Ten kilobytes that become hundreds of megabytes of blank lines are work for seconds, of which none may be at the cost of other calls.
#[tokio::test]
async fn blank_lines_of_an_import_have_an_end() {
    let world = World::start(Protocol::Rest).await;
    let blank =
        [b"\n".repeat(60 << 20), [" ".repeat(1 << 20).as_bytes(), b"\n"].concat().repeat(30)];
    for lines in &blank {
        for (coding, packed) in [("gzip", gzip(lines).await), ("zstd", zstd(lines).await)] {
            let reply = post(&world, "/v1/entities:import", Some(coding), packed).await;
            assert_eq!(
                (reply.status, &reply.json()["errors"][0]["code"]),
                (400, &json!("too_long")),
                "{coding}"
            );
        }
    }
    let few = [b"\n".repeat(1000).as_slice(), br#"{"type":"T"}"#, b"\n\n"].concat();
    let reply = post(&world, "/v1/entities:import", Some("gzip"), gzip(&few).await).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn attributes_stop_at_their_limit_whatever_they_are_made_of() {
    let world = World::start(Protocol::Rest).await;
    for value in ["1,", "[],", "{},", "null,", "\"\",", "{\"a\":[]},"] {
        for (bytes, coding) in [(600_000, None), (3_900_000, Some("gzip"))] {
            let body = format!(
                "{{\"type\":\"T\",\"attributes\":{{\"a\":[{}0]}}}}",
                value.repeat(bytes / value.len())
            );
            let body =
                if coding.is_some() { gzip(body.as_bytes()).await } else { body.into_bytes() };
            let reply = post(&world, "/v1/entities", coding, body).await;
            assert!(matches!(reply.status, 201 | 400), "{value} {bytes}: {}", reply.status);
            if reply.status == 400 {
                assert_eq!(reply.json()["errors"][0]["code"], "too_long", "{value}");
            }
        }
    }
    let kinds = [
        // As many as a message may have are less than a MiB of JSON.
        (Some(Kind::NumberValue(1.0)), 330_000),
        (Some(Kind::NumberValue(1e300)), 330_000),
        (Some(Kind::NullValue(0)), 330_000),
        (list(Vec::new()), 900_000),
        (Some(Kind::StructValue(Struct::default())), 900_000),
        (Some(Kind::StringValue(String::new())), 900_000),
    ];
    for (turn, (kind, count)) in kinds.into_iter().enumerate() {
        let fits = kind == Some(Kind::NumberValue(1.0));
        let message = create(attribute(list(vec![Any { kind }; count])));
        let (coding, frame) = match turn % 3 {
            0 => (None, framed(false, &message)),
            1 => (Some("gzip"), framed(true, &gzip(&message).await)),
            _ => (Some("zstd"), framed(true, &zstd(&message).await)),
        };
        let (status, size) = grpc(&world, "EntityService/CreateEntity", coding, frame).await;
        if fits {
            assert_eq!(status.code(), tonic::Code::Ok, "{status:?}");
            continue;
        }
        let faults = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(
            (faults[0].field.as_str(), faults[0].reason.as_str()),
            ("entity.attributes", "TOO_LONG")
        );
        assert!(size < 4 << 10, "{size} bytes");
    }
    is_alive(&world).await;
    assert!(peak_mib(&world.server) < PEAK_MIB, "{} MiB", peak_mib(&world.server));
}

#[tokio::test]
async fn many_large_bodies_at_once_share_the_memory_that_there_is() {
    let world = World::start_with(
        Protocol::Rest,
        &["--body-memory-wait=60", "--body-timeout=600", "--request-timeout=600"],
    )
    .await;
    let large =
        format!("{{\"type\":\"T\",\"attributes\":{{\"a\":[{}0]}}}}", "1,".repeat(1_825_000));
    let parts = (0..900).map(|n| {
        format!("{{\"kind\":\"k\",\"id\":\"{n}\",\"data\":{{\"a\":[{}0]}}}}", "[],".repeat(1_300))
    });
    let listed =
        format!("{{\"type\":\"T\",\"dependents\":[{}]}}", parts.collect::<Vec<_>>().join(","));
    let message = create(attribute(list(vec![Any { kind: list(Vec::new()) }; 900_000])));
    let rest = [&large, &listed].map(|body| {
        join_all((0..4).map(|_| post(&world, "/v1/entities", None, body.clone().into_bytes())))
    });
    let grpc = join_all(
        (0..4).map(|_| grpc(&world, "EntityService/CreateEntity", None, framed(false, &message))),
    );
    let (answers, statuses) = tokio::join!(join_all(rest), grpc);
    for (reply, expected) in answers.iter().flatten().zip([400; 4].into_iter().chain([201; 4])) {
        assert_eq!(reply.status, expected, "{}", reply.text());
    }
    for (status, _) in statuses {
        assert_eq!(reason(&status), "VALIDATION_FAILED", "{status:?}");
    }
    is_alive(&world).await;
    assert!(peak_mib(&world.server) < PEAK_MIB, "{} MiB", peak_mib(&world.server));
}

#[tokio::test]
async fn lists_of_nothing_are_counted_before_they_are_made() {
    let world = World::start(Protocol::Grpc).await;
    let batch = v1::BatchCreateEntitiesRequest {
        requests: vec![v1::CreateEntityRequest::default(); 2_000_000],
    };
    let (status, _) = grpc(
        &world,
        "EntityService/BatchCreateEntities",
        None,
        framed(false, &batch.encode_to_vec()),
    )
    .await;
    let faults = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!((faults[0].field.as_str(), faults[0].reason.as_str()), ("requests", "TOO_MANY"));
    let body =
        format!("{{\"type\":\"T\",\"dependents\":[{}{{}}]}}", "{\"kind\":\"a\"},".repeat(300_000));
    let reply = post(&world, "/v1/entities", None, body.into_bytes()).await;
    assert_eq!((reply.status, &reply.json()["errors"][0]["code"]), (400, &json!("too_many")));
    assert!(peak_mib(&world.server) < PEAK_MIB, "{} MiB", peak_mib(&world.server));
}

#[tokio::test]
async fn values_that_json_does_not_have_are_refused_by_grpc() {
    let world = World::start(Protocol::Grpc).await;
    let cases = [
        (None, "kind"),
        (list(vec![Any { kind: None }]), "kind"),
        (Some(Kind::NumberValue(f64::NAN)), "NaN"),
        (Some(Kind::NumberValue(f64::INFINITY)), "NaN"),
        (Some(Kind::StringValue("\0".to_owned())), "U+0000"),
    ];
    for (kind, said) in cases {
        let (status, _) = grpc(
            &world,
            "EntityService/CreateEntity",
            None,
            framed(false, &create(attribute(kind))),
        )
        .await;
        let faults = status.get_details_bad_request().expect("faults").field_violations;
        assert_eq!(
            (faults[0].field.as_str(), faults[0].reason.as_str()),
            ("entity.attributes", "INVALID")
        );
        assert!(faults[0].description.contains(said), "{}", faults[0].description);
    }
    assert_eq!(world.database.rows("entity"), 0);
}

#[tokio::test]
async fn a_compressed_message_is_measured_as_it_grows() {
    let world = World::start(Protocol::Grpc).await;
    let small = create(attribute(Some(Kind::StringValue("x".repeat(100_000)))));
    let bomb = create(attribute(Some(Kind::StringValue("x".repeat(40_000_000)))));
    for coding in ["gzip", "zstd"] {
        let (packed, too_large) = if coding == "gzip" {
            (gzip(&small).await, gzip(&bomb).await)
        } else {
            (zstd(&small).await, zstd(&bomb).await)
        };
        let (status, _) =
            grpc(&world, "EntityService/CreateEntity", Some(coding), framed(true, &packed)).await;
        assert_eq!(status.code(), tonic::Code::Ok, "{status:?}");
        let (status, _) =
            grpc(&world, "EntityService/CreateEntity", Some(coding), framed(true, &too_large))
                .await;
        assert_eq!(reason(&status), "PAYLOAD_TOO_LARGE", "{status:?}");
        let (status, _) = grpc(
            &world,
            "EntityService/CreateEntity",
            Some(coding),
            framed(true, b"nothing of the kind"),
        )
        .await;
        assert_eq!(reason(&status), "VALIDATION_FAILED", "{status:?}");
        assert!(
            status.message().contains(&format!("is not {coding}, though `grpc-encoding` says so")),
            "{status:?}"
        );
        for path in ["/v1/entities", "/v1/entities:import"] {
            let reported = post(&world, path, Some(coding), b"{\"type\":\"T\"}".to_vec()).await;
            let described = reported.json()["errors"][0]["message"].as_str().unwrap().to_owned();
            assert_eq!(reported.status, 400, "{described}");
            assert!(
                described.starts_with(&format!(
                    "body: is not {coding}, though `Content-Encoding` says so"
                )),
                "{described}"
            );
        }
    }
}

#[tokio::test]
async fn bodies_that_arrive_slowly_keep_out_neither_small_ones_nor_other_realms() {
    let arguments = ["--body-memory-bytes=4194304", "--body-memory-wait=1", "--body-timeout=20"];
    let world = World::start_with(Protocol::Rest, &arguments).await;
    let other = world.client("other", "live", SCOPES);
    let large = json!({"entity": {"type": "T", "attributes": {"a": "x".repeat(200_000)}}});
    world.call("EntityService/CreateEntity", large.clone()).await.unwrap();

    // Half of what may be received by all, a quarter of the memory, is the realm's.
    let mut slow = tokio::net::TcpStream::connect(world.server.addresses.http).await.unwrap();
    let head = format!(
        "POST /v1/entities HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 600000\r\n\r\n",
        world.key.secret
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(&[b' '; 500_000]).await.unwrap();
    let refused = async {
        loop {
            match world.call("EntityService/CreateEntity", large.clone()).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(failure) => return failure,
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(60), refused)
        .await
        .expect("the memory of the realm is taken");
    assert_eq!((refused.code.as_str(), refused.http), ("unavailable", Some(503)));
    world.call("EntityService/CreateEntity", json!({"entity": {"type": "T"}})).await.unwrap();
    other.call("EntityService/CreateEntity", large.clone()).await.unwrap();

    // It is given up in the end, and then there is room.
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(60), slow.read_to_end(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 504"), "{}", String::from_utf8_lossy(&answer));
    world.call("EntityService/CreateEntity", large).await.unwrap();
}
