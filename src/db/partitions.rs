//! Partitions of events: those for the time ahead, and those whose time is over.

use std::time::Duration;

use chrono::TimeDelta;
use diesel::RunQueryDsl;
use diesel::sql_types::{BigInt, Integer};

use crate::db::outage::warn_of;
use crate::db::{Db, Work, statement};
use crate::error::Result;

/// For how long events are kept, at least. They are dropped by the week, so some stay for a week longer.
pub const KEEP_EVENTS: TimeDelta = TimeDelta::days(30);

/// How many weeks ahead.
const AHEAD: i32 = 3;
/// How many rows are deleted at once where there is no partition to drop.
const DELETED_AT_ONCE: i64 = 5_000;
const EVERY: Duration = Duration::from_secs(6 * 3600);
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Keeps partitions ahead of the clock, and drops those behind it, until it is dropped. Rows without a partition are written to the default one, so a
/// late run loses nothing.
pub async fn keep(db: Db) {
    loop {
        let pause = match keep_once(&db).await {
            Ok(()) => EVERY,
            Err(error) => {
                warn_of!(error, "cannot keep partitions");
                AFTER_FAILURE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn keep_once(db: &Db) -> Result<()> {
    db.transaction(ensure).await?;
    let dropped = db.transaction(drop_old).await?;
    let mut deleted = 0;
    loop {
        let count = db.run(delete_old).await?;
        deleted += count;
        if (count as i64) < DELETED_AT_ONCE {
            break;
        }
    }
    if dropped > 0 || deleted > 0 {
        tracing::info!(
            partitions = dropped,
            rows = deleted,
            "dropped events that are older than they are kept"
        );
    }
    Ok(())
}

fn ensure(connection: &mut diesel::PgConnection) -> Work<()> {
    EnsurePartitions { ahead: AHEAD }.execute(connection)?;
    Ok(())
}

statement! {
    /// Makes the partitions of so many weeks ahead.
    struct EnsurePartitions { ahead: i32 as Integer } -> (Integer,),
    "SELECT ensure_partitions({ahead})"
}

fn drop_old(connection: &mut diesel::PgConnection) -> Work<i32> {
    let (dropped,) = DropPartitions { days: keep_days() }.get_result::<(i32,)>(connection)?;
    Ok(dropped)
}

fn delete_old(connection: &mut diesel::PgConnection) -> Work<usize> {
    Ok(DeleteFromDefault { days: keep_days(), limit: DELETED_AT_ONCE }.execute(connection)?)
}

fn keep_days() -> i32 {
    KEEP_EVENTS.num_days() as i32
}

statement! {
    /// Drops the partitions whose time is over.
    struct DropPartitions { days: i32 as Integer } -> (Integer,),
    // Later than their positions are removed, so that no reader misses removed events without an error.
    "SELECT drop_event_partitions(make_interval(days => {days}, hours => 1))"
}

statement! {
    /// Deletes some of the rows whose time is over and that came before their partition.
    struct DeleteFromDefault { days: i32 as Integer, limit: i64 as BigInt } -> (),
    "DELETE FROM event_default
     WHERE ctid = ANY (ARRAY(SELECT ctid FROM event_default WHERE occurred_at < now() - make_interval(days => {days}, hours => 1) LIMIT {limit}))"
}
