//! Dependents: they are put, read, listed and removed, and each time the entity's version is raised.

use crate::kit::*;

async fn create(world: &World, dependents: Value) {
    world
        .call(
            "EntityService/CreateEntity",
            json!({"entity": {"entity_id": "e", "type": "T", "dependents": dependents}}),
        )
        .await
        .unwrap();
}

fn key(kind: &str, id: &str) -> Value {
    json!({"entity_id": "e", "kind": kind, "dependent_id": id})
}

async fn put(world: &World, kind: &str, id: &str, data: Value) -> Answer {
    let mut request = key(kind, id);
    request["data"] = data;
    world
        .call("EntityService/PutDependent", request)
        .await
        .unwrap_or_else(|failure| panic!("{failure:#?}"))
}

async fn version(world: &World) -> i64 {
    world
        .call("EntityService/GetEntity", json!({"entity_id": "e"}))
        .await
        .unwrap()
        .get("version")
        .as_i64()
        .unwrap()
}

/// The events about dependents, oldest first: `act kind id version`.
fn reported(database: &Database) -> Vec<String> {
    let query = "SELECT string_agg(concat_ws(' ', data #>> '{dependent,act}', data #>> '{dependent,kind}', data #>> '{dependent,id}', data ->> 'version'), ',' ORDER BY seq)
         FROM event WHERE type = 'entity.updated' AND subjects = ARRAY['e']";
    database.text(query).unwrap_or_default().split(',').map(str::to_owned).collect()
}

/// Every page of a list, as `kind/id`.
async fn all(world: &World, mut request: Value) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let page = world.call("EntityService/ListDependents", request.clone()).await.unwrap();
        for dependent in page.get("dependents").as_array().unwrap() {
            seen.push(format!(
                "{}/{}",
                dependent["kind"].as_str().unwrap(),
                dependent["id"].as_str().unwrap()
            ));
        }
        request["page_token"] = page.get("next_page_token").clone();
        if request["page_token"] == "" {
            return seen;
        }
    }
}

scenario! {
    async fn a_dependent_is_put_replaced_and_removed_and_the_entity_steps_each_time(world: &World) {
        create(world, json!([])).await;
        let created = put(world, "assessment", "a1", json!({"score": 3})).await;
        assert_seen!("put", created);
        assert_eq!(created.get("updated_at"), created.get("created_at"));
        if world.protocol == Protocol::Rest {
            assert_eq!((created.http, created.header("location")), (Some(201), Some("/v1/entities/e/dependents/assessment/a1")));
        }
        assert_eq!(world.call("EntityService/GetDependent", key("assessment", "a1")).await.unwrap().json, created.json);
        assert_eq!(version(world).await, 2);

        let replaced = put(world, "assessment", "a1", json!({"grade": "A"})).await;
        assert!(replaced.http.is_none_or(|http| http == 200), "{replaced:#?}");
        assert_seen!("put_with_all_of_the_data_replaced", replaced);
        assert_eq!(replaced.get("created_at"), created.get("created_at"));
        assert_eq!(version(world).await, 3);

        let unchanged = put(world, "assessment", "a1", json!({"grade": "A"})).await;
        assert_eq!((unchanged.json, version(world).await), (replaced.json, 3));

        let removed = world.call("EntityService/DeleteDependent", key("assessment", "a1")).await.unwrap();
        assert!(removed.http.is_none_or(|http| http == 204), "{removed:#?}");
        assert_eq!((removed.json, version(world).await), (json!({}), 4));
        for method in ["EntityService/GetDependent", "EntityService/DeleteDependent"] {
            let missing = world.call(method, key("assessment", "a1")).await.expect_err(method);
            assert_seen!("missing", missing);
            assert_eq!(missing.http.unwrap_or(404), 404);
        }
        let expected = ["created assessment a1 2", "replaced assessment a1 3", "deleted assessment a1 4"];
        assert_eq!(reported(&world.database), expected);
    }

    async fn data_may_be_left_out_and_any_word_is_a_kind(world: &World) {
        create(world, json!([])).await;
        let put = world.call("EntityService/PutDependent", key("z9_", "~.-_")).await.unwrap();
        assert_eq!(put.get("data"), &json!({}));
        for kind in ["assessment", "task", "data_override", "component", "crosswalk"] {
            world.call("EntityService/PutDependent", key(kind, "x")).await.unwrap();
        }
        assert_eq!(world.database.rows("dependent"), 6);
    }

    async fn every_fault_of_a_dependent_is_reported_at_once(world: &World) {
        create(world, json!([])).await;
        let faulty = json!({"entity_id": "e!", "kind": "Task", "dependent_id": "a b", "data": {"nul": "\u{0}"}});
        let refused = world.call("EntityService/PutDependent", faulty).await.unwrap_err();
        let fields: Vec<_> = refused.faults.iter().map(|fault| fault.field.as_str()).collect();
        // By REST the place within an object is known, before the service reads the rest.
        let expected = match world.protocol {
            Protocol::Rest => ["data.nul", "entity_id", "kind", "dependent_id"],
            Protocol::Grpc => ["entity_id", "kind", "dependent_id", "data"],
        };
        assert_eq!((refused.code.as_str(), fields.as_slice()), ("validation_failed", expected.as_slice()));
        let large = json!({"entity_id": "e", "kind": "task", "dependent_id": "t", "data": {"a": "x".repeat(1 << 20)}});
        assert_eq!(world.call("EntityService/PutDependent", large).await.unwrap_err().faults[0].field, "data");
        let refused = world.call("EntityService/ListDependents", json!({"entity_id": "e", "kind": "T", "page_size": -1})).await.unwrap_err();
        let fields: Vec<_> = refused.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["kind", "page_size"]);
        assert_eq!((world.database.rows("dependent"), version(world).await), (0, 1));
    }

    async fn dependents_are_listed_in_order_and_by_kind(world: &World) {
        let dependents: Vec<_> = ["task", "assessment", "task_x", "a"].iter().flat_map(|kind| (0..3).map(move |n| json!({"kind": kind, "id": format!("{n}")}))).collect();
        create(world, json!(dependents)).await;
        world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "f", "type": "T", "dependents": [{"kind": "task"}]}})).await.unwrap();
        let expected = [
            "a/0", "a/1", "a/2", "assessment/0", "assessment/1", "assessment/2", "task/0", "task/1", "task/2", "task_x/0", "task_x/1", "task_x/2",
        ];
        for size in [0, 1, 5, 12] {
            assert_eq!(all(world, json!({"entity_id": "e", "page_size": size})).await, expected, "by {size}");
            assert_eq!(all(world, json!({"entity_id": "e", "kind": "task", "page_size": size})).await, expected[6..9], "by {size}");
        }
        assert_eq!(all(world, json!({"entity_id": "e", "kind": "other"})).await, Vec::<String>::new());

        let page = world.call("EntityService/ListDependents", json!({"entity_id": "e", "page_size": 1})).await.unwrap();
        let token = page.get("next_page_token");
        for other in [json!({"entity_id": "f", "page_token": token}), json!({"entity_id": "e", "kind": "task", "page_token": token})] {
            let refused = world.call("EntityService/ListDependents", other).await.unwrap_err();
            assert_eq!(refused.faults[0].field, "page_token");
        }
    }

    async fn nobody_learns_whether_the_dependent_or_its_entity_is_missing(world: &World) {
        create(world, json!([{"kind": "task", "id": "t"}])).await;
        world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "hidden", "type": "T", "dependents": [{"kind": "task", "id": "t"}]}})).await.unwrap();
        world.database.sql("UPDATE entity SET deleted_at = now(), deleted_by = gen_random_uuid() WHERE id = 'hidden'");
        for method in ["EntityService/GetDependent", "EntityService/DeleteDependent"] {
            let of = async |entity: &str, id: &str| {
                let refused = world.call(method, json!({"entity_id": entity, "kind": "task", "dependent_id": id})).await.expect_err(method);
                assert_eq!(refused.code, "not_found");
                refused.reported().to_string()
            };
            let (no_dependent, never, deleted) = (of("e", "none").await, of("never", "none").await, of("hidden", "t").await);
            assert_eq!((&never, deleted.replace("`t`", "`none`")), (&no_dependent, no_dependent.clone()));
        }
        for (method, more) in [("EntityService/PutDependent", json!({"kind": "task", "dependent_id": "n"})), ("EntityService/ListDependents", json!({}))] {
            let of = async |entity: &str| {
                let mut request = more.clone();
                request["entity_id"] = json!(entity);
                let refused = world.call(method, request).await.expect_err(method);
                assert_eq!(refused.code, "not_found");
                refused.reported().to_string().replace(entity, "it")
            };
            assert_eq!(of("never").await, of("hidden").await, "{method}");
        }
        assert_eq!(world.database.rows("dependent"), 2);
    }

    async fn ten_thousand_things_hang_on_an_entity_and_no_more(world: &World) {
        create(world, json!([])).await;
        world.database.sql("INSERT INTO dependent (realm_id, entity_id, kind, id) SELECT realm_id, 'e', 'note', n::text FROM entity, generate_series(1, 9999) n");
        put(world, "task", "last", json!({})).await;
        let refused = world.call("EntityService/PutDependent", key("task", "one-more")).await.unwrap_err();
        assert_eq!((refused.code.as_str(), &refused.members["limit"], refused.http.unwrap_or(409)), ("limit_reached", &json!(10_000), 409));
        put(world, "task", "last", json!({"replaced": true})).await;
        world.call("EntityService/DeleteDependent", key("note", "1")).await.unwrap();
        put(world, "task", "one-more", json!({})).await;
        assert_eq!(world.database.rows("dependent"), 10_000);
    }

    async fn a_dependent_is_put_or_removed_once_under_one_key(world: &World) {
        create(world, json!([])).await;
        for method in ["EntityService/PutDependent", "EntityService/DeleteDependent"] {
            let send = async || world.client.call_with(method, key("task", "t"), &[("idempotency-key", method)]).await;
            let first = send().await.unwrap();
            let again = send().await.unwrap();
            assert_eq!((first.http, first.json, again.header("idempotent-replayed")), (again.http, again.json.clone(), Some("true")), "{method}");
        }
        assert_eq!(version(world).await, 3);
    }
}
