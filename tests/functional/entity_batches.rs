//! Batches: all of it is done, or nothing, and every reason is reported at once.

use std::collections::BTreeSet;

use crate::entities::events;
use crate::kit::*;

fn new(id: &str) -> Value {
    json!({"entity": {"entity_id": id, "type": "T"}})
}

fn fields(failure: &Failure) -> Vec<(String, String)> {
    failure.faults.iter().map(|fault| (fault.field.clone(), fault.code.clone())).collect()
}

fn ids(answer: &Answer) -> Vec<String> {
    answer
        .get("entities")
        .as_array()
        .unwrap()
        .iter()
        .map(|entity| entity["id"].as_str().unwrap().to_owned())
        .collect()
}

scenario! {
    async fn a_batch_is_created_as_a_whole_and_in_its_order(world: &World) {
        world.call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "Fund"})).await.unwrap();
        let made = json!({"entity": {"type": "T", "state": "onboarding", "attributes": {"n": 1}, "dependents": [{"kind": "task", "id": "t"}]}});
        let member = |id: &str| json!({"entity": {"entity_id": id, "type": "T", "portfolio_id": "p"}});
        let created = world.call("EntityService/BatchCreateEntities", json!({"requests": [member("z"), made, member("a")]})).await.unwrap();
        let entities = created.get("entities").as_array().unwrap();
        assert_seen!("created_as_a_whole", created);
        for entity in entities {
            assert_eq!(&world.call("EntityService/GetEntity", json!({"entity_id": entity["id"]})).await.unwrap().json, entity);
        }
        let portfolio = world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await.unwrap();
        // One step for the batch.
        assert_seen!("portfolio_of_the_batch", portfolio);
        assert_eq!(world.database.rows("dependent"), 1);
        assert_eq!(world.database.subjects_of("entity.created"), 3);
    }

    async fn the_faults_of_every_member_are_reported_and_nothing_is_created(world: &World) {
        let requests = json!([new("a"), {"entity": {"type": "", "dependents": [{"kind": "Task"}]}}, new("a"), {}, new("b c")]);
        let refused = world.call("EntityService/BatchCreateEntities", json!({"requests": requests})).await.unwrap_err();
        assert_seen!("faults_of_every_member", refused);
        for (requests, code) in [(json!([]), "required"), (json!(vec![new(""); 1_001]), "too_many")] {
            let refused = world.call("EntityService/BatchCreateEntities", json!({"requests": requests})).await.unwrap_err();
            assert_eq!(fields(&refused), [("requests".to_owned(), code.to_owned())]);
        }
        assert_eq!(world.database.rows("entity"), 0);
        assert_eq!(events(&world.database), "");
    }

    async fn whatever_stands_in_the_way_of_a_batch_is_named(world: &World) {
        for id in ["a", "b"] {
            world.call("EntityService/CreateEntity", new(id)).await.unwrap();
        }
        let lost = |id: &str| json!({"entity": {"entity_id": id, "type": "T", "portfolio_id": "nowhere"}});
        let batch = json!({"requests": [new("c"), new("b"), lost("d"), new("a"), lost("e")]});
        let refused = world.call("EntityService/BatchCreateEntities", batch).await.unwrap_err();
        assert_seen!("whatever_stands_in_the_way", refused);
        assert_eq!(refused.http.unwrap_or(409), 409);

        let refused = world.call("EntityService/BatchCreateEntities", json!({"requests": [new("c"), lost("d"), lost("e")]})).await.unwrap_err();
        assert_eq!((refused.code.as_str(), refused.http.unwrap_or(404), refused.faults.len()), ("not_found", 404, 2));
        assert_eq!(world.database.rows("entity"), 2);
        assert_eq!(events(&world.database), "entity.created a\nentity.created b");
    }

    async fn a_thousand_are_created_and_read_again_at_once(world: &World) {
        let requests: Vec<Value> = (0..1_000).map(|n| new(&format!("e-{n:04}"))).collect();
        let created = world.call("EntityService/BatchCreateEntities", json!({"requests": requests})).await.unwrap();
        let mut wanted = ids(&created);
        assert_eq!(wanted.len(), 1_000);
        wanted.reverse();
        let read = world.call("EntityService/BatchGetEntities", json!({"entity_ids": wanted})).await.unwrap();
        assert_eq!(ids(&read), wanted, "in the order in which they are asked for");

        let refused = world.call("EntityService/BatchCreateEntities", json!({"requests": requests})).await.unwrap_err();
        assert_eq!(refused.code, "already_exists");
        match world.protocol {
            Protocol::Rest => assert_eq!(refused.faults.len(), 1_000, "every one of them is named"),
            // The trailers of gRPC have little room.
            Protocol::Grpc => {
                let (more, reported) = refused.faults.split_last().unwrap();
                assert!(reported.len() > 20 && reported.iter().all(|fault| fault.code == "already_exists"), "{}", reported.len());
                assert!(more.description.contains(&format!("{} more", 1_000 - reported.len())), "{}", more.description);
            }
        }
    }

    async fn a_batch_is_sent_again_with_its_key_and_takes_effect_once(world: &World) {
        let batch = json!({"requests": [{"entity": {"type": "T"}}, {"entity": {"type": "T"}}]});
        let send = async || world.client.call_with("EntityService/BatchCreateEntities", batch.clone(), &[("idempotency-key", "k")]).await;
        let first = send().await.unwrap();
        let again = send().await.unwrap();
        assert_eq!((first.json, again.header("idempotent-replayed")), (again.json.clone(), Some("true")));
        assert_eq!(world.database.rows("entity"), 2);
    }

    async fn entities_are_read_at_once_or_all_that_are_missing_are_named(world: &World) {
        for id in ["a", "b", "c"] {
            world.call("EntityService/CreateEntity", new(id)).await.unwrap();
        }
        world.database.sql("UPDATE entity SET deleted_at = now(), deleted_by = gen_random_uuid() WHERE id = 'c'");
        let found = world.call("EntityService/BatchGetEntities", json!({"entity_ids": ["b", "a"]})).await.unwrap();
        assert_eq!(ids(&found), ["b", "a"]);

        let missing = world.call("EntityService/BatchGetEntities", json!({"entity_ids": ["b", "c", "a", "never"]})).await.unwrap_err();
        assert_eq!((missing.code.as_str(), missing.http.unwrap_or(404)), ("not_found", 404));
        let expected = ["entity_ids[1]", "entity_ids[3]"].map(|field| (field.to_owned(), "not_found".to_owned()));
        assert_eq!(fields(&missing), expected);
        assert!(missing.faults[0].description.contains("`c`") && missing.faults[1].description.contains("`never`"), "{missing:#?}");

        let faulty = world.call("EntityService/BatchGetEntities", json!({"entity_ids": ["a", "b c", "a", "ü"]})).await.unwrap_err();
        let reported: BTreeSet<_> = fields(&faulty).into_iter().map(|(field, _)| field).collect();
        assert_eq!(reported, ["entity_ids[1]", "entity_ids[2]", "entity_ids[3]"].map(str::to_owned).into());
        for list in [json!([]), json!(vec!["x"; 1_001])] {
            let refused = world.call("EntityService/BatchGetEntities", json!({"entity_ids": list})).await.unwrap_err();
            assert_eq!((refused.code.as_str(), refused.faults.len()), ("validation_failed", 1), "{refused:#?}");
        }
    }

    async fn more_than_one_answer_should_hold_is_not_read_at_once(world: &World) {
        let large = "x".repeat(1_000_000);
        let ids: Vec<String> = (0..20).map(|n| format!("large-{n:02}")).collect();
        for id in &ids {
            let entity = json!({"entity_id": id, "type": "T", "attributes": {"text": large}});
            world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
        }
        let refused = world.call("EntityService/BatchGetEntities", json!({"entity_ids": ids})).await.unwrap_err();
        assert_eq!((refused.code.as_str(), &refused.members["limit_bytes"]), ("payload_too_large", &json!(16 << 20)));

        // A page ends where a client could not take more, and the next continues from there.
        let (mut token, mut seen) = (String::new(), Vec::new());
        loop {
            let page = world.call("EntityService/ListEntities", json!({"page_size": 1_000, "page_token": token})).await.unwrap();
            let part = page.get("entities").as_array().unwrap();
            assert!(part.len() <= 3, "{} large entities on a page", part.len());
            seen.extend(part.iter().map(|entity| entity["id"].as_str().unwrap().to_owned()));
            token = page.get("next_page_token").as_str().unwrap().to_owned();
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, ids);
    }
}

#[tokio::test]
async fn a_list_longer_than_a_url_is_posted() {
    let world = World::start(Protocol::Rest).await;
    let ids: Vec<String> = (0..600).map(|n| format!("{n:0>128}")).collect();
    let requests: Vec<Value> = ids.iter().map(|id| new(id)).collect();
    world.call("EntityService/BatchCreateEntities", json!({"requests": requests})).await.unwrap();
    let bearer = format!("Bearer {}", world.key.secret);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = json!({"entity_ids": ids}).to_string();
    let reply =
        http(world.server.addresses.http, "POST", "/v1/entities:batchGet", &headers, body).await;
    assert_eq!((reply.status, reply.json()["entities"].as_array().map(Vec::len)), (200, Some(600)));
}
