//! The REST contracts of work that goes on after the response: bulk deletes and offboarding requests.

use crate::contracts::{bearer, is_time};
use crate::kit::*;

#[tokio::test]
async fn bulk_delete() {
    let world = World::start(Protocol::Rest).await;
    let caller = bearer(&world);
    let full = "configuration/entityTypes/HCP";
    for (id, name, state) in [
        ("i1", "Indira", "active"),
        ("i2", "Indigo", "active"),
        ("i3", "Ines", "active"),
        ("i4", "Indus", "onboarding"),
    ] {
        let entity = json!({"entity": {"entity_id": id, "type": full, "state": state, "attributes": {"LastName": name}}});
        world.call("EntityService/CreateEntity", entity).await.unwrap();
    }
    let body = r#"{"objects":{"filter":"startsWith(attributes.LastName, 'Ind')","excludeList":["entities/i2","entities/i3"]}}"#;
    let started = caller.send("POST", "/api/acme/entities/_delete?mode=soft", Some(body));
    assert_eq!(started.status, 200, "{}", started.text());
    let id = started.json()["id"].as_str().unwrap().to_owned();
    let task =
        caller.get_until(&format!("/api/acme/tasks/{id}"), "status", "COMPLETED_WITH_ERRORS").await;
    assert_seen!("task_completed_with_errors", task);
    assert!(task["duration"].as_str().unwrap().ends_with('s'), "{task}");
    assert!(task["throughput"].is_number(), "{task}");
    assert!(task["parameters"].as_object().unwrap().values().all(Value::is_string), "{task}");
    let state = &task["currentState"];
    assert!(state["lastHourThroughput"].is_number(), "{state}");
    assert_eq!(state["lastExecutionEC2Instances"], state["lastExecutionInstances"]);
    let failures = caller.get(&format!("/api/acme/tasks/{id}/failures"));
    assert_seen!("failures_of_the_task", failures);

    let by_list = caller.send(
        "POST",
        "/api/acme/entities/_deleteByUris?mode=hard",
        Some(r#"["entities/i3"]"#),
    );
    assert_eq!(by_list.status, 200, "{}", by_list.text());
    caller
        .get_until(
            &format!("/api/acme/tasks/{}", by_list.json()["id"].as_str().unwrap()),
            "status",
            "COMPLETED",
        )
        .await;
    let by_type = caller.send("DELETE", "/api/acme/entities?entityType=HCP&mode=hard", None);
    assert_seen!("delete_by_type_started", by_type);
    let filter = format!(
        r#"{{"objects":{{"filter":"equals(type, '{full}') and exists(attributes.LastName)"}}}}"#
    );
    let by_filter = caller
        .send("POST", "/api/acme/entities/_delete?mode=hard&dryRun=true", Some(&filter))
        .json();
    assert_eq!(by_filter["name"], format!("Hard Delete Entities By Type: {full}"), "{by_filter}");
    let by_filter =
        caller.send("POST", "/api/acme/entities/_delete?mode=hard", Some(&filter)).json();
    assert_eq!(
        (&by_filter["name"], &by_filter["currentState"]["entityType"]),
        (&json!(format!("Hard Delete Entities By Type: {full}")), &json!(full))
    );
    assert_eq!(
        by_filter["parameters"]["entityType"],
        json!(null),
        "parameters are how it was started"
    );
    let id = by_type.json()["id"].as_str().unwrap().to_owned();
    let task =
        caller.get_until(&format!("/api/acme/tasks/{id}"), "status", "COMPLETED_WITH_ERRORS").await;
    assert_eq!(
        (&task["parameters"]["entityType"], &task["currentState"]["entityType"]),
        (&json!("HCP"), &json!(full)),
        "{task}"
    );
    assert_eq!(world.database.entity_ids().as_deref(), Some("i4"));

    for body in [
        r#"{}"#,
        r#"{"objects":{}}"#,
        r#"{"objects":{"filter":""}}"#,
        r#"{"objects":{"uriList":["entities/i4"],"filter":"missing(attributes.x)"}}"#,
        r#"{"objects":{"filter":"missing(atributes.LastName)"}}"#,
    ] {
        let refused = caller.send("POST", "/api/acme/entities/_delete", Some(body));
        assert_eq!(refused.status, 400, "{body}: {}", refused.text());
    }
    assert_eq!(
        caller.send("POST", "/api/other/entities/_deleteByUris", Some(r#"["i4"]"#)).status,
        404
    );
}

#[tokio::test]
async fn offboarding_requests() {
    let world = World::start(Protocol::Rest).await;
    let caller = bearer(&world);
    let part = "0190a1b2-0000-7000-8000-000000000001";
    world
        .call(
            "EntityService/CreateEntity",
            json!({"entity": {"entity_id": "ent_1", "type": "T", "components": [part]}}),
        )
        .await
        .unwrap();
    world.entities(&["ent_2"]).await;
    let asked = caller.send(
        "POST",
        "/v1/offboarding/entities",
        Some(r#"{"entityId":"ent_1","gracePeriod":"3600s"}"#),
    );
    let request = asked.json();
    assert_seen!("offboarding_asked", asked);
    let id = request["id"].as_str().unwrap().to_owned();
    let location = format!("/v1/offboarding/entities/{id}");
    assert_eq!(asked.header("location"), Some(location.as_str()));
    let known = caller.send("POST", "/v1/offboarding/entities", Some(r#"{"entityId":"ent_1"}"#));
    assert_eq!((known.status, &known.json()["id"]), (200, &json!(id)));
    assert_eq!(caller.get(&location).json(), request);

    let canceled = caller.send("PATCH", &format!("{location}/cancel"), None);
    // What the contract's strict clients know, and no more.
    assert_seen!("offboarding_canceled", canceled);
    assert!(is_time(&caller.get(&location).json()["finished"]), "the rest is reported by GET");
    let again = caller.send("PATCH", &format!("{location}/cancel"), None);
    assert_seen!("offboarding_not_cancelable", again);
    let named = [
        ("accept", "application/problem+json"),
        ("authorization", &caller.credential["Authorization: ".len()..]),
    ];
    let problem =
        http(world.server.addresses.http, "PATCH", &format!("{location}/cancel"), &named, "").await;
    assert_seen!("offboarding_not_cancelable_as_a_problem", problem);
    assert_eq!(
        world.call("EntityService/GetEntity", json!({"entity_id": "ent_1"})).await.unwrap().json["state"],
        "active"
    );

    let now = caller.send("POST", "/v1/offboarding/entities", Some(r#"{"entityId":"ent_2"}"#));
    assert_seen!("offboarding_without_components", now);
    let location = format!("/v1/offboarding/entities/{}", now.json()["id"].as_str().unwrap());
    let done = caller.get_until(&location, "status", "Succeeded").await;
    assert_seen!("offboarding_succeeded", done);
    assert_eq!(caller.send("PATCH", &format!("{location}/cancel"), None).status, 400);

    let nothing = caller.send("PATCH", &format!("/v1/offboarding/entities/{part}/cancel"), None);
    assert_seen!("offboarding_that_never_was", nothing);
    for body in [
        r#"{}"#,
        r#"{"entityId":"ent_1","gracePeriod":"-1s"}"#,
        r#"{"entityId":"ent_1","gracePeriod":"7776001s"}"#,
        r#"{"entityId":"ent_1","gracePeriod":3600}"#,
    ] {
        let refused = caller.send("POST", "/v1/offboarding/entities", Some(body));
        let message =
            refused.json()["errors"][0]["message"].as_str().unwrap_or_default().to_owned();
        let field = message.split(':').next();
        assert_eq!(
            (refused.status, field.unwrap_or_default()),
            (400, if body == "{}" { "entityId" } else { "gracePeriod" }),
            "{}",
            refused.text()
        );
    }
}
