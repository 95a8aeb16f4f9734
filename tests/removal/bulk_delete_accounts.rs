//! A bulk delete accounts for every entity exactly: many failures, many slices, and others who change the entities that it is about to
//! delete.

use std::collections::BTreeSet;

use diesel::connection::SimpleConnection;

use crate::given::{Account, Many, id, text};
use crate::kit::*;

const FAILURES: &str = "BulkDeleteService/ListTaskFailures";

scenario! {
    async fn every_failure_is_on_one_page_and_the_first_hundred_are_shown(world: &World) {
        world.database.given_many(Many { prefix: "e", count: 260, dependents: 0, portfolio: None });
        world.database.sql("UPDATE entity SET state = 'onboarding' WHERE id <= 'e-000250'");
        let task = world.bulk_delete(json!({"entity_type": "HCP", "mode": "hard"})).await;
        assert_eq!(task.get("status"), "completed_with_errors");
        assert_eq!(Account::of(&task), Account { matched: 260, processed: 10, failed: 250, ..Account::default() });
        let expected: Vec<_> = (1..=250).map(|n| format!("e-{n:06}")).collect();
        assert_eq!(task.get("current_state.objects_failed_to_delete"), &json!(expected[..100]));

        let (mut found, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = world.done(FAILURES, json!({"task_id": id(&task), "page_size": 125, "page_token": token})).await;
            for failure in page.get("failures").as_array().unwrap() {
                assert_eq!((&failure["reason"], &failure["message"]), (&json!("onboarding"), &json!("The entity is still onboarding.")));
                assert!(failure["time"].is_i64());
                found.push(text(&failure["entity_id"]));
            }
            token = text(page.get("next_page_token"));
            pages += 1;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!((found, pages), (expected, 2));
        let first = world.done(FAILURES, json!({"task_id": id(&task)})).await;
        assert_eq!(first.get("failures").as_array().unwrap().len(), 100, "unless the caller says otherwise");
    }

    async fn a_page_that_cannot_be_is_refused(world: &World) {
        let task = world.schedule(json!({"uris": ["nowhere"]})).await;
        for (request, field) in [
            (json!({"task_id": task, "page_size": 1001}), "page_size"),
            (json!({"task_id": task, "page_size": -1}), "page_size"),
            (json!({"task_id": task, "page_token": "!"}), "page_token"),
            (json!({"task_id": task, "page_token": "YSBi"}), "page_token"),
        ] {
            let refusal = world.refused(FAILURES, request).await;
            assert_eq!((refusal.code.as_str(), refusal.http.unwrap_or(400)), ("validation_failed", 400));
            assert_eq!(refusal.faults[0].field, field);
        }
        world.task_ended(&task).await;
    }
}

/// Above 50,000 entities a task is cut into four slices, which two workers share.
#[tokio::test]
async fn a_large_task_is_cut_and_loses_nothing_at_the_cuts() {
    let world = World::start_with(Protocol::Grpc, &["--bulk-workers", "2"]).await;
    world.given_portfolio("p").await;
    let database = &world.database;
    database.given_many(Many { prefix: "e", count: 60_000, dependents: 0, portfolio: Some("p") });
    database.given_many(Many { prefix: "x", count: 10, dependents: 1, portfolio: None });
    database.sql("UPDATE entity SET type = 'HCO' WHERE id LIKE 'x-%'; ANALYZE entity");
    database.sql(
        "UPDATE entity SET state = 'onboarding' WHERE id IN ('e-000001', 'e-030000', 'e-060000')",
    );
    let spec = json!({"objects": {"entity_type": "HCP", "exclude_list": ["e-000002", "x-000001"]}});
    let task = world.schedule(json!({"mode": "hard", "spec": spec})).await;
    let ended = world.task_ended(&task).await;
    assert_eq!(
        Account::of(&ended),
        Account {
            matched: 60_000,
            processed: 59_996,
            failed: 3,
            excluded: 1,
            ..Account::default()
        }
    );
    assert_eq!(ended.get("current_state.number_of_selected_objects"), 60_000);
    assert_eq!(database.rows("bulk_delete_slice WHERE done AND matched > 0"), 4);
    assert_eq!(
        (database.rows("entity"), database.rows("tombstone"), database.rows("dependent")),
        (14, 59_996, 10)
    );
    assert_eq!(database.entity_count(), 4);
    let subjects = "SELECT count(DISTINCT s) - count(*) FROM event, unnest(subjects) s WHERE type = 'entity.deleted'";
    assert_eq!(database.count(subjects), 0, "no entity is reported of twice");
}

/// Others change entities of a chunk while it waits for one of them: each is judged again as it then is.
async fn changed_meanwhile(mode: &str) -> (World, Answer) {
    let world = World::start(Protocol::Rest).await;
    world.given_portfolio("p").await;
    world.database.given_many(Many { prefix: "e", count: 10, dependents: 1, portfolio: Some("p") });
    let mut other = world.database.connection();
    let change = "BEGIN;
        UPDATE entity SET attributes = '{\"n\": 100}', version = version + 1 WHERE id = 'e-000003';
        UPDATE entity SET attributes = '{\"n\": 1, \"more\": 1}', version = version + 1 WHERE id = 'e-000004';
        UPDATE entity SET state = 'onboarding', version = version + 1 WHERE id = 'e-000005';
        UPDATE entity SET hold_reason = 'x', hold_placed_by = gen_random_uuid(), hold_placed_at = now(), version = version + 1
        WHERE id = 'e-000006';
        INSERT INTO dependent (realm_id, entity_id, kind, id) SELECT realm_id, id, 'task', 'late' FROM entity WHERE id = 'e-000007';
        UPDATE entity SET version = version + 1 WHERE id = 'e-000007';
        DELETE FROM dependent WHERE entity_id = 'e-000008';
        DELETE FROM entity WHERE id = 'e-000008';
        UPDATE portfolio SET entity_count = entity_count - 1;";
    other.batch_execute(change).unwrap();
    let numbers: Vec<_> = (1..=10).map(|n| n.to_string()).collect();
    let filter = format!("in(attributes.n, '{}')", numbers.join(","));
    let spec = json!({"objects": {"filter": filter, "exclude_list": ["e-000010"]}});
    let task = world.schedule(json!({"mode": mode, "spec": spec})).await;
    until("the chunk waits for the other's row", || world.database.waiting_for_locks() > 0).await;
    other.batch_execute("COMMIT").unwrap();
    let ended = world.task_ended(&task).await;
    assert_eq!(
        Account::of(&ended),
        Account { matched: 10, processed: 5, failed: 2, excluded: 1, skipped: 2 }
    );
    assert_eq!(world.failures(&task).await, ["e-000005: onboarding", "e-000006: on_hold"]);
    for (n, stays) in [
        (1, false),
        (2, false),
        (3, true),
        (4, false),
        (5, true),
        (6, true),
        (7, false),
        (8, false),
        (9, false),
        (10, true),
    ] {
        assert_eq!(world.sees(&format!("e-{n:06}")).await, stays, "{n}");
    }
    (world, ended)
}

#[tokio::test]
async fn what_changed_before_its_hard_deletion_is_judged_again() {
    let (world, _) = changed_meanwhile("hard").await;
    assert_eq!(
        world.database.rows("dependent WHERE id = 'late'"),
        0,
        "what was added late goes with its entity"
    );
    assert_eq!(
        world
            .database
            .text("SELECT string_agg(version::text, '' ORDER BY entity_id) FROM tombstone")
            .unwrap(),
        "11221"
    );
    world.database.assert_sound();
}

#[tokio::test]
async fn what_changed_before_its_soft_deletion_is_judged_again() {
    let (world, task) = changed_meanwhile("soft").await;
    let deleted = format!(
        "SELECT string_agg(version::text, '' ORDER BY id) FROM entity WHERE deleted_by = '{}'",
        id(&task)
    );
    assert_eq!(world.database.text(&deleted).unwrap(), "22332");
    world.database.assert_sound();
}

/// A row that another session does not let go of costs that row, not the task.
#[tokio::test]
async fn an_entity_that_stays_locked_fails_alone() {
    for mode in ["soft", "hard"] {
        let world = World::start_with(Protocol::Rest, &["--db-lock-timeout", "0.3"]).await;
        world.database.given_many(Many { prefix: "e", count: 10, dependents: 1, portfolio: None });
        let mut other = world.database.connection();
        other
            .batch_execute(
                "BEGIN; SELECT FROM entity WHERE id IN ('e-000003', 'e-000007') FOR KEY SHARE",
            )
            .unwrap();
        other
            .batch_execute("SELECT FROM entity WHERE id IN ('e-000003', 'e-000007') FOR UPDATE")
            .unwrap();
        let task = world.schedule(json!({"entity_type": "HCP", "mode": mode})).await;
        let ended = world.task_ended(&task).await;
        other.batch_execute("ROLLBACK").unwrap();
        assert_eq!(ended.get("status"), "completed_with_errors");
        assert_eq!(
            Account::of(&ended),
            Account { matched: 10, processed: 8, failed: 2, ..Account::default() }
        );
        assert_eq!(world.failures(&task).await, ["e-000003: locked", "e-000007: locked"]);
        let again = world.bulk_delete(json!({"entity_type": "HCP", "mode": mode})).await;
        assert_eq!(Account::of(&again), Account { matched: 2, processed: 2, ..Account::default() });
        world.database.assert_sound();
    }
}

/// Neither does a portfolio: only its members are left.
#[tokio::test]
async fn the_members_of_a_portfolio_that_stays_locked_fail_alone() {
    for mode in ["soft", "hard"] {
        let world = World::start_with(Protocol::Grpc, &["--db-lock-timeout", "0.3"]).await;
        for portfolio in ["p", "q"] {
            world.given_portfolio(portfolio).await;
        }
        world.database.given_many(Many { prefix: "e", count: 10, dependents: 1, portfolio: None });
        world.database.given_many(Many {
            prefix: "f",
            count: 2,
            dependents: 1,
            portfolio: Some("p"),
        });
        world.database.given_many(Many {
            prefix: "g",
            count: 10,
            dependents: 1,
            portfolio: Some("q"),
        });
        let mut other = world.database.connection();
        other.batch_execute("BEGIN; SELECT FROM portfolio WHERE id = 'p' FOR UPDATE").unwrap();
        let task = world.schedule(json!({"entity_type": "HCP", "mode": mode})).await;
        let ended = world.task_ended(&task).await;
        other.batch_execute("ROLLBACK").unwrap();
        assert_eq!(
            Account::of(&ended),
            Account { matched: 22, processed: 20, failed: 2, ..Account::default() }
        );
        assert_eq!(world.failures(&task).await, ["f-000001: locked", "f-000002: locked"]);
        world.database.assert_sound();
    }
}

/// Nor does what hangs on an entity.
#[tokio::test]
async fn an_entity_with_a_dependent_that_stays_locked_fails_alone() {
    let world = World::start_with(Protocol::Grpc, &["--db-lock-timeout", "0.3"]).await;
    world.given_portfolio("p").await;
    world.database.given_many(Many { prefix: "e", count: 10, dependents: 2, portfolio: Some("p") });
    world.database.given_many(Many { prefix: "f", count: 2, dependents: 0, portfolio: None });
    let mut other = world.database.connection();
    other
        .batch_execute(
            "BEGIN; SELECT FROM dependent WHERE entity_id = 'e-000004' LIMIT 1 FOR UPDATE",
        )
        .unwrap();
    let task = world.schedule(json!({"entity_type": "HCP", "mode": "hard"})).await;
    let ended = world.task_ended(&task).await;
    other.batch_execute("ROLLBACK").unwrap();
    assert_eq!(
        Account::of(&ended),
        Account { matched: 12, processed: 11, failed: 1, ..Account::default() }
    );
    assert_eq!(world.failures(&task).await, ["e-000004: locked"]);
    assert_eq!(world.database.rows("dependent WHERE entity_id = 'e-000004'"), 2);
    world.database.assert_sound();
}

/// A chunk that waits for what others have locked lets go of its own every now and then.
#[tokio::test]
async fn whoever_wants_a_row_of_a_chunk_does_not_wait_for_what_the_chunk_waits_for() {
    let world = World::start_with(
        Protocol::Rest,
        &["--db-lock-timeout", "60", "--bulk-chunk-target", "0.05"],
    )
    .await;
    world.database.given_many(Many { prefix: "e", count: 100, dependents: 0, portfolio: None });
    let mut other = world.database.connection();
    other.batch_execute("BEGIN; SELECT FROM entity WHERE id = 'e-000090' FOR UPDATE").unwrap();
    let task = world.schedule(json!({"entity_type": "HCP", "mode": "soft"})).await;
    until("the chunk waits", || world.database.waiting_for_locks() > 0).await;
    // It is done by then, or is let go of: before the other session lets go of anything.
    let wanted = "UPDATE entity SET version = version + 1 WHERE id = 'e-000010'";
    world
        .database
        .connection()
        .batch_execute(&format!("SET lock_timeout = '20s'; {wanted}"))
        .unwrap();
    assert_eq!(world.database.rows("bulk_delete WHERE ended_at IS NULL"), 1);
    other.batch_execute("ROLLBACK").unwrap();
    let ended = world.task_ended(&task).await;
    assert_eq!((ended.get("status"), Account::of(&ended).failed), (&json!("completed"), 0));
    world.database.assert_sound();
}

/// An entity whose very incarnation was removed before, as when a table was restored and another was not, is removed again and delays
/// nothing.
#[tokio::test]
async fn what_has_a_tombstone_already_goes_all_the_same() {
    let world = World::start(Protocol::Rest).await;
    world.database.given_many(Many { prefix: "e", count: 20, dependents: 1, portfolio: None });
    world.database.sql("CREATE TABLE kept AS SELECT * FROM entity WHERE id = 'e-000007'");
    world.bulk_delete(json!({"uris": ["e-000007"], "mode": "hard"})).await;
    world.database.sql("INSERT INTO entity SELECT * FROM kept; DROP TABLE kept");
    let ended = world.bulk_delete(json!({"entity_type": "HCP", "mode": "hard"})).await;
    assert_eq!(ended.get("status"), "completed");
    assert_eq!(Account::of(&ended), Account { matched: 20, processed: 20, ..Account::default() });
    assert_eq!((world.database.rows("entity"), world.database.rows("tombstone")), (0, 20));
}

/// Chunks are cut by key and each is one event with all its ids.
#[tokio::test]
async fn each_chunk_is_one_event() {
    let world = World::start_with(Protocol::Grpc, &["--bulk-chunk-size", "10"]).await;
    world.given_portfolio("p").await;
    world.database.given_many(Many { prefix: "e", count: 25, dependents: 0, portfolio: Some("p") });
    let task = world.bulk_delete(json!({"entity_type": "HCP", "mode": "hard"})).await;
    assert_eq!(Account::of(&task), Account { matched: 25, processed: 25, ..Account::default() });
    let reported = "SELECT string_agg(cardinality(subjects)::text, ' ' ORDER BY seq) FROM event WHERE type = 'entity.deleted'";
    assert_eq!(world.database.text(reported).unwrap(), "10 10 5");
    let subjects = world.database.text("SELECT string_agg(s, ' ') FROM event, unnest(subjects) s WHERE type = 'entity.deleted'").unwrap();
    let expected: BTreeSet<_> = (1..=25).map(|n| format!("e-{n:06}")).collect();
    assert_eq!(subjects.split(' ').map(str::to_owned).collect::<BTreeSet<_>>(), expected);
    let folio = world.done("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await;
    assert_eq!(
        (folio.get("entity_count"), folio.get("version")),
        (&json!(0), &json!(4)),
        "one step for each chunk"
    );
    world.database.assert_sound();
}

/// Of many entities a chunk reads so many and no more, so that it ends soon where few are selected, and loses none at its ends.
#[tokio::test]
async fn a_chunk_that_finds_little_ends_all_the_same() {
    let world = World::start_with(Protocol::Grpc, &["--db-lock-timeout", "60"]).await;
    world.database.given_many(Many { prefix: "e", count: 120_000, dependents: 0, portfolio: None });
    // The first and the last that the first chunk reads, the next one, and the last of all.
    let few = "id IN ('e-000001', 'e-050001', 'e-050002', 'e-120000')";
    world.database.sql(&format!("UPDATE entity SET type = 'HCO' WHERE {few}"));
    let mut other = world.database.connection();
    other.batch_execute("BEGIN; SELECT FROM entity WHERE id = 'e-120000' FOR UPDATE").unwrap();
    let task = world.schedule(json!({"entity_type": "HCO", "mode": "hard"})).await;
    until("the last is waited for", || world.database.waiting_for_locks() > 0).await;
    let slice = "SELECT cursor_id || ' ' || processed FROM bulk_delete_slice";
    let before = world.database.text(slice).unwrap();
    let (cursor, processed) = before.split_once(' ').unwrap();
    assert!(
        ("e-050001".."e-120000").contains(&cursor) && ["2", "3"].contains(&processed),
        "{before}"
    );
    let reported =
        world.database.text("SELECT subjects[1] || ' ' || subjects[2] FROM event WHERE type = 'entity.deleted' ORDER BY seq LIMIT 1");
    assert_eq!(reported.unwrap(), "e-000001 e-050001", "what is at the end belongs to the chunk");
    other.batch_execute("ROLLBACK").unwrap();
    let ended = world.task_ended(&task).await;
    assert_eq!(Account::of(&ended), Account { matched: 4, processed: 4, ..Account::default() });
    assert_eq!(world.database.rows(&format!("entity WHERE {few}")), 0);
    world.database.assert_sound();
}
