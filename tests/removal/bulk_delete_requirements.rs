//! Slips that a bulk delete catches, and the requirements of a realm.

use crate::given::{Account, Many, id, text};
use crate::kit::*;

const START: &str = "BulkDeleteService/StartBulkDelete";

fn given(world: &World) {
    world.database.given_many(Many { prefix: "e", count: 12, dependents: 1, portfolio: None });
}

fn unmet(refusal: &Failure) -> Vec<String> {
    assert_eq!(
        (refusal.code.as_str(), refusal.http.unwrap_or(409)),
        ("requirements_unmet", 409),
        "{refusal:#?}"
    );
    refusal.members["unmet"].as_array().unwrap().iter().map(text).collect()
}

scenario! {
    async fn ids_that_exclude_nothing_are_reported_and_prevent_a_hard_delete(world: &World) {
        given(world);
        world.database.sql("UPDATE entity SET deleted_at = now(), deleted_by = gen_random_uuid() WHERE id = 'e-000012'");
        let typos: Vec<_> = (0..150).map(|n| format!("typo-{n:03}")).collect();
        let spared: Vec<_> = typos.iter().cloned().chain(["e-000001".to_owned(), "entities/e-000012".to_owned()]).collect();
        let spec = json!({"objects": {"entity_type": "HCP", "exclude_list": spared}});
        let previewed = world.done(START, json!({"mode": "hard", "spec": spec, "dry_run": true})).await;
        assert_eq!((previewed.get("preview.missing_excluded_count"), previewed.get("preview.missing_excluded")), (&json!(150), &json!(typos[..100])));
        assert_eq!((previewed.get("preview.excluded_count"), previewed.get("preview.warnings").as_array().unwrap().len()), (&json!(2), 1));
        let refusal = world.refused(START, json!({"mode": "hard", "spec": spec})).await;
        assert_eq!((refusal.code.as_str(), refusal.http.unwrap_or(409)), ("missing_excludes", 409));
        assert_eq!((&refusal.members["missing_count"], refusal.members["missing"].as_array().unwrap().len()), (&json!(150), 100));
        assert_eq!(world.database.rows("bulk_delete"), 0);
        // A soft one can be undone in storage: it starts, and says so. It does not see what was soft-deleted before.
        let soft = world.bulk_delete(json!({"spec": spec})).await;
        assert_eq!((soft.get("lists.missing_excluded_count"), soft.get("lists.excluded_count")), (&json!(151), &json!(152)));
        let allowed = world.bulk_delete(json!({"mode": "hard", "spec": spec, "allow_missing_excludes": true})).await;
        assert_eq!(Account::of(&allowed), Account { matched: 12, processed: 10, excluded: 2, ..Account::default() });
        assert_eq!((allowed.get("lists.missing_excluded"), allowed.get("parameters.allowMissingExcludes")), (&json!(typos[..100]), &json!("true")));
        let mut all = spared.iter().map(|id| id.trim_start_matches("entities/").to_owned()).collect::<Vec<_>>();
        all.sort();
        assert_eq!(allowed.get("lists.excluded"), &json!(all[..100]));
        // All of them are kept with the task.
        let (mut kept, mut token) = (Vec::new(), String::new());
        loop {
            let request = json!({"task_id": id(&allowed), "page_size": 100, "page_token": token});
            let page = world.done("BulkDeleteService/ListTaskExcludes", request).await;
            kept.extend(page.get("entity_ids").as_array().unwrap().iter().map(text));
            token = text(page.get("next_page_token"));
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(kept, all);
        assert_eq!(world.refused("BulkDeleteService/ListTaskExcludes", json!({"task_id": "nothing"})).await.code, "not_found");
    }

    async fn uris_of_no_entity_are_reported(world: &World) {
        given(world);
        let request = json!({"mode": "hard", "uris": ["e-000001", "nobody-2", "entities/nobody-1"]});
        let previewed = world.done(START, json!({"mode": "hard", "uris": request["uris"], "dry_run": true})).await;
        assert_eq!((previewed.get("preview.missing_uri_count"), previewed.get("preview.missing_uris")), (&json!(2), &json!(["nobody-1", "nobody-2"])));
        let done = world.bulk_delete(request).await;
        assert_eq!((done.get("lists.missing_uri_count"), done.get("lists.missing_uris")), (&json!(2), &json!(["nobody-1", "nobody-2"])));
        assert_eq!(world.failures(&id(&done)).await, ["nobody-1: not_found", "nobody-2: not_found"]);
    }

    async fn a_preview_and_a_task_name_whose_entities_go_and_what_cannot_be_undone(world: &World) {
        given(world);
        let previewed = world.done(START, json!({"mode": "hard", "entity_type": "HCP", "dry_run": true})).await;
        let task = world.bulk_delete(json!({"mode": "hard", "entity_type": "HCP"})).await;
        for answer in [&previewed, &task] {
            assert_eq!((answer.get("tenant"), answer.get("realm_mode")), (&json!("acme"), &json!("test")));
            assert!(text(answer.get("undo")).contains("cannot be undone"), "{:#}", answer.json);
        }
        let soft = world.bulk_delete(json!({"entity_type": "HCP"})).await;
        assert!(!text(soft.get("undo")).is_empty() && soft.get("undo") != task.get("undo"));
        assert_eq!(soft.get("lists"), &Value::Null);
    }

    async fn all_requirements_of_a_realm_are_reported_at_once(world: &World) {
        given(world);
        let demands = json!({"expected_count": true, "max_objects": 5, "preview_within": "600s", "clean_report_within": "3600s"});
        let policy = world.decide(json!({"hard_delete": demands})).await.unwrap();
        assert_eq!((policy.get("hard_delete.max_objects"), policy.get("soft_delete")), (&json!(5), &Value::Null));
        let hard = json!({"mode": "hard", "entity_type": "HCP"});
        let refusal = world.refused(START, hard.clone()).await;
        assert_eq!(unmet(&refusal), ["max_objects", "clean_report", "expected_count", "preview_token"]);
        assert_eq!((&refusal.members["matched_count"], &refusal.members["max_objects"], refusal.faults.len()), (&json!(12), &json!(5), 4));
        assert_eq!(world.database.rows("bulk_delete"), 0);
        // Operations that the policy does not mention stay as before.
        assert_eq!(Account::of(&world.bulk_delete(json!({"uris": ["e-000012"]})).await).processed, 1);
        // A dry run is the way to a token, and warns of what it will not help with.
        let few = json!({"mode": "hard", "uris": ["e-000001", "e-000002"], "dry_run": true});
        let previewed = world.done(START, few).await;
        let warned: Vec<_> = previewed.get("preview.warnings").as_array().unwrap().iter().map(|warning| text(&warning["code"])).collect();
        assert_eq!(warned, ["requirements_unmet"; 3], "a report, a number and a preview");
        let check = id(&world.done("BulkDeleteService/CheckConsistency", json!({})).await);
        world.task_ended(&check).await;
        let mut start = json!({"mode": "hard", "uris": ["e-000002", "entities/e-000001"], "preview_token": previewed.get("preview.token")});
        assert_eq!(unmet(&world.refused(START, start.clone()).await), ["expected_count"]);
        start["expected_count"] = json!(2);
        let done = world.bulk_delete(start).await;
        assert_eq!((Account::of(&done).processed, done.get("parameters.previewed")), (2, &json!("true")));
        // No demand any more.
        world.decide(json!({"hard_delete": null})).await.unwrap();
        assert_eq!(Account::of(&world.bulk_delete(hard).await).processed, 10);
    }

    async fn a_token_is_of_one_request_and_of_what_it_selects(world: &World) {
        given(world);
        world.decide(json!({"soft_delete": {"preview_within": "600s"}})).await.unwrap();
        let spec = json!({"objects": {"filter": "in(attributes.n, '1,2,3')"}});
        let token = async || world.done(START, json!({"spec": spec, "dry_run": true})).await.get("preview.token").clone();
        let first = token().await;
        let other = json!({"spec": {"objects": {"filter": "in(attributes.n, '1,2,3,4')"}}, "preview_token": first});
        let refusal = world.refused(START, other).await;
        assert_eq!((refusal.code.as_str(), refusal.faults[0].field.replace("previewToken", "preview_token").as_str()), ("validation_failed", "preview_token"));
        assert_eq!(world.refused(START, json!({"spec": spec, "preview_token": "nonsense"})).await.code, "validation_failed");
        // As many as before, but others.
        world.database.sql("UPDATE entity SET attributes = '{\"n\": 3}' WHERE id = 'e-000009'; UPDATE entity SET attributes = '{\"n\": 9}' WHERE id = 'e-000003'");
        let refusal = world.refused(START, json!({"spec": spec, "preview_token": first})).await;
        assert_eq!((refusal.code.as_str(), &refusal.members["matched_count"]), ("count_mismatch", &json!(3)));
        // The same entities, of which one could not be deleted and now can, and the other way round.
        let hold = ("EntityService/PlaceHold", json!({"entity_id": "e-000002", "reason": "case 7"}));
        let release = ("EntityService/ReleaseHold", json!({"entity_id": "e-000002"}));
        for (method, request) in [hold, release] {
            let shown = token().await;
            world.done(method, request).await;
            let refusal = world.refused(START, json!({"spec": spec, "preview_token": shown})).await;
            assert_eq!((refusal.code.as_str(), &refusal.members["matched_count"]), ("count_mismatch", &json!(3)));
        }
        let old = token().await;
        world.decide(json!({"soft_delete": {"preview_within": "0.000001s"}})).await.unwrap();
        assert_eq!(unmet(&world.refused(START, json!({"spec": spec, "preview_token": old})).await), ["preview_token"]);
        world.decide(json!({"soft_delete": {"preview_within": "3600s"}})).await.unwrap();
        let mut in_body = spec.clone();
        in_body["preview_token"] = token().await;
        assert_eq!(Account::of(&world.bulk_delete(json!({"spec": in_body})).await).processed, 3);
    }

    async fn a_removal_may_have_to_be_callable_off(world: &World) {
        world.given_entity("e", json!({})).await;
        let refusal = world.decide(json!({"min_grace_period": "3600s"})).await.unwrap_err();
        assert_eq!(refusal.code, "validation_failed");
        world.decide(json!({"min_grace_period": "3600s", "default_grace_period": "7200s"})).await.unwrap();
        let request = json!({"entity_id": "e", "grace_period": "60s"});
        assert_eq!(unmet(&world.refused("OffboardingService/RequestOffboarding", request).await), ["min_grace_period"]);
        assert_eq!(world.state("e").await, "active");
        // Without a value the default applies.
        let job = world.remove("e").await;
        assert_eq!(job.get("status"), "pending");
        assert_eq!(world.database.rows("offboarding_request WHERE execute_after - created_at BETWEEN interval '7199 s' AND interval '7201 s'"), 1);
    }

    async fn demands_that_are_none_are_refused(world: &World) {
        let demands = json!({"max_objects": -1, "preview_within": "86401s", "clean_report_within": "0s"});
        let refusal = world.decide(json!({"hard_delete": demands, "soft_delete": {"max_objects": -1}})).await.unwrap_err();
        assert_eq!((refusal.code.as_str(), refusal.faults.len()), ("validation_failed", 4), "{refusal:#?}");
    }
}
