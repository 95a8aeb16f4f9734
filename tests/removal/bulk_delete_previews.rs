//! A preview of a bulk delete shows exactly what it would do, and changes nothing.

use diesel::connection::SimpleConnection;

use crate::given::{Account, Many, assert_status};
use crate::kit::*;

const START: &str = "BulkDeleteService/StartBulkDelete";

/// All that a bulk delete could change.
fn stored(world: &World) -> String {
    let tables = [
        "entity",
        "dependent",
        "portfolio",
        "tombstone",
        "event",
        "bulk_delete",
        "bulk_delete_slice",
        "bulk_delete_mail",
    ];
    let rows =
        tables.map(|table| format!("SELECT t::text AS row FROM {table} t")).join(" UNION ALL ");
    world
        .database
        .text(&format!("SELECT md5(string_agg(row, E'\\n' ORDER BY row)) FROM ({rows}) AS rows"))
        .unwrap_or_default()
}

async fn preview_of(world: &World, mut request: Value) -> Value {
    request["dry_run"] = json!(true);
    let before = stored(world);
    let answer = world.done(START, request).await;
    assert_status(&answer, 200);
    assert_eq!(
        (answer.get("id"), answer.get("status"), answer.get("type")),
        (&json!(""), &Value::Null, &json!("DeleteEntitiesTask"))
    );
    assert_eq!(stored(world), before, "nothing has changed");
    answer.get("preview").clone()
}

/// 130 entities that could be deleted, ten of which were soft-deleted before, and some that could not.
async fn given(world: &World) {
    world.given_portfolio("p").await;
    world.database.given_many(Many {
        prefix: "e",
        count: 130,
        dependents: 1,
        portfolio: Some("p"),
    });
    world.bulk_delete(json!({"spec": {"objects": {"filter": "in(attributes.n, '121,122,123,124,125,126,127,128,129,130')"}}})).await;
    for id in ["held-1", "held-2", "a-leaving"] {
        world.given_entity(id, json!({"attributes": {"n": 1}})).await;
    }
    world.given_entity("new", json!({"state": "onboarding", "attributes": {"n": 1}})).await;
    world.given_entity("other", json!({"type": "HCO"})).await;
    world.database.hold("held-1");
    world.database.hold("held-2");
    world.offboard("a-leaving", "3600s").await;
}

scenario! {
    async fn a_preview_is_what_the_task_does(world: &World) {
        given(world).await;
        let excluded = json!(["entities/e-000001", "held-2", "other", "nobody"]);
        let by_filter = json!({"objects": {"filter": "exists(attributes.n)", "entity_type": "HCP", "exclude_list": excluded}});
        let all = json!({"match_all": true, "objects": {"exclude_list": excluded}});
        let listed = json!({"objects": {"uri_list": ["entities/e-000002", "e-000130", "held-1", "nobody", "nowhere", "new"], "exclude_list": excluded}});
        for (mode, spec, matched, deletable, failing, excluded) in [
            ("soft", &by_filter, 124, 119, json!({"on_hold": 1, "onboarding": 1, "offboarding": 1}), 2),
            ("hard", &by_filter, 134, 129, json!({"on_hold": 1, "onboarding": 1, "offboarding": 1}), 2),
            ("soft", &all, 125, 119, json!({"on_hold": 1, "onboarding": 1, "offboarding": 1}), 3),
            ("soft", &listed, 6, 1, json!({"on_hold": 1, "onboarding": 1, "not_found": 2}), 1),
            ("hard", &listed, 6, 2, json!({"on_hold": 1, "onboarding": 1, "not_found": 1}), 1),
        ] {
            let preview = preview_of(world, json!({"mode": mode, "spec": spec})).await;
            let failed: i64 = failing.as_object().unwrap().values().map(|count| count.as_i64().unwrap()).sum();
            assert_eq!(preview["matched_count"], matched, "{mode} {spec}");
            assert_eq!((&preview["deletable_count"], &preview["failing_count"], &preview["excluded_count"]), (&json!(deletable), &json!(failed), &json!(excluded)), "{mode} {spec}");
            assert_eq!(preview["failing_by_reason"], failing, "{mode} {spec}");
            assert_eq!(preview["sample"].as_array().unwrap().len(), usize::min(100, deletable), "{mode} {spec}");
        }
        let preview = preview_of(world, json!({"mode": "soft", "spec": by_filter})).await;
        let first: Vec<_> = (2..=101).map(|n| json!(format!("e-{n:06}"))).collect();
        assert_eq!(preview["sample"], json!(first), "the first hundred, without what is excluded or would fail");

        for (mode, spec) in [("soft", listed), ("hard", by_filter)] {
            let preview = preview_of(world, json!({"mode": mode, "spec": spec})).await;
            let task = Account::of(&world.bulk_delete(json!({"mode": mode, "spec": spec, "allow_missing_excludes": true})).await);
            let reported = |name: &str| preview[name].as_i64().unwrap();
            assert_eq!((task.matched, task.processed, task.failed, task.excluded), (reported("matched_count"), reported("deletable_count"), reported("failing_count"), reported("excluded_count")));
        }
        world.database.assert_sound();
    }

    async fn a_preview_of_nothing_has_nothing(world: &World) {
        for request in [json!({"entity_type": "Nothing"}), json!({"spec": {"match_all": true}})] {
            let mut preview = preview_of(world, request).await;
            let token = preview.as_object_mut().unwrap().remove("token").unwrap();
            assert!(token.as_str().is_some_and(|token| !token.is_empty()));
            let expected = json!({"matched_count": 0, "deletable_count": 0, "failing_count": 0, "excluded_count": 0, "failing_by_reason": {}, "sample": [], "estimated_duration": "0s", "warnings": [], "missing_excluded_count": 0, "missing_excluded": [], "missing_uri_count": 0, "missing_uris": [], "unselected_excluded_count": 0, "unselected_excluded": []});
            assert_eq!(preview, expected);
        }
        let alone = preview_of(world, json!({"uris": ["nobody"]})).await;
        assert_eq!((&alone["matched_count"], &alone["failing_by_reason"]), (&json!(1), &json!({"not_found": 1})));
    }

    async fn a_preview_is_refused_as_the_task_would_be(world: &World) {
        world.database.given_many(Many { prefix: "e", count: 3, dependents: 0, portfolio: None });
        for guard in [json!({"expected_count": 2}), json!({"max_objects": 2})] {
            let mut request = json!({"entity_type": "HCP", "dry_run": true});
            request.as_object_mut().unwrap().extend(guard.as_object().unwrap().clone());
            let refusal = world.refused(START, request).await;
            assert_eq!((refusal.code.as_str(), &refusal.members["matched_count"]), ("count_mismatch", &json!(3)));
        }
        assert_eq!(world.refused(START, json!({"dry_run": true})).await.code, "validation_failed");
        let mixed = json!({"dry_run": true, "spec": {"objects": {"filter": "exists(uri) and exists(type) or missing(type)"}}});
        assert_eq!(world.refused(START, mixed).await.code, "invalid_filter");
    }

    async fn what_is_of_other_realms_is_not_counted(world: &World) {
        world.database.given_many(Many { prefix: "e", count: 3, dependents: 0, portfolio: None });
        for (org, mode) in [("acme", "live"), ("umbrella", "test")] {
            let theirs = world.client(org, mode, SCOPES);
            let answer = theirs.call(START, json!({"spec": {"match_all": true}, "dry_run": true})).await.unwrap();
            assert_eq!(answer.get("preview.matched_count"), 0);
            let listed = theirs.call(START, json!({"uris": ["e-000001"], "dry_run": true})).await.unwrap();
            assert_eq!(listed.get("preview.failing_by_reason"), &json!({"not_found": 1}));
        }
    }

    /// Tasks that ended report how fast the next will be: the realm's own first.
    async fn the_time_that_it_takes_is_distinguished_from_what_others_took(world: &World) {
        world.database.given_many(Many { prefix: "e", count: 40, dependents: 0, portfolio: None });
        world.client("umbrella", "test", SCOPES);
        let ended = |org: &str, mode: &str, processed: i64, seconds: i64, more: &str| {
            let more = if more.is_empty() { "{}" } else { more };
            world.database.sql(&format!(
                "WITH task AS (
                    INSERT INTO bulk_delete (realm_id, id, name, mode, status, entity_type, principal_id, api_key_id, updated_by, started_at, ended_at,
                                             worked, parameters)
                    SELECT r.id, gen_random_uuid(), 'x', '{mode}', 'completed', 'T', gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
                           now() - interval '1 day', now(), interval '{seconds} seconds', '{more}'
                    FROM realm r WHERE r.org = '{org}' AND r.mode = 'test'
                    RETURNING realm_id, id)
                 INSERT INTO bulk_delete_slice (realm_id, bulk_delete_id, slice, done, matched, processed)
                 SELECT realm_id, id, 0, true, {processed}, {processed} FROM task"
            ));
        };
        let estimate = async |mode: &str, pace: Option<i32>| {
            let request = json!({"entity_type": "HCP", "mode": mode, "max_objects_per_second": pace, "dry_run": true});
            let request = Value::Object(request.as_object().unwrap().clone().into_iter().filter(|(_, value)| !value.is_null()).collect());
            let answer = world.done(START, request).await;
            answer.get("preview.estimated_duration").as_str().unwrap().to_owned()
        };
        assert_ne!(estimate("hard", None).await, "0s", "without any task, by how long the look took");
        ended("umbrella", "hard", 2_000, 100, "");
        ended("acme", "hard", 5, 500, "");
        ended("acme", "hard", 1_000, 100_000, r#"{"maxObjectsPerSecond": "1"}"#);
        assert_eq!(estimate("hard", None).await, "2s", "by another realm's 20 a second at work; a task of five says nothing, nor does one with a pace");
        ended("acme", "hard", 1_000, 100, "");
        ended("acme", "hard", 7_000, 100, "");
        assert_eq!(estimate("hard", None).await, "1s", "by the realm's own 40 a second");
        assert_eq!(estimate("hard", Some(10)).await, "4s", "no faster than is allowed");
        ended("acme", "soft", 1_000, 100, "");
        assert_eq!(estimate("soft", None).await, "4s", "by tasks of the same mode");
    }
}

/// A preview is bounded as every statement is: it ends, and reports so.
#[tokio::test]
async fn a_preview_that_takes_too_long_is_ended() {
    let world = World::start_with(Protocol::Rest, &["--db-statement-timeout", "0.3"]).await;
    let mut other = world.database.connection();
    other.batch_execute("BEGIN; LOCK TABLE entity").unwrap();
    let refusal = world.refused(START, json!({"entity_type": "HCP", "dry_run": true})).await;
    assert_eq!((refusal.code.as_str(), refusal.http), ("deadline_exceeded", Some(504)));
}
