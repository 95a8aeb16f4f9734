//! Imports that fail: with a status if nothing was done, and behind the beginning of their response once something was.

use futures::StreamExt;
use offboard::proto::v1;
use offboard::proto::v1::entity_service_client::EntityServiceClient;
use tonic_types::StatusExt;

use crate::kit::*;

/// As many lines as one transaction writes.
const BATCH: usize = 500;

fn lines(from: usize, count: usize) -> String {
    (from..from + count)
        .map(|n| format!("{{\"entity_id\":\"e{n:05}\",\"type\":\"T\"}}\n"))
        .collect()
}

async fn import(world: &World, query: &str, key: Option<&str>, body: String) -> Reply {
    let bearer = format!("Bearer {}", world.key.secret);
    let mut headers =
        vec![("authorization", bearer.as_str()), ("content-type", "application/x-ndjson")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    http(
        world.server.addresses.http,
        "POST",
        &format!("/v1/entities:import{query}"),
        &headers,
        body,
    )
    .await
}

fn stored(world: &World) -> i64 {
    world.database.rows("entity")
}

#[tokio::test]
async fn what_was_written_is_never_answered_as_if_nothing_had_been() {
    let world = World::start_with(Protocol::Rest, &["--max-body-bytes=4096"]).await;
    let faulty = [
        ("{\"entity_id\":\n".to_owned(), 400, "validation_failed"),
        ("{\"entity_id\":\"x\",\"typo\":1}\n".to_owned(), 400, "validation_failed"),
        (format!("{{\"type\":\"{}\"}}\n", "x".repeat(5_000)), 413, "payload_too_large"),
    ];
    for (n, (line, status, code)) in faulty.iter().enumerate() {
        for query in ["?failures_only=true", ""] {
            let from = 10_000 * n + 5_000 * usize::from(query.is_empty());
            let before = stored(&world);
            let whole = import(
                &world,
                query,
                None,
                format!("{}{line}{}", lines(from, BATCH - 1), lines(from + BATCH, 3)),
            )
            .await;
            assert_eq!(
                (whole.status, whole.json()["code"].as_str()),
                (*status, Some(*code)),
                "{query}: {}",
                whole.text()
            );
            assert_eq!(
                stored(&world),
                before,
                "what has the status of a failure has changed nothing"
            );
            let begun = import(
                &world,
                query,
                None,
                format!("{}{line}{}", lines(from, BATCH), lines(from + BATCH, 3)),
            )
            .await;
            let last: Value = serde_json::from_str(begun.text().lines().last().unwrap()).unwrap();
            assert_eq!(
                (begun.status, last["error"]["code"].as_str()),
                (200, Some(*code)),
                "{query}: {last}"
            );
            assert!(begun.text().contains(&(BATCH + 1).to_string()), "its line is named: {last}");
            assert_eq!(stored(&world), before + BATCH as i64);
        }
    }
}

#[tokio::test]
async fn the_key_of_an_import_that_failed_is_fit_for_the_corrected_one() {
    let world = World::start(Protocol::Rest).await;
    for (n, count) in [(0, 10), (1, BATCH + 10)] {
        let from = 10_000 * n;
        let (key, before) = (format!("import {n}"), stored(&world));
        let failed = import(
            &world,
            "?failures_only=true",
            Some(&key),
            lines(from, count) + "{\"entity_id\":\"m\",\"typo\":1}\n",
        )
        .await;
        assert_eq!(
            (failed.status, stored(&world) - before),
            if n == 0 { (400, 0) } else { (200, BATCH as i64) },
            "{}",
            failed.text()
        );
        let mended =
            import(&world, "?failures_only=true", Some(&key), lines(from, count + 1)).await;
        let last: Value = serde_json::from_str(mended.text().lines().last().unwrap()).unwrap();
        assert_eq!(
            (mended.status, &last["summary"]["created"]),
            (200, &json!(count + 1)),
            "{}",
            mended.text()
        );
        assert_eq!(stored(&world) - before, count as i64 + 1);
    }
}

#[tokio::test]
async fn by_grpc_the_answer_begins_once_something_is_written() {
    let world = World::start_with(Protocol::Grpc, &["--max-body-bytes=4096"]).await;
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", world.server.addresses.grpc))
            .unwrap()
            .connect_lazy();
    let line = |n: usize, kind: String| v1::ImportEntitiesRequest {
        entity: Some(v1::NewEntity {
            entity_id: format!("e{n:05}"),
            r#type: kind,
            ..Default::default()
        }),
        failures_only: true,
        ..Default::default()
    };
    for (from, good) in [(0, BATCH - 1), (1_000, BATCH)] {
        let last = line(from + good, "x".repeat(5_000));
        let messages: Vec<_> =
            (from..from + good).map(|n| line(n, "T".to_owned())).chain([last]).collect();
        // Whoever sends does not hang up, so what ends the import is the service.
        let mut request =
            tonic::Request::new(futures::stream::iter(messages).chain(futures::stream::pending()));
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {}", world.key.secret).parse().unwrap());
        let answer = EntityServiceClient::new(channel.clone()).import_entities(request).await;
        let (has_begun, status) = match answer {
            Ok(mut answer) => (true, answer.get_mut().message().await.unwrap_err()),
            Err(status) => (false, status),
        };
        let reason = status.get_error_details().error_info().unwrap().reason.clone();
        assert_eq!(
            (has_begun, reason.as_str()),
            (good == BATCH, "PAYLOAD_TOO_LARGE"),
            "{status:?}"
        );
        assert_eq!(stored(&world), if good == BATCH { BATCH as i64 } else { 0 });
    }
}

#[tokio::test]
async fn the_faults_of_a_line_have_the_paths_of_its_entity() {
    let world = World::start(Protocol::Rest).await;
    let line = "{\"type\":\"\",\"dependents\":[{\"kind\":\"Upper\"}]}\n";
    let bearer = format!("Bearer {}", world.key.secret);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let created =
        http(world.server.addresses.http, "POST", "/v1/entities", &headers, line).await.json();
    let imported = import(&world, "", None, line.to_owned()).await;
    let result: Value = serde_json::from_str(imported.text().lines().next().unwrap()).unwrap();
    let reported = created["errors"].as_array().unwrap().iter();
    let reported: Vec<_> = reported
        .map(|fault| {
            format!(
                "{}: {}",
                fault["field"].as_str().unwrap(),
                fault["description"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(result["result"]["error"]["message"], reported.join("; "), "{created}");

    // The command shows them as well, and a line without an id as that.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), line).unwrap();
    let server = format!("http://{}", world.server.addresses.grpc);
    let ended = run(&[
        "import",
        file.path().to_str().unwrap(),
        "--server",
        &server,
        "--key",
        &world.key.secret,
    ]);
    assert!(ended.stderr.contains(&format!("line 1: {}", reported.join("; "))), "{ended:?}");
}
