//! Changes of one entity: updates, onboarding, holds.

use std::collections::BTreeSet;

use crate::kit::*;

const COMPONENT: &str = "0190a1b2-0000-7000-8000-000000000001";

/// The path of a fault in an update, as the listener spells it: by REST the update is the body itself.
fn at(world: &World, path: &str) -> String {
    match world.protocol {
        Protocol::Grpc => format!("entity.{path}"),
        Protocol::Rest => path.to_owned(),
    }
}

async fn create(world: &World, id: &str, more: Value) {
    let mut entity = json!({"entity_id": id, "type": "T"});
    entity.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
}

async fn update(world: &World, changes: Value) -> Result<Answer, Failure> {
    world.call("EntityService/UpdateEntity", json!({"entity_id": "e", "entity": changes})).await
}

async fn update_masked(world: &World, changes: Value, mask: &str) -> Result<Answer, Failure> {
    world
        .call(
            "EntityService/UpdateEntity",
            json!({"entity_id": "e", "entity": changes, "update_mask": mask}),
        )
        .await
}

async fn get(world: &World) -> Value {
    world.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap().json
}

/// The events about `e` after its creation: type and data, oldest first.
fn reported(database: &Database) -> Value {
    let query = "SELECT coalesce(jsonb_agg(jsonb_build_array(type, data) ORDER BY seq), '[]') FROM event WHERE type <> 'entity.created' AND 'e' = ANY(subjects)";
    serde_json::from_str(&database.text(query).unwrap()).unwrap()
}

fn refused_state(failure: &Failure) -> (&str, &Value, &Value) {
    assert!(failure.http.is_none_or(|http| http == 409), "{failure:#?}");
    (
        failure.code.as_str(),
        &failure.members["current_state"],
        &failure.members["attempted_transition"],
    )
}

scenario! {
    async fn a_mask_of_a_star_replaces_and_none_is_of_what_is_given(world: &World) {
        create(world, "e", json!({"attributes": {"a": 1, "b": 2}, "components": [COMPONENT], "crosswalks": [{"system": "CRM"}]})).await;
        let replaced = update_masked(world, json!({"type": "Other", "attributes": {"b": 3}}), "*").await.unwrap();
        assert_seen!("replaced", replaced);
        assert_eq!(world.database.crosswalks().as_deref(), Some("[]"));
        let refused = update_masked(world, json!({"attributes": {}}), "*").await.unwrap_err();
        assert_eq!((refused.faults.len(), refused.faults[0].code.as_str()), (1, "required"), "a type is never removed: {refused:?}");

        let policy = |policy: Value| world.call("RemovalService/UpdateRemovalPolicy", json!({"policy": policy}));
        policy(json!({"max_grace_period": "7200s", "hard_delete": {"max_objects": 5, "expected_count": true}})).await.unwrap();
        let reported = policy(json!({"default_grace_period": "60s", "hard_delete": {"max_objects": 7}})).await.unwrap();
        assert_seen!("policy_of_what_is_given", reported);
        let all = json!({"policy": {"default_grace_period": "30s"}, "update_mask": "*"});
        let reported = world.call("RemovalService/UpdateRemovalPolicy", all).await.unwrap();
        assert_seen!("policy_of_a_star", reported);
        for (method, request) in [
            ("EntityService/UpdateEntity", json!({"entity_id": "e", "entity": {"type": "T"}, "update_mask": "nope"})),
            ("PortfolioService/UpdatePortfolio", json!({"portfolio_id": "p", "name": "n", "update_mask": "nope"})),
            ("RemovalService/UpdateRemovalPolicy", json!({"policy": {"max_grace_period": "60s"}, "update_mask": "nope"})),
        ] {
            let refused = world.call(method, request).await.unwrap_err();
            let faults: Vec<_> = refused.faults.iter().map(|fault| (fault.field.as_str(), fault.code.as_str())).collect();
            assert_eq!(faults, [("update_mask", "unknown_field")], "{method}: {refused:?}");
        }
    }

    async fn an_update_changes_what_it_names_and_reports_of_it(world: &World) {
        create(world, "e", json!({"attributes": {"a": 1}, "crosswalks": [{"system": "CRM"}]})).await;
        let before = get(world).await;
        let updated = update(world, json!({"type": "Other", "components": [COMPONENT]})).await.unwrap();
        assert_eq!(updated.json, get(world).await, "the answer is the entity as it is now");
        let mut expected = before.clone();
        expected["type"] = json!("Other");
        expected["components"] = json!([COMPONENT]);
        expected["version"] = json!(2);
        expected["updated_at"] = updated.json["updated_at"].clone();
        assert_eq!(updated.json, expected, "the rest is as it was");
        assert!(updated.json["updated_at"].as_i64() >= before["updated_at"].as_i64());

        update(world, json!({"crosswalks": [{"system": "ERP", "n": 1}]})).await.unwrap();
        assert_eq!(world.database.crosswalks().as_deref(), Some(r#"[{"n": 1, "system": "ERP"}]"#));
        let events = [
            json!(["entity.updated", {"version": 2, "fields": ["type", "components"]}]),
            json!(["entity.updated", {"version": 3, "fields": ["crosswalks"]}]),
        ];
        assert_eq!(reported(&world.database), json!(events));
    }

    async fn attributes_are_merged_replaced_or_cleared(world: &World) {
        create(world, "e", json!({"attributes": {"Name": {"First": "Ada", "Last": "L", "Titles": ["Lady"]}, "Kept": null, "Old": 1}})).await;
        let patch = json!({"Name": {"Last": "Lovelace", "Titles": ["Countess"], "First": null}, "Old": null, "New": {"a": {"gone": null}}});
        let updated = update(world, json!({"attributes": patch})).await.unwrap();
        let merged = json!({"Name": {"Last": "Lovelace", "Titles": ["Countess"]}, "Kept": null, "New": {"a": {}}});
        assert_eq!(updated.get("attributes"), &merged);
        assert_eq!(get(world).await["attributes"], merged);

        let replaced = update(world, json!({"attributes": {"Only": {"x": null}}, "replace_attributes": true})).await.unwrap();
        assert_eq!(replaced.get("attributes"), &json!({"Only": {"x": null}}), "taken as they are");
        let cleared = update_masked(world, json!({}), "attributes").await.unwrap();
        assert_seen!("cleared", cleared);
    }

    async fn the_mask_says_what_counts_and_can_empty_a_list(world: &World) {
        create(world, "e", json!({"components": [COMPONENT], "crosswalks": [{}]})).await;
        let updated = update_masked(world, json!({"type": "Other", "attributes": {"a": 1}}), "attributes").await.unwrap();
        assert_seen!("updated_by_a_mask_without_the_type", updated);
        let updated = update_masked(world, json!({}), "components,crosswalks").await.unwrap();
        assert_seen!("emptied", updated);
        assert_eq!(world.database.crosswalks().as_deref(), Some("[]"));
    }

    async fn an_update_that_changes_nothing_leaves_no_trace(world: &World) {
        create(world, "e", json!({"attributes": {"a": {"b": 1.5}}, "components": [COMPONENT], "crosswalks": [{"n": 1}]})).await;
        let before = get(world).await;
        let same = json!({"type": "T", "attributes": {"a": {"b": 1.5}, "gone": null}, "components": [COMPONENT], "crosswalks": [{"n": 1}]});
        assert_eq!(update(world, same).await.unwrap().json, before);
        assert_eq!((get(world).await, reported(&world.database)), (before, json!([])));
    }

    async fn every_fault_of_an_update_is_reported_and_nothing_changes(world: &World) {
        create(world, "e", json!({})).await;
        let faulty = json!({
            "type": "t".repeat(257), "attributes": {"a": "\u{0}"}, "components": [COMPONENT, "x"], "crosswalks": [{}, {"\u{0}": 1}], "expected_version": 0,
        });
        let refused = update(world, faulty).await.unwrap_err();
        let fields: BTreeSet<_> = refused.faults.iter().map(|fault| fault.field.clone()).collect();
        // By REST the place within an object is known.
        let (attribute, crosswalk) = if world.protocol == Protocol::Rest { ("attributes.a", "crosswalks[1].\u{fffd}") } else { ("attributes", "crosswalks[1]") };
        let expected = ["type", attribute, "components[1]", crosswalk, "expected_version"];
        assert_eq!((refused.code.as_str(), fields), ("validation_failed", expected.iter().map(|path| at(world, path)).collect()));

        let refused = update_masked(world, json!({"type": "Other"}), "type,state,version").await.unwrap_err();
        let fields: Vec<_> = refused.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["update_mask", "update_mask"], "{refused:#?}");
        if world.protocol == Protocol::Rest {
            let refused = update_masked(world, json!({"attributes": {"SSN": 1}}), "attributes.SSN,attributes.lastName").await.unwrap_err();
            let reported = refused.faults.iter().map(|fault| fault.description.as_str()).collect::<String>();
            assert!(reported.contains("`attributes.SSN`") && reported.contains("`attributes.lastName`"), "as it was sent: {refused:#?}");
        }
        for nothing in [json!({}), json!({"expected_version": 1})] {
            let refused = update(world, nothing).await.unwrap_err();
            assert_eq!((refused.code.as_str(), refused.faults.len()), ("validation_failed", 1), "{refused:#?}");
            assert!(refused.faults[0].description.contains("`crosswalks`"), "it says what is possible: {refused:#?}");
        }
        let refused = update(world, json!({"type": "Other", "replace_attributes": true})).await.unwrap_err();
        assert_eq!(refused.faults[0].field, at(world, "replace_attributes"));
        assert_eq!((get(world).await["version"].clone(), reported(&world.database)), (json!(1), json!([])));
    }

    async fn attributes_that_grow_too_large_are_refused(world: &World) {
        create(world, "e", json!({"attributes": {"first": "x".repeat(600_000)}})).await;
        let refused = update(world, json!({"attributes": {"second": "x".repeat(600_000)}})).await.unwrap_err();
        assert_eq!((refused.code.as_str(), refused.faults[0].field.clone()), ("validation_failed", at(world, "attributes")));
        assert_eq!(get(world).await["version"], 1);
        update(world, json!({"attributes": {"first": null, "second": "x".repeat(600_000)}})).await.unwrap();
    }

    async fn an_update_of_another_version_is_refused_with_both(world: &World) {
        create(world, "e", json!({})).await;
        update(world, json!({"type": "Other", "expected_version": 1})).await.unwrap();
        let refused = update(world, json!({"type": "Third", "expected_version": 1})).await.unwrap_err();
        assert_seen!("refused_of_another_version", refused);
        assert_eq!(refused.http.unwrap_or(409), 409);
        assert_eq!(get(world).await["type"], "Other");
        update(world, json!({"type": "Third", "expected_version": 2})).await.unwrap();
    }

    async fn an_entity_that_is_leaving_cannot_be_changed(world: &World) {
        create(world, "e", json!({"dependents": [{"kind": "task", "id": "t"}]})).await;
        let request = json!({"entity_id": "e", "grace_period": "3600s"});
        world.call("OffboardingService/RequestOffboarding", request).await.unwrap();
        let before = get(world).await;
        let task = json!({"entity_id": "e", "kind": "task", "dependent_id": "t"});
        let calls = [
            ("EntityService/UpdateEntity", json!({"entity_id": "e", "entity": {"type": "Other"}}), "update"),
            ("EntityService/CompleteOnboarding", json!({"entity_id": "e"}), "complete_onboarding"),
            ("EntityService/PlaceHold", json!({"entity_id": "e", "reason": "audit"}), "place_hold"),
            ("EntityService/ReleaseHold", json!({"entity_id": "e"}), "release_hold"),
            ("EntityService/PutDependent", json!({"entity_id": "e", "kind": "task", "dependent_id": "new", "data": {}}), "update"),
            ("EntityService/DeleteDependent", task, "update"),
        ];
        for (method, request, attempted) in calls {
            let refused = world.call(method, request).await.expect_err(method);
            let name = method.split_once('/').unwrap().1;
            assert_seen!(format!("refused_{name}_of_what_is_leaving"), refused);
            assert_eq!(refused_state(&refused), ("invalid_state_transition", &json!("offboarding"), &json!(attempted)), "{method}");
        }
        assert_eq!(get(world).await, before);
        assert_eq!(world.database.rows("dependent"), 1);
    }

    async fn onboarding_is_completed_once(world: &World) {
        create(world, "e", json!({"state": "onboarding"})).await;
        let onboarded = world.call("EntityService/CompleteOnboarding", json!({"entity_id": "e"})).await.unwrap();
        assert_seen!("onboarded", onboarded);
        assert_eq!(onboarded.json, get(world).await);
        let again = world.call("EntityService/CompleteOnboarding", json!({"entity_id": "e"})).await.unwrap_err();
        assert_seen!("refused_as_onboarded_already", again);
        assert_eq!(again.http.unwrap_or(409), 409);
        assert_eq!(reported(&world.database), json!([["entity.onboarded", {"version": 2}]]));
        world.call("RemovalService/RemoveEntity", json!({"entity_id": "e"})).await.unwrap();
    }

    async fn a_hold_keeps_an_entity_until_it_is_released(world: &World) {
        create(world, "e", json!({})).await;
        let held = world.call("EntityService/PlaceHold", json!({"entity_id": "e", "reason": "An audit."})).await.unwrap();
        let hold = held.get("hold");
        assert_seen!("held", held);
        assert_eq!(&hold["placed_at"], held.get("updated_at"));
        assert_eq!(hold["placed_by"], world.database.principal().unwrap());
        assert_eq!(held.json, get(world).await);

        for method in ["RemovalService/RemoveEntity", "OffboardingService/RequestOffboarding"] {
            let refused = world.call(method, json!({"entity_id": "e"})).await.expect_err(method);
            assert_seen!("refused_to_offboard_what_is_held", refused);
            assert_eq!(refused.http.unwrap_or(409), 409);
        }
        let second = world.call("EntityService/PlaceHold", json!({"entity_id": "e", "reason": "Another."})).await.unwrap_err();
        assert_seen!("refused_to_hold_what_is_held", second);
        assert_eq!(second.http.unwrap_or(409), 409);
        update(world, json!({"type": "Other"})).await.unwrap();
        assert_eq!(&get(world).await["hold"], hold, "the first one stays");

        let released = world.call("EntityService/ReleaseHold", json!({"entity_id": "e"})).await.unwrap();
        assert_seen!("released", released);
        let again = world.call("EntityService/ReleaseHold", json!({"entity_id": "e"})).await.unwrap();
        assert_eq!(again.json, released.json, "there is nothing to release");
        let events = [
            json!(["entity.held", {"version": 2}]),
            json!(["entity.updated", {"version": 3, "fields": ["type"]}]),
            json!(["entity.released", {"version": 4}]),
        ];
        assert_eq!(reported(&world.database), json!(events));
        world.call("RemovalService/RemoveEntity", json!({"entity_id": "e"})).await.unwrap();
    }

    async fn a_hold_needs_a_reason_that_fits(world: &World) {
        create(world, "e", json!({})).await;
        for bad in [String::new(), " \n".to_owned(), "x".repeat(1_025), "a\u{0}b".to_owned()] {
            let refused = world.call("EntityService/PlaceHold", json!({"entity_id": "e", "reason": bad})).await.unwrap_err();
            assert_eq!((refused.code.as_str(), refused.faults[0].field.as_str()), ("validation_failed", "reason"), "{bad:?}");
        }
        let reason = "ü".repeat(1_024);
        let held = world.call("EntityService/PlaceHold", json!({"entity_id": "e", "reason": reason})).await.unwrap();
        assert_eq!(held.get("hold.reason"), &json!(reason));
    }

    async fn a_change_is_sent_again_with_its_key_and_takes_effect_once(world: &World) {
        create(world, "e", json!({"state": "onboarding"})).await;
        let calls = [
            ("EntityService/UpdateEntity", json!({"entity_id": "e", "entity": {"type": "Other", "expected_version": 1}})),
            ("EntityService/CompleteOnboarding", json!({"entity_id": "e"})),
            ("EntityService/PlaceHold", json!({"entity_id": "e", "reason": "audit"})),
            ("EntityService/ReleaseHold", json!({"entity_id": "e"})),
        ];
        for (n, (method, request)) in calls.iter().enumerate() {
            let key = format!("key-{n}");
            let send = async || world.client.call_with(method, request.clone(), &[("idempotency-key", key.as_str())]).await;
            let first = send().await.unwrap();
            let again = send().await.unwrap();
            assert_eq!((&first.json, again.header("idempotent-replayed")), (&again.json, Some("true")), "{method}");
        }
        assert_eq!(get(world).await["version"], 5);
    }
}

#[tokio::test]
async fn by_rest_null_clears_and_the_body_is_flat() {
    let world = World::start(Protocol::Rest).await;
    create(
        &world,
        "e",
        json!({"attributes": {"a": 1}, "components": [COMPONENT], "crosswalks": [{"n": 1}]}),
    )
    .await;
    let bearer = format!("Bearer {}", world.key.secret);
    let patch = async |body: Value| {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        http(world.server.addresses.http, "PATCH", "/v1/entities/e", &headers, body.to_string())
            .await
    };
    let reply = patch(
        json!({"attributes": null, "components": null, "crosswalks": null, "expected_version": 1}),
    )
    .await;
    assert_eq!(
        (reply.status, &reply.json()["attributes"], &reply.json()["components"]),
        (200, &json!({}), &json!([])),
        "{}",
        reply.text()
    );
    assert_eq!(world.database.crosswalks().as_deref(), Some("[]"));
    let document: Value = serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
    for list in ["components", "crosswalks"] {
        let reported = document
            .pointer(&format!("/components/schemas/EntityUpdate/properties/{list}/description"))
            .and_then(Value::as_str);
        assert!(
            reported.is_some_and(|reported| reported.contains("`null`")),
            "the document says what `null` does: {reported:?}"
        );
    }
    let reply = patch(json!({"type": null})).await;
    assert_eq!(
        (reply.status, &reply.json()["errors"][0]["field"]),
        (400, &json!("type")),
        "{}",
        reply.text()
    );
    let reply = patch(json!({"state": "active", "type": "Other"})).await;
    assert_eq!(
        (reply.status, &reply.json()["errors"][0]["code"]),
        (400, &json!("unknown_field")),
        "{}",
        reply.text()
    );
    assert_eq!(get(&world).await["version"], 2);
}
