//! Calls that are sent more than once with one idempotency key take effect once, whatever happens in between.

use std::collections::HashSet;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use futures::future::join_all;

use crate::entities::events;
use crate::kit::*;
use crate::proxy::{Proxy, Way};

const REPLAYED: &str = "idempotent-replayed";

fn key(key: &str) -> [(&str, &str); 1] {
    [("idempotency-key", key)]
}

scenario! {
    async fn the_same_call_again_has_the_first_answer_and_no_effect(world: &World) {
        world.portfolios(&["p", "q"]).await;
        let create = json!({"entity": {"type": "T", "attributes": {"b": 1, "a": {"y": 2, "x": [3]}}}});
        let first = world.client.call_with("EntityService/CreateEntity", create.clone(), &key("k1")).await.unwrap();
        assert_eq!(first.header(REPLAYED), None);
        let before = events(&world.database);
        for _ in 0..3 {
            let again = world.client.call_with("EntityService/CreateEntity", create.clone(), &key("k1")).await.unwrap();
            assert_eq!(again.header(REPLAYED), Some("true"));
            assert_eq!((&again.json, again.http, again.header("location")), (&first.json, first.http, first.header("location")));
        }
        assert_eq!(events(&world.database), before);
        assert_eq!(world.database.rows("entity"), 1);

        // The answer is the first one, also when the thing has moved on.
        let entity_id = first.json["id"].as_str().unwrap();
        let attach = json!({"portfolio_id": "p", "entity_id": entity_id});
        let attached = world.client.call_with("PortfolioService/AttachEntity", attach.clone(), &key("k2")).await.unwrap();
        world.call("PortfolioService/DetachEntity", attach.clone()).await.unwrap();
        let again = world.client.call_with("PortfolioService/AttachEntity", attach, &key("k2")).await.unwrap();
        assert_eq!(again.json, attached.json);
        assert_eq!(world.database.members(), 0);
    }

    async fn both_protocols_share_the_keys(world: &World) {
        let create = json!({"entity": {"type": "T", "attributes": {"z": 1, "a": {"m": 1, "b": 2}, "k": null}}});
        let first = world.client.call_with("EntityService/CreateEntity", create.clone(), &key("k")).await.unwrap();
        let other = world.through(if world.protocol == Protocol::Grpc { Protocol::Rest } else { Protocol::Grpc });
        let again = other.call_with("EntityService/CreateEntity", create, &key("k")).await.unwrap();
        assert_eq!((again.header(REPLAYED), &again.json), (Some("true"), &first.json));
        assert_eq!(world.database.rows("entity"), 1);
    }

    async fn another_request_under_the_key_is_refused_and_changes_nothing(world: &World) {
        world.portfolios(&["p"]).await;
        let create = |name: &str| json!({"portfolio_id": "x", "name": name});
        world.client.call_with("PortfolioService/CreatePortfolio", create("A"), &key("k")).await.unwrap();
        let others = [
            ("PortfolioService/CreatePortfolio", create("B")),
            ("EntityService/CreateEntity", json!({"entity": {"type": "T"}})),
            ("PortfolioService/DetachEntity", json!({"portfolio_id": "p", "entity_id": "e"})),
        ];
        for (method, request) in others {
            let refused = world.client.call_with(method, request, &key("k")).await.unwrap_err();
            assert_eq!((refused.code.as_str(), refused.header(REPLAYED)), ("idempotency_key_reused", None), "{method}");
            assert_eq!(refused.http.unwrap_or(409), 409);
        }
        assert_eq!(world.database.rows("entity"), 0);
        let again = world.client.call_with("PortfolioService/CreatePortfolio", create("A"), &key("k")).await.unwrap();
        assert_eq!(again.header(REPLAYED), Some("true"), "the first answer stays");
    }

    async fn a_refusal_is_an_answer_too(world: &World) {
        world.portfolios(&["p"]).await;
        let detach = json!({"portfolio_id": "p", "entity_id": "late"});
        let first = world.client.call_with("PortfolioService/DetachEntity", detach.clone(), &key("k")).await.unwrap_err();
        assert_eq!((first.code.as_str(), first.header(REPLAYED)), ("not_found", None));
        world.entities(&["late"]).await;
        let again = world.client.call_with("PortfolioService/DetachEntity", detach.clone(), &key("k")).await.unwrap_err();
        assert_eq!((again.reported(), again.header(REPLAYED)), (first.reported(), Some("true")));
        assert_ne!(again.request_id, first.request_id);
        world.client.call_with("PortfolioService/DetachEntity", detach, &key("other")).await.unwrap();
    }

    async fn a_request_with_faults_does_not_use_the_key_up(world: &World) {
        let refused = world.client.call_with("EntityService/CreateEntity", json!({"entity": {"type": ""}}), &key("k")).await.unwrap_err();
        assert_eq!(refused.code, "validation_failed");
        let created = world.client.call_with("EntityService/CreateEntity", json!({"entity": {"type": "T"}}), &key("k")).await.unwrap();
        assert_eq!(created.header(REPLAYED), None);
    }

    async fn a_refusal_of_what_was_asked_or_of_who_asks_leaves_the_key_free_and_one_of_what_was_found_is_kept(world: &World) {
        world.portfolios(&["p", "full"]).await;
        world.entities(&["e", "in", "held"]).await;
        world.attach("full", "in").await.unwrap();
        let held = json!({"entity_id": "held", "reason": "audit"});
        world.call("EntityService/PlaceHold", held).await.unwrap();
        let policy = json!({"policy": {"max_grace_period": "60s"}, "update_mask": "maxGracePeriod"});
        world.call("RemovalService/UpdateRemovalPolicy", policy).await.unwrap();
        let writer = world.client("acme", "test", &["holds:release", "entities:delete", "entities:read"]);
        let no_id = "0190a1b2-0000-7000-8000-000000000001";
        let select = |filter: &str| json!({"spec": {"objects": {"filter": filter}}});
        let cases = [
            (&world.client, "OffboardingService/RequestOffboarding", json!({"entity_id": "e", "grace_period": "3600s"}), "validation_failed", 0),
            (&world.client, "BulkDeleteService/StartBulkDelete", select("equals(attributes.A"), "invalid_filter", 0),
            (&writer, "EntityService/ReleaseHold", json!({"entity_id": "held"}), "permission_denied", 0),
            (&writer, "BulkDeleteService/StartBulkDelete", json!({"mode": "hard", "uris": ["e"]}), "permission_denied", 0),
            (&world.client, "OffboardingService/CancelOffboardingRequest", json!({"offboarding_request_id": "none"}), "not_found", 0),
            (&world.client, "BulkDeleteService/StopTask", json!({"tenant": "other", "task_id": no_id}), "not_found", 0),
            (&world.client, "OffboardingService/CancelOffboardingRequest", json!({"offboarding_request_id": no_id}), "not_found", 1),
            (&world.client, "EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T"}}), "already_exists", 1),
            (&world.client, "PortfolioService/DetachEntity", json!({"portfolio_id": "p", "entity_id": "in"}), "state_conflict", 1),
            (&world.client, "PortfolioService/DeletePortfolio", json!({"portfolio_id": "full"}), "portfolio_not_empty", 1),
            (&world.client, "RemovalService/RemoveEntity", json!({"entity_id": "held"}), "invalid_state_transition", 1),
            (&world.client, "BulkDeleteService/StartBulkDelete", json!({"uris": ["e"], "expected_count": 7}), "count_mismatch", 1),
        ];
        for (n, (client, method, request, code, kept)) in cases.into_iter().enumerate() {
            let key = format!("k{n}");
            for replayed in [false, true] {
                let refused = client.call_with(method, request.clone(), &[("idempotency-key", &key)]).await.unwrap_err();
                let reported_again = refused.header(REPLAYED) == Some("true");
                assert_eq!((refused.code.as_str(), reported_again), (code, replayed && kept == 1), "{method} {request}");
            }
            assert_eq!(world.database.records_under(&key), kept, "{method} {code}");
        }
    }

    async fn keys_belong_to_the_key_of_the_caller(world: &World) {
        let create = json!({"entity": {"entity_id": "e", "type": "T"}});
        world.client.call_with("EntityService/CreateEntity", create.clone(), &key("k")).await.unwrap();
        for (org, mode) in [("acme", "live"), ("other", "test")] {
            let stranger = world.client(org, mode, SCOPES);
            let created = stranger.call_with("EntityService/CreateEntity", create.clone(), &key("k")).await.unwrap();
            assert_eq!(created.header(REPLAYED), None, "{org} {mode}");
        }
        let colleague = world.client("acme", "test", SCOPES);
        let taken = colleague.call_with("EntityService/CreateEntity", create, &key("k")).await.unwrap_err();
        assert_eq!(taken.code, "already_exists");
    }

    async fn a_key_that_is_none_is_refused(world: &World) {
        for bad in ["x".repeat(256), "ta\tb".to_owned()] {
            let refused = world.client.call_with("EntityService/CreateEntity", json!({"entity": {"type": "T"}}), &key(&bad)).await.unwrap_err();
            let faults: Vec<_> = refused.faults.iter().map(|fault| fault.field.to_ascii_lowercase().replace(['_', '-'], "")).collect();
            assert_eq!((refused.code.as_str(), faults), ("validation_failed", vec!["idempotencykey".to_owned()]));
        }
        assert_eq!(world.database.rows("entity"), 0);
        // Calls that change nothing take no notice of it.
        world.portfolios(&["p"]).await;
        let read = world.client.call_with("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}), &key("k")).await.unwrap();
        assert_eq!(read.header(REPLAYED), None);
        assert_eq!(world.database.rows("idempotency_key"), 0);
    }

    async fn after_a_day_the_key_is_free_again_and_its_record_goes(world: &World) {
        let create = json!({"entity": {"type": "T"}});
        world.client.call_with("EntityService/CreateEntity", create.clone(), &key("k")).await.unwrap();
        world.database.sql("UPDATE idempotency_key SET created_at = now() - interval '24 hours 1 second'");
        let created = world.client.call_with("EntityService/CreateEntity", create.clone(), &key("k")).await.unwrap();
        assert_eq!(created.header(REPLAYED), None);
        assert_eq!(world.database.rows("entity"), 2);
        let again = world.client.call_with("EntityService/CreateEntity", create, &key("k")).await.unwrap();
        assert_eq!((again.header(REPLAYED), &again.json), (Some("true"), &created.json));

        world.database.sql("UPDATE idempotency_key SET created_at = now() - interval '24 hours 1 second'");
        world.database.sql(
            "INSERT INTO idempotency_key (realm_id, api_key_id, key, method, request_sha256, answer, created_at)
             SELECT 1, gen_random_uuid(), 'k' || n, '/m', sha256('x'), 'x', now() - interval '1 day' * (n % 3) FROM generate_series(1, 6000) n",
        );
        // A server checks when it starts, and then every minute.
        let _server = Server::start_with(&world.database, &[], &[]).await;
        until("the old records are gone", || world.database.rows("idempotency_key") == 2000).await;
    }

    async fn of_64_callers_with_one_key_one_has_an_effect_and_all_one_answer(world: &World) {
        let second = Server::start_with(&world.database, &[], &[]).await;
        let servers = [&world.server, &second];
        let callers: Vec<Client> = (0..64).map(|n| Client::new(servers[n % 2], &world.key, world.protocol)).collect();
        for round in 0..5 {
            let name = format!("round {round}");
            let create = json!({"entity": {"type": name}});
            let headers = key(&name);
            let answers = join_all(callers.iter().map(|caller| caller.call_with("EntityService/CreateEntity", create.clone(), &headers))).await;
            let answers: Vec<Answer> = answers.into_iter().map(|answer| answer.unwrap_or_else(|failure| panic!("{failure:#?}"))).collect();
            let ids: HashSet<&str> = answers.iter().map(|answer| answer.json["id"].as_str().unwrap()).collect();
            assert_eq!(ids.len(), 1);
            assert!(answers.iter().all(|answer| answer.json == answers[0].json && answer.http == answers[0].http));
            assert_eq!(answers.iter().filter(|answer| answer.header(REPLAYED).is_none()).count(), 1);
            assert_eq!(world.database.entities_of(&name), 1);
        }
    }

    async fn a_call_whose_first_sending_is_under_way_waits_for_it(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["e"]).await;
        // Somebody holds the entity, so the first call cannot end.
        let mut holder = world.database.connection();
        holder.batch_execute("BEGIN; SELECT 1 FROM entity WHERE id = 'e' FOR UPDATE").unwrap();
        let attach = json!({"portfolio_id": "p", "entity_id": "e"});
        let headers = key("k");
        let second = Server::start_with(&world.database, &[], &[]).await;
        let elsewhere = Client::new(&second, &world.key, world.protocol);
        let send = |client: Client, attach: Value| async move { client.call_with("PortfolioService/AttachEntity", attach, &key("k")).await };
        let first = tokio::spawn(send(world.client.clone(), attach.clone()));
        until("the first call waits", || world.database.waiting_for_locks() >= 1).await;
        let repeats = [tokio::spawn(send(world.client.clone(), attach.clone())), tokio::spawn(send(elsewhere, attach.clone()))];
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!first.is_finished() && repeats.iter().all(|repeat| !repeat.is_finished()));
        holder.batch_execute("COMMIT").unwrap();
        let first = first.await.unwrap().unwrap();
        assert_eq!(first.header(REPLAYED), None);
        for repeat in repeats {
            let repeat = repeat.await.unwrap().unwrap();
            assert_eq!((repeat.header(REPLAYED), &repeat.json), (Some("true"), &first.json));
        }
        let other = world.client.call_with("PortfolioService/DetachEntity", attach, &headers).await.unwrap_err();
        assert_eq!(other.code, "idempotency_key_reused");
    }
}

scenario! {
    async fn every_change_takes_effect_once(world: &World) {
        let examples = world.given_examples().await;
        let tasks = world.database.rows("bulk_delete");
        // An import has records of its own; see the tests of imports.
        for rpc in rpcs().into_iter().filter(|rpc| !rpc.only_reads() && !rpc.takes_a_stream()) {
            let (method, request) = (rpc.name.as_str(), examples.of(&rpc));
            let mut first = world.client.call_with(method, request.clone(), &key(method)).await.unwrap_or_else(|failure| panic!("{method}: {failure:#?}"));
            assert_eq!(first.header(REPLAYED), None, "{method}");
            // A secret is shown once.
            if let Some(secret) = first.json.get_mut("secret") {
                assert!(secret.take().is_string(), "{method}");
            }
            let scheduled = |events: String| events.lines().filter(|line| !line.starts_with("bulk_delete.") && !line.starts_with("attribute_index.ready") && !line.contains("offboarded") && !line.contains("entity_detached")).count();
            let before = scheduled(events(&world.database));
            let again = world.client.call_with(method, request, &key(method)).await.unwrap_or_else(|failure| panic!("{method}: {failure:#?}"));
            assert_eq!(again.header(REPLAYED), Some("true"), "{method}");
            assert_eq!((&again.json, again.http, again.header("location")), (&first.json, first.http, first.header("location")), "{method}");
            assert_eq!(scheduled(events(&world.database)), before, "{method}");
        }
        assert_eq!(world.database.rows("bulk_delete"), tasks + 2, "one that was started and one check");
    }

    /// So nothing that changes something is called as if it only read.
    async fn what_only_reads_changes_nothing_and_takes_no_notice_of_a_key(world: &World) {
        let examples = world.given_examples().await;
        for attribute in ["kept", "known"] {
            world.call_until("AttributeIndexService/GetAttributeIndex", json!({"attribute": attribute}), |index| index["state"] == "ready").await;
        }
        let before = world.database.contents();
        for rpc in rpcs().into_iter().filter(Rpc::only_reads) {
            let method = rpc.name.as_str();
            for _ in 0..2 {
                let answer = world.client.call_any(&rpc, examples.of(&rpc), &key(method)).await.unwrap_or_else(|failure| panic!("{method}: {failure:#?}"));
                assert_eq!(answer.header(REPLAYED), None, "{method}");
            }
            assert_eq!(world.database.contents(), before, "{method}");
        }
    }
}

/// `kill -9` when the effect is committed and nobody has heard of it yet: the database's answer to COMMIT never reaches the service.
#[tokio::test]
async fn a_service_that_is_killed_between_commit_and_answer_has_answered() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let database = database().await;
        let proxy = Proxy::open(&database).await;
        let secret = Key::create(&database, "acme", "test", SCOPES);
        let mut doomed = Server::start_on(&proxy.url, &[], &[]).await;
        let client = Client::new(&doomed, &secret, protocol);
        let create = json!({"entity": {"type": "T"}});
        client
            .call("EntityService/CreateEntity", json!({"entity": {"type": "warm"}}))
            .await
            .unwrap();

        proxy.set(Way::SwallowsCommits);
        let call = tokio::spawn({
            let (client, create) = (client.clone(), create.clone());
            async move { client.call_with("EntityService/CreateEntity", create, &key("k")).await }
        });
        until("the effect is committed", || database.entities_of("T") == 1).await;
        assert!(!call.is_finished());
        doomed.kill();
        call.abort();
        let stored = database.id_of_type("T").unwrap();

        let next = Server::start_with(&database, &[], &[]).await;
        let answer = Client::new(&next, &secret, protocol)
            .call_with("EntityService/CreateEntity", create, &key("k"))
            .await
            .unwrap();
        assert_eq!(
            (answer.header(REPLAYED), answer.json["id"].as_str()),
            (Some("true"), Some(stored.as_str()))
        );
        assert_eq!(database.entities_of("T"), 1);
        assert_eq!(database.events_of("entity.created"), 2);
    }
}
