//! The pool on a real Postgres.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod kit;

use std::time::Duration;

use diesel::sql_types::Integer;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use kit::database;
use offboard::db::{Db, Options};

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
