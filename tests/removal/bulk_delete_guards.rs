//! Guards that prevent the start of a bulk delete.

use crate::given::{Account, Many, assert_status, id, text};
use crate::kit::*;

const START: &str = "BulkDeleteService/StartBulkDelete";

fn nothing_started(world: &World) {
    assert_eq!(
        (
            world.database.rows("bulk_delete"),
            world.database.rows("event WHERE type LIKE 'bulk_delete.%'")
        ),
        (0, 0)
    );
}

/// Twelve active entities of the type `HCP`.
fn given(world: &World) {
    world.database.given_many(Many { prefix: "e", count: 12, dependents: 1, portfolio: None });
}

scenario! {
    async fn everything_is_selected_only_by_saying_so(world: &World) {
        given(world);
        let list = json!(["e-000001"]);
        for (objects, also) in [
            (json!({"filter": "exists(attributes.n)"}), "a filter"),
            (json!({"entity_type": "HCP"}), "a type"),
            (json!({"uri_list": list}), "a list"),
        ] {
            let refusal = world.refused(START, json!({"spec": {"match_all": true, "objects": objects}})).await;
            let fields: Vec<_> = refusal.faults.iter().map(|fault| fault.field.trim_start_matches("spec.")).collect();
            assert_eq!((refusal.code.as_str(), fields), ("validation_failed", vec!["match_all"]), "{also}");
        }
        for spec in [json!({}), json!({"match_all": false}), json!({"objects": {}}), json!({"objects": {"exclude_list": list}})] {
            assert_eq!(world.refused(START, json!({"spec": spec})).await.code, "validation_failed", "{spec}");
        }
        nothing_started(world);
        let spec = json!({"match_all": true, "objects": {"exclude_list": ["entities/e-000002", "e-000003"]}});
        let started = world.done(START, json!({"mode": "hard", "spec": spec})).await;
        assert_eq!(started.get("name"), "Hard Delete All Entities");
        assert_eq!(started.get("parameters"), &json!({"tenantId": "acme", "mode": "hard", "matchAll": "true", "excludeCount": "2"}));
        let ended = world.task_ended(&id(&started)).await;
        assert_eq!(Account::of(&ended), Account { matched: 12, processed: 10, excluded: 2, ..Account::default() });
        assert!(world.sees("e-000002").await && world.sees("e-000003").await && !world.sees("e-000001").await);
        let alone = world.bulk_delete(json!({"mode": "soft", "spec": {"match_all": true}})).await;
        assert_eq!(Account::of(&alone), Account { matched: 2, processed: 2, ..Account::default() });
        world.database.assert_sound();
    }

    async fn a_selection_of_another_size_than_expected_is_refused_with_its_size(world: &World) {
        given(world);
        let filter = json!({"objects": {"filter": "not(in(attributes.n, '1,2'))", "exclude_list": ["e-000012"]}});
        let listed = json!({"objects": {"uri_list": ["e-000001", "entities/e-000002", "nobody"]}});
        for (spec, matched) in [(filter, 10), (listed, 3), (json!({"match_all": true}), 12)] {
            for wrong in [0, matched - 1, matched + 1] {
                let refusal = world.refused(START, json!({"spec": spec, "expected_count": wrong})).await;
                assert_eq!((refusal.code.as_str(), refusal.http.unwrap_or(409)), ("count_mismatch", 409), "{spec}");
                assert_eq!((&refusal.members["expected_count"], &refusal.members["matched_count"]), (&json!(wrong), &json!(matched)), "{spec}");
                assert!(refusal.message.contains(&matched.to_string()), "{}", refusal.message);
            }
            let refusal = world.refused(START, json!({"spec": spec, "max_objects": matched - 1})).await;
            assert_eq!((refusal.code.as_str(), &refusal.members["max_objects"], &refusal.members["matched_count"]), ("count_mismatch", &json!(matched - 1), &json!(matched)));
            assert!(!refusal.members.contains_key("expected_count"), "{refusal:#?}");
        }
        nothing_started(world);
        assert_eq!(world.database.rows("entity WHERE deleted_at IS NULL"), 12);
        let spec = json!({"objects": {"filter": "not(in(attributes.n, '1,2'))"}});
        let started = world.done(START, json!({"spec": spec, "expected_count": 10, "max_objects": 10})).await;
        let parameters = started.get("parameters");
        assert_eq!((&parameters["expectedCount"], &parameters["maxObjects"]), (&json!("10"), &json!("10")));
        assert_eq!(Account::of(&world.task_ended(&id(&started)).await).processed, 10);
        let hard = json!({"mode": "hard", "entity_type": "HCP"});
        let soft = json!({"mode": "soft", "entity_type": "HCP"});
        let matched = async |mut request: Value| {
            request["expected_count"] = json!(0);
            world.refused(START, request).await.members["matched_count"].clone()
        };
        assert_eq!((matched(hard).await, matched(soft).await), (json!(12), json!(2)), "a hard delete takes what is soft-deleted as well");
    }

    async fn guards_in_the_body_count_as_those_beside_it_and_must_agree(world: &World) {
        given(world);
        let spec = |guards: Value| {
            let mut spec = json!({"objects": {"entity_type": "HCP"}});
            spec.as_object_mut().unwrap().extend(guards.as_object().unwrap().clone());
            spec
        };
        for guards in [json!({"expected_count": 11}), json!({"max_objects": 11})] {
            assert_eq!(world.refused(START, json!({"spec": spec(guards.clone())})).await.code, "count_mismatch", "{guards}");
        }
        let both = json!({"spec": spec(json!({"expected_count": 12, "max_objects": 20})), "expected_count": 11, "max_objects": 20});
        let refusal = world.refused(START, both).await;
        let fields: Vec<_> = refusal.faults.iter().map(|fault| fault.field.trim_start_matches("spec.")).collect();
        assert_eq!((refusal.code.as_str(), fields), ("validation_failed", vec!["expected_count"]));
        nothing_started(world);
        let alike = json!({"spec": spec(json!({"expected_count": 12, "max_objects": 20})), "expected_count": 12, "max_objects": 20});
        assert_status(&world.done(START, alike).await, 200);
    }

    async fn every_fault_of_a_start_is_reported_at_once(world: &World) {
        let request = json!({
            "spec": {"objects": {"exclude_list": ["a b"]}}, "expected_count": -1, "max_objects": -1, "max_objects_per_second": 0,
            "clean_report_within": "0s", "send_mail": "nobody",
        });
        let refusal = world.refused(START, request).await;
        let fields: Vec<_> = refusal.faults.iter().map(|fault| fault.field.trim_start_matches("spec.")).collect();
        let expected = [
            "send_mail", "expected_count", "max_objects", "max_objects_per_second", "clean_report_within", "objects.filter", "objects.exclude_list[0]",
        ];
        assert_eq!((refusal.code.as_str(), fields), ("validation_failed", expected.to_vec()));
        let two_ways = json!({"spec": {"match_all": true}, "entity_type": "x".repeat(300), "expected_count": -1});
        let fields: Vec<_> = world.refused(START, two_ways).await.faults.into_iter().map(|fault| fault.field).collect();
        assert_eq!(fields, ["expected_count", "entity_type", "entity_type"], "it is too long, and there are two ways");
        nothing_started(world);
    }

    async fn a_limit_of_speed_is_kept_with_the_task(world: &World) {
        let started = world.done(START, json!({"entity_type": "Nothing", "max_objects_per_second": 250})).await;
        assert_eq!(started.get("parameters.maxObjectsPerSecond"), "250");
        assert_eq!(world.database.count("SELECT max_objects_per_second FROM bulk_delete"), 250);
    }

    /// Whatever comes to be selected while a task runs, it takes up no more than it was said to.
    async fn a_task_takes_up_no_more_than_it_may(world: &World) {
        given(world);
        let flagged = |ids: &str| {
            world.database.sql(&format!("UPDATE entity SET attributes = attributes || jsonb_build_object('Flag', 'y'), version = version + 1 WHERE id IN ({ids})"));
        };
        flagged("'e-000001', 'e-000002', 'e-000003', 'e-000004'");
        for guard in [json!({"expected_count": 4}), json!({"max_objects": 5})] {
            let mut request = json!({"mode": "soft", "spec": {"objects": {"filter": "equals(attributes.Flag, y)"}}, "max_objects_per_second": 1});
            request.as_object_mut().unwrap().extend(guard.as_object().unwrap().clone());
            let task = world.schedule(request).await;
            let begun = |task: &Value| task["current_state"]["number_of_processed_objects"] != 0;
            world.call_until("BulkDeleteService/GetTask", json!({"task_id": task}), begun).await;
            flagged("'e-000005', 'e-000006', 'e-000007', 'e-000008'");
            let ended = world.task_ended(&task).await;
            assert_eq!((ended.get("status"), ended.get("error_code")), (&json!("failed"), &json!("count_mismatch")), "{guard}");
            let most = guard.as_object().unwrap().values().next().unwrap().as_i64().unwrap();
            assert_eq!(Account::of(&ended).processed, most, "{guard}");
            assert!(text(ended.get("error_message")).contains(&format!("more than {most} entities")), "{:#}", ended.json);
            assert_eq!(world.database.rows("entity WHERE deleted_at IS NOT NULL"), most);
            world.database.sql(
                "UPDATE entity SET deleted_at = NULL, deleted_by = NULL, attributes = CASE WHEN id > 'e-000004' THEN attributes - 'Flag' ELSE attributes END",
            );
        }
    }

    /// It changes nothing, so it is not a response to be kept.
    async fn a_dry_run_takes_no_idempotency_key(world: &World) {
        given(world);
        let key = [("idempotency-key", "start-once")];
        let previewed = async || {
            let previewed = world.client.call_with(START, json!({"entity_type": "HCP", "dry_run": true}), &key).await.unwrap();
            previewed.get("preview.matched_count").clone()
        };
        assert_eq!(previewed().await, 12);
        world.database.sql("DELETE FROM entity WHERE id = 'e-000001'");
        assert_eq!(previewed().await, 11);
        let started = world.client.call_with(START, json!({"entity_type": "HCP"}), &key).await.unwrap();
        assert_eq!(world.task_ended(&id(&started)).await.get("status"), "completed");
    }

    async fn a_report_is_asked_for_that_is_young_and_clean(world: &World) {
        let request = json!({"entity_type": "Nothing", "clean_report_within": "3600s"});
        let refusal = world.refused(START, request.clone()).await;
        assert_eq!((refusal.code.as_str(), refusal.http.unwrap_or(409)), ("report_required", 409));
        assert_eq!(refusal.members["clean_report_within"], "3600s");
        assert_eq!(world.refused(START, json!({"entity_type": "Nothing", "clean_report_within": "60s", "dry_run": true})).await.code, "report_required");
        nothing_started(world);
        world.client("acme", "live", SCOPES);
        let report = |id: u32, org_mode: &str, status: &str, began: &str, ended: &str| {
            world.database.sql(&format!(
                "INSERT INTO bulk_delete (realm_id, id, name, kind, status, principal_id, api_key_id, updated_by, started_at, ended_at, error_code, fix)
                 SELECT id, '0190a1b2-0000-7000-8000-00000000000{id}', 'Check', 'check_consistency', '{status}', gen_random_uuid(), gen_random_uuid(),
                        gen_random_uuid(), now() - interval '{began}', {ended}, CASE WHEN '{status}' = 'failed' THEN 'internal' END, true
                 FROM realm WHERE org || mode = '{org_mode}'"
            ));
        };
        report(1, "acmetest", "completed", "2 hours", "now()");
        report(2, "acmetest", "processing", "1 minute", "NULL");
        report(3, "acmetest", "failed", "1 minute", "now()");
        report(4, "acmelive", "completed", "1 minute", "now()");
        assert_eq!(world.refused(START, request.clone()).await.code, "report_required");
        report(5, "acmetest", "completed", "59 minutes", "now() - interval '50 minutes'");
        world.done(START, request.clone()).await;
        // A newer finding is not undone by an older one, nor by a check that was stopped.
        report(6, "acmetest", "completed_with_errors", "40 minutes", "now() - interval '30 minutes'");
        report(7, "acmetest", "canceled", "20 minutes", "now()");
        assert_eq!(world.refused(START, request.clone()).await.code, "report_required");
        report(8, "acmetest", "completed", "10 minutes", "now() - interval '5 minutes'");
        world.done(START, request.clone()).await;
        // One that was at work at the same time may have seen what the other did not.
        report(9, "acmetest", "completed_with_errors", "15 minutes", "now() - interval '6 minutes'");
        assert_eq!(world.refused(START, request).await.code, "report_required");
    }

    async fn a_guarded_start_is_answered_alike_however_often_it_is_sent(world: &World) {
        given(world);
        let key = [("idempotency-key", "k")];
        let request = json!({"entity_type": "HCP", "mode": "hard", "expected_count": 12});
        let first = world.client.call_with(START, request.clone(), &key).await.unwrap();
        world.task_ended(&id(&first)).await;
        let again = world.client.call_with(START, request.clone(), &key).await.unwrap();
        assert_eq!((again.header("idempotent-replayed"), &again.json), (Some("true"), &first.json), "though nothing is selected any more");
        assert_eq!(world.refused(START, request).await.code, "count_mismatch");
        assert_eq!(world.database.rows("bulk_delete"), 1);
    }
}
