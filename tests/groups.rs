//! Calls that are done together, on a real Postgres.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod kit;

use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::{RunQueryDsl, sql_query};
use futures::future::join_all;
use kit::{Database, database, until};
use offboard::db::{Db, Group, Options, Together, Work};
use offboard::error::Code;

/// Says how many were done with it, after some SQL that only the first of them has, and some that those who are not alone have.
struct Call {
    first: &'static str,
    beside: &'static str,
}

impl Together for Call {
    type Answer = usize;
    const ONLY_READS: bool = false;
    const IS_SMALL: bool = true;

    fn together(connection: &mut PgConnection, calls: &[Self]) -> Work<Vec<Option<usize>>> {
        assert!(calls[0].first != PANIC, "as it was asked to");
        if !calls[0].first.is_empty() {
            sql_query(calls[0].first).execute(connection)?;
        }
        if calls.len() > 1 && !calls[0].beside.is_empty() {
            sql_query(calls[0].beside).execute(connection)?;
        }
        Ok(calls.iter().map(|_| Some(calls.len())).collect())
    }
}

const PANIC: &str = "panic";

const SLEEP: Call = Call { first: "SELECT 1 AS n FROM pg_sleep(50)", beside: "" };

/// A pool, and calls of it of which the first was delayed until the others were there.
async fn piled_up(
    database: &Database,
    beside: &'static str,
    others: usize,
) -> Vec<offboard::error::Result<Option<usize>>> {
    let db = Db::new(Options { pool_size: 2, ..Options::new(&database.url) });
    let group = Group::<Call>::new(&db);
    let first = tokio::spawn({
        let group = group.clone();
        async move { group.call(SLEEP).await }
    });
    until("the first is under way", || sleeping(database) == 1).await;
    let others = join_all((0..others).map(|_| group.call(Call { first: "", beside })));
    let end = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        database.count(
            "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(50)%' AND pid <> pg_backend_pid()",
        )
    };
    let (answers, _) = tokio::join!(others, end);
    let first = first.await.unwrap();
    assert!(first.is_err(), "{first:?}");
    answers
}

fn sleeping(database: &Database) -> i64 {
    database
        .count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE '%pg_sleep(50)%' AND pid <> pg_backend_pid()")
}

#[tokio::test]
async fn what_waits_is_done_together_up_to_a_number() {
    let database = database().await;
    let answers: Vec<usize> = piled_up(&database, "", 70)
        .await
        .into_iter()
        .map(|answer| answer.unwrap().unwrap())
        .collect();
    let (most, rest) =
        (answers.iter().filter(|n| **n == 64).count(), answers.iter().filter(|n| **n == 6).count());
    assert_eq!((most, rest), (64, 6), "{answers:?}");
}

#[tokio::test]
async fn what_fails_together_and_has_left_nothing_is_for_each_to_do() {
    let database = database().await;
    let refused = "WITH x AS (INSERT INTO none SELECT) SELECT 1 AS n";
    let answers = piled_up(&database, refused, 3).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(None))), "{answers:?}");
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again() {
    let database = database().await;
    database.sql("CREATE TABLE done (n int4)");
    let lost = "WITH x AS (INSERT INTO done VALUES (1) RETURNING n) SELECT x.n FROM x, pg_terminate_backend(pg_backend_pid() + 0 * x.n)";
    let answers = piled_up(&database, lost, 3).await;
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Err(error) if error.code() == Code::Unavailable)),
        "{answers:?}"
    );
}

#[tokio::test]
async fn after_one_that_panics_the_next_are_done() {
    let database = database().await;
    let db = Db::new(Options { pool_size: 2, ..Options::new(&database.url) });
    let group = Group::<Call>::new(&db);
    assert_eq!(
        group.call(Call { first: PANIC, beside: "" }).await.unwrap_err().code(),
        Code::Internal
    );
    for _ in 0..3 {
        assert_eq!(group.call(Call { first: "", beside: "" }).await.unwrap(), Some(1));
    }
}

#[tokio::test]
async fn a_statement_is_cancelled_when_all_its_callers_have_left() {
    let database = database().await;
    let db = Db::new(Options { pool_size: 2, ..Options::new(&database.url) });
    let group = Group::<Call>::new(&db);
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let group = group.clone();
            tokio::spawn(async move { group.call(SLEEP).await })
        })
        .collect();
    until("one is under way", || sleeping(&database) == 1).await;
    for call in calls {
        call.abort();
    }
    until("it is cancelled", || sleeping(&database) == 0).await;
    assert_eq!(
        group.call(Call { first: "", beside: "" }).await.unwrap(),
        Some(1),
        "the next one is served, beside nobody"
    );
}
