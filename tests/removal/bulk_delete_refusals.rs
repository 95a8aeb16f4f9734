//! Requests for a bulk delete that are refused before anything is touched.

use crate::kit::*;

const START: &str = "BulkDeleteService/StartBulkDelete";

fn by_filter(filter: &str) -> Value {
    json!({"spec": {"objects": {"filter": filter}}})
}

fn assert_nothing_started(world: &World) {
    assert_eq!((world.database.rows("bulk_delete"), world.database.rows("event WHERE type LIKE 'bulk_delete.%'")), (0, 0));
}

scenario! {
    async fn a_selection_that_could_mean_everything_or_nothing_is_refused(world: &World) {
        world.given_entity("e", json!({})).await;
        let list = json!(["e"]);
        for (objects, field) in [
            (json!({}), "spec.objects.filter"),
            (json!({"filter": ""}), "spec.objects.filter"),
            (json!({"filter": " \n"}), "spec.objects.filter"),
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
        ] {
            let refusal = world.refused(START, by_filter(filter)).await;
            assert_eq!((refusal.code.as_str(), refusal.http.unwrap_or(400)), ("invalid_filter", 400), "{filter}");
            let expects = refusal.members["expected"].to_string();
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

    async fn another_tenant_looks_like_one_that_is_not_there(world: &World) {
        world.given_entity("e", json!({})).await;
        let stranger = world.client("globex", "test", SCOPES);
        let task = world.schedule(json!({"uris": ["e"]})).await;
        world.task_ended(&task).await;
        let mut told = Vec::new();
        for tenant in ["acme", "nobody"] {
            for (method, request) in [
                (START, json!({"tenant": tenant, "uris": ["e"]})),
                ("BulkDeleteService/GetTask", json!({"tenant": tenant, "task_id": task})),
                ("BulkDeleteService/ListTaskFailures", json!({"tenant": tenant, "task_id": task})),
            ] {
                let refusal = stranger.call(method, request).await.unwrap_err();
                assert_eq!((refusal.code.as_str(), refusal.http.unwrap_or(404)), ("not_found", 404));
                told.push(refusal.told().to_string().replace(tenant, "TENANT"));
            }
        }
        assert_eq!(told[..3], told[3..]);
        for id in [task.as_str(), "x"] {
            for method in ["BulkDeleteService/GetTask", "BulkDeleteService/ListTaskFailures"] {
                let refusal = stranger.call(method, json!({"task_id": id})).await.unwrap_err();
                assert_eq!(refusal.code, "not_found", "a task of another organisation is none");
            }
        }
        assert_eq!(world.database.rows("bulk_delete"), 1);
    }

    async fn what_to_delete_is_given_in_one_way(world: &World) {
        let refusal = world.refused(START, json!({})).await;
        assert_eq!(refusal.code, "validation_failed");
        if world.door == Door::Grpc {
            for two in [
                json!({"entity_type": "HCP", "uris": ["e"]}),
                json!({"entity_type": "HCP", "spec": {"objects": {"filter": "exists(attributes.n)"}}}),
            ] {
                assert_eq!(world.refused(START, two).await.faults[0].field, "spec");
            }
        }
        assert_nothing_started(world);
    }
}
