//! Responses stay small, whatever a request contains.

use offboard::proto::v1;
use prost::Message;

use crate::bodies::{PEAK_MIB, framed, grpc, gzip, is_alive, peak_mib, post, reason, zstd};
use crate::kit::*;

/// The most that a response may have, in bytes.
const ANSWER: usize = 512 << 10;

#[tokio::test]
async fn a_small_body_of_many_long_faults_gets_a_small_answer() {
    let world = World::start(Protocol::Rest).await;
    for (key, faults) in [(200_000, 1_000), (1_000_000, 1_000), (10, 300_000)] {
        let object =
            format!("{{\"{}\":[{}1e4000]}}", "k".repeat(key), "1e4000,".repeat(faults - 1));
        let bodies = [
            ("/v1/portfolios", format!("{{\"name\":\"n\",\"metadata\":{object}}}")),
            ("/v1/entities", format!("{{\"type\":\"T\",\"attributes\":{object}}}")),
            ("/v1/entities", format!("{{\"type\":\"T\",\"crosswalks\":[{object}]}}")),
            ("/v1/entities:import", format!("{{\"type\":\"T\",\"attributes\":{object}}}\n")),
            ("/v1/entities", object),
        ];
        for (path, body) in bodies {
            for (coding, packed) in
                [("gzip", gzip(body.as_bytes()).await), ("zstd", zstd(body.as_bytes()).await)]
            {
                let reply = post(&world, path, Some(coding), packed).await;
                assert!(
                    reply.body.len() < ANSWER,
                    "{path} {key} {coding}: {} bytes",
                    reply.body.len()
                );
                if path.ends_with("import") && reply.status != 400 {
                    continue;
                }
                assert_eq!(reply.status, 400, "{path} {key}");
                let reported = reply.json();
                assert_eq!(reported["code"], "validation_failed", "{path}: {}", reported["code"]);
                let first = reported["errors"][0]["field"].as_str().unwrap().to_owned();
                assert!(
                    first.chars().count() <= 257 && (key < 257 || first.ends_with('…')),
                    "{first}"
                );
            }
        }
    }
    is_alive(&world).await;
    assert!(peak_mib(&world.server) < PEAK_MIB, "{} MiB", peak_mib(&world.server));
}

#[tokio::test]
async fn what_a_filter_a_query_or_a_mask_holds_is_not_repeated_at_length() {
    let world = World::start(Protocol::Rest).await;
    let bearer = format!("Bearer {}", world.key.secret);
    let long = "x".repeat(20_000);
    for query in [
        format!("{long}=1"),
        format!("filter={long}(a)"),
        format!("filter=equals({long},1)"),
        format!("order_by={long}"),
    ] {
        let path = format!("/v1/entities?{query}");
        let reply =
            http(world.server.addresses.http, "GET", &path, &[("authorization", &bearer)], "")
                .await;
        assert!(
            reply.status == 400 && reply.body.len() < 16 << 10,
            "{} bytes for {}",
            reply.body.len(),
            &query[..12]
        );
    }
    let mask = prost_types::FieldMask {
        paths: (0..500).map(|n| format!("{n}{}", "m".repeat(4_000))).collect(),
    };
    let update = v1::UpdateEntityRequest {
        entity_id: "e".to_owned(),
        entity: Some(v1::EntityUpdate::default()),
        update_mask: Some(mask),
    };
    let (status, size) =
        grpc(&world, "EntityService/UpdateEntity", None, framed(false, &update.encode_to_vec()))
            .await;
    assert_eq!(reason(&status), "VALIDATION_FAILED");
    assert!(size < 12 << 10, "{size} bytes");
    let get = v1::GetEntityRequest { entity_id: "i".repeat(1_000_000) };
    let (status, size) =
        grpc(&world, "EntityService/GetEntity", None, framed(false, &get.encode_to_vec())).await;
    assert!(reason(&status) == "VALIDATION_FAILED" && size < 12 << 10, "{size} bytes");
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
