//! Entities that are there although they were removed, as after a restore of some tables and not of others.

use std::collections::BTreeMap;

use diesel::connection::SimpleConnection;

use crate::consistency::{reported, stored};
use crate::given::{Many, id};
use crate::kit::*;

const START: &str = "BulkDeleteService/StartBulkDelete";

/// Keeps a copy of entities and dependents as they are.
fn keep(database: &Database) {
    database.sql("CREATE TABLE kept_entity AS SELECT * FROM entity; CREATE TABLE kept_dependent AS SELECT * FROM dependent");
}

/// Brings back what was kept, and nothing else.
fn restore(database: &Database) {
    database.sql(
        "INSERT INTO entity SELECT * FROM kept_entity ON CONFLICT DO NOTHING;
         INSERT INTO dependent SELECT * FROM kept_dependent ON CONFLICT DO NOTHING",
    );
}

/// Three entities that hard deletes took, one of them soft-deleted before, and two that jobs took; all of them but one were in `p`.
async fn given_removed(world: &World) {
    let database = &world.database;
    world.given_portfolio("p").await;
    database.given_many(Many { prefix: "bulk", count: 2, dependents: 2, portfolio: Some("p") });
    let dependents = json!([{"kind": "task", "id": "t"}]);
    for entity in ["soft", "job", "leaving"] {
        world.given_entity(entity, json!({"portfolio_id": "p", "dependents": dependents})).await;
    }
    world.bulk_delete(json!({"mode": "soft", "uris": ["soft"]})).await;
    keep(database);
    for entity in ["job", "leaving"] {
        world.job_ended(&id(&world.remove(entity).await), "succeeded").await;
    }
    world
        .bulk_delete(json!({"mode": "hard", "uris": ["soft", "bulk-000001", "bulk-000002"]}))
        .await;
    assert_eq!(
        (database.rows("entity"), database.rows("dependent"), database.rows("tombstone")),
        (0, 0, 5)
    );
}

fn findings(kind: &str, ids: &[&str], mended: bool) -> BTreeMap<String, bool> {
    ids.iter().map(|id| (format!("{kind} {id}"), mended)).collect()
}

const REMOVED: [&str; 5] = ["bulk-000001", "bulk-000002", "soft", "job", "leaving"];

scenario! {
    async fn what_is_there_although_it_was_removed_is_taken_away_without_another_word(world: &World) {
        let database = &world.database;
        given_removed(world).await;
        world.assert_clean().await;
        let (before, events) = (stored(database), REMOVED.map(|entity| database.history(entity)));
        restore(database);
        database.sql("UPDATE entity SET state = 'offboarding' WHERE id = 'leaving'");
        let restored = stored(database);

        let report = world.check(json!({"fix": false})).await;
        assert_eq!(reported(&report), (json!({"removed_entity": 5, "portfolio_count": 1}), 0));
        let mut subjects = findings("removed_entity", &REMOVED, false);
        subjects.insert("portfolio_count p".to_owned(), false);
        assert_eq!(world.findings(&report).await, subjects);
        assert_eq!(stored(database), restored, "a report changes nothing");
        let guarded = json!({"entity_type": "HCP", "mode": "hard", "clean_report_within": "3600s"});
        assert_eq!(world.refused(START, guarded).await.code, "report_required");

        let repair = world.check(json!({})).await;
        assert_eq!(reported(&repair), (json!({"removed_entity": 5}), 5));
        assert_eq!(repair.get("status"), "completed");
        assert_eq!(stored(database), before, "all is as it was after their removal");
        assert_eq!(REMOVED.map(|entity| database.history(entity)), events, "they were removed once, with one event");
        database.assert_sound();
        world.assert_clean().await;
    }

    async fn a_tombstone_that_is_lost_is_made_of_what_came_back(world: &World) {
        let database = &world.database;
        given_removed(world).await;
        let before = stored(database);
        restore(database);
        database.sql("DELETE FROM entity WHERE id <> 'job'; DELETE FROM dependent WHERE entity_id <> 'job'; DELETE FROM tombstone WHERE entity_id = 'job'");
        // It left at the version that it had come to by then.
        database.sql("UPDATE entity SET version = version + 1, updated_at = (SELECT created_at FROM offboarding_request WHERE entity_id = 'job')");
        assert_eq!(reported(&world.check(json!({})).await), (json!({"removed_entity": 1}), 1));
        assert_eq!(stored(database), before);
        world.assert_clean().await;
    }

    async fn a_portfolio_that_still_counts_them_is_set_right_by_one_step(world: &World) {
        let database = &world.database;
        given_removed(world).await;
        restore(database);
        database.sql("UPDATE portfolio SET entity_count = 4");
        let version = database.count("SELECT version FROM portfolio");
        assert_eq!(reported(&world.check(json!({})).await), (json!({"removed_entity": 5}), 5));
        let folio = world.done("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await;
        assert_eq!((folio.get("entity_count"), folio.get("version")), (&json!(0), &json!(version + 1)));
        database.assert_sound();
        world.assert_clean().await;
    }

    async fn an_entity_on_hold_or_used_again_or_without_an_event_is_left_alone(world: &World) {
        let database = &world.database;
        given_removed(world).await;
        restore(database);
        database.hold("bulk-000001");
        database.sql(
            "UPDATE entity SET version = version - 1 WHERE id = 'bulk-000001';
             UPDATE entity SET version = version + 7 WHERE id = 'bulk-000002';
             UPDATE portfolio SET entity_count = 4;
             DELETE FROM event WHERE type = 'entity.offboarded' AND subjects = ARRAY['job']",
        );
        let task = world.check(json!({})).await;
        assert_eq!(reported(&task), (json!({"removed_entity": 5, "event_mismatch": 1}), 2));
        assert_eq!(task.get("status"), "completed_with_errors");
        let mut expected = findings("removed_entity", &["soft", "leaving"], true);
        expected.extend(findings("removed_entity", &["bulk-000001", "bulk-000002", "job"], false));
        expected.extend(findings("event_mismatch", &["job"], false));
        assert_eq!(world.findings(&task).await, expected);
        let left = "SELECT string_agg(id, ' ' ORDER BY id) FROM entity";
        assert_eq!(database.text(left).unwrap(), "bulk-000001 bulk-000002 job");
        assert_eq!(database.entity_count(), 3);
        let before = stored(database);
        assert_eq!(reported(&world.check(json!({})).await).0, json!({"removed_entity": 3, "event_mismatch": 1}), "each check shows them");
        assert_eq!(stored(database), before);
    }

    async fn an_entity_put_on_hold_before_its_removal_stays_and_is_reported(world: &World) {
        let database = &world.database;
        given_removed(world).await;
        restore(database);
        let mut other = database.connection();
        other.batch_execute(
            "BEGIN;
             UPDATE entity SET hold_reason = 'audit', hold_placed_by = gen_random_uuid(), hold_placed_at = now() WHERE id = 'bulk-000001'"
        ).unwrap();
        let task = id(&world.done("BulkDeleteService/CheckConsistency", json!({})).await);
        until("the mend waits", || database.waiting_for_locks() > 0).await;
        other.batch_execute("COMMIT").unwrap();
        let ended = world.task_ended(&task).await;
        assert_eq!(reported(&ended), (json!({"removed_entity": 5}), 4));
        assert_eq!(ended.get("status"), "completed_with_errors");
        assert_eq!(database.entity_ids().unwrap(), "bulk-000001");
    }
}
