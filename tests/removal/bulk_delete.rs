//! Many entities by filter, type or list, soft or hard: which are removed, which stay, and what the task reports.

use crate::given::{Account, assert_status, id};
use crate::kit::*;

const FULL: &str = "configuration/entityTypes/HCP";

scenario! {
    async fn a_hard_delete_by_filter_leaves_tombstones_alone(world: &World) {
        world.given_portfolio("p").await;
        world.given_portfolio("q").await;
        for (id, name, portfolio) in [("a", "Indigo", "p"), ("b", "INDIRA", "p"), ("c", "Ingrid", "p"), ("d", "Indus", "q")] {
            let dependents = json!([{"kind": "task"}, {"kind": "assessment"}]);
            let more = json!({"attributes": {"LastName": name}, "portfolio_id": portfolio, "dependents": dependents});
            world.given_entity(id, more).await;
        }
        let folio = |id: &str| world.database.text(&format!("SELECT concat_ws(' ', entity_count, version) FROM portfolio WHERE id = '{id}'")).unwrap();
        assert_eq!((folio("p"), folio("q")), ("3 4".to_owned(), "1 2".to_owned()));

        let filter = "startsWith(attributes.LastName, 'Ind')";
        let request = json!({"mode": "hard", "spec": {"objects": {"filter": filter, "exclude_list": ["entities/d", "x"]}}, "allow_missing_excludes": true});
        let started = world.done("BulkDeleteService/StartBulkDelete", request).await;
        assert_status(&started, 200);
        assert_eq!((started.get("type"), started.get("tenant")), (&json!("DeleteEntitiesTask"), &json!("acme")));
        assert_eq!(started.get("name"), "Hard Delete Entities By Filter");
        assert_eq!(started.get("parameters"), &json!({"tenantId": "acme", "mode": "hard", "filter": filter, "excludeCount": "2", "allowMissingExcludes": "true"}));
        let task = world.task_ended(&id(&started)).await;
        assert_eq!((task.get("status"), task.get("current_state.status")), (&json!("completed"), &json!("Completed")));
        assert_eq!(Account::of(&task), Account { matched: 3, processed: 2, excluded: 1, ..Account::default() });
        assert_eq!(task.get("current_state.number_of_selected_objects"), 3);
        assert_eq!(task.get("current_state.last_execution_instances").as_array().unwrap().len(), 1);
        assert!(task.get("created_time").as_i64() <= task.get("start_time").as_i64());
        assert!(task.get("start_time").as_i64() <= task.get("end_time").as_i64());

        assert!(!world.sees("a").await && !world.sees("b").await && world.sees("c").await && world.sees("d").await);
        assert_eq!((folio("p"), folio("q")), ("1 5".to_owned(), "1 2".to_owned()), "one step for the chunk");
        assert_eq!(world.database.rows("dependent"), 4);
        let tombstones = "SELECT string_agg(entity_id || version || type || job_kind, ' ' ORDER BY entity_id) FROM tombstone";
        assert_eq!(world.database.text(tombstones).unwrap(), "a1HCPbulk_delete b1HCPbulk_delete");
        let reported = format!("event WHERE type = 'entity.deleted' AND subjects = '{{a,b}}' AND data ->> 'bulk_delete_id' = '{}'", id(&task));
        assert_eq!(world.database.rows(&reported), 1, "one event for the chunk");
        let detached = "event WHERE type = 'portfolio.entity_detached' AND data -> 'entity_ids' @> '[\"a\", \"b\"]' AND data -> 'version' = '5'";
        assert_eq!(world.database.rows(detached), 1);
        assert_eq!(world.database.history(&id(&task)), "bulk_delete.scheduled bulk_delete.started bulk_delete.ended");
        world.database.assert_sound();
    }

    async fn a_soft_delete_hides_the_entity_and_keeps_its_data(world: &World) {
        world.given_portfolio("p").await;
        world.given_entity("a", json!({"attributes": {"n": 1}, "portfolio_id": "p", "dependents": [{"kind": "task"}]})).await;
        world.given_entity("b", json!({"attributes": {"n": 2}, "portfolio_id": "p"})).await;
        // Soft is what a task is that does not say.
        let task = world.bulk_delete(json!({"spec": {"objects": {"filter": "equals(attributes.n, 1)"}}})).await;
        assert_eq!((task.get("name"), task.get("parameters.mode")), (&json!("Soft Delete Entities By Filter"), &json!("soft")));
        assert_eq!(Account::of(&task), Account { matched: 1, processed: 1, ..Account::default() });
        assert!(!world.sees("a").await && world.sees("b").await);
        let kept = format!("entity WHERE id = 'a' AND attributes = '{{\"n\": 1}}' AND version = 2 AND deleted_by = '{}'", id(&task));
        assert_eq!(world.database.rows(&kept), 1);
        assert_eq!((world.database.rows("dependent"), world.database.rows("tombstone")), (1, 0));
        let folio = world.done("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await;
        assert_eq!((folio.get("entity_count"), folio.get("entity_ids"), folio.get("version")), (&json!(1), &json!(["b"]), &json!(4)));
        assert_eq!(world.database.history("a"), "entity.created entity.deleted");
        let detach = world.refused("PortfolioService/DetachEntity", json!({"portfolio_id": "p", "entity_id": "a"})).await;
        assert_eq!(detach.code, "not_found");
        world.database.assert_sound();
    }

    async fn a_hard_delete_takes_what_was_soft_deleted_and_a_soft_one_does_not(world: &World) {
        world.given_portfolio("p").await;
        world.given_entity("a", json!({"portfolio_id": "p", "dependents": [{"kind": "task"}]})).await;
        world.bulk_delete(json!({"uris": ["a"], "mode": "soft"})).await;
        let folio = world.done("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await;

        let by_type = world.bulk_delete(json!({"entity_type": "HCP", "mode": "soft"})).await;
        assert_eq!(Account::of(&by_type), Account::default());
        let listed = world.bulk_delete(json!({"uris": ["a"], "mode": "soft"})).await;
        assert_eq!(Account::of(&listed), Account { matched: 1, failed: 1, ..Account::default() });
        assert_eq!(world.failures(&id(&listed)).await, ["a: not_found"]);

        let hard = world.bulk_delete(json!({"entity_type": "HCP", "mode": "hard"})).await;
        assert_eq!(Account::of(&hard), Account { matched: 1, processed: 1, ..Account::default() });
        assert_eq!((world.database.rows("entity"), world.database.rows("dependent"), world.database.rows("tombstone")), (0, 0, 1));
        let after = world.done("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await;
        assert_eq!(after.json, folio.json, "it was no member any more");
        world.database.assert_sound();
    }

    async fn a_type_is_named_in_full_or_by_its_last_part(world: &World) {
        for (id, type_) in [("a", FULL), ("b", "configuration/entityTypes/HCO"), ("c", FULL), ("d", "HCPX")] {
            world.done("EntityService/CreateEntity", json!({"entity": {"entity_id": id, "type": type_}})).await;
        }
        let both = world.bulk_delete(json!({"spec": {"objects": {"entity_type": "HCP", "filter": "equals(uri, 'entities/a')"}}})).await;
        assert_eq!(Account::of(&both), Account { matched: 1, processed: 1, ..Account::default() }, "both must match");
        let full = world.bulk_delete(json!({"entity_type": FULL})).await;
        assert_eq!(full.get("name"), "Soft Delete Entities By Type: configuration/entityTypes/HCP");
        assert_eq!(full.get("current_state.entity_type"), FULL);
        assert_eq!(Account::of(&full), Account { matched: 1, processed: 1, ..Account::default() });
        let short = world.bulk_delete(json!({"entity_type": "HCP", "mode": "hard"})).await;
        assert_eq!((short.get("parameters.entityType"), short.get("current_state.entity_type")), (&json!("HCP"), &json!(FULL)));
        assert_eq!(Account::of(&short), Account { matched: 2, processed: 2, ..Account::default() });
        assert!(world.sees("b").await && world.sees("d").await);
    }

    async fn a_list_names_entities_by_uri_or_id_and_each_once(world: &World) {
        for entity in ["a", "b", "c", "d"] {
            world.given_entity(entity, json!({})).await;
        }
        let uris = ["entities/a", "b", "entities/b", "entities/nowhere", "d"];
        let started = world.schedule(json!({"spec": {"objects": {"uri_list": uris, "exclude_list": ["entities/d"]}}, "mode": "hard"})).await;
        let task = world.task_ended(&started).await;
        assert_eq!((task.get("status"), task.get("current_state.status")), (&json!("completed_with_errors"), &json!("Completed")));
        assert_eq!(Account::of(&task), Account { matched: 4, processed: 2, failed: 1, excluded: 1, ..Account::default() });
        assert_eq!(task.get("current_state.objects_failed_to_delete"), &json!(["nowhere"]));
        assert_eq!(world.failures(&started).await, ["nowhere: not_found"]);
        assert!(!world.sees("a").await && !world.sees("b").await && world.sees("c").await && world.sees("d").await);
        assert_eq!(task.get("parameters"), &json!({"tenantId": "acme", "mode": "hard", "uriCount": "4", "excludeCount": "1"}));
    }

    async fn an_entity_of_another_world_is_not_met(world: &World) {
        let strangers = [world.client("globex", "test", SCOPES), world.client("acme", "live", SCOPES)];
        for stranger in &strangers {
            stranger.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "HCP"}})).await.unwrap();
        }
        let listed = world.bulk_delete(json!({"uris": ["e"], "mode": "hard"})).await;
        assert_eq!(world.failures(&id(&listed)).await, ["e: not_found"]);
        let by_type = world.bulk_delete(json!({"entity_type": "HCP", "mode": "hard"})).await;
        assert_eq!(Account::of(&by_type), Account::default());
        for stranger in &strangers {
            stranger.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
        }
    }

    async fn an_entity_that_must_not_be_removed_is_reported_with_its_reason_and_stays(world: &World) {
        for (entity, state) in [("active", "active"), ("held", "active"), ("leaving", "active"), ("new", "onboarding"), ("spared", "onboarding")] {
            world.given_entity(entity, json!({"state": state, "attributes": {"n": 1}, "dependents": [{"kind": "task"}]})).await;
        }
        world.database.hold("held");
        let request = id(&world.offboard("leaving", "3600s").await);
        for mode in ["soft", "hard"] {
            let spec = json!({"objects": {"filter": "equals(attributes.n, 1)", "exclude_list": ["spared"]}});
            let task = world.schedule(json!({"mode": mode, "spec": spec})).await;
            let ended = world.task_ended(&task).await;
            assert_eq!(ended.get("status"), "completed_with_errors");
            assert_eq!(Account::of(&ended), Account { matched: 5, processed: 1, failed: 3, excluded: 1, ..Account::default() });
            assert_eq!(ended.get("current_state.objects_failed_to_delete"), &json!(["held", "leaving", "new"]));
            assert_eq!(world.failures(&task).await, ["held: on_hold", "leaving: offboarding", "new: onboarding"]);
        }
        assert_eq!((world.database.rows("entity"), world.database.rows("dependent")), (4, 4));
        assert_eq!(world.request(&request).await.get("status"), "pending");
        let cancel = json!({"offboarding_request_id": request});
        world.done("OffboardingService/CancelOffboardingRequest", cancel).await;
        assert_eq!(world.state("leaving").await, "active");
        world.database.assert_sound();
    }

    async fn a_filter_compares_every_value_of_an_attribute(world: &World) {
        world.given_entity("a", json!({"attributes": {"Address": [{"City": "Rome"}, {"City": "Oslo"}], "Tags": ["x", "y"]}})).await;
        world.given_entity("b", json!({"attributes": {"Address": [{"City": "Oslo"}], "Tags": ["x"]}})).await;
        world.given_entity("c", json!({"attributes": {"Address": [], "Tags": []}})).await;
        world.given_entity("d", json!({"attributes": {}})).await;
        let matching = async |filter: &str| {
            let task = world.schedule(json!({"spec": {"objects": {"filter": filter, "exclude_list": ["a", "b", "c", "d"]}}})).await;
            Account::of(&world.task_ended(&task).await).excluded
        };
        assert_eq!(matching("equals(attributes.Address.City, 'rome')").await, 1);
        assert_eq!(matching("equals(attributes.Address.City, 'Oslo')").await, 2);
        assert_eq!(matching("equalsCaseSensitive(attributes.Tags, 'X')").await, 0);
        assert_eq!(matching("in(attributes.Tags, 'y,z')").await, 1);
        assert_eq!(matching("missing(attributes.Address)").await, 2);
        assert_eq!(matching("not exists(attributes.Tags) or equals(attributes.Tags, 'y')").await, 3);
        let task = world.bulk_delete(json!({"spec": {"objects": {"filter": "exists(attributes.Tags) and not equals(attributes.Tags, 'y')"}}})).await;
        assert_eq!(Account::of(&task).processed, 1);
        assert!(world.sees("a").await && !world.sees("b").await && world.sees("c").await);
    }
}
