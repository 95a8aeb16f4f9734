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
    let pid = db.run(|connection| {
        Ok(sql_query("SELECT pg_backend_pid() AS pid").get_result::<Backend>(connection)?.pid)
    });
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
    db.run(move |connection| Ok(sql_query(query).get_result::<Setting>(connection)?.value))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_statement_ends_when_its_caller_stops_waiting_and_the_next_has_its_time_again() {
    let database = database().await;
    let db = Db::new(Options { pool_size: 2, ..Options::new(&database.url) });
    let soon = std::time::Instant::now() + Duration::from_millis(300);
    let slept = db.run(|connection| {
        Ok(sql_query("SELECT 1 AS pid FROM pg_sleep(50)").get_result::<Backend>(connection)?.pid)
    });
    let error = deadline::until(soon, slept).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(statement_timeout(&db).await, "1min");
    let later = std::time::Instant::now() + Duration::from_secs(20);
    assert_eq!(deadline::until(later, statement_timeout(&db)).await, "18432ms");
    let passed = deadline::until(
        std::time::Instant::now(),
        db.run(|_| -> offboard::db::Work<()> { panic!("nobody waits for it") }),
    )
    .await;
    assert_eq!(passed.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn an_expression_that_postgres_cannot_use_is_a_fault_of_the_filter() {
    let database = database().await;
    let db = Db::new(Options::new(&database.url));
    let refused = db
        .run(|connection| {
            Ok(sql_query("SELECT 1 AS pid WHERE 'a' ~ '('").get_result::<Backend>(connection)?.pid)
        })
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidFilter);
}

/// Fails with this number, and a message that no reader of English knows.
async fn raised(db: &Db, number: &'static str) -> offboard::error::Error {
    let raise = format!(
        "DO $$ BEGIN RAISE EXCEPTION 'Verklemmung entdeckt' USING ERRCODE = '{number}'; END $$"
    );
    db.run(move |connection| Ok(sql_query(raise.clone()).execute(connection)?)).await.unwrap_err()
}

#[tokio::test]
async fn errors_are_recognised_by_their_number_in_any_language() {
    let database = database().await;
    let db = Db::new(Options { pool_size: 1, ..Options::new(&database.url) });
    for (number, code) in [
        ("40P01", Code::Unavailable),
        ("55P03", Code::Unavailable),
        ("57014", Code::DeadlineExceeded),
        ("25006", Code::Unavailable),
        ("57P01", Code::Unavailable),
        ("08006", Code::Unavailable),
        ("53100", Code::Unavailable),
        ("2201B", Code::InvalidFilter),
        ("22021", Code::ValidationFailed),
        ("22012", Code::Internal),
    ] {
        let error = raised(&db, number).await;
        assert_eq!(error.code(), code, "{number}");
        assert!(
            error.cause_chain().unwrap().contains(number),
            "{number}: {:?}",
            error.cause_chain()
        );
    }
}

#[tokio::test]
async fn the_session_says_what_it_needs_whatever_the_database_defaults_to() {
    let database = database().await;
    let name = database.text("SELECT current_database()").unwrap();
    let settings = [
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "TimeZone = 'Asia/Kathmandu'",
        "search_path = elsewhere",
        "idle_session_timeout = 1000",
        "idle_in_transaction_session_timeout = 1",
        "DateStyle = 'German'",
        "IntervalStyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "client_encoding = 'LATIN1'",
        "statement_timeout = 1",
        "lock_timeout = 1",
        "jit = on",
    ];
    // All at once, since whoever connects later has a millisecond for each statement.
    database
        .sql(&settings.map(|setting| format!("ALTER DATABASE {name} SET {setting}")).join("; "));
    let db = Db::new(Options { pool_size: 1, ..Options::new(&database.url) });
    for (setting, value) in [
        ("transaction_isolation", "read committed"),
        ("transaction_deferrable", "off"),
        ("TimeZone", "UTC"),
        ("search_path", "\"$user\", public"),
        ("idle_session_timeout", "0"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("bytea_output", "hex"),
        ("client_encoding", "UTF8"),
        ("statement_timeout", "1min"),
        ("lock_timeout", "5s"),
        ("jit", "off"),
    ] {
        let query = format!("SELECT current_setting('{setting}') AS value");
        let found = db
            .run(move |connection| {
                Ok(sql_query(query.clone()).get_result::<Setting>(connection)?.value)
            })
            .await
            .unwrap();
        assert_eq!(found, value, "{setting}");
    }
}

#[tokio::test]
async fn work_that_lost_its_connection_is_done_again_unless_it_may_have_been_done() {
    let database = database().await;
    let db = Db::new(Options { pool_size: 1, ..Options::new(&database.url) });
    database.sql("CREATE TABLE done (n int4)");
    let attempts = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = |attempts: &std::sync::Arc<std::sync::atomic::AtomicU32>| {
        let attempts = attempts.clone();
        move || attempts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0
    };
    const END: &str = "SELECT 1 AS pid FROM pg_terminate_backend(pg_backend_pid())";

    let first = count(&attempts);
    let read = db.run(move |connection| {
        let query = if first() { END } else { "SELECT 1 AS pid" };
        Ok(sql_query(query).get_result::<Backend>(connection)?.pid)
    });
    assert_eq!(read.await.unwrap(), 1, "a read is done again");

    attempts.store(0, std::sync::atomic::Ordering::SeqCst);
    let first = count(&attempts);
    let written = db.transaction(move |connection| {
        sql_query("INSERT INTO done VALUES (1)").execute(connection)?;
        if first() {
            sql_query(END).get_result::<Backend>(connection)?;
        }
        Ok(())
    });
    written.await.unwrap();
    assert_eq!(
        database.count("SELECT count(*) FROM done"),
        1,
        "a transaction that was not committed is done again"
    );

    attempts.store(0, std::sync::atomic::Ordering::SeqCst);
    let first = count(&attempts);
    let alone = db.run(move |connection| {
        sql_query("INSERT INTO done VALUES (2)").execute(connection)?;
        if first() {
            sql_query(END).get_result::<Backend>(connection)?;
        }
        Ok(())
    });
    assert_eq!(alone.await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(
        database.count("SELECT count(*) FROM done WHERE n = 2"),
        1,
        "what may have been done is not done again"
    );
}
