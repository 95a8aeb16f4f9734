//! The pool on a real Postgres.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod kit;

use std::time::Duration;

use diesel::sql_types::Integer;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use kit::database;
use offboard::db::{Db, Options, deadline};
use offboard::error::Code;

#[derive(QueryableByName)]
struct Backend {
    #[diesel(sql_type = Integer)]
    pid: i32,
}

async fn backend(db: &Db) -> i32 {
    let pid = db.run(|connection| Ok(sql_query("SELECT pg_backend_pid() AS pid").get_result::<Backend>(connection)?.pid));
    pid.await.unwrap()
}

#[tokio::test]
async fn a_connection_that_was_idle_is_used_again() {
    let database = database().await;
    let db = Db::new(Options { pool_size: 2, ..Options::new(&database.url) });
    let first = backend(&db).await;
    // Longer than a connection may be idle without being tested.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(backend(&db).await, first);
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = diesel::sql_types::Text)]
    value: String,
}

async fn statement_timeout(db: &Db) -> String {
    let query = "SELECT current_setting('statement_timeout') AS value";
    db.run(move |connection| Ok(sql_query(query).get_result::<Setting>(connection)?.value)).await.unwrap()
}

#[tokio::test]
async fn a_statement_ends_when_its_caller_stops_waiting_and_the_next_has_its_time_again() {
    let database = database().await;
    let db = Db::new(Options { pool_size: 2, ..Options::new(&database.url) });
    let soon = std::time::Instant::now() + Duration::from_millis(300);
    let slept = db.run(|connection| Ok(sql_query("SELECT 1 AS pid FROM pg_sleep(50)").get_result::<Backend>(connection)?.pid));
    let error = deadline::until(soon, slept).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(statement_timeout(&db).await, "1min");
    let later = std::time::Instant::now() + Duration::from_secs(20);
    assert_eq!(deadline::until(later, statement_timeout(&db)).await, "18432ms");
    let passed = deadline::until(std::time::Instant::now(), db.run(|_| -> offboard::db::Work<()> { panic!("nobody waits for it") })).await;
    assert_eq!(passed.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn the_database_speaks_english_to_us() {
    let database = database().await;
    database.sql("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lc_messages = ''POSIX''', current_database()); END $$");
    assert_eq!(database.text("SELECT current_setting('lc_messages')").unwrap(), "POSIX");
    let db = Db::new(Options { pool_size: 1, ..Options::new(&database.url) });
    let query = "SELECT current_setting('lc_messages') AS value";
    let language = db.run(move |connection| Ok(sql_query(query).get_result::<Setting>(connection)?.value)).await.unwrap();
    assert_eq!(language, "C");
}

#[tokio::test]
async fn an_expression_that_postgres_cannot_use_is_a_fault_of_the_filter() {
    let database = database().await;
    let db = Db::new(Options::new(&database.url));
    let refused = db.run(|connection| Ok(sql_query("SELECT 1 AS pid WHERE 'a' ~ '('").get_result::<Backend>(connection)?.pid)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidFilter);
}
