//! The events that are written have the members that the page of events lists.

use std::collections::{BTreeMap, BTreeSet};

use offboard::events::EventType;

use crate::kit::*;

/// Does everything of which events are written at once, and returns them.
async fn all(world: &World) -> Vec<Value> {
    let call = async |method: &str, request: Value| {
        let answer = world.call(method, request.clone()).await;
        answer.unwrap_or_else(|failure| panic!("{method} {request} failed: {failure:#?}"))
    };
    let entity = async |id: &str, state: &str| {
        call(
            "EntityService/CreateEntity",
            json!({"entity": {"entity_id": id, "type": "T", "state": state}}),
        )
        .await;
    };
    call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "P"})).await;
    call("PortfolioService/UpdatePortfolio", json!({"portfolio_id": "p", "name": "Q"})).await;
    for (id, state) in [
        ("new", "onboarding"),
        ("e", "active"),
        ("f", "active"),
        ("g", "active"),
        ("held", "active"),
    ] {
        entity(id, state).await;
    }
    call("EntityService/CompleteOnboarding", json!({"entity_id": "new"})).await;
    call(
        "EntityService/UpdateEntity",
        json!({"entity_id": "e", "entity": {"attributes": {"First name": "Ada"}}}),
    )
    .await;
    call(
        "EntityService/PutDependent",
        json!({"entity_id": "e", "kind": "task", "dependent_id": "t", "data": {}}),
    )
    .await;
    call("EntityService/PlaceHold", json!({"entity_id": "held", "reason": "audit"})).await;
    call("EntityService/ReleaseHold", json!({"entity_id": "held"})).await;
    for id in ["e", "f", "g"] {
        call("PortfolioService/AttachEntity", json!({"portfolio_id": "p", "entity_id": id})).await;
    }
    call("PortfolioService/DetachEntity", json!({"portfolio_id": "p", "entity_id": "e"})).await;
    let request = call(
        "OffboardingService/RequestOffboarding",
        json!({"entity_id": "e", "grace_period": "3600s"}),
    )
    .await;
    call(
        "OffboardingService/CancelOffboardingRequest",
        json!({"offboarding_request_id": request.get("id")}),
    )
    .await;
    let job = call("RemovalService/RemoveEntity", json!({"entity_id": "f"})).await;
    let done = |job: &Value| job["status"] == "succeeded";
    world.call_until("RemovalService/GetRemovalJob", json!({"job_id": job.get("id")}), done).await;
    let task = call(
        "BulkDeleteService/StartBulkDelete",
        json!({"mode": "hard", "uris": ["g"], "max_objects_per_second": 100}),
    )
    .await;
    world
        .call_until("BulkDeleteService/GetTask", json!({"task_id": task.get("id")}), |task| {
            !task["end_time"].is_null()
        })
        .await;
    call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": "'First name'"})).await;
    let ready = |index: &Value| index["state"] == "ready";
    world
        .call_until(
            "AttributeIndexService/GetAttributeIndex",
            json!({"attribute": "'First name'"}),
            ready,
        )
        .await;
    call("AttributeIndexService/DeleteAttributeIndex", json!({"attribute": "'First name'"})).await;
    let policy = json!({
        "default_grace_period": "60s", "mail_domains": ["example.com"], "tombstone_retention": "86400s", "request_retention": "86400s",
        "filter_retention": "86400s", "hard_delete": {"max_objects": 100}, "soft_delete": {"max_objects": 100},
    });
    let update_mask = "defaultGracePeriod,mailDomains,tombstoneRetention,requestRetention,filterRetention,hardDelete,softDelete";
    call(
        "RemovalService/UpdateRemovalPolicy",
        json!({"policy": policy, "update_mask": update_mask}),
    )
    .await;
    call("PortfolioService/DeletePortfolio", json!({"portfolio_id": "p"})).await;
    let key = call("AccessService/CreateKey", json!({"scopes": ["entities:read"]})).await;
    let key_id = key.get("key.id");
    call("AccessService/UpdateKey", json!({"key_id": key_id, "name": "K"})).await;
    call("AccessService/RotateKey", json!({"key_id": key_id, "overlap": "60s"})).await;
    call("AccessService/RevokeKey", json!({"key_id": key_id})).await;
    call("AccessService/UpdateAccessPolicy", json!({"allowed": ["127.0.0.0/8"]})).await;
    let events = call("EventService/ListEvents", json!({"page_size": 1000})).await;
    events.get("events").as_array().unwrap().clone()
}

scenario! {
    async fn events_have_the_members_that_their_page_explains(world: &World) {
        let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for event in all(world).await {
            let members = event["data"].as_object().unwrap().keys().cloned();
            seen.entry(event["type"].as_str().unwrap().to_owned()).or_default().extend(members);
        }
        for (name, members) in &seen {
            let about = EventType::parse(name).unwrap_or_else(|| panic!("{name} is not a type")).about();
            let explained: BTreeSet<String> = about.members.iter().chain(&["principal_id"]).map(|name| (*name).to_owned()).collect();
            assert!(members.is_subset(&explained), "{name} has {members:?}, and {explained:?} are explained");
            // Members that a consistency check alone adds are not among these.
            let missing: Vec<_> = explained.difference(members).filter(|name| *name != "bulk_delete_id").collect();
            assert!(missing.is_empty(), "{name} never has {missing:?}");
        }
        for event in EventType::ALL {
            // Tasks that pause, stop or change hands, and what fails, have tests of their own.
            let is_elsewhere = event.about().subject == "bulk delete" || event.as_str().ends_with("failed");
            assert!(is_elsewhere || seen.contains_key(event.as_str()), "{event} was not written: {:?}", seen.keys());
        }
    }

    async fn times_in_events_are_as_everywhere(world: &World) {
        world.entities(&["e"]).await;
        let request = world.call("OffboardingService/RequestOffboarding", json!({"entity_id": "e", "grace_period": "3600s"})).await.unwrap();
        let events = world.call("EventService/ListEvents", json!({"types": ["entity.offboarding_requested"]})).await.unwrap();
        let time = events.get("events")[0]["data"]["execute_after"].as_str().unwrap().to_owned();
        assert!(time.ends_with('Z'), "{time}");
        assert_eq!(chrono::DateTime::parse_from_rfc3339(&time).unwrap().timestamp_millis(), request.get("execute_after").as_i64().unwrap());
        let found = world.call("EventService/ListEvents", json!({"filter": format!("equals(data.execute_after, '{time}')")})).await.unwrap();
        assert_eq!(found.get("events").as_array().unwrap().len(), 1);
    }

    async fn every_subject_that_events_have_is_one_that_can_be_asked_for(world: &World) {
        let subjects: BTreeSet<String> = all(world).await.iter().map(|event| event["subject"].as_str().unwrap().to_owned()).collect();
        assert!(subjects.contains("'First name'") && subjects.contains("acme"), "{subjects:?}");
        for subject in subjects {
            let found = world.call("EventService/ListEvents", json!({"subject": subject})).await.unwrap();
            let events = found.get("events").as_array().unwrap().clone();
            assert!(!events.is_empty() && events.iter().all(|event| event["subject"] == *subject), "{subject}: {events:?}");
            world.client.stream("EventService/WatchEvents", json!({"subject": subject}), &[]).await.unwrap();
        }
        for wrong in ["x".repeat(257), "a\0b".to_owned()] {
            let refused = world.call("EventService/ListEvents", json!({"subject": wrong})).await.unwrap_err();
            assert_eq!((refused.code.as_str(), refused.faults[0].field.as_str()), ("validation_failed", "subject"));
        }
    }

    async fn a_stream_goes_on_behind_a_list(world: &World) {
        world.entities(&["a"]).await;
        let list = world.call("EventService/ListEvents", json!({"types": ["entity.created"], "subject": "a"})).await.unwrap();
        let cursor = list.get("next_page_token").clone();
        world.entities(&["b"]).await;
        let mut stream = world.client.stream("EventService/WatchEvents", json!({"cursor": cursor}), &[]).await.unwrap();
        let event = loop {
            let message = stream.message().await;
            if !message["event"].is_null() {
                break message["event"].clone();
            }
        };
        assert_eq!((&event["type"], &event["subject"]), (&json!("entity.created"), &json!("b")), "nothing of before, and nothing left out");
    }
}
