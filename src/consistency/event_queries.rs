//! The SQL of removals without an event, and of events of removals that were none.
//!
//! A removal and its event are one transaction, and so have the same moment: that finds the one for the other.

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Double, Integer, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::consistency::model::CheckedRows;
use crate::consistency::queries::{CheckedColumns, CheckedValues, checked_rows};
use crate::db::partitions::KEEP_EVENTS;
use crate::db::{Realm, Work, statement};
use crate::error::{Error, Result};
use crate::task::work::Span;

/// About how many removals one check of events takes up, unless one event alone records more.
const REMOVALS: i64 = 5_000;

/// The text of CTEs that find which of the removals in `due` have no event: those are `missing`, by `entity_id`, `removed_at` and `job_id`.
/// Each event is unfolded once; EXCEPT hashes or sorts.
macro_rules! untold {
    () => {
        "bounds AS (SELECT min(d.entity_id) AS first, max(d.entity_id) AS last FROM due d),
     recorded AS (
        SELECT s.id COLLATE \"C\" AS entity_id, v.occurred_at AS removed_at,
               COALESCE(v.data ->> 'offboarding_request_id', v.data ->> 'bulk_delete_id') AS job_id
        FROM (SELECT DISTINCT d.removed_at FROM due d) m
        CROSS JOIN LATERAL (
            -- A query for each moment, however few the planner believes there are: OFFSET keeps this a query of its own.
            SELECT v.occurred_at, v.subjects, v.data
            FROM event v
            WHERE v.realm_id = {realm} AND v.occurred_at = m.removed_at AND v.type IN ('entity.offboarded', 'entity.deleted')
            OFFSET 0
        ) v
        CROSS JOIN LATERAL unnest(v.subjects) AS s(id)
        CROSS JOIN bounds b
        WHERE s.id COLLATE \"C\" BETWEEN b.first AND b.last
     ),
     missing AS (
        SELECT d.entity_id, d.removed_at, d.job_id FROM due d
        EXCEPT
        SELECT t.entity_id, t.removed_at, t.job_id FROM recorded t
     )"
    };
}
pub(super) use untold;

/// Checks the next tombstones.
pub fn check_tombstones(
    connection: &mut PgConnection,
    realm: &Realm,
    span: &Span<'_>,
) -> Work<CheckedRows> {
    let (entity, incarnation) = tombstone_position(span.cursor)?;
    let keep = KEEP_EVENTS.as_seconds_f64();
    let statement = CheckTombstones {
        realm: realm.id(),
        entity,
        incarnation,
        until: span.until,
        keep,
        limit: span.limit,
    };
    Ok(statement.get_result::<CheckedValues>(connection)?.into())
}

/// The page position of a key, `ENTITY/INCARNATION`. No incarnation is nil.
fn tombstone_position(key: &str) -> Result<(&str, Uuid)> {
    match key.split_once('/') {
        Some((entity, incarnation)) => {
            Ok((entity, Uuid::try_parse(incarnation).map_err(Error::internal)?))
        }
        None => Ok((key, Uuid::nil())),
    }
}

statement! {
    /// The next tombstones by key, and those of them whose event must exist and does not. The events of a page are few, since a bulk delete
    /// follows the keys as well.
    pub struct CheckTombstones<'a> {
        realm: i32 as Integer,
        entity: &'a str as Text,
        incarnation: Uuid as SqlUuid,
        until: &'a str as Text,
        keep: f64 as Double,
        limit: i64 as BigInt,
    } -> CheckedColumns,
    checked_rows!(concat!("WITH page AS MATERIALIZED (
        SELECT t.entity_id, t.incarnation, t.removed_at, t.job_id::text AS job_id
        FROM tombstone t
        WHERE t.realm_id = {realm} AND (t.entity_id, t.incarnation) > ({entity}, {incarnation}) AND t.entity_id <= {until}
        ORDER BY t.entity_id, t.incarnation
        LIMIT {limit}
     ),
     walked AS (
        SELECT count(*) AS met, count(*) = {limit} AS more,
               (SELECT concat_ws('/', p.entity_id, p.incarnation) FROM page p ORDER BY p.entity_id DESC, p.incarnation DESC LIMIT 1) AS cursor
        FROM page
     ),
     due AS MATERIALIZED (
        -- What is older may be recorded by an event that was dropped; an hour is for those who drop meanwhile.
        SELECT p.entity_id, p.removed_at, p.job_id
        FROM page p
        WHERE p.removed_at > now() - make_interval(secs => {keep}) + interval '1 hour'
     ),
     ", untold!(), ",
     suspects AS (
        SELECT concat_ws('/', m.entity_id, m.removed_at, m.job_id) AS key, 'event_mismatch' AS kind, m.entity_id AS subject,
               format('The entity was removed by the job `%s`, and no event records it.', m.job_id) AS detail, false AS mendable
        FROM missing m
     )"))
}

/// Checks the next events of removals.
pub fn check_events(
    connection: &mut PgConnection,
    realm: &Realm,
    span: &Span<'_>,
) -> Work<CheckedRows> {
    let (at, seq) = event_position(span.cursor)?;
    let statement =
        CheckEvents { realm: realm.id(), at, seq, limit: span.limit, removals: REMOVALS };
    Ok(statement.get_result::<CheckedValues>(connection)?.into())
}

/// The page position of a key, `MICROSECONDS/SEQ`.
fn event_position(key: &str) -> Result<(DateTime<Utc>, i64)> {
    if key.is_empty() {
        return Ok((DateTime::UNIX_EPOCH, 0));
    }
    let position = key.split_once('/').and_then(|(micros, seq)| {
        Some((DateTime::from_timestamp_micros(micros.parse().ok()?)?, seq.parse().ok()?))
    });
    position.ok_or_else(|| Error::internal(format!("`{key}` is not a position among events")))
}

statement! {
    /// The next events of removals, as many as have so many subjects together, and those of the subjects that left no trace although it
    /// must exist: a tombstone, or a soft-deleted row, which a later hard run may have made a tombstone.
    pub struct CheckEvents {
        realm: i32 as Integer,
        at: DateTime<Utc> as Timestamptz,
        seq: i64 as BigInt,
        limit: i64 as BigInt,
        removals: i64 as BigInt,
    } -> CheckedColumns,
    checked_rows!("WITH kept AS (
        -- Since when every tombstone must be there, and an hour for those who sweep meanwhile.
        SELECT COALESCE(max(greatest(now() - p.tombstone_retention, p.tombstones_kept_since)) + interval '1 hour', '-infinity') AS since
        FROM removal_policy p
        WHERE p.realm_id = {realm}
     ),
     page AS MATERIALIZED (
        SELECT v.occurred_at, v.seq, v.subject_count
        FROM event v
        WHERE v.realm_id = {realm} AND v.type IN ('entity.offboarded', 'entity.deleted')
          AND (v.occurred_at, v.seq) > ({at}, {seq}) AND v.occurred_at >= {at}
        ORDER BY v.occurred_at, v.seq
        LIMIT {limit}
     ),
     picked AS MATERIALIZED (
        SELECT r.occurred_at, r.seq
        FROM (SELECT p.*, sum(p.subject_count) OVER (ORDER BY p.occurred_at, p.seq) - p.subject_count AS before FROM page p) r
        WHERE r.before < {removals}
     ),
     walked AS (
        SELECT count(*) AS met, count(*) = {limit} OR count(*) < (SELECT count(*) FROM page) AS more,
               (SELECT concat_ws('/', (extract(epoch FROM p.occurred_at) * 1000000)::int8, p.seq)
                FROM picked p
                ORDER BY p.occurred_at DESC, p.seq DESC
                LIMIT 1) AS cursor
        FROM picked
     ),
     suspects AS (
        SELECT concat_ws('/', v.id, s.id) AS key, 'event_mismatch' AS kind, s.id AS subject,
               format('The event `%s` records a removal that left neither a tombstone nor what is soft-deleted.', v.id) AS detail,
               false AS mendable
        FROM picked p
        JOIN event v ON v.realm_id = {realm} AND v.seq = p.seq AND v.occurred_at = p.occurred_at
        CROSS JOIN kept k
        CROSS JOIN LATERAL unnest(v.subjects) AS s(id)
        LEFT JOIN entity e
          ON v.data ->> 'mode' = 'soft' AND e.realm_id = {realm} AND e.id = s.id COLLATE \"C\" AND e.deleted_at IS NOT NULL
        WHERE v.occurred_at > k.since AND e.id IS NULL
          AND NOT EXISTS (SELECT
                          FROM tombstone t
                          WHERE t.realm_id = {realm} AND t.entity_id = s.id COLLATE \"C\"
                            AND CASE WHEN v.type = 'entity.offboarded' THEN t.incarnation::text = v.data ->> 'incarnation'
                                     WHEN v.data ->> 'mode' = 'hard' THEN t.job_id::text = v.data ->> 'bulk_delete_id'
                                     -- A moment is the start of a transaction, and the one that waited for the other may have started first.
                                     ELSE t.removed_at > v.occurred_at - interval '1 hour' END)
     )")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_position() {
        let incarnation = Uuid::from_u128(7);
        assert_eq!(tombstone_position(&format!("e/{incarnation}")).unwrap(), ("e", incarnation));
        assert_eq!(tombstone_position("").unwrap(), ("", Uuid::nil()));
        assert!(tombstone_position("e/x").is_err());
        let moment = DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap();
        assert_eq!(event_position("1700000000000001/42").unwrap(), (moment, 42));
        assert_eq!(event_position("").unwrap(), (DateTime::UNIX_EPOCH, 0));
        assert!(event_position("soon/1").is_err());
    }
}
