//! The SQL of reading events. Writing them is beside each change.
//!
//! What a snapshot sees and an earlier one did not are the rows of transactions that ran when the earlier was taken (`pg_snapshot_xip`), or
//! that ended since (from `pg_snapshot_xmax` on). Both are ranges of an index, so what is new costs what it is, however long other
//! transactions stay open.

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use serde_json::Value;
use uuid::Uuid;

use crate::db::{Mode, Realm, Work, statement};
use crate::error::Error;
use crate::events::cursor::{Cursor, Snapshot, UnderWay, Way};
use crate::events::model::{Batch, Row};

/// Up to this many new rows are found by their transactions and sorted at each read; more are walked in order.
const TAIL_AT_MOST: i64 = 1000;
/// How many rows a read that filters looks at, at most.
const SCANNED_AT_MOST: i64 = 2000;

/// Whose events, and which of them.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    realm: Option<i32>,
    types: Vec<String>,
    subject: Option<String>,
}

impl Scope {
    /// All events of all realms: what a publisher reads.
    pub fn all() -> Self {
        Scope::default()
    }

    /// The events of a realm.
    pub fn of(realm: &Realm) -> Self {
        Scope { realm: Some(realm.id()), ..Scope::default() }
    }

    /// Only those of these types; of any, if there are none.
    pub fn with_types(self, types: Vec<String>) -> Self {
        Scope { types, ..self }
    }

    /// Only those of this subject.
    pub fn with_subject(self, subject: Option<String>) -> Self {
        Scope { subject, ..self }
    }

    /// Whether events of this subject are meant.
    pub fn has(&self, subject: &str) -> bool {
        self.subject.as_deref().is_none_or(|wanted| wanted == subject)
    }

    fn filters(&self) -> bool {
        !self.types.is_empty() || self.subject.is_some()
    }
}

/// The cursor behind everything that is committed now.
pub fn now(connection: &mut PgConnection) -> Work<Cursor> {
    let (text, at): (String, DateTime<Utc>) = ReadSnapshot {}.get_result(connection)?;
    Ok(Cursor::behind(Snapshot::new(&text, at)))
}

/// The realms in which something came to light behind a cursor, and the cursor behind that. Of a batch under way it knows nothing.
pub fn realms_with_news(connection: &mut PgConnection, cursor: &Cursor) -> Work<(Vec<i32>, Cursor)> {
    let (text, at, realms): (String, DateTime<Utc>, Vec<i32>) = RealmsWithNews { seen: cursor.seen().as_str() }.get_result(connection)?;
    Ok((realms, Cursor::behind(Snapshot::new(&text, at))))
}

/// Reads on behind a cursor: the rows of about `limit` events, more by at most the subjects of the last row.
///
/// To be called on the primary, outside of a transaction that has changed something. Fails with `validation_failed` if the cursor is from
/// another history of the database, such as one that a restored backup does not have.
pub fn read(connection: &mut PgConnection, scope: &Scope, cursor: &Cursor, limit: i64) -> Work<Batch> {
    let mut cursor = cursor.clone();
    let mut fresh = false;
    loop {
        if cursor.batch().is_none() {
            cursor = open(connection, scope, &cursor)?;
            fresh = true;
        }
        let Some(batch) = cursor.batch().cloned() else {
            return Ok(Batch { rows: Vec::new(), cursor, caught_up: true });
        };
        let (rows, next) = fetch(connection, scope, &cursor, &batch, limit)?;
        let done = next.batch().is_none();
        cursor = next;
        // A batch that has nothing left is no answer if it began in an earlier call: there may be more by now.
        if !rows.is_empty() || !done || fresh {
            return Ok(Batch { rows, cursor, caught_up: done && fresh });
        }
    }
}

/// Takes a snapshot and begins the batch up to it; a cursor without a batch if there is nothing in it.
fn open(connection: &mut PgConnection, scope: &Scope, cursor: &Cursor) -> Work<Cursor> {
    if cursor.is_beginning() {
        let (text, at): (String, DateTime<Utc>) = ReadSnapshot {}.get_result(connection)?;
        return Ok(cursor.open(Snapshot::new(&text, at), Way::Walk, 0));
    }
    let seen = cursor.seen().as_str();
    let opened = match scope.realm {
        Some(realm) => OpenRealm { realm, seen }.get_result(connection),
        None => OpenAll { realm: 0, seen }.get_result(connection),
    };
    let (text, at, known, count, from): (String, DateTime<Utc>, bool, i64, Option<i64>) = opened?;
    if !known {
        return Err(Error::invalid("cursor", "invalid", "must be a cursor of this database as it is now").into());
    }
    let until = Snapshot::new(&text, at);
    Ok(match from {
        None => Cursor::behind(until),
        Some(from) => cursor.open(until, if count > TAIL_AT_MOST { Way::Walk } else { Way::Tail }, from),
    })
}

type Found = (i64, Uuid, i32, String, Mode, DateTime<Utc>, String, Vec<String>, Value, Uuid);
type FoundSql = (BigInt, SqlUuid, Integer, Text, Text, Timestamptz, Text, Array<Text>, Jsonb, SqlUuid);

/// Reads on in a batch, and tells where to go on.
fn fetch(connection: &mut PgConnection, scope: &Scope, cursor: &Cursor, batch: &UnderWay, limit: i64) -> Work<(Vec<Row>, Cursor)> {
    let scan = if scope.filters() { limit.max(SCANNED_AT_MOST) } else { limit };
    macro_rules! load {
        ($statement:ident) => {
            $statement {
                realm: scope.realm.unwrap_or_default(),
                seen: cursor.seen().as_str(),
                until: batch.until.as_str(),
                from: batch.from,
                types: &scope.types,
                subject: scope.subject.as_deref(),
                scan,
                limit,
            }
            .load(connection)?
        };
    }
    let found: Vec<(Option<i64>, i64, i64, Option<Found>)> = match (scope.realm, batch.way) {
        (Some(_), Way::Tail) => load!(TailRealm),
        (Some(_), Way::Walk) => load!(WalkRealm),
        (None, Way::Tail) => load!(TailAll),
        (None, Way::Walk) => load!(WalkAll),
    };
    let (edge, scanned, matched) = found.first().map_or((None, 0, 0), |(edge, scanned, matched, _)| (*edge, *scanned, *matched));
    let rows: Vec<Row> = found.into_iter().filter_map(|(_, _, _, row)| row).map(|row| to_row(row, cursor)).collect();
    let next = match (rows.last(), edge) {
        (Some(last), _) if (rows.len() as i64) < matched => last.cursor(),
        (_, Some(edge)) if scanned == scan => cursor.advance(edge, 1, 1),
        _ => cursor.close(),
    };
    Ok((rows, next))
}

fn to_row(found: Found, before: &Cursor) -> Row {
    let (seq, id, realm_id, org, mode, occurred_at, event_type, subjects, data, principal_id) = found;
    Row { id, seq, realm_id, org, mode, occurred_at, event_type, subjects, data, principal_id, before: before.clone() }
}

statement! {
    /// The snapshot of now.
    struct ReadSnapshot {} -> (Text, Timestamptz),
    "SELECT pg_current_snapshot()::text, now()"
}

statement! {
    /// The snapshot of now, and the realms of what is new.
    pub struct RealmsWithNews<'a> { seen: &'a str as Text } -> (Text, Timestamptz, Array<Integer>),
    "SELECT pg_current_snapshot()::text, now(), ARRAY(
        SELECT e.realm_id FROM event e WHERE e.xid >= pg_snapshot_xmax({seen}::pg_snapshot)
        UNION
        SELECT e.realm_id FROM event e WHERE e.xid = ANY (ARRAY(SELECT pg_snapshot_xip({seen}::pg_snapshot))))"
}

/// Declares the statements of one scope: its condition on `e`, the table of events.
macro_rules! reads {
    ($scope:literal, $open:ident, $tail:ident, $walk:ident) => {
        statement! {
            /// The snapshot of now, whether it comes behind the one that was seen, and of what is new: how many rows, and the lowest `seq`.
            pub struct $open<'a> { realm: i32 as Integer, seen: &'a str as Text } -> (Text, Timestamptz, Bool, BigInt, Nullable<BigInt>),
            concat!(
                "SELECT pg_current_snapshot()::text, now(), pg_snapshot_xmax({seen}::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot()),
                        count(*), min(fresh.seq)
                 FROM (SELECT e.seq FROM event e WHERE ", $scope, " e.xid >= pg_snapshot_xmax({seen}::pg_snapshot)
                       UNION ALL
                       SELECT e.seq FROM event e WHERE ", $scope, " e.xid = ANY (ARRAY(SELECT pg_snapshot_xip({seen}::pg_snapshot)))) fresh"
            )
        }
        reads!(@fetch $tail, concat!(
            "SELECT fresh.*
             FROM (SELECT e.* FROM event e
                   WHERE ", $scope, " e.xid >= pg_snapshot_xmax({seen}::pg_snapshot) AND e.xid < pg_snapshot_xmax({until}::pg_snapshot)
                   UNION ALL
                   SELECT e.* FROM event e WHERE ", $scope, " e.xid = ANY (ARRAY(SELECT pg_snapshot_xip({seen}::pg_snapshot)))
                   -- A fence: the few that are new are sorted, and nobody walks all rows in order to find them.
                   OFFSET 0) fresh
             WHERE fresh.seq >= {from}
             ORDER BY fresh.seq
             LIMIT {scan}"
        ));
        reads!(@fetch $walk, concat!(
            "SELECT e.* FROM event e WHERE ", $scope, " e.seq >= {from} ORDER BY e.seq LIMIT {scan}"
        ));
    };
    (@fetch $name:ident, $source:expr) => {
        statement! {
            /// The last `seq` that was looked at, how many rows were, how many match; and of those the rows of the first `limit` events.
            pub struct $name<'a> {
                realm: i32 as Integer,
                seen: &'a str as Text,
                until: &'a str as Text,
                from: i64 as BigInt,
                types: &'a [String] as Array<Text>,
                subject: Option<&'a str> as Nullable<Text>,
                scan: i64 as BigInt,
                limit: i64 as BigInt,
            } -> (Nullable<BigInt>, BigInt, BigInt, Nullable<FoundSql>),
            concat!("WITH source AS MATERIALIZED (", $source, "
             ),
             matching AS (
                SELECT s.*, sum(s.subject_count) OVER (ORDER BY s.seq) - s.subject_count AS ahead
                FROM source s
                WHERE pg_visible_in_snapshot(s.xid, (SELECT {until}::pg_snapshot))
                  AND NOT pg_visible_in_snapshot(s.xid, (SELECT {seen}::pg_snapshot))
                  AND (cardinality({types}::text[]) = 0 OR s.type = ANY ({types}))
                  AND ({subject}::text IS NULL OR {subject} = ANY (s.subjects))
             )
             SELECT edge.seq, edge.scanned, edge.matched,
                    m.seq, m.id, m.realm_id, r.org, r.mode, m.occurred_at, m.type, m.subjects, m.data, m.principal_id
             FROM (SELECT max(s.seq) AS seq, count(*) AS scanned, (SELECT count(*) FROM matching) AS matched FROM source s) edge
             LEFT JOIN (matching m JOIN realm r ON r.id = m.realm_id) ON m.ahead < {limit}
             ORDER BY m.seq")
        }
    };
}

reads!("e.realm_id = {realm} AND", OpenRealm, TailRealm, WalkRealm);
reads!("", OpenAll, TailAll, WalkAll);
