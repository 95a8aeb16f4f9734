//! The SQL of a slice in hand: locking it, moving it, keeping to the task's pace, releasing it; and of freeing those whose workers were
//! lost.

use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Double, Integer, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::{self, Realm, Work, statement};
use crate::task::control_queries;
use crate::task::pace::{self, Reservation};
use crate::task::state::{TaskAction, TaskState};
use crate::task::work::{ClaimedSlice, Step, Undone};

/// The least time for which a worker may be silent in the middle of a transaction: on a busy machine it may have to wait for its turn.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// A slice whose row is locked and whose lease is valid.
#[derive(Clone, Debug, diesel::Queryable)]
pub struct LockedSlice {
    /// The key that the next chunk begins behind.
    pub cursor: String,
    /// The last key; none is the end.
    pub until: Option<String>,
    /// The state of the task.
    pub state: TaskState,
    /// How many objects the task may take up a second.
    pub max_objects_per_second: Option<i32>,
    /// How many objects the task may take up in all.
    pub cap: Option<i64>,
}

/// Locks the slice until the transaction ends, and sets how long its statements may take and wait for locks. [`Undone::LeaseLost`] if another worker has the slice.
pub fn lock(
    connection: &mut PgConnection,
    claim: &ClaimedSlice,
    lease: Duration,
    lock_wait: Duration,
    time: Duration,
) -> Step<LockedSlice> {
    let (realm, task, slice, token) = (claim.realm.id(), claim.task_id, claim.slice, claim.token);
    let patience = lease.max(LEAST_PATIENCE).as_millis().to_string();
    // 0 would be without end.
    let [lock_wait, time] = [lock_wait, time].map(|time| time.as_millis().max(1).to_string());
    type Row = (String, Option<String>, TaskState, Option<i32>, Option<i64>, String);
    let row: Option<Row> = HoldSlice { realm, task, slice, token, patience, lock_wait, time }
        .get_result(connection)
        .optional()?;
    let (cursor, until, state, max_objects_per_second, cap, _) = row.ok_or(Undone::LeaseLost)?;
    Ok(LockedSlice { cursor, until, state, max_objects_per_second, cap })
}

statement! {
    /// The slice, locked, if the lease is valid. The settings last until the transaction ends, and save a round trip here: rows are read by
    /// key, whatever the planner believes of their number, where a hash join would read whole tables for every chunk; a worker takes one
    /// core of the database and leaves the others to callers; a statement has a time of its own; and a worker that falls asleep in between
    /// does not lock the slice for long.
    pub struct HoldSlice {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        slice: i32 as Integer,
        token: i64 as BigInt,
        patience: String as Text,
        lock_wait: String as Text,
        time: String as Text,
    } -> (Text, Nullable<Text>, Text, Nullable<Integer>, Nullable<BigInt>, Text),
    "SELECT s.cursor_id, s.until_id, b.status, b.max_objects_per_second, b.max_objects,
            set_config('enable_hashjoin', 'off', true) || set_config('enable_mergejoin', 'off', true)
                || set_config('statement_timeout', {time}, true) || set_config('idle_in_transaction_session_timeout', {patience}, true)
                || set_config('lock_timeout', {lock_wait}, true) || set_config('max_parallel_workers_per_gather', '0', true)
     FROM bulk_delete_slice s
     JOIN bulk_delete b ON b.realm_id = s.realm_id AND b.id = s.bulk_delete_id
     WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task} AND s.slice = {slice} AND s.lease_token = {token} AND NOT s.done
     FOR UPDATE OF s"
}

/// Gives the statements to come so much time, until the transaction ends.
pub fn give_time(connection: &mut PgConnection, time: Duration) -> Work<()> {
    GiveTime { time: &time.as_millis().max(1).to_string() }.execute(connection)?;
    Ok(())
}

statement! {
    /// Another time for each statement.
    struct GiveTime<'a> { time: &'a str as Text } -> (Text,),
    "SELECT set_config('statement_timeout', {time}, true)"
}

/// How a chunk moves its slice.
#[derive(Clone, Debug, Default)]
pub struct Advance {
    /// The last key that it read; none if there was none.
    pub cursor: Option<String>,
    /// True if nothing is left after it.
    pub done: bool,
    /// How many objects it processed. The number of matched ones is the sum of this and the next three.
    pub processed: i64,
    /// How many it could not process.
    pub failed: i64,
    /// How many it excluded.
    pub excluded: i64,
    /// How many had changed or were removed.
    pub skipped: i64,
}

/// Moves the slice behind a chunk, renews its lease and counts, in the transaction of the chunk.
pub fn advance(
    connection: &mut PgConnection,
    claim: &ClaimedSlice,
    lease: Duration,
    advance: &Advance,
) -> Step<()> {
    let Advance { cursor, done, processed, failed, excluded, skipped } = advance;
    let statement = MoveSlice {
        realm: claim.realm.id(),
        task: claim.task_id,
        slice: claim.slice,
        token: claim.token,
        lease: lease.as_secs_f64(),
        cursor: cursor.as_deref(),
        done: *done,
        processed: *processed,
        failed: *failed,
        excluded: *excluded,
        skipped: *skipped,
    };
    let moved: Option<(bool,)> = statement.get_result(connection).optional()?;
    moved.map(drop).ok_or(Undone::LeaseLost)
}

statement! {
    /// The slice behind a chunk, and what the last seconds came to.
    struct MoveSlice<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        slice: i32 as Integer,
        token: i64 as BigInt,
        lease: f64 as Double,
        cursor: Option<&'a str> as Nullable<Text>,
        done: bool as Bool,
        processed: i64 as BigInt,
        failed: i64 as BigInt,
        excluded: i64 as BigInt,
        skipped: i64 as BigInt,
    } -> (Bool,),
    "WITH met AS (SELECT {processed} + {failed} + {excluded} + {skipped} AS count),
     moved AS (
        UPDATE bulk_delete_slice s
        SET cursor_id = COALESCE({cursor}, s.cursor_id), done = {done}, attempts = 0, due_at = now() + make_interval(secs => {lease}),
            matched = s.matched + m.count, processed = s.processed + {processed}, failed = s.failed + {failed},
            excluded = s.excluded + {excluded}, skipped = s.skipped + {skipped}
        FROM met m
        WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task} AND s.slice = {slice} AND s.lease_token = {token}
        RETURNING s.slice
     ),
     sampled AS (
        INSERT INTO bulk_delete_sample AS k (realm_id, bulk_delete_id, slice, at, matched, processed)
        SELECT {realm}, {task}, {slice}, to_timestamp(floor(extract(epoch FROM now()) / 10) * 10), m.count, {processed}
        FROM met m
        WHERE m.count > 0
        ON CONFLICT (realm_id, bulk_delete_id, slice, at) DO UPDATE
        SET matched = k.matched + excluded.matched, processed = k.processed + excluded.processed
     )
     SELECT true FROM moved"
}

/// Reserves how many objects a task may take up now, of at most `wanted`. All workers of all replicas reserve from the same allowance. The
/// lease is renewed before: a worker that waits for an allowance has locked the slice.
pub fn reserve(
    connection: &mut PgConnection,
    claim: &ClaimedSlice,
    wanted: i64,
    lease: Duration,
) -> Step<Reservation> {
    let (realm, task) = (claim.realm.id(), claim.task_id);
    renew(connection, claim, lease)?;
    connection.transaction(|connection| {
        let found: Option<(Option<i32>, f64)> =
            LockPace { realm, task }.get_result(connection).optional()?;
        let Some((Some(most), ahead)) = found else { return Ok(Reservation::Unlimited) };
        let reservation = pace::reserve(most.into(), ahead, wanted);
        if let Reservation::Take { until, .. } = reservation {
            SetPace { realm, task, until }.execute(connection)?;
        }
        Ok(reservation)
    })
}

/// Renews the lease of a slice.
pub fn renew(connection: &mut PgConnection, claim: &ClaimedSlice, lease: Duration) -> Step<()> {
    let (realm, task, slice, token) = (claim.realm.id(), claim.task_id, claim.slice, claim.token);
    let renewed =
        Renew { realm, task, slice, token, lease: lease.as_secs_f64() }.execute(connection)?;
    if renewed == 0 { Err(Undone::LeaseLost) } else { Ok(()) }
}

statement! {
    /// A slice that a worker still has.
    struct Renew {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        slice: i32 as Integer,
        token: i64 as BigInt,
        lease: f64 as Double,
    } -> (),
    "UPDATE bulk_delete_slice
     SET due_at = now() + make_interval(secs => {lease})
     WHERE realm_id = {realm} AND bulk_delete_id = {task} AND slice = {slice} AND lease_token = {token}"
}

statement! {
    /// The pace of the task, and for how many seconds from now its allowance is taken up: negative if it has been free for so long.
    struct LockPace {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (Nullable<Integer>, Double),
    "SELECT b.max_objects_per_second, COALESCE(extract(epoch FROM b.paced_until - clock_timestamp()), -86400)::float8
     FROM bulk_delete b
     WHERE b.realm_id = {realm} AND b.id = {task}
     FOR NO KEY UPDATE"
}

statement! {
    /// Takes up the task's allowance until so many seconds from now.
    struct SetPace {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        until: f64 as Double,
    } -> (),
    "UPDATE bulk_delete SET paced_until = clock_timestamp() + make_interval(secs => {until}) WHERE realm_id = {realm} AND id = {task}"
}

/// Why a slice is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The task is to pause or to stop, or its allowance is taken up for now.
    Rest,
    /// Another task waits.
    Turn,
    /// The worker ends.
    End,
    /// Something failed.
    Failure,
}

/// Gives a slice back, to be claimed again after `delay`, and moves its task to its next state if it has no worker any more. False if the
/// lease is lost.
pub fn release(
    connection: &mut PgConnection,
    claim: &ClaimedSlice,
    leave: Leave,
    delay: Duration,
) -> Work<bool> {
    connection.transaction(|connection| {
        if !give_back(connection, claim, leave, delay)? {
            return Ok(false);
        }
        let unless_halted = match leave {
            Leave::Rest => None,
            Leave::Turn => Some(TaskAction::Wait),
            Leave::End | Leave::Failure => Some(TaskAction::Lose),
        };
        control_queries::settle(connection, &claim.realm, claim.task_id, unless_halted)?;
        Ok(true)
    })
}

/// Ends a task that cannot continue; a worker that lost its lease ends nothing.
pub fn fail(
    connection: &mut PgConnection,
    claim: &ClaimedSlice,
    code: &str,
    message: &str,
) -> Work<()> {
    connection.transaction(|connection| {
        // A chunk locks its slice, and the task behind that.
        LockSlices { realm: claim.realm.id(), task: claim.task_id }.execute(connection)?;
        if give_back(connection, claim, Leave::Failure, Duration::ZERO)? {
            control_queries::fail(connection, &claim.realm, claim.task_id, code, message)?;
        }
        Ok(())
    })
}

statement! {
    /// The slices of a task, none of which has a chunk in hand then.
    struct LockSlices {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (Integer,),
    "SELECT s.slice FROM bulk_delete_slice s WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task} ORDER BY s.slice FOR UPDATE"
}

fn give_back(
    connection: &mut PgConnection,
    claim: &ClaimedSlice,
    leave: Leave,
    delay: Duration,
) -> Work<bool> {
    let statement = Release {
        realm: claim.realm.id(),
        task: claim.task_id,
        slice: claim.slice,
        token: claim.token,
        delay: delay.as_secs_f64(),
        failed: leave == Leave::Failure,
    };
    Ok(statement.execute(connection)? == 1)
}

statement! {
    /// A slice without an owner. The old token opens nothing any more. A claim counts as an attempt only if the work failed.
    struct Release {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        slice: i32 as Integer,
        token: i64 as BigInt,
        delay: f64 as Double,
        failed: bool as Bool,
    } -> (),
    "UPDATE bulk_delete_slice
     SET lease_token = nextval('lease_token'), lease_owner = NULL,
         due_at = CASE WHEN {delay}::float8 > 0 THEN now() + make_interval(secs => {delay}) ELSE '-infinity' END,
         attempts = CASE WHEN {failed} THEN attempts ELSE greatest(attempts - 1, 0) END
     WHERE realm_id = {realm} AND bulk_delete_id = {task} AND slice = {slice} AND lease_token = {token}"
}

/// Frees the slices whose workers were lost, and moves their tasks to their next states if they have no workers any more. Returns how many
/// there were. Call it in a transaction.
pub fn rescue(connection: &mut PgConnection) -> Work<usize> {
    let lost: Vec<(i32, String, db::Mode, Uuid)> = Rescue {}.load(connection)?;
    for (realm_id, org, mode, task_id) in &lost {
        let realm = Realm::from_row(*realm_id, org.clone(), *mode);
        control_queries::settle(connection, &realm, *task_id, Some(TaskAction::Lose))?;
    }
    Ok(lost.len())
}

statement! {
    /// Slices whose lease has run out. One that is locked is in the middle of a chunk, which renews the lease.
    struct Rescue {} -> (Integer, Text, Text, SqlUuid),
    "WITH lost AS (
        SELECT s.realm_id, s.bulk_delete_id, s.slice
        FROM bulk_delete b
        JOIN bulk_delete_slice s ON s.realm_id = b.realm_id AND s.bulk_delete_id = b.id
        WHERE b.status NOT IN ('canceled', 'completed', 'completed_with_errors', 'failed')
          AND NOT s.done AND s.lease_owner IS NOT NULL AND s.due_at <= now()
        ORDER BY s.realm_id, s.bulk_delete_id, s.slice
        FOR UPDATE OF s SKIP LOCKED
     ),
     freed AS (
        UPDATE bulk_delete_slice s
        SET lease_token = nextval('lease_token'), lease_owner = NULL
        FROM lost
        WHERE s.realm_id = lost.realm_id AND s.bulk_delete_id = lost.bulk_delete_id AND s.slice = lost.slice
        RETURNING s.realm_id, s.bulk_delete_id
     )
     SELECT DISTINCT f.realm_id, r.org, r.mode, f.bulk_delete_id
     FROM freed f
     JOIN realm r ON r.id = f.realm_id
     ORDER BY f.realm_id, f.bulk_delete_id"
}

/// Makes slices ready that are scheduled later than so long from now. See [`crate::jobs::watch_clock`].
pub fn recall(connection: &mut PgConnection, bound: Duration) -> Work<usize> {
    Ok(Recall { bound: bound.as_secs_f64() }.execute(connection)?)
}

statement! {
    /// One that is locked is in the middle of a chunk, which renews the lease.
    struct Recall {
        bound: f64 as Double,
    } -> (),
    "WITH late AS (
        SELECT s.realm_id, s.bulk_delete_id, s.slice
        FROM bulk_delete b
        JOIN bulk_delete_slice s ON s.realm_id = b.realm_id AND s.bulk_delete_id = b.id
        WHERE b.status NOT IN ('canceled', 'completed', 'completed_with_errors', 'failed')
          AND NOT s.done AND s.due_at > now() + make_interval(secs => {bound})
        ORDER BY s.realm_id, s.bulk_delete_id, s.slice
        FOR UPDATE OF s SKIP LOCKED
     )
     UPDATE bulk_delete_slice s
     SET due_at = '-infinity'
     FROM late
     WHERE s.realm_id = late.realm_id AND s.bulk_delete_id = late.bulk_delete_id AND s.slice = late.slice"
}
