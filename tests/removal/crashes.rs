//! Servers that are killed or stopped in the middle of their work: others finish it, and nothing is done twice or by half.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use futures::future::join_all;
use nix::sys::signal::Signal;

use crate::given::{Account, Many, id};
use crate::kit::*;

/// A worker polls for work often, and takes over what was lost after a second.
const EAGER: [&str; 4] = ["--lease", "1", "--poll-interval", "0.05"];

fn eager<'a>(more: &[&'a str]) -> Vec<&'a str> {
    EAGER.iter().chain(more).copied().collect()
}

fn processed(database: &Database) -> i64 {
    database.count("SELECT coalesce(sum(processed), 0) FROM bulk_delete_slice")
}

fn succeeded(database: &Database) -> i64 {
    database.rows("offboarding_request WHERE status = 'succeeded'")
}

/// Each entity that was to be removed is removed once, with all of its dependents.
fn assert_gone(database: &Database, count: i64, reported_by: &str) {
    assert_eq!((database.rows("entity"), database.rows("dependent")), (0, 0));
    assert_eq!(database.rows("tombstone"), count);
    let reported = format!("event, unnest(subjects) s WHERE type = '{reported_by}'");
    assert_eq!(database.rows(&reported), count);
    assert_eq!(
        database.count(&format!("SELECT count(DISTINCT s) FROM {reported}")),
        count,
        "no entity is reported of twice"
    );
    assert_eq!(database.entity_counts(), 0);
    database.assert_sound();
}

#[tokio::test]
async fn a_bulk_delete_survives_the_death_of_its_workers() {
    const COUNT: i64 = 20_000;
    let arguments = eager(&["--bulk-chunk-size", "50"]);
    let mut world = World::start_with(Protocol::Rest, &eager(&["--roles", "grpc,gateway"])).await;
    for portfolio in ["p", "q"] {
        world.given_portfolio(portfolio).await;
    }
    world.database.given_many(Many {
        prefix: "a",
        count: COUNT / 2,
        dependents: 2,
        portfolio: Some("p"),
    });
    world.database.given_many(Many {
        prefix: "b",
        count: COUNT / 2,
        dependents: 2,
        portfolio: Some("q"),
    });
    let task = world.schedule(json!({"entity_type": "HCP", "mode": "hard"})).await;
    let mut killed_in_the_middle = 0;
    for _ in 0..5 {
        world.server.kill();
        let before = processed(&world.database);
        killed_in_the_middle += usize::from((1..COUNT).contains(&before));
        world.server = Server::start_with(&world.database, &arguments, &[]).await;
        until("the task goes on", || before == COUNT || processed(&world.database) > before).await;
        tokio::time::sleep(Duration::from_millis(rand::random::<u64>() % 100)).await;
    }
    world.server.kill();
    let left = COUNT - processed(&world.database);
    println!(
        "{left} of {COUNT} were left to the last worker, after {killed_in_the_middle} deaths in the middle"
    );
    assert!(killed_in_the_middle > 0, "no worker was killed in the middle of the task");
    world.server = Server::start_with(&world.database, &arguments, &[]).await;
    world.client = world.through(Protocol::Rest);
    let ended = world.task_ended(&task).await;
    assert_eq!(ended.get("status"), "completed");
    assert_eq!(
        Account::of(&ended),
        Account { matched: COUNT, processed: COUNT, ..Account::default() }
    );
    assert_eq!(ended.get("current_state.number_of_selected_objects"), COUNT);
    assert_gone(&world.database, COUNT, "entity.deleted");
    // Whether anybody noticed that it was lost depends on how soon it was taken up again.
    let history =
        world.database.history(&task).replace(" bulk_delete.lost bulk_delete.continued", "");
    assert_eq!(history, "bulk_delete.scheduled bulk_delete.started bulk_delete.ended");
}

#[tokio::test]
async fn offboardings_survive_the_death_of_a_worker_in_the_middle_of_them() {
    const COUNT: i64 = 1_000;
    let mut world = World::start_with(Protocol::Grpc, &["--roles", "grpc,gateway"]).await;
    for portfolio in ["p", "q"] {
        world.given_portfolio(portfolio).await;
    }
    world.database.given_many(Many {
        prefix: "a",
        count: COUNT / 2,
        dependents: 3,
        portfolio: Some("p"),
    });
    world.database.given_many(Many {
        prefix: "b",
        count: COUNT / 2,
        dependents: 3,
        portfolio: Some("q"),
    });
    let entities: Vec<_> =
        (1..=COUNT / 2).flat_map(|n| [format!("a-{n:06}"), format!("b-{n:06}")]).collect();
    for group in entities.chunks(100) {
        join_all(group.iter().map(|entity| world.remove(entity))).await;
    }
    world.server.kill();

    // While a portfolio is locked, a removal of its members cannot end: whoever is killed then is killed in the middle.
    let mut other = world.database.connection();
    other.batch_execute("BEGIN; SELECT FROM portfolio WHERE id = 'q' FOR UPDATE").unwrap();
    let mut doomed = Server::start_with(&world.database, &EAGER, &[]).await;
    until("its worker is in the middle of a removal", || world.database.waiting_for_locks() > 0)
        .await;
    world.server = Server::start_with(&world.database, &EAGER, &[]).await;
    until("both are", || world.database.waiting_for_locks() > 1).await;
    doomed.kill();
    other.batch_execute("COMMIT").unwrap();
    until("the survivor goes on", || succeeded(&world.database) > 0).await;
    world.server.kill();
    println!("{} of {COUNT} were left to the last worker", COUNT - succeeded(&world.database));

    world.server = Server::start_with(&world.database, &EAGER, &[]).await;
    until("all are done", || succeeded(&world.database) == COUNT).await;
    assert_eq!(world.database.rows("offboarding_request"), COUNT);
    assert_gone(&world.database, COUNT, "entity.offboarded");
    world.client = world.through(Protocol::Grpc);
    let again = world.remove("a-000001").await;
    assert_eq!(again.get("status"), "succeeded");
}

/// Asks for the offboarding of every entity by SQL, as the service does, after a grace period that is not over before a test says so.
fn ask_for_all(database: &Database) {
    database.sql(
        "WITH leaving AS (
            UPDATE entity SET state = 'offboarding', version = version + 1, updated_at = now() RETURNING *
         ),
         asked AS (
            INSERT INTO offboarding_request
                (realm_id, id, entity_id, incarnation, principal_id, api_key_id, status, components, execute_after, due_at)
            SELECT realm_id, gen_random_uuid(), id, incarnation, gen_random_uuid(), gen_random_uuid(), 'pending', components,
                   now() + interval '1 day', now() + interval '1 day'
            FROM leaving
            RETURNING *
         )
         INSERT INTO event (realm_id, type, subjects, principal_id, data)
         SELECT a.realm_id, 'entity.offboarding_requested', ARRAY[a.entity_id], a.principal_id,
                jsonb_build_object('offboarding_request_id', a.id, 'execute_after', a.execute_after, 'version', l.version)
         FROM asked a JOIN leaving l ON l.incarnation = a.incarnation",
    );
}

/// Makes so many more requests ready, at moments all over the next `milliseconds`.
fn let_fall_due(database: &Database, count: i64, milliseconds: u64) {
    database.sql(&format!(
        "UPDATE offboarding_request SET due_at = now() + random() * interval '{milliseconds} milliseconds', execute_after = now()
         WHERE id IN (SELECT id FROM offboarding_request WHERE execute_after > now() ORDER BY id LIMIT {count})"
    ));
}

/// Work becomes ready bit by bit, all the time, so that each death is in the midst of it.
#[tokio::test]
async fn offboardings_survive_fifty_deaths_at_any_instant() {
    const COUNT: i64 = 5_000;
    const DEATHS: i64 = 50;
    const WINDOW: u64 = 250;
    let world = World::start_with(Protocol::Grpc, &["--roles", "grpc,gateway"]).await;
    let database = &world.database;
    for portfolio in ["p", "q"] {
        world.given_portfolio(portfolio).await;
        database.given_many(Many {
            prefix: portfolio,
            count: COUNT / 2,
            dependents: 2,
            portfolio: Some(portfolio),
        });
    }
    ask_for_all(database);
    // A removal takes a while, as with a slower disk, so an instant is more often in the middle of one; and Postgres checks whether its client is
    // still there, so some removals end with their worker while others end without it.
    database.sql(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.003); RETURN NEW; END $$;
         CREATE TRIGGER linger BEFORE INSERT ON tombstone FOR EACH ROW EXECUTE FUNCTION linger();
         DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET client_connection_check_interval = 10', current_database()); END $$",
    );
    let arguments = ["--lease", "1", "--poll-interval", "0.02"];
    let mut servers = [
        Server::start_with(database, &arguments, &[]).await,
        Server::start_with(database, &arguments, &[]).await,
    ];
    let mut before = 0;
    for _ in 0..DEATHS {
        let_fall_due(database, COUNT / (DEATHS + 1), WINDOW);
        let instant = Duration::from_millis(rand::random::<u64>() % WINDOW);
        tokio::time::sleep(instant).await;
        until("the work has moved on since the last death", || succeeded(database) > before).await;
        let doomed = usize::from(rand::random::<bool>());
        servers[doomed].kill();
        before = succeeded(database);
        assert!(before < COUNT, "nothing was left to do");
        servers[doomed] = Server::start_with(database, &arguments, &[]).await;
    }
    let_fall_due(database, COUNT, WINDOW);
    until("all are done", || succeeded(database) == COUNT).await;
    let taken_over = database.rows("offboarding_request WHERE attempts > 1");
    println!("{taken_over} of {COUNT} were taken over from the dead");
    assert!(taken_over > 0, "no worker was killed in the middle");
    assert_eq!(database.rows("offboarding_request"), COUNT);
    assert_gone(database, COUNT, "entity.offboarded");
    let histories =
        "(SELECT string_agg(type, ' ' ORDER BY seq) AS told FROM event, unnest(subjects) s WHERE type LIKE 'entity.%' GROUP BY s) t
        WHERE told = 'entity.offboarding_requested entity.offboarded'";
    assert_eq!(database.rows(histories), COUNT, "each transition is reported once");
}

#[tokio::test]
async fn a_server_that_shuts_down_stops_at_the_end_of_a_chunk_and_another_continues() {
    const COUNT: i64 = 20_000;
    let mut world = World::start_with(Protocol::Rest, &["--bulk-chunk-size", "20"]).await;
    world.given_portfolio("p").await;
    world.database.given_many(Many {
        prefix: "e",
        count: COUNT,
        dependents: 1,
        portfolio: Some("p"),
    });
    let task = id(&world
        .done("BulkDeleteService/StartBulkDelete", json!({"entity_type": "HCP", "mode": "hard"}))
        .await);
    until("the task is at work", || processed(&world.database) > 0).await;
    world.server.signal(Signal::SIGTERM);
    assert!(world.server.ended().await.success());

    let database = &world.database;
    let done = processed(database);
    assert!(done < COUNT, "it did not stop");
    assert_eq!(done % 20, 0, "a chunk is done or not begun");
    assert_eq!(
        (database.rows("tombstone"), database.rows("entity"), database.rows("dependent")),
        (done, COUNT - done, COUNT - done)
    );
    assert_eq!(
        database
            .rows("bulk_delete_slice WHERE NOT done AND lease_owner IS NULL AND due_at <= now()"),
        1,
        "the lease is given back"
    );
    assert_eq!(database.rows("bulk_delete WHERE status = 'scheduled_poll'"), 1);
    database.assert_sound();

    // With the lease still held this one would have to wait for ten minutes.
    let arguments = ["--lease", "600", "--poll-interval", "0.05"];
    world.server = Server::start_with(&world.database, &arguments, &[]).await;
    world.client = world.through(Protocol::Rest);
    let ended = world.task_ended(&task).await;
    assert_eq!(
        Account::of(&ended),
        Account { matched: COUNT, processed: COUNT, ..Account::default() }
    );
    assert_eq!(ended.get("current_state.last_execution_instances").as_array().unwrap().len(), 2);
    assert_gone(&world.database, COUNT, "entity.deleted");
}

/// A task gives up when it has not moved for ten tries. Earlier pauses do not count.
#[tokio::test]
async fn a_task_that_moves_again_has_all_its_tries_before_it() {
    let mut world = World::start_with(Protocol::Grpc, &["--roles", "grpc,gateway"]).await;
    world.given_portfolio("p").await;
    world.database.given_many(Many { prefix: "a", count: 10, dependents: 0, portfolio: None });
    world.database.given_many(Many { prefix: "b", count: 10, dependents: 1, portfolio: Some("p") });
    let task = world.schedule(json!({"entity_type": "HCP", "mode": "hard"})).await;
    world.database.sql("UPDATE bulk_delete_slice SET attempts = 9");
    world.database.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE 'terminating connection' USING ERRCODE = 'admin_shutdown'; END $$;
         CREATE TRIGGER refuse BEFORE DELETE ON dependent FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let arguments = eager(&["--bulk-chunk-size", "10"]);
    world.server = Server::start_with(&world.database, &arguments, &[]).await;
    world.client = world.through(Protocol::Grpc);
    until("the second chunk has failed", || world.server.log().contains("slice failed")).await;
    world.database.sql("DROP FUNCTION refuse CASCADE");
    let ended = world.task_ended(&task).await;
    assert_eq!(Account::of(&ended), Account { matched: 20, processed: 20, ..Account::default() });
    assert_gone(&world.database, 20, "entity.deleted");
}
