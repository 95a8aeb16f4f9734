//! Many workers, many tasks: they share slices, take turns, and take over from those who are late.

use diesel::connection::SimpleConnection;

use crate::given::{Account, Many, id};
use crate::kit::*;

const GET: &str = "BulkDeleteService/GetTask";
pub const SUBJECTS: &str = "SELECT count(DISTINCT s) * 1000000 + count(*) FROM event, unnest(subjects) s WHERE type = 'entity.deleted'";

/// Entities of another organisation, whose client is returned.
fn given_others(world: &World, count: i64) -> Client {
    let other = world.client("umbrella", "test", SCOPES);
    world.database.sql(&format!(
        "INSERT INTO entity (realm_id, id, incarnation, type, state)
         SELECT r.id, 'o-' || n, gen_random_uuid(), 'HCP', 'active' FROM realm r, generate_series(1, {count}) n WHERE r.org = 'umbrella'"
    ));
    other
}

async fn ended(client: &Client, task: &str) -> Answer {
    for _ in 0..1500 {
        let task = client.call(GET, json!({"task_id": task})).await.unwrap();
        if !task.get("end_time").is_null() {
            return task;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the task does not end");
}

/// One worker; the first task would keep it busy for long.
#[tokio::test]
async fn the_ten_of_one_tenant_do_not_wait_for_the_many_of_another() {
    let world =
        World::start_with(Protocol::Grpc, &["--bulk-chunk-size", "5", "--bulk-turn", "0"]).await;
    let other = given_others(&world, 10);
    world.database.given_many(Many { prefix: "e", count: 30_000, dependents: 0, portfolio: None });
    let many = world.schedule(json!({"entity_type": "HCP", "mode": "hard"})).await;
    world
        .call_until(GET, json!({"task_id": many}), |task| {
            task["current_state"]["number_of_processed_objects"] != 0
        })
        .await;

    let started = other
        .call("BulkDeleteService/StartBulkDelete", json!({"entity_type": "HCP", "mode": "hard"}))
        .await
        .unwrap();
    let ten = ended(&other, &id(&started)).await;
    assert_eq!(Account::of(&ten), Account { matched: 10, processed: 10, ..Account::default() });
    // Neither does a small one of the same tenant.
    let small = world
        .bulk_delete(json!({"uris": ["e-029998", "e-029999", "e-030000"], "mode": "hard"}))
        .await;
    assert_eq!(Account::of(&small), Account { matched: 3, processed: 3, ..Account::default() });

    let unfinished = world.done(GET, json!({"task_id": many})).await;
    assert!(
        unfinished.get("end_time").is_null(),
        "the many were finished first: {:#}",
        unfinished.json
    );
    let waited = format!(
        "bulk_delete WHERE id = '{many}' AND EXISTS (SELECT FROM event WHERE type = 'bulk_delete.waiting' AND '{many}' = ANY(subjects))"
    );
    assert_eq!(world.database.rows(&waited), 1, "it waited for its turn");
    world.call_until(GET, json!({"task_id": many}), |task| task["status"] == "processing").await;
    world.done("BulkDeleteService/StopTask", json!({"task_id": many})).await;
    let stopped = world.task_ended(&many).await;
    assert_eq!(stopped.get("status"), "canceled");
    assert_eq!(world.database.rows("entity"), 30_000 - 3 - Account::of(&stopped).processed);
    world.database.assert_sound();
}

/// One worker, which would stay with a task for a minute.
#[tokio::test]
async fn a_task_of_limited_pace_neither_keeps_a_worker_nor_waits_long_for_one() {
    let world =
        World::start_with(Protocol::Rest, &["--bulk-chunk-size", "5", "--bulk-turn", "60"]).await;
    let other = given_others(&world, 1_000);
    world.database.given_many(Many { prefix: "e", count: 30_000, dependents: 0, portfolio: None });
    let slow = json!({"entity_type": "HCP", "mode": "soft", "max_objects_per_second": 2});
    let slow = id(&other.call("BulkDeleteService/StartBulkDelete", slow).await.unwrap());
    let processed =
        |task: &Value| task["current_state"]["number_of_processed_objects"].as_i64().unwrap();
    until("it is at work", || world.database.rows("event WHERE type = 'entity.deleted'") > 0).await;

    // While the one waits for its allowance, the other is served; and the one has its allowance all the same.
    let many = world.schedule(json!({"entity_type": "HCP", "mode": "soft"})).await;
    let meanwhile =
        world.call_until(GET, json!({"task_id": many}), |task| processed(task) > 1_000).await;
    let before = processed(&other.call(GET, json!({"task_id": slow})).await.unwrap().json);
    let gone = "SELECT count(*) FROM entity e JOIN realm r ON r.id = e.realm_id WHERE r.org = 'umbrella' AND e.deleted_at IS NOT NULL";
    until("the slow one has moved", || world.database.count(gone) > before + 1).await;
    assert!(meanwhile.get("end_time").is_null());
    let many_now = world.done(GET, json!({"task_id": many})).await;
    assert!(
        many_now.get("end_time").is_null(),
        "the many were finished first: {:#}",
        many_now.json
    );
    let slow_now = other.call(GET, json!({"task_id": slow})).await.unwrap();
    assert!(
        slow_now.get("end_time").is_null() && processed(&slow_now.json) < 500,
        "{:#}",
        slow_now.json
    );
    for (client, task) in [(&world.client, &many), (&other, &slow)] {
        client.call("BulkDeleteService/StopTask", json!({"task_id": task})).await.unwrap();
        assert_eq!(ended(client, task).await.get("status"), "canceled");
    }
    world.database.assert_sound();
}

/// Cuts a task that is planned by nobody yet into four slices, and says that it selects so many.
fn cut(database: &Database, task: &str, prefix: &str, count: i64) {
    let at = |n: i64| format!("{prefix}-{:06}", count * n / 4);
    database.sql(&format!(
        "UPDATE bulk_delete SET selected = {count} WHERE id = '{task}';
         UPDATE bulk_delete_slice SET until_id = '{a}' WHERE bulk_delete_id = '{task}';
         INSERT INTO bulk_delete_slice (realm_id, bulk_delete_id, slice, cursor_id, until_id)
         SELECT realm_id, '{task}'::uuid, s.n, s.cursor_id, s.until_id
         FROM (SELECT id AS realm_id, org, mode FROM realm) r, (VALUES (1, '{a}', '{b}'), (2, '{b}', '{c}'), (3, '{c}', NULL)) s(n, cursor_id, until_id)
         WHERE org = 'acme' AND mode = 'test';
         UPDATE bulk_delete_slice SET due_at = now() WHERE bulk_delete_id = '{task}'",
        a = at(1),
        b = at(2),
        c = at(3),
    ));
}

/// The first worker is delayed in the first slice; so the second has all the others to itself.
#[tokio::test]
async fn two_processes_share_the_slices_of_a_task() {
    const COUNT: i64 = 2_000;
    let arguments = [
        "--bulk-chunk-size",
        "50",
        "--bulk-chunk-target",
        "10",
        "--db-lock-timeout",
        "60",
        "--poll-interval",
        "0.05",
    ];
    let mut world = World::start_with(Protocol::Rest, &["--roles", "grpc,gateway"]).await;
    world.given_portfolio("p").await;
    world.database.given_many(Many {
        prefix: "e",
        count: COUNT,
        dependents: 1,
        portfolio: Some("p"),
    });
    let task = world.schedule(json!({"entity_type": "HCP", "mode": "hard"})).await;
    cut(&world.database, &task, "e", COUNT);
    let mut other = world.database.connection();
    other.batch_execute("BEGIN; SELECT FROM entity WHERE id = 'e-000100' FOR UPDATE").unwrap();
    let _first = Server::start_with(&world.database, &arguments, &[]).await;
    until("the first worker is blocked", || world.database.waiting_for_locks() > 0).await;
    let _second = Server::start_with(&world.database, &arguments, &[]).await;
    until("the second worker has done all else", || {
        world.database.rows("bulk_delete_slice WHERE done") == 3
    })
    .await;
    let halfway = world.done(GET, json!({"task_id": task})).await;
    assert_eq!(
        (halfway.get("status"), Account::of(&halfway).processed),
        (&json!("processing"), COUNT * 3 / 4 + 50)
    );
    other.batch_execute("ROLLBACK").unwrap();
    world.client = world.through(Protocol::Grpc);
    let ended = world.task_ended(&task).await;
    assert_eq!(
        Account::of(&ended),
        Account { matched: COUNT, processed: COUNT, ..Account::default() }
    );
    assert_eq!(ended.get("current_state.last_execution_instances").as_array().unwrap().len(), 2);
    assert_eq!(
        world.database.count("SELECT count(DISTINCT lease_owner) FROM bulk_delete_slice"),
        2,
        "both have finished slices"
    );
    assert_eq!(
        world.database.count(SUBJECTS),
        COUNT * 1_000_001,
        "each entity is reported of once"
    );
    assert_eq!((world.database.rows("entity"), world.database.rows("tombstone")), (0, COUNT));
    world.database.assert_sound();
}

/// One worker works at any time, another one when nobody is kept waiting by it.
#[tokio::test]
async fn a_second_worker_helps_while_hardly_anyone_calls() {
    const COUNT: i64 = 60_000;
    let world =
        World::start_with(Protocol::Grpc, &["--bulk-idle-workers", "1", "--poll-interval", "0.05"])
            .await;
    world.database.given_many(Many { prefix: "e", count: COUNT, dependents: 0, portfolio: None });
    let task = world
        .schedule(json!({"entity_type": "HCP", "mode": "soft", "max_objects_per_second": 400}))
        .await;
    let at_work =
        || world.database.rows("bulk_delete_slice WHERE NOT done AND lease_owner IS NOT NULL");
    until("two slices are worked on", || at_work() == 2).await;
    for _ in 0..100 {
        world.done(GET, json!({"task_id": task})).await;
    }
    until("one of them is given back", || at_work() == 1).await;
    let halfway = world.done(GET, json!({"task_id": task})).await;
    assert_eq!(halfway.get("status"), &json!("processing"), "the other one is worked on");
    until("two slices are worked on again", || at_work() == 2).await;
    world.database.sql("UPDATE bulk_delete SET max_objects_per_second = NULL");
    let ended = world.task_ended(&task).await;
    assert_eq!(
        Account::of(&ended),
        Account { matched: COUNT, processed: COUNT, ..Account::default() }
    );
    assert_eq!(
        world.database.count(SUBJECTS),
        COUNT * 1_000_001,
        "each entity is reported of once"
    );
    world.database.assert_sound();
}

/// A long list is cut like any other selection.
#[tokio::test]
async fn a_long_list_is_cut_and_loses_nothing_at_the_cuts() {
    const COUNT: i64 = 60_000;
    let world = World::start_with(Protocol::Grpc, &["--bulk-workers", "2"]).await;
    world.database.given_many(Many { prefix: "e", count: COUNT, dependents: 0, portfolio: None });
    world.database.sql("DELETE FROM entity WHERE id IN ('e-015000', 'e-015001', 'e-060000')");
    let uris: Vec<_> = (1..=COUNT).map(|n| format!("e-{n:06}")).collect();
    let ended = world.bulk_delete(json!({"uris": uris, "mode": "soft"})).await;
    assert_eq!(
        Account::of(&ended),
        Account { matched: COUNT, processed: COUNT - 3, failed: 3, ..Account::default() }
    );
    assert_eq!(
        world.failures(&id(&ended)).await,
        ["e-015000: not_found", "e-015001: not_found", "e-060000: not_found"]
    );
    assert_eq!(world.database.rows("bulk_delete_slice WHERE done AND matched = 15000"), 4);
    assert_eq!(
        world.database.count(SUBJECTS),
        (COUNT - 3) * 1_000_001,
        "each entity is reported of once"
    );
    world.database.assert_sound();
}

/// `OFFBOARD_CHAOS_KILLS` says how often; `script/chaos` does it a hundred times.
#[tokio::test]
async fn a_task_survives_the_death_of_one_of_two_workers_at_any_instant() {
    const COUNT: i64 = 1_200;
    /// Within so many milliseconds of a task's start a worker dies; a task takes about that long.
    const WINDOW: u64 = 1_000;
    let kills: usize =
        std::env::var("OFFBOARD_CHAOS_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let arguments = ["--bulk-chunk-size", "20", "--lease", "1", "--poll-interval", "0.02"];
    let world = World::start_with(Protocol::Grpc, &["--roles", "grpc,gateway"]).await;
    let database = &world.database;
    // A removal takes a while, as with a slower disk, so an instant is more often in the middle of one; and Postgres checks whether its
    // client is still there, so some chunks end with their worker while others end without it. A task is delayed until it is cut.
    database.sql(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END $$;
         CREATE TRIGGER linger BEFORE INSERT ON tombstone FOR EACH ROW EXECUTE FUNCTION linger();
         CREATE FUNCTION hold_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.due_at := 'infinity'; RETURN NEW; END $$;
         CREATE TRIGGER hold_back BEFORE INSERT ON bulk_delete_slice FOR EACH ROW EXECUTE FUNCTION hold_back();
         DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET client_connection_check_interval = 10', current_database()); END $$",
    );
    world.given_portfolio("p").await;
    let mut workers = [
        Server::start_with(database, &arguments, &[]).await,
        Server::start_with(database, &arguments, &[]).await,
    ];
    let (mut in_the_middle, mut taken_over) = (0, 0);
    for round in 1..=kills {
        let prefix = format!("r{round}");
        database.given_many(Many {
            prefix: &prefix,
            count: COUNT,
            dependents: 1,
            portfolio: Some("p"),
        });
        database
            .sql(&format!("UPDATE entity SET state = 'onboarding' WHERE id LIKE '{prefix}-%77'"));
        let spec = json!({"objects": {"filter": format!("startsWith(uri, 'entities/{prefix}-')"), "exclude_list": [format!("{prefix}-000001")]}});
        let task = world.schedule(json!({"mode": "hard", "spec": spec})).await;
        cut(database, &task, &prefix, COUNT);
        tokio::time::sleep(std::time::Duration::from_millis(rand::random::<u64>() % WINDOW)).await;
        let doomed = usize::from(rand::random::<bool>());
        workers[doomed].kill();
        let done = database.count(&format!(
            "SELECT sum(matched) FROM bulk_delete_slice WHERE bulk_delete_id = '{task}'"
        ));
        in_the_middle += usize::from((1..COUNT).contains(&done));
        workers[doomed] = Server::start_with(database, &arguments, &[]).await;
        let ended = world.task_ended(&task).await;
        let account =
            Account { matched: COUNT, processed: COUNT - 13, failed: 12, excluded: 1, skipped: 0 };
        assert_eq!(
            (ended.get("status"), Account::of(&ended)),
            (&json!("completed_with_errors"), account),
            "round {round}"
        );
        let reported = format!(
            "SELECT count(DISTINCT s) * 1000000 + count(*) FROM event, unnest(subjects) s
             WHERE type = 'entity.deleted' AND data ->> 'bulk_delete_id' = '{task}'"
        );
        assert_eq!(
            database.count(&reported),
            (COUNT - 13) * 1_000_001,
            "round {round}: each entity is reported of once"
        );
        assert_eq!(database.rows(&format!("entity WHERE id LIKE '{prefix}-%'")), 13);
        taken_over += usize::from(
            ended.get("current_state.last_execution_instances").as_array().unwrap().len() > 1,
        );
        database.assert_sound();
        database.sql(
            "DELETE FROM dependent; DELETE FROM entity; UPDATE portfolio SET entity_count = 0",
        );
    }
    println!(
        "{kills} workers were killed, {in_the_middle} in the middle of a task; {taken_over} tasks were finished by another one"
    );
    assert!(in_the_middle > 0, "no worker was killed in the middle of a task");
}

/// While replicas are replaced one by one, the older ones leave alone what they do not know.
#[tokio::test]
async fn what_a_later_version_has_brought_is_left_to_its_workers() {
    let world = World::start_with(Protocol::Grpc, &["--poll-interval", "0.05"]).await;
    world.database.sql(
        "ALTER TABLE bulk_delete DROP CONSTRAINT bulk_delete_kind;
         CREATE TEMP TABLE later AS
         SELECT r.id AS realm_id, gen_random_uuid() AS id, k.*
         FROM realm r, (VALUES ('check_consistency', true, 'tomorrow'), ('tomorrow', NULL, NULL)) AS k(kind, fix, part);
         INSERT INTO bulk_delete (realm_id, id, name, kind, status, fix, selected, principal_id, api_key_id, updated_by)
         SELECT realm_id, id, 'Later', kind, 'scheduled', fix, 0, gen_random_uuid(), gen_random_uuid(), gen_random_uuid() FROM later;
         INSERT INTO bulk_delete_slice (realm_id, bulk_delete_id, slice, part) SELECT realm_id, id, 0, part FROM later",
    );
    for _ in 0..3 {
        let task = world.done("BulkDeleteService/CheckConsistency", json!({})).await;
        assert_eq!(world.task_ended(&id(&task)).await.get("status"), "completed");
    }
    let untouched = "bulk_delete b JOIN bulk_delete_slice s ON s.bulk_delete_id = b.id
                     WHERE b.name = 'Later' AND b.status = 'scheduled' AND s.attempts = 0 AND s.lease_owner IS NULL AND NOT s.done";
    assert_eq!(world.database.rows(untouched), 2);
}
