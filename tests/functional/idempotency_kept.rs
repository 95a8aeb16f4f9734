//! The contents of idempotency records, for how many calls, and how removals erase them.

use crate::kit::*;

const REPLAYED: &str = "idempotent-replayed";

fn key(key: &str) -> [(&str, &str); 1] {
    [("idempotency-key", key)]
}

/// The contents of the records of all realms, as text in which a canary would be found.
fn records(world: &World) -> String {
    world
        .database
        .text("SELECT coalesce(string_agg(encode(answer, 'escape'), ' '), '') FROM idempotency_key")
        .unwrap()
}

fn usage(world: &World) -> (i64, i64) {
    let count = |sql: &str| world.database.count(sql);
    (
        count("SELECT coalesce(sum(records), 0)::int8 FROM idempotency_usage"),
        count("SELECT coalesce(sum(bytes), 0)::int8 FROM idempotency_usage"),
    )
}

fn counted(world: &World) -> (i64, i64) {
    let count = |sql: &str| world.database.count(sql);
    (
        count("SELECT count(*) FROM idempotency_key WHERE shard IS NOT NULL"),
        count("SELECT coalesce(sum(bytes), 0)::int8 FROM idempotency_key"),
    )
}

fn is(answer: &Value, status: &str) -> bool {
    answer["status"].as_str().is_some_and(|word| word.eq_ignore_ascii_case(status))
}

/// Ways to remove the entity `e`.
async fn remove(world: &World, way: &str) {
    match way {
        "offboarding by A" => {
            let job =
                world.call("RemovalService/RemoveEntity", json!({"entity_id": "e"})).await.unwrap();
            world
                .call_until(
                    "RemovalService/GetRemovalJob",
                    json!({"job_id": job.json["id"]}),
                    |job| is(job, "succeeded"),
                )
                .await;
        }
        "offboarding by D" => {
            let asked = world
                .call("OffboardingService/RequestOffboarding", json!({"entity_id": "e"}))
                .await
                .unwrap();
            let id = json!({"offboarding_request_id": asked.json["id"]});
            world
                .call_until("OffboardingService/GetOffboardingRequest", id, |request| {
                    is(request, "succeeded")
                })
                .await;
        }
        _ => {
            let (mode, objects) = match way {
                "soft by filter" => ("soft", json!({"filter": "equals(type, 'T')"})),
                "hard by filter" => ("hard", json!({"filter": "equals(type, 'T')"})),
                "hard by type" => ("hard", json!({"entity_type": "T"})),
                _ => ("hard", json!({"uri_list": ["entities/e"]})),
            };
            let start = json!({"spec": {"objects": objects}, "mode": mode});
            let task = world.call("BulkDeleteService/StartBulkDelete", start).await.unwrap();
            world
                .call_until(
                    "BulkDeleteService/GetTask",
                    json!({"task_id": task.json["id"]}),
                    |task| is(task, "completed"),
                )
                .await;
        }
    }
}

const WAYS: &[&str] = &[
    "offboarding by A",
    "offboarding by D",
    "soft by filter",
    "hard by filter",
    "hard by type",
    "hard by list",
];

scenario! {
    async fn what_was_removed_is_not_reported_again(world: &World) {
        for way in WAYS {
            let at = |call: &str| format!("{way} {call}");
            let create = json!({"entity": {"entity_id": "e", "type": "T", "attributes": {"name": "canary1"}}});
            // The batch shows one that stays, too.
            let batch = json!({"requests": [{"entity": {"type": "T", "attributes": {"name": "canary2"}}}, {"entity": {"type": "U"}}]});
            let put = json!({"entity_id": "e", "kind": "task", "dependent_id": "d", "data": {"note": "canary4"}});
            let calls = [
                ("EntityService/CreateEntity", create),
                ("EntityService/BatchCreateEntities", batch),
                ("EntityService/UpdateEntity", json!({"entity_id": "e", "entity": {"attributes": {"more": "canary3"}}})),
                ("EntityService/PutDependent", put),
                ("EntityService/PlaceHold", json!({"entity_id": "e", "reason": "canary5"})),
                ("EntityService/ReleaseHold", json!({"entity_id": "e"})),
            ];
            for (method, request) in &calls {
                let first = world.client.call_with(method, request.clone(), &key(&at(method))).await.unwrap_or_else(|failure| panic!("{method}: {failure:#?}"));
                let again = world.client.call_with(method, request.clone(), &key(&at(method))).await.unwrap();
                assert_eq!((again.header(REPLAYED), &again.json), (Some("true"), &first.json), "{way} {method}");
            }
            assert!(records(world).contains("canary1"), "the test sees the content of records");
            remove(world, way).await;
            let gone = ["canary1", "canary3", "canary4", "canary5"];
            for canary in gone {
                assert!(!records(world).contains(canary), "{way} leaves {canary}");
            }
            let by_selection = !way.starts_with("offboarding") && *way != "hard by list";
            assert_eq!(records(world).contains("canary2"), !by_selection, "{way}");
            for (method, request) in &calls {
                let again = world.client.call_with(method, request.clone(), &key(&at(method))).await;
                if *method == "EntityService/BatchCreateEntities" && !by_selection {
                    assert_eq!(again.unwrap().header(REPLAYED), Some("true"));
                    continue;
                }
                let refused = again.unwrap_err();
                assert_eq!((refused.code.as_str(), refused.header(REPLAYED)), ("answer_gone", Some("true")), "{way} {method}");
                assert_eq!(refused.http.unwrap_or(410), 410);
                assert!(!format!("{refused:?}").contains("canary"));
            }
            let other = world.client.call_with("EntityService/ReleaseHold", json!({"entity_id": "x"}), &key(&at("EntityService/ReleaseHold"))).await;
            assert_eq!(other.unwrap_err().code, "idempotency_key_reused");
            assert_eq!(usage(world), counted(world));
            world.database.sql("DELETE FROM entity; DELETE FROM dependent; DELETE FROM idempotency_key; DELETE FROM idempotency_subject");
            assert_eq!(usage(world), (0, 0));
        }
    }

    async fn a_dependent_or_a_portfolio_that_was_deleted_is_not_reported_again(world: &World) {
        world.entities(&["e"]).await;
        let dependent = json!({"entity_id": "e", "kind": "task", "dependent_id": "d"});
        let mut put = dependent.clone();
        put["data"] = json!({"note": "canary1"});
        let mut other = put.clone();
        other["dependent_id"] = json!("other");
        let create = json!({"portfolio_id": "p", "name": "canary2", "metadata": {"k": "canary3"}});
        let membership = json!({"portfolio_id": "p", "entity_id": "e"});
        let calls = [
            ("EntityService/PutDependent", put),
            ("PortfolioService/CreatePortfolio", create),
            ("PortfolioService/AttachEntity", membership.clone()),
            ("PortfolioService/DetachEntity", membership),
            ("PortfolioService/BatchAttachEntities", json!({"portfolio_id": "p", "entity_ids": ["e"]})),
            ("PortfolioService/BatchDetachEntities", json!({"portfolio_id": "p", "entity_ids": ["e"]})),
        ];
        for (method, request) in &calls {
            world.client.call_with(method, request.clone(), &key(method)).await.unwrap_or_else(|failure| panic!("{method}: {failure:#?}"));
        }
        world.client.call_with("EntityService/PutDependent", other.clone(), &key("other")).await.unwrap();
        world.client.call_with("EntityService/DeleteDependent", dependent, &key("delete")).await.unwrap();
        world.client.call_with("PortfolioService/DeletePortfolio", json!({"portfolio_id": "p"}), &key("delete p")).await.unwrap();
        for (method, request) in calls {
            let refused = world.client.call_with(method, request, &key(method)).await.unwrap_err();
            assert_eq!(refused.code, "answer_gone", "{method}");
        }
        let kept = world.client.call_with("EntityService/PutDependent", other, &key("other")).await.unwrap();
        assert_eq!(kept.header(REPLAYED), Some("true"));
        let left = records(world);
        assert!(left.matches("canary1").count() == 1 && !left.contains("canary2") && !left.contains("canary3"), "{left}");
    }

    async fn a_large_answer_is_reported_again_while_what_it_shows_is_unchanged(world: &World) {
        let large = "x".repeat(100_000);
        let entity = |id: &str| json!({"entity_id": id, "type": "T", "attributes": {"large": large, "z": 1.5, "a": [null, true]}});
        let put = json!({"entity_id": "e", "kind": "task", "dependent_id": "d", "data": {"large": large}});
        let calls = [
            ("EntityService/CreateEntity", json!({"entity": entity("e")})),
            ("EntityService/BatchCreateEntities", json!({"requests": [{"entity": entity("f")}, {"entity": entity("b")}]})),
            ("EntityService/PutDependent", put),
        ];
        let mut answers = Vec::new();
        for (method, request) in &calls {
            answers.push(world.client.call_with(method, request.clone(), &key(method)).await.unwrap());
        }
        let (_, bytes) = usage(world);
        assert!(bytes < 10_000, "{bytes} bytes are kept");
        // The dependent came last, and has stepped the version of its entity.
        for ((method, request), first) in calls.iter().zip(&answers).skip(1) {
            let again = world.client.call_with(method, request.clone(), &key(method)).await.unwrap();
            assert_eq!((again.header(REPLAYED), &again.json, again.http), (Some("true"), &first.json, first.http), "{method}");
        }
        let (method, request) = &calls[0];
        let gone = world.client.call_with(method, request.clone(), &key(method)).await.unwrap_err();
        assert_eq!((gone.code.as_str(), gone.header(REPLAYED)), ("answer_gone", Some("true")));
        world.call("EntityService/UpdateEntity", json!({"entity_id": "b", "entity": {"type": "U"}})).await.unwrap();
        let (method, request) = &calls[1];
        assert_eq!(world.client.call_with(method, request.clone(), &key(method)).await.unwrap_err().code, "answer_gone");
    }
}

/// A world whose realms may keep so much.
async fn world_that_keeps(protocol: Protocol, records: &str, bytes: &str) -> World {
    World::start_with(protocol, &["--idempotency-records", records, "--idempotency-bytes", bytes])
        .await
}

#[tokio::test]
async fn a_realm_keeps_so_many_records_and_refuses_new_keys_beyond() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let world = world_that_keeps(protocol, "20", "1000000").await;
        let create = |n: usize| json!({"entity": {"entity_id": format!("e{n}"), "type": "T"}});
        // All at once, so that they race for the last records.
        let names: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
        let headers: Vec<_> = names.iter().map(|name| key(name)).collect();
        let calls = headers.iter().enumerate().map(|(n, headers)| {
            world.client.call_with("EntityService/CreateEntity", create(n), headers)
        });
        let outcomes = futures::future::join_all(calls).await;
        let done: Vec<usize> = (0..40).filter(|n| outcomes[*n].is_ok()).collect();
        assert_eq!(done.len(), 20);
        assert_eq!(usage(&world), counted(&world));
        for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(
                (refused.code.as_str(), refused.http.unwrap_or(429)),
                ("rate_limit_exceeded", 429)
            );
        }
        assert_eq!(world.database.rows("entity"), 20, "what is refused is not done");
        // Those that are kept are still returned; calls without a key and other realms are not concerned.
        let (first, refused) = (done[0], (0..40).find(|n| !done.contains(n)).unwrap());
        let again = world
            .client
            .call_with("EntityService/CreateEntity", create(first), &headers[first])
            .await
            .unwrap();
        assert_eq!(again.header(REPLAYED), Some("true"));
        world.call("EntityService/CreateEntity", json!({"entity": {"type": "T"}})).await.unwrap();
        let other = world.client("acme", "live", SCOPES);
        other.call_with("EntityService/CreateEntity", create(0), &key("k")).await.unwrap();
        // An import counts by the batch. An expired record makes room, be it swept or used again.
        let sql = format!(
            "UPDATE idempotency_key SET created_at = now() - interval '24 hours 1 second' WHERE key = 'k{first}'"
        );
        world.database.sql(&sql);
        let taken = world
            .client
            .call_with("EntityService/CreateEntity", create(first), &headers[first])
            .await
            .unwrap_err();
        assert_eq!((taken.code.as_str(), taken.header(REPLAYED)), ("already_exists", None));
        world.database.sql("DELETE FROM idempotency_key WHERE key = (SELECT min(key) FROM idempotency_key WHERE realm_id = 1)");
        assert_eq!(usage(&world), counted(&world));
        world
            .client
            .call_with("EntityService/CreateEntity", create(refused), &headers[refused])
            .await
            .unwrap();
        assert_eq!(usage(&world), counted(&world));
    }
}

#[tokio::test]
async fn a_realm_keeps_so_many_bytes_of_answers() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let world = world_that_keeps(protocol, "1000", "200000").await;
        let text = "x".repeat(50_000);
        let mut done = 0;
        for n in 0..8 {
            let create = json!({"entity": {"type": "T", "attributes": {"text": text}}});
            match world
                .client
                .call_with("EntityService/CreateEntity", create, &key(&format!("k{n}")))
                .await
            {
                Ok(_) => done += 1,
                Err(refused) => assert_eq!(refused.code, "rate_limit_exceeded"),
            }
        }
        assert_eq!((done, world.database.rows("entity")), (3, 3));
        let (_, bytes) = usage(&world);
        assert!((150_000..=200_000).contains(&bytes), "{bytes}");
        assert_eq!(usage(&world), counted(&world));
    }
}
