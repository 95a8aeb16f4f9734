//! The SQL of publishers: their place, their lease, and what they owe.

use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Double, Integer, Jsonb, Nullable, Text, Uuid as SqlUuid};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::db::{Work, statement};
use crate::error::Error;
use crate::events::cursor::Cursor;
use crate::events::queries;

/// How many rows are looked at, at most, to tell how far a publisher is behind.
pub const LAG_ROWS: i64 = 100_000;

/// A publisher that this replica has the lease of.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Fences the lease.
    pub token: i64,
    /// How far the publisher is.
    pub cursor: Cursor,
    /// Whether failures are on record.
    pub owes: bool,
}

/// Makes the publisher's place, behind everything that is committed now, unless it has one.
pub fn register(connection: &mut PgConnection, name: &str) -> Work<()> {
    let cursor = to_json(&queries::now(connection)?)?;
    Register { name, cursor }.execute(connection)?;
    Ok(())
}

statement! {
    /// A place for a publisher that has none.
    struct Register<'a> {
        name: &'a str as Text,
        cursor: Json as Jsonb,
    } -> (Bool,),
    "INSERT INTO publisher (name, cursor) VALUES ({name}, {cursor}) ON CONFLICT (name) DO NOTHING"
}

/// Claims the publisher if nobody has its lease, also from a replica that was lost.
pub fn claim(connection: &mut PgConnection, name: &str, owner: &str, lease: Duration) -> Work<Option<Claimed>> {
    let claim = Claim { name, owner, lease: lease.as_secs_f64() };
    let claimed: Option<(i64, Json, bool)> = claim.get_result(connection).optional()?;
    let Some((token, cursor, owes)) = claimed else {
        register(connection, name)?;
        return Ok(None);
    };
    let cursor = serde_json::from_value(cursor).map_err(Error::internal)?;
    Ok(Some(Claimed { token, cursor, owes }))
}

statement! {
    /// A lease on a publisher.
    struct Claim<'a> {
        name: &'a str as Text,
        owner: &'a str as Text,
        lease: f64 as Double,
    } -> (BigInt, Jsonb, Bool),
    "UPDATE publisher
     SET lease_token = nextval('lease_token'), lease_owner = {owner}, due_at = now() + make_interval(secs => {lease})
     WHERE name = {name} AND due_at <= now()
     RETURNING lease_token, cursor, EXISTS (SELECT FROM publisher_failure f WHERE f.publisher = {name})"
}

/// What to write down of a publisher's progress.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Everything before it was acknowledged.
    pub cursor: Cursor,
    /// Rows that were delivered to the end, if failures are on record.
    pub delivered: Vec<Uuid>,
    /// A row that was delivered in part, and how many of its events are left, if failures are on record.
    pub part: Option<(Uuid, i32)>,
}

/// Writes progress down and renews the lease. False if the lease is lost: then nothing is written.
pub fn save(connection: &mut PgConnection, name: &str, token: i64, lease: Duration, progress: &Progress) -> Work<bool> {
    let (part, left) = progress.part.unzip();
    let save =
        Save { name, token, lease: lease.as_secs_f64(), cursor: to_json(&progress.cursor)?, delivered: &progress.delivered, part, left };
    let saved: Option<(bool,)> = save.get_result(connection).optional()?;
    Ok(saved.is_some())
}

statement! {
    /// The cursor, the lease, and what is owed no more. Nothing of it without the lease.
    struct Save<'a> {
        name: &'a str as Text,
        token: i64 as BigInt,
        lease: f64 as Double,
        cursor: Json as Jsonb,
        delivered: &'a [Uuid] as Array<SqlUuid>,
        part: Option<Uuid> as Nullable<SqlUuid>,
        left: Option<i32> as Nullable<Integer>,
    } -> (Bool,),
    "WITH saved AS (
        UPDATE publisher
        SET cursor = {cursor}, due_at = now() + make_interval(secs => {lease}), updated_at = now()
        WHERE name = {name} AND lease_token = {token}
        RETURNING name
     ),
     settled AS (
        DELETE FROM publisher_failure f
        USING saved s
        WHERE f.publisher = s.name AND f.event_id = ANY({delivered})
     ),
     reduced AS (
        UPDATE publisher_failure f
        SET events = {left}
        FROM saved s
        WHERE f.publisher = s.name AND f.event_id = {part}
     )
     SELECT true FROM saved"
}

/// A row of the outbox that tells of a bulk delete and could not be delivered.
#[derive(Clone, Debug)]
pub struct Owed {
    /// The task's realm.
    pub realm_id: i32,
    /// The task.
    pub bulk_delete_id: Uuid,
    /// The row.
    pub event_id: Uuid,
    /// How many of its events are not delivered.
    pub events: i32,
}

/// Records what could not be delivered.
pub fn record(connection: &mut PgConnection, name: &str, token: i64, code: &str, owed: &[Owed]) -> Work<()> {
    let record = Record {
        name,
        token,
        code,
        realms: owed.iter().map(|row| row.realm_id).collect(),
        tasks: owed.iter().map(|row| row.bulk_delete_id).collect(),
        rows: owed.iter().map(|row| row.event_id).collect(),
        counts: owed.iter().map(|row| row.events).collect(),
    };
    record.execute(connection)?;
    Ok(())
}

statement! {
    /// What is owed, once for each row, however often it was tried.
    struct Record<'a> {
        name: &'a str as Text,
        token: i64 as BigInt,
        code: &'a str as Text,
        realms: Vec<i32> as Array<Integer>,
        tasks: Vec<Uuid> as Array<SqlUuid>,
        rows: Vec<Uuid> as Array<SqlUuid>,
        counts: Vec<i32> as Array<Integer>,
    } -> (Bool,),
    "INSERT INTO publisher_failure AS f (realm_id, bulk_delete_id, publisher, event_id, events, error_code)
     SELECT o.realm_id, o.bulk_delete_id, p.name, o.event_id, o.events, {code}
     FROM publisher p,
          unnest({realms}::int4[], {tasks}::uuid[], {rows}::uuid[], {counts}::int4[]) AS o(realm_id, bulk_delete_id, event_id, events)
     WHERE p.name = {name} AND p.lease_token = {token}
     ON CONFLICT (realm_id, bulk_delete_id, publisher, event_id)
     DO UPDATE SET events = EXCLUDED.events, error_code = EXCLUDED.error_code, attempts = f.attempts + 1"
}

/// Forgets all that is on record: the publisher has caught up.
pub fn settle(connection: &mut PgConnection, name: &str, token: i64) -> Work<()> {
    Settle { name, token }.execute(connection)?;
    Ok(())
}

statement! {
    /// No debt, also none of rows that are not kept any more.
    struct Settle<'a> {
        name: &'a str as Text,
        token: i64 as BigInt,
    } -> (Bool,),
    "DELETE FROM publisher_failure f
     USING publisher p
     WHERE p.name = {name} AND p.lease_token = {token} AND f.publisher = p.name"
}

/// Gives the lease back.
pub fn release(connection: &mut PgConnection, name: &str, token: i64) -> Work<()> {
    Release { name, token }.execute(connection)?;
    Ok(())
}

statement! {
    /// A publisher without an owner. The old token opens nothing any more.
    struct Release<'a> {
        name: &'a str as Text,
        token: i64 as BigInt,
    } -> (Bool,),
    "UPDATE publisher
     SET lease_token = nextval('lease_token'), lease_owner = NULL, due_at = '-infinity'
     WHERE name = {name} AND lease_token = {token}"
}

/// Has publishers be due now that are due later than so long from now, as after a step of the clock.
pub fn recall(connection: &mut PgConnection, bound: Duration) -> Work<usize> {
    Ok(Recall { bound: bound.as_secs_f64() }.execute(connection)?)
}

statement! {
    /// Publishers whose replica was lost before the clock stepped back.
    struct Recall { bound: f64 as Double } -> (Bool,),
    "UPDATE publisher SET due_at = '-infinity' WHERE due_at > now() + make_interval(secs => {bound})"
}

/// Whether anything was committed, be it an event or not, since the cursor's snapshot was taken. Touches no table.
pub fn is_stirred(connection: &mut PgConnection, cursor: &Cursor) -> Work<bool> {
    let (stirred,): (bool,) = IsStirred { seen: cursor.seen().as_str() }.get_result(connection)?;
    Ok(stirred)
}

statement! {
    /// Whether the snapshot of now is another one.
    struct IsStirred<'a> { seen: &'a str as Text } -> (Bool,),
    "SELECT pg_current_snapshot()::text <> {seen}"
}

/// How many events come behind a cursor within a batch. At most [`LAG_ROWS`] rows are counted.
pub fn behind(connection: &mut PgConnection, cursor: &Cursor) -> Work<i64> {
    let Some(batch) = cursor.batch() else { return Ok(0) };
    let behind = Behind { seen: cursor.seen().as_str(), from: batch.from, rows: LAG_ROWS };
    let (events,): (i64,) = behind.get_result(connection)?;
    Ok((events - i64::from(batch.skip)).max(0))
}

statement! {
    /// The subjects of what was not seen.
    struct Behind<'a> {
        seen: &'a str as Text,
        from: i64 as BigInt,
        rows: i64 as BigInt,
    } -> (BigInt,),
    "SELECT coalesce(sum(e.subject_count), 0)::int8
     FROM (SELECT e.xid, e.subject_count FROM event e WHERE e.seq >= {from} ORDER BY e.seq LIMIT {rows}) e
     WHERE NOT pg_visible_in_snapshot(e.xid, (SELECT {seen}::pg_snapshot))"
}

fn to_json(cursor: &Cursor) -> Result<Json, Error> {
    serde_json::to_value(cursor).map_err(Error::internal)
}
