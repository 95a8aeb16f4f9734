//! A clock of the database that steps while the service is at work.

use diesel::sql_types::Text;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};

use crate::given::{Account, Many, id};
use crate::kit::*;

/// The service on a database whose clock is the test's to set.
async fn stepping(arguments: &[&str]) -> (SteppingPostgres, World) {
    let clock = SteppingPostgres::start().await;
    let database = database_on(clock.postgres.database_url());
    let key = Key::create(&database, "acme", "test", SCOPES);
    let server = Server::start_with(&database, arguments, &[]).await;
    let client = Client::new(&server, &key, Protocol::Grpc);
    (clock, World { client, server, key, protocol: Protocol::Grpc, database })
}

/// Seconds by which the clock of the database is behind, as one who asks sees it.
fn behind(database: &Database) -> i64 {
    #[derive(QueryableByName)]
    struct Now {
        #[diesel(sql_type = Text)]
        value: String,
    }
    let mut connection = PgConnection::establish(&database.url).unwrap();
    let now: Now =
        sql_query("SELECT floor(extract(epoch FROM clock_timestamp()))::int8::text AS value")
            .get_result(&mut connection)
            .unwrap();
    let here =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(here).unwrap() - now.value.parse::<i64>().unwrap()
}

/// The task continues after the step, and entities that are created after it stay.
async fn a_step_back_of(seconds: i64) {
    const COUNT: i64 = 400;
    let (clock, world) =
        stepping(&["--bulk-chunk-size", "10", "--poll-interval", "0.05", "--bulk-workers", "2"])
            .await;
    world.given_portfolio("p").await;
    world.database.given_many(Many {
        prefix: "e",
        count: COUNT,
        dependents: 1,
        portfolio: Some("p"),
    });
    let slow = json!({"entity_type": "HCP", "mode": "hard", "max_objects_per_second": 100});
    let task = world.schedule(slow).await;
    let processed =
        |task: &Value| task["current_state"]["number_of_processed_objects"].as_i64().unwrap();
    let get = json!({"task_id": task});
    world.call_until("BulkDeleteService/GetTask", get.clone(), |task| processed(task) >= 20).await;

    clock.set(-seconds);
    assert!(
        (behind(&world.database) - seconds).abs() <= 5,
        "the clock has stepped: {}",
        behind(&world.database)
    );
    for entity in ["e-000399a", "zz"] {
        world.given_entity(entity, json!({})).await;
    }
    let created = "entity e JOIN bulk_delete b ON e.created_at < b.created_at WHERE e.id IN ('e-000399a', 'zz')";
    assert_eq!(world.database.rows(created), 2, "by the clock they are older than the task");
    // A task that was never at work before the step, and one that was postponed then.
    world.given_entity("alone", json!({"type": "Other"})).await;
    world.job_ended(&id(&world.remove("alone").await), "succeeded").await;
    let second = world.bulk_delete(json!({"uris": ["e-000400"], "mode": "hard"})).await;
    assert_eq!(Account::of(&second), Account { matched: 1, processed: 1, ..Account::default() });

    let ended = world.task_ended(&task).await;
    let account = Account::of(&ended);
    assert_eq!(
        (ended.get("status"), account.matched, account.failed),
        (&json!("completed"), account.processed, 0),
        "{:#}",
        ended.json
    );
    assert!(
        world.sees("e-000399a").await && world.sees("zz").await,
        "they were created after the task was asked for"
    );
    assert_eq!(world.database.rows("entity"), 2);
    world.database.assert_sound();
}

#[tokio::test]
async fn a_task_goes_on_when_the_clock_steps_back_by_a_minute() {
    a_step_back_of(60).await;
}

#[tokio::test]
async fn a_task_goes_on_when_the_clock_steps_back_by_a_day() {
    a_step_back_of(86_400).await;
}

/// Work that was put off, asked for or leased by the dead before the clock stepped back does not wait until it is where it was.
#[tokio::test]
async fn what_waits_does_not_wait_for_the_clock_to_come_back() {
    let (clock, mut world) = stepping(&["--roles", "grpc,gateway"]).await;
    world.database.given_many(Many { prefix: "e", count: 30, dependents: 0, portfolio: None });
    world.given_entity("asked", json!({})).await;
    world.given_entity("kept", json!({})).await;
    // A day ahead: so everything here is scheduled for tomorrow, once the clock is right again.
    clock.set(86_400);
    let (lost, fresh) = (
        world.schedule(json!({"uris": ["e-000001"]})).await,
        world.schedule(json!({"uris": ["e-000002"]})).await,
    );
    world.database.sql(&format!(
        "UPDATE bulk_delete SET status = 'processing', started_at = now(), working_since = now(), served_at = now() WHERE id = '{lost}';
         UPDATE bulk_delete_slice SET lease_owner = 'nobody', lease_token = 1, due_at = now() + interval '15 s', attempts = 1
         WHERE bulk_delete_id = '{lost}'"
    ));
    let asked = id(&world.remove("asked").await);
    let kept = id(&world.offboard("kept", "1s").await);
    clock.set(0);
    world.server = Server::start_with(&world.database, &["--poll-interval", "0.05"], &[]).await;
    world.client = world.through(Protocol::Grpc);
    for task in [&fresh, &lost] {
        let ended = world.task_ended(task).await;
        assert_eq!(Account::of(&ended), Account { matched: 1, processed: 1, ..Account::default() });
    }
    world.job_ended(&asked, "succeeded").await;
    assert_eq!(
        world.request(&kept).await.get("status"),
        "pending",
        "a grace period ends when the clock says so, and not before"
    );
    world.database.assert_sound();
}

/// A step forward makes leases run out; whoever is at work then does nothing twice.
#[tokio::test]
async fn nothing_is_done_twice_when_the_clock_steps_forward() {
    const COUNT: i64 = 300;
    let (clock, world) =
        stepping(&["--bulk-chunk-size", "5", "--poll-interval", "0.02", "--bulk-workers", "3"])
            .await;
    world.database.given_many(Many { prefix: "e", count: COUNT, dependents: 1, portfolio: None });
    let task = world
        .schedule(json!({"entity_type": "HCP", "mode": "hard", "max_objects_per_second": 200}))
        .await;
    let processed =
        |task: &Value| task["current_state"]["number_of_processed_objects"].as_i64().unwrap();
    for (step, done) in [(60, 10), (3_600, 60), (60, 120), (86_400, 180)] {
        world
            .call_until("BulkDeleteService/GetTask", json!({"task_id": task}), |task| {
                processed(task) >= done
            })
            .await;
        clock.set(step);
    }
    let ended = world.task_ended(&task).await;
    assert_eq!(
        Account::of(&ended),
        Account { matched: COUNT, processed: COUNT, ..Account::default() }
    );
    assert_eq!(world.database.rows("tombstone"), COUNT);
    world.database.assert_sound();
}
