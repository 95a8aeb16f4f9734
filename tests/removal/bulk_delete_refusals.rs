//! Requests for a bulk delete that are refused before anything is touched.

use crate::given::Many;
use crate::kit::*;

const START: &str = "BulkDeleteService/StartBulkDelete";

fn by_filter(filter: &str) -> Value {
    json!({"spec": {"objects": {"filter": filter}}})
}

fn assert_nothing_started(world: &World) {
    assert_eq!(
        (
            world.database.rows("bulk_delete"),
            world.database.rows("event WHERE type LIKE 'bulk_delete.%'")
        ),
        (0, 0)
    );
}

scenario! {
    async fn a_selection_that_could_mean_everything_or_nothing_is_refused(world: &World) {
        world.given_entity("e", json!({})).await;
        let list = json!(["e"]);
        for (objects, field) in [
            (json!({}), "spec.objects.filter"),
            (json!({"filter": "exists(attributes.n)", "entity_type": ""}), "spec.objects.entity_type"),
            (json!({"exclude_list": ["x"]}), "spec.objects.filter"),
            (json!({"filter": "exists(attributes.n)", "uri_list": list}), "spec.objects.uri_list"),
            (json!({"entity_type": "HCP", "uri_list": list}), "spec.objects.uri_list"),
            (json!({"uri_list": ["a", "a b"]}), "spec.objects.uri_list[1]"),
            (json!({"filter": "exists(attributes.n)", "exclude_list": [""]}), "spec.objects.exclude_list[0]"),
            (json!({"entity_type": "x".repeat(257)}), "spec.objects.entity_type"),
        ] {
            let refusal = world.refused(START, json!({"spec": {"objects": objects}})).await;
            assert_eq!((refusal.code.as_str(), refusal.http.unwrap_or(400)), ("validation_failed", 400), "{objects}");
            let fields: Vec<_> = refusal.faults.iter().map(|fault| fault.field.trim_start_matches("spec.")).collect();
            assert_eq!(fields, [field.trim_start_matches("spec.")], "{objects}");
        }
        assert_nothing_started(world);
        assert!(world.sees("e").await);
    }

    async fn a_filter_that_cannot_be_read_is_refused_at_its_fault(world: &World) {
        for (filter, position, expected) in [
            ("equal(attributes.a, 'x')", 0, "equals"),
            ("equals(atributes.a, 'x')", 7, "attributes"),
            ("missing(attribute.a)", 8, "attributes"),
            ("exists(attributes.a) and equals(attributes.b, 'x') or exists(attributes.c)", 51, ""),
            ("equals(attributes.a, 'x'", 24, ""),
            ("equals(attributes.a", 19, ""),
            ("", 0, ""),
            ("  ", 2, ""),
            ("equals(type, 'a\0')", 15, ""),
            ("exists(type)\0", 12, ""),
        ] {
            let refusal = world.refused(START, by_filter(filter)).await;
            assert_eq!((refusal.code.as_str(), refusal.http.unwrap_or(400)), ("invalid_filter", 400), "{filter}");
            let expects = refusal.members.get("expected").map(ToString::to_string).unwrap_or_default();
            assert_eq!((&refusal.members["position"], expects.contains(expected)), (&json!(position), true), "{filter}: {refusal:#?}");
            let caret = format!("{filter}\n{}^", " ".repeat(position));
            assert!(refusal.message.ends_with(&caret), "{}", refusal.message);
        }
        assert_nothing_started(world);
    }

    async fn a_hard_delete_needs_a_scope_of_its_own(world: &World) {
        world.given_entity("e", json!({})).await;
        let soft = world.client("acme", "test", &["entities:read", "entities:delete"]);
        let refusal = soft.call(START, json!({"uris": ["e"], "mode": "hard"})).await.unwrap_err();
        assert_eq!((refusal.code.as_str(), refusal.http.unwrap_or(403)), ("permission_denied", 403));
        assert_eq!(refusal.members["required_scope"], "entities:delete_hard");
        let reader = world.client("acme", "test", &["entities:read", "entities:offboard"]);
        let refusal = reader.call(START, json!({"uris": ["e"]})).await.unwrap_err();
        assert_eq!((refusal.code.as_str(), &refusal.members["required_scope"]), ("permission_denied", &json!("entities:delete")));
        assert_nothing_started(world);
        soft.call(START, json!({"uris": ["e"], "mode": "soft"})).await.unwrap();
    }

    async fn who_may_not_delete_for_good_does_not_have_it_go_on(world: &World) {
        world.database.given_many(Many { prefix: "e", count: 20, dependents: 0, portfolio: None });
        let task = world.schedule(json!({"entity_type": "HCP", "mode": "hard", "max_objects_per_second": 1})).await;
        let soft = world.client("acme", "test", &["entities:read", "entities:delete"]);
        soft.call("BulkDeleteService/PauseTask", json!({"task_id": task})).await.unwrap();
        world.call_until("BulkDeleteService/GetTask", json!({"task_id": task}), |task| task["status"] == "paused").await;
        for (method, request) in [
            ("BulkDeleteService/ResumeTask", json!({"task_id": task})),
            ("BulkDeleteService/UpdateTask", json!({"task_id": task, "max_objects_per_second": 1000})),
        ] {
            let refusal = soft.call(method, request).await.unwrap_err();
            assert_eq!((refusal.code.as_str(), &refusal.members["required_scope"]), ("permission_denied", &json!("entities:delete_hard")), "{method}");
        }
        assert_eq!(world.done("BulkDeleteService/GetTask", json!({"task_id": task})).await.get("status"), "paused");
        soft.call("BulkDeleteService/StopTask", json!({"task_id": task})).await.unwrap();
        let gentle = world.schedule(json!({"entity_type": "HCP", "mode": "soft", "max_objects_per_second": 1})).await;
        soft.call("BulkDeleteService/UpdateTask", json!({"task_id": gentle, "max_objects_per_second": 0})).await.unwrap();
        world.task_ended(&gentle).await;
    }

    async fn another_tenant_looks_like_one_that_is_not_there(world: &World) {
        world.given_entity("e", json!({})).await;
        let stranger = world.client("globex", "test", SCOPES);
        let task = world.schedule(json!({"uris": ["e"]})).await;
        world.task_ended(&task).await;
        let mut reported = Vec::new();
        for tenant in ["acme", "nobody"] {
            for (method, request) in [
                (START, json!({"tenant": tenant, "uris": ["e"]})),
                ("BulkDeleteService/GetTask", json!({"tenant": tenant, "task_id": task})),
                ("BulkDeleteService/ListTaskFailures", json!({"tenant": tenant, "task_id": task})),
            ] {
                let refusal = stranger.call(method, request).await.unwrap_err();
                assert_eq!((refusal.code.as_str(), refusal.http.unwrap_or(404)), ("not_found", 404));
                reported.push(refusal.reported().to_string().replace(tenant, "TENANT"));
            }
        }
        assert_eq!(reported[..3], reported[3..]);
        for id in [task.as_str(), "x"] {
            for method in ["BulkDeleteService/GetTask", "BulkDeleteService/ListTaskFailures"] {
                let refusal = stranger.call(method, json!({"task_id": id})).await.unwrap_err();
                assert_eq!(refusal.code, "not_found", "a task of another organisation is not visible");
            }
        }
        assert_eq!(world.database.rows("bulk_delete"), 1);
    }

    async fn what_to_delete_is_given_in_one_way(world: &World) {
        let refusal = world.refused(START, json!({})).await;
        assert_eq!(refusal.code, "validation_failed");
        if world.protocol == Protocol::Grpc {
            for two in [
                json!({"entity_type": "HCP", "uris": ["e"]}),
                json!({"entity_type": "HCP", "spec": {"objects": {"filter": "exists(attributes.n)"}}}),
            ] {
                assert_eq!(world.refused(START, two).await.faults[0].field, "entity_type");
            }
        }
        assert_nothing_started(world);
    }
}

/// A list that came out empty selects nothing, whatever stands beside it.
#[tokio::test]
async fn an_empty_list_never_comes_to_mean_something_else() {
    let world = World::start(Protocol::Rest).await;
    world.database.given_many(Many { prefix: "e", count: 3, dependents: 0, portfolio: None });
    let bearer = format!("Bearer {}", world.key.secret);
    let asked = async |method: &str, path: &str, body: &str| {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let answer = http(
            world.server.addresses.http,
            method,
            &format!("/api/acme/entities{path}"),
            &headers,
            body.to_owned(),
        )
        .await;
        let faults = answer.json()["errors"].as_array().cloned().unwrap_or_default();
        let fields: Vec<_> = faults
            .iter()
            .map(|fault| fault["field"].as_str().unwrap_or_default().to_owned())
            .collect();
        (answer.status, fields.join(" "))
    };
    for (method, path, body, field) in [
        ("POST", "/_deleteByUris?entityType=HCP", "[]", "body"),
        ("POST", "/_deleteByUris?entityType=HCP", "", "body"),
        ("POST", "/_deleteByUris?spec.matchAll=true", r#"["x"]"#, "spec.matchAll"),
        ("POST", "/_delete", r#"{"objects":{"entityType":"HCP","uriList":[]}}"#, "objects.uriList"),
        ("POST", "/_delete", r#"{"objects":{"uriList":[]},"matchAll":true}"#, "objects.uriList"),
        ("POST", "/_delete", r#"{"objects":{}}"#, "objects.filter"),
        ("POST", "/_delete?uris=e-000001", "", "body uris"),
        ("DELETE", "?spec.matchAll=true", "", "spec.matchAll entityType"),
        ("DELETE", "", "", "entityType"),
        ("DELETE", "?entityType=", "", "entityType"),
    ] {
        assert_eq!(
            asked(method, path, body).await,
            (400, field.to_owned()),
            "{method} {path} {body}"
        );
    }
    assert_nothing_started(&world);
}
