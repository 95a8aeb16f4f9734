//! The REST contracts of work that goes on after the response: bulk deletes and offboarding requests.

use crate::contracts::{bearer, is_time, members};
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
    let names = members(&task);
    for name in [
        "id",
        "name",
        "type",
        "tenant",
        "status",
        "parameters",
        "currentState",
        "started",
        "current",
        "throughput",
        "duration",
        "createdTime",
        "startTime",
        "endTime",
        "pausedTime",
        "createdBy",
        "updatedBy",
    ] {
        assert!(names.contains(&name), "no {name} in {task}");
    }
    assert_eq!((&task["type"], &task["tenant"]), (&json!("DeleteEntitiesTask"), &json!("acme")));
    assert!(
        ["started", "current", "createdTime", "startTime", "endTime"]
            .iter()
            .all(|name| task[name].as_i64() > Some(1_600_000_000_000)),
        "{task}"
    );
    assert_eq!((&task["pausedTime"], task["throughput"].is_number()), (&json!(null), true));
    assert!(task["duration"].as_str().unwrap().ends_with('s'), "{task}");
    assert!(task["parameters"].as_object().unwrap().values().all(Value::is_string), "{task}");
    assert_eq!(task["parameters"]["mode"], "soft");
    let state = &task["currentState"];
    let names = members(state);
    for name in [
        "objectsFailedToDelete",
        "entityType",
        "objectsFailedToDeleteCount",
        "numberOfFailedToPublishEvents",
        "lastHourThroughput",
        "numberOfProcessedObjects",
        "lastExecutionInstances",
        "lastExecutionEC2Instances",
        "status",
    ] {
        assert!(names.contains(&name), "no {name} in {state}");
    }
    assert_eq!(state["lastExecutionEC2Instances"], state["lastExecutionInstances"]);
    assert!(state["lastExecutionEC2Instances"][0].is_string(), "{state}");
    assert_eq!(
        (&state["objectsFailedToDelete"], &state["objectsFailedToDeleteCount"]),
        (&json!(["i4"]), &json!(1))
    );
    assert_eq!(
        (&state["numberOfProcessedObjects"], &state["status"]),
        (&json!(1), &json!("Completed"))
    );
    let failures = caller.get(&format!("/api/acme/tasks/{id}/failures")).json();
    assert_eq!(
        (&failures["failures"][0]["entityId"], &failures["failures"][0]["reason"]),
        (&json!("i4"), &json!("onboarding"))
    );

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
    assert_eq!(
        (by_type.status, &by_type.json()["name"]),
        (200, &json!(format!("Hard Delete Entities By Type: {full}"))),
        "{}",
        by_type.text()
    );
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
    assert_eq!(
        world.database.text("SELECT string_agg(id, ',') FROM entity").as_deref(),
        Some("i4")
    );

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
    assert_eq!(asked.status, 201, "{}", asked.text());
    let request = asked.json();
    let expected = [
        "id",
        "principalId",
        "status",
        "data",
        "created",
        "executeAfter",
        "started",
        "finished",
        "error",
        "attempts",
        "lastError",
        "nextAttempt",
    ];
    assert_eq!(members(&request), expected);
    let id = request["id"].as_str().unwrap().to_owned();
    assert!(
        uuid::Uuid::parse_str(&id).is_ok()
            && uuid::Uuid::parse_str(request["principalId"].as_str().unwrap()).is_ok(),
        "{request}"
    );
    assert_eq!(
        (&request["status"], &request["data"]),
        (&json!("Pending"), &json!({"id": "ent_1", "components": [part]}))
    );
    assert!(is_time(&request["created"]) && is_time(&request["executeAfter"]), "{request}");
    assert_eq!(
        (&request["started"], &request["finished"], &request["error"]),
        (&json!(null), &json!(null), &json!(null))
    );
    let location = format!("/v1/offboarding/entities/{id}");
    assert_eq!(asked.header("location"), Some(location.as_str()));
    let known = caller.send("POST", "/v1/offboarding/entities", Some(r#"{"entityId":"ent_1"}"#));
    assert_eq!((known.status, &known.json()["id"]), (200, &json!(id)));
    assert_eq!(caller.get(&location).json(), request);

    let canceled = caller.send("PATCH", &format!("{location}/cancel"), None);
    assert_eq!(
        (canceled.status, &canceled.json()["status"]),
        (200, &json!("Canceled")),
        "{}",
        canceled.text()
    );
    assert_eq!(
        members(&canceled.json()),
        ["id", "principalId", "status", "data"],
        "what the contract's strict clients know"
    );
    assert_eq!(members(&canceled.json()["data"]), ["id", "components"]);
    assert!(is_time(&caller.get(&location).json()["finished"]), "the rest is reported by GET");
    let again = caller.send("PATCH", &format!("{location}/cancel"), None);
    let refusal = again.json();
    assert_eq!(
        (again.status, again.header("content-type")),
        (400, Some("application/json")),
        "{refusal}"
    );
    assert_eq!(
        (members(&refusal), members(&refusal["errors"][0])),
        (vec!["errors"], vec!["code", "message", "description"]),
        "{refusal}"
    );
    assert_eq!(refusal["errors"][0]["code"], "not_cancelable");
    let named = [
        ("accept", "application/problem+json"),
        ("authorization", &caller.credential["Authorization: ".len()..]),
    ];
    let problem =
        http(world.server.addresses.http, "PATCH", &format!("{location}/cancel"), &named, "").await;
    assert_eq!(
        (problem.status, problem.header("content-type")),
        (400, Some("application/problem+json"))
    );
    assert_eq!(problem.json()["current_state"], "Canceled");
    assert_eq!(
        world.call("EntityService/GetEntity", json!({"entity_id": "ent_1"})).await.unwrap().json["state"],
        "active"
    );

    let now = caller.send("POST", "/v1/offboarding/entities", Some(r#"{"entityId":"ent_2"}"#));
    assert_eq!(
        (now.status, &now.json()["data"]["components"]),
        (201, &json!(null)),
        "{}",
        now.text()
    );
    let location = format!("/v1/offboarding/entities/{}", now.json()["id"].as_str().unwrap());
    let done = caller.get_until(&location, "status", "Succeeded").await;
    assert!(is_time(&done["started"]) && is_time(&done["finished"]), "{done}");
    assert_eq!(caller.send("PATCH", &format!("{location}/cancel"), None).status, 400);

    let nothing = caller.send("PATCH", &format!("/v1/offboarding/entities/{part}/cancel"), None);
    let errors = &nothing.json()["errors"];
    assert_eq!((nothing.status, &errors[0]["code"]), (404, &json!("not_found")));
    assert!(errors[0]["description"].is_string() && errors[0]["message"].is_string(), "{errors}");
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
