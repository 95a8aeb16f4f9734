//! The SQL of publishers: their position, their lease, and the events they owe.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Double, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::db::{Fail, Work, statement};
use crate::error::Error;
use crate::events::cursor::Cursor;
use crate::events::queries;

/// How many rows are read, at most, to measure how far a publisher is behind.
pub const LAG_ROWS: i64 = 100_000;

/// A publisher that this replica has the lease of.
#[derive(Clone, Debug)]
pub struct ClaimedPublisher {
    /// Fences the lease.
    pub token: i64,
    /// How far the publisher is.
    pub cursor: Cursor,
    /// True if failures are on record.
    pub owes: bool,
    /// The last position of an earlier history, if the publisher is before it: more may have been published there than is on record here.
    pub earlier: Option<i64>,
}

/// Sets the publisher's position, behind everything that has a position now, unless it has one.
pub fn register(connection: &mut PgConnection, name: &str) -> Work<()> {
    let (place, (seen,)) =
        (to_json(&queries::now(connection)?)?, ReadSnapshot {}.get_result::<(Json,)>(connection)?);
    Register { name, place, seen }.execute(connection)?;
    Ok(())
}

statement! {
    /// The position that the version before reads: an old replica may take over while replicas are replaced.
    struct ReadSnapshot {} -> (Jsonb,),
    "SELECT jsonb_build_object('seen', jsonb_build_array(pg_current_snapshot()::text, extract(epoch FROM now())::int8))"
}

statement! {
    /// A row for a publisher that has none.
    struct Register<'a> {
        name: &'a str as Text,
        place: Json as Jsonb,
        seen: Json as Jsonb,
    } -> (),
    "INSERT INTO publisher (name, cursor, place) VALUES ({name}, {seen}, {place}) ON CONFLICT (name) DO NOTHING"
}

/// Claims the publisher if nobody has its lease, also from a replica that was lost.
pub fn claim(
    connection: &mut PgConnection,
    name: &str,
    owner: &str,
    lease: Duration,
) -> Work<Option<ClaimedPublisher>> {
    let claim = ClaimPublisher { name, owner, lease: lease.as_secs_f64() };
    let claimed: Option<(i64, Option<Json>, bool)> = claim.get_result(connection).optional()?;
    let Some((token, place, owes)) = claimed else {
        register(connection, name)?;
        return Ok(None);
    };
    let cursor = place_of(connection, name, place)?;
    let earlier = queries::histories(connection)?.earlier_than_present(&cursor);
    Ok(Some(ClaimedPublisher { token, cursor, owes, earlier }))
}

/// The cursor of a publisher's position on the history that the database is on.
fn place_of(connection: &mut PgConnection, name: &str, place: Option<Json>) -> Work<Cursor> {
    let cursor = match place {
        Some(place) => serde_json::from_value(place).map_err(Error::internal)?,
        // The version before has published from here. Events that it had published after the first row it had not seen come again.
        None => {
            let (position,): (Option<i64>,) = FindPlace { name }.get_result(connection)?;
            match position {
                Some(position) => queries::behind(connection, position)?,
                None => queries::now(connection)?,
            }
        }
    };
    match queries::check(connection, &cursor) {
        Ok(()) => Ok(cursor),
        Err(Fail::Answer(error)) => {
            let parted_at = error.member("parted_at").and_then(|position| position.parse().ok());
            tracing::warn!(
                publisher = name,
                parted_at,
                "the publisher's position is not of this database; it continues where the histories part"
            );
            match parted_at {
                Some(position) => queries::behind(connection, position),
                // Rather again than never: consumers know events by their ids.
                None => Ok(Cursor::beginning()),
            }
        }
        Err(fail) => Err(fail),
    }
}

statement! {
    /// The position before the first row that the version before had not published; none if it had published everything.
    struct FindPlace<'a> { name: &'a str as Text } -> (Nullable<BigInt>,),
    "SELECT min(p.position) - 1
     FROM (SELECT (cursor -> 'seen' ->> 0)::pg_snapshot AS seen FROM publisher WHERE name = {name}) s
     CROSS JOIN LATERAL (
        SELECT e.realm_id, e.seq FROM event e WHERE e.xid >= pg_snapshot_xmax(s.seen)
        UNION ALL
        SELECT e.realm_id, e.seq FROM event e WHERE e.xid = ANY (ARRAY(SELECT pg_snapshot_xip(s.seen)))
     ) e
     JOIN event_position p ON p.realm_id = e.realm_id AND p.seq = e.seq"
}

statement! {
    /// A lease on a publisher.
    struct ClaimPublisher<'a> {
        name: &'a str as Text,
        owner: &'a str as Text,
        lease: f64 as Double,
    } -> (BigInt, Nullable<Jsonb>, Bool),
    "UPDATE publisher
     SET lease_token = nextval('lease_token'), lease_owner = {owner}, due_at = now() + make_interval(secs => {lease})
     WHERE name = {name} AND due_at <= now()
     RETURNING lease_token, place, EXISTS (SELECT FROM publisher_failure f WHERE f.publisher = {name})"
}

/// How far a publisher is behind, whichever replica publishes: how many events, and since when the oldest waits.
pub fn backlog(
    connection: &mut PgConnection,
    name: &str,
) -> Work<Option<(i64, Option<DateTime<Utc>>)>> {
    let Some((place,)) = ReadPlace { name }.get_result::<(Option<Json>,)>(connection).optional()?
    else {
        return Ok(None);
    };
    let cursor = place_of(connection, name, place)?;
    Ok(Some(behind(connection, &cursor)?))
}

statement! {
    /// The position of a publisher.
    struct ReadPlace<'a> { name: &'a str as Text } -> (Nullable<Jsonb>,),
    "SELECT place FROM publisher WHERE name = {name}"
}

/// The progress of a publisher.
#[derive(Clone, Debug)]
pub struct PublisherProgress {
    /// Everything before it was acknowledged.
    pub cursor: Cursor,
    /// Rows that were delivered to the end, if failures are on record.
    pub delivered: Vec<Uuid>,
    /// A row that was delivered in part, and how many of its events are left, if failures are on record.
    pub part: Option<(Uuid, i32)>,
}

/// Writes progress down and renews the lease. False if the lease is lost: then nothing is written.
pub fn save(
    connection: &mut PgConnection,
    name: &str,
    token: i64,
    lease: Duration,
    progress: &PublisherProgress,
) -> Work<bool> {
    let (part, left) = progress.part.unzip();
    let save = Save {
        name,
        token,
        lease: lease.as_secs_f64(),
        place: to_json(&progress.cursor)?,
        delivered: &progress.delivered,
        part,
        left,
    };
    let saved: Option<(bool,)> = save.get_result(connection).optional()?;
    Ok(saved.is_some())
}

statement! {
    /// The cursor, the lease, and the events that are owed no more. Nothing of it without the lease.
    struct Save<'a> {
        name: &'a str as Text,
        token: i64 as BigInt,
        lease: f64 as Double,
        place: Json as Jsonb,
        delivered: &'a [Uuid] as Array<SqlUuid>,
        part: Option<Uuid> as Nullable<SqlUuid>,
        left: Option<i32> as Nullable<Integer>,
    } -> (Bool,),
    "WITH saved AS (
        UPDATE publisher
        SET place = {place}, due_at = now() + make_interval(secs => {lease}), updated_at = now()
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

/// A row of the outbox that records a bulk delete and could not be delivered.
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
pub fn record(
    connection: &mut PgConnection,
    name: &str,
    token: i64,
    code: &str,
    owed: &[Owed],
) -> Work<()> {
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
    /// The events that are owed, once for each row, however often they were tried.
    struct Record<'a> {
        name: &'a str as Text,
        token: i64 as BigInt,
        code: &'a str as Text,
        realms: Vec<i32> as Array<Integer>,
        tasks: Vec<Uuid> as Array<SqlUuid>,
        rows: Vec<Uuid> as Array<SqlUuid>,
        counts: Vec<i32> as Array<Integer>,
    } -> (),
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
    } -> (),
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
    } -> (),
    "UPDATE publisher
     SET lease_token = nextval('lease_token'), lease_owner = NULL, due_at = '-infinity'
     WHERE name = {name} AND lease_token = {token}"
}

/// Makes publishers ready that are scheduled later than so long from now, as after a step of the clock.
pub fn recall(connection: &mut PgConnection, bound: Duration) -> Work<usize> {
    Ok(Recall { bound: bound.as_secs_f64() }.execute(connection)?)
}

statement! {
    /// Publishers whose replica was lost before the clock stepped back.
    struct Recall { bound: f64 as Double } -> (),
    "UPDATE publisher SET due_at = '-infinity' WHERE due_at > now() + make_interval(secs => {bound})"
}

/// How many events come behind a cursor, and when the first of them happened. At most [`LAG_ROWS`] rows are counted.
pub fn behind(
    connection: &mut PgConnection,
    cursor: &Cursor,
) -> Work<(i64, Option<DateTime<Utc>>)> {
    let behind = Behind { from: cursor.next(), rows: LAG_ROWS };
    let (events, since): (i64, Option<DateTime<Utc>>) = behind.get_result(connection)?;
    let delivered = i64::try_from(cursor.delivered(cursor.position())).unwrap_or(i64::MAX);
    Ok(((events - delivered).max(0), since))
}

statement! {
    /// The subjects of unseen events.
    struct Behind { from: i64 as BigInt, rows: i64 as BigInt } -> (BigInt, Nullable<Timestamptz>),
    "SELECT coalesce(sum(p.subject_count), 0)::int8, (array_agg(p.occurred_at ORDER BY p.position))[1]
     FROM (SELECT p.position, p.subject_count, p.occurred_at FROM event_position p WHERE p.position >= {from} ORDER BY p.position LIMIT {rows}) p"
}

fn to_json(cursor: &Cursor) -> Result<Json, Error> {
    serde_json::to_value(cursor).map_err(Error::internal)
}
