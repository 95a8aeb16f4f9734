//! Filters that take long: whoever has one keeps no worker from others, and is stopped at once.

use std::time::Duration;

use url::Url;

use crate::given::{Account, Many, id};
use crate::kit::*;

const GET: &str = "BulkDeleteService/GetTask";
/// Looks at every entity, and means it.
const SLOW: &str = "startsWith(attributes.n, '5')";
const RUNNING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'offboard' AND state = 'active' AND wait_event = 'PgSleep'";

/// A server for which a condition on a text takes a while, and costs nothing: in its sessions `lower` sleeps before it does what it does.
async fn slow_world(protocol: Protocol, millis: u32, arguments: &[&str]) -> World {
    let database = database().await;
    database.sql(&format!(
        "CREATE SCHEMA slow;
         CREATE FUNCTION slow.lower(text) RETURNS text LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_catalog.pg_sleep({millis} / 1000.0); RETURN pg_catalog.lower($1); END $$"
    ));
    let key = Key::create(&database, "acme", "test", SCOPES);
    let mut url = Url::parse(&database.url).unwrap();
    url.query_pairs_mut().append_pair("options", "-csearch_path=slow,pg_catalog,public");
    // A blank is a plus there, which libpq does not know; there is none.
    let server = Server::start_on(url.as_str(), arguments, &[]).await;
    let client = Client::new(&server, &key, protocol);
    World { client, server, key, protocol, database }
}

async fn status(client: &Client, task: &str) -> String {
    client
        .call(GET, json!({"task_id": task}))
        .await
        .unwrap()
        .get("status")
        .as_str()
        .unwrap()
        .to_owned()
}

/// Within a few seconds, where the statement under way would take a minute.
async fn soon(client: &Client, task: &str, expected: &str) {
    for _ in 0..200 {
        if status(client, task).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the task is {} and not {expected}", status(client, task).await);
}

#[tokio::test]
async fn four_slow_tasks_of_one_tenant_do_not_keep_the_task_of_another() {
    let world = slow_world(Protocol::Grpc, 5, &["--bulk-workers=2"]).await;
    world.database.given_many(Many { prefix: "e", count: 12_000, dependents: 0, portfolio: None });
    let other = world.client("umbrella", "test", SCOPES);
    world.database.sql(
        "INSERT INTO entity (realm_id, id, incarnation, type, state)
         SELECT r.id, 'o-' || n, gen_random_uuid(), 'HCP', 'active' FROM realm r, generate_series(1, 10) n WHERE r.org = 'umbrella'",
    );
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(
            world.schedule(json!({"spec": {"objects": {"filter": SLOW}}, "mode": "soft"})).await,
        );
    }
    until("both workers are at it", || world.database.count(RUNNING) == 2).await;
    let ten = other
        .call("BulkDeleteService/StartBulkDelete", json!({"entity_type": "HCP", "mode": "hard"}))
        .await
        .unwrap();
    let ten = id(&ten);
    let mut last = Value::Null;
    for _ in 0..1000 {
        last = other.call(GET, json!({"task_id": ten})).await.unwrap().json;
        if !last["end_time"].is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(last["status"], "completed", "{last:#}");
    for task in &slow {
        assert!(
            world.done(GET, json!({"task_id": task})).await.get("end_time").is_null(),
            "the slow ones were finished first"
        );
        world.done("BulkDeleteService/StopTask", json!({"task_id": task})).await;
    }
    for task in &slow {
        soon(&world.client, task, "canceled").await;
    }
    until("nothing is under way any more", || world.database.count(RUNNING) == 0).await;
    world.database.assert_sound();
}

async fn stops_at_once(protocol: Protocol) {
    let world = slow_world(protocol, 5, &[]).await;
    world.database.given_many(Many { prefix: "e", count: 12_000, dependents: 0, portfolio: None });
    let task = world.schedule(json!({"spec": {"objects": {"filter": SLOW}}, "mode": "soft"})).await;
    for (method, then) in [("PauseTask", "paused"), ("StopTask", "canceled")] {
        until("the statement is under way", || world.database.count(RUNNING) == 1).await;
        let reported = std::time::Instant::now();
        world.done(&format!("BulkDeleteService/{method}"), json!({"task_id": task})).await;
        soon(&world.client, &task, then).await;
        assert!(
            reported.elapsed() < Duration::from_secs(3),
            "{method} took {:?}",
            reported.elapsed()
        );
        assert_eq!(world.database.count(RUNNING), 0, "the statement is over");
        if then == "paused" {
            world.done("BulkDeleteService/ResumeTask", json!({"task_id": task})).await;
        }
    }
    assert_eq!(world.database.rows("entity WHERE deleted_at IS NOT NULL"), 0);
    world.database.assert_sound();
}

#[tokio::test]
async fn a_task_in_the_middle_of_a_slow_statement_stops_at_once_by_grpc() {
    stops_at_once(Protocol::Grpc).await;
}

#[tokio::test]
async fn a_task_in_the_middle_of_a_slow_statement_stops_at_once_by_rest() {
    stops_at_once(Protocol::Rest).await;
}

/// Longer than a statement of a worker may take, at once; then in steps, each behind the other.
#[tokio::test]
async fn a_task_that_is_planned_in_steps_takes_what_it_selects() {
    let world = slow_world(Protocol::Grpc, 4, &[]).await;
    world.database.given_many(Many { prefix: "e", count: 1_500, dependents: 0, portfolio: None });
    let task = world.schedule(json!({"spec": {"objects": {"filter": SLOW}}, "mode": "hard"})).await;
    until("it is planned in steps", || {
        world.database.rows("bulk_delete WHERE planning IS NOT NULL") == 1
    })
    .await;
    until("it is planned", || {
        world.database.rows("bulk_delete WHERE selected = 111 AND planning IS NULL") == 1
    })
    .await;
    until("it is over", || world.database.rows("bulk_delete WHERE ended_at IS NOT NULL") == 1)
        .await;
    let ended = world.task_ended(&task).await;
    // 5, 50 to 59 and 500 to 599.
    assert_eq!(Account::of(&ended), Account { matched: 111, processed: 111, ..Account::default() });
    world.database.assert_sound();
}
