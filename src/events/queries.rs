//! The SQL of reading events. Writing them is beside each change.
//!
//! Readers follow the positions, which is a range of an index: the cost is that of the new events. Every statement also returns the history
//! of the database, and the row at the cursor, so that nothing is read with an invalid cursor.

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use uuid::Uuid;

use crate::db::{Fail, Mode, Realm, Work, statement};
use crate::error::Error;
use crate::events::cursor::{Cursor, Histories, History};
use crate::events::model::{Batch, Row};
use crate::proto::object::Struct;

/// How many rows a read with a filter reads, at most.
const SCANNED_AT_MOST: i64 = 2000;

/// The realm of the events.
#[derive(Clone, Debug, Default)]
enum Realms {
    #[default]
    All,
    One(i32),
    Some(Vec<i32>),
}

/// The realm and the types of events.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    realms: Realms,
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
        Scope { realms: Realms::One(realm.id()), ..Scope::default() }
    }

    /// The events of these realms.
    pub fn of_many(realms: Vec<i32>) -> Self {
        Scope { realms: Realms::Some(realms), ..Scope::default() }
    }

    /// Only those of these types; of any, if there are none.
    pub fn with_types(self, types: Vec<String>) -> Self {
        Scope { types, ..self }
    }

    /// Only those of this subject.
    pub fn with_subject(self, subject: Option<String>) -> Self {
        Scope { subject, ..self }
    }

    /// Returns whether events of this subject are meant.
    pub fn has(&self, subject: &str) -> bool {
        self.subject.as_deref().is_none_or(|wanted| wanted == subject)
    }

    /// Returns whether events of this type are meant.
    pub fn has_type(&self, event_type: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|wanted| wanted == event_type)
    }

    /// Returns whether events of this row are meant; that it is of one of the realms is known.
    pub fn wants(&self, row: &Row) -> bool {
        self.has_type(&row.event_type)
            && self
                .subject
                .as_deref()
                .is_none_or(|wanted| row.subjects.iter().any(|subject| subject == wanted))
    }

    fn filters(&self) -> bool {
        !self.types.is_empty() || self.subject.is_some()
    }
}

/// The cursor behind the last position that was given.
pub fn now(connection: &mut PgConnection) -> Work<Cursor> {
    let found = present(connection, 0)?;
    Ok(found.histories.behind(found.histories.last, found.last))
}

/// The cursor after the row at a position: where a caller continues whose own cursor is of a history that parted there.
pub fn behind(connection: &mut PgConnection, position: i64) -> Work<Cursor> {
    let found = present(connection, position)?;
    Ok(found.histories.behind(position, found.there))
}

/// Fails as [`read`] does if the cursor leads nowhere.
pub fn check(connection: &mut PgConnection, cursor: &Cursor) -> Work<()> {
    let found = present(connection, cursor.position())?;
    found.histories.check(cursor, found.there).map_err(|fault| Fail::Answer(fault.into()))
}

/// The histories of this database from the first on, and the last position.
pub fn histories(connection: &mut PgConnection) -> Work<Histories> {
    Ok(present(connection, 0)?.histories)
}

/// The parameters that every statement sends to the database: its history, the row at the cursor, and the last row.
struct Present {
    histories: Histories,
    there: Option<Uuid>,
    last: Option<Uuid>,
}

type PresentRow = (i64, i64, Vec<Uuid>, Vec<i64>, Option<Uuid>, Option<Uuid>);
type PresentSql =
    (BigInt, BigInt, Array<SqlUuid>, Array<BigInt>, Nullable<SqlUuid>, Nullable<SqlUuid>);

fn present(connection: &mut PgConnection, position: i64) -> Work<Present> {
    Ok(to_present(ReadPresent { position }.get_result(connection)?))
}

fn to_present((last_position, dropped, ids, begins, there, last): PresentRow) -> Present {
    let all = ids.into_iter().zip(begins).map(|(id, begins)| History { id, begins }).collect();
    Present { histories: Histories { all, last: last_position, dropped }, there, last }
}

type Found = (i64, Uuid, i32, String, Mode, DateTime<Utc>, String, Vec<String>, Struct, Uuid);
type FoundSql =
    (BigInt, SqlUuid, Integer, Text, Text, Timestamptz, Text, Array<Text>, Jsonb, SqlUuid);
type Edge = (Option<i64>, Option<Uuid>, i64, i64);
type EdgeSql = (Nullable<BigInt>, Nullable<SqlUuid>, BigInt, BigInt);

/// Reads on behind a cursor: the rows of about `limit` events, more by at most the subjects of the last row.
///
/// To be called on the primary. Fails with `out_of_range` if the cursor is of another history of the database, and with `validation_failed`
/// if events after it are not kept any more.
pub fn read(
    connection: &mut PgConnection,
    scope: &Scope,
    cursor: &Cursor,
    limit: i64,
) -> Work<Batch> {
    let scan = if scope.filters() { limit.max(SCANNED_AT_MOST) } else { limit };
    let (realm, realms) = match &scope.realms {
        Realms::One(realm) => (*realm, &[][..]),
        Realms::Some(realms) => (0, &realms[..]),
        Realms::All => (0, &[][..]),
    };
    macro_rules! load {
        ($statement:ident) => {
            $statement {
                realm,
                realms,
                position: cursor.position(),
                from: cursor.next(),
                types: &scope.types,
                subject: scope.subject.as_deref(),
                scan,
                limit,
            }
            .load(connection)?
        };
    }
    let found: Vec<(PresentRow, Edge, Option<Found>)> = match scope.realms {
        Realms::One(_) => load!(ReadRealm),
        Realms::Some(_) => load!(ReadRealms),
        Realms::All => load!(ReadAll),
    };
    let mut rows = Vec::with_capacity(found.len());
    let mut first = None;
    for (present, edge, row) in found {
        let (present, _) = first.get_or_insert_with(|| (to_present(present), edge));
        rows.extend(row.map(|row| to_row(row, cursor, &present.histories)));
    }
    // The statement returns at least one row, unless the sequencer's own row is missing.
    let Some((Present { histories, there, last }, (edge, edge_id, scanned, matched))) = first
    else {
        return Err(Fail::Answer(Error::internal("the row of `event_sequencer` is missing")));
    };
    histories.check(cursor, there).map_err(|fault| Fail::Answer(fault.into()))?;
    let cut = (rows.len() as i64) < matched;
    let next = match (rows.last(), edge) {
        (Some(row), _) if cut => row.cursor(),
        (_, Some(edge)) if scanned == scan => histories.behind(edge, edge_id),
        _ => histories.behind(histories.last, last),
    };
    let caught_up = !cut && scanned < scan;
    Ok(Batch { rows, cursor: next, caught_up })
}

fn to_row(found: Found, before: &Cursor, histories: &Histories) -> Row {
    let (position, id, realm_id, org, mode, occurred_at, event_type, subjects, data, principal_id) =
        found;
    let (delivered, cursor) = (before.delivered(position), histories.behind(position, Some(id)));
    Row {
        id,
        realm_id,
        org,
        mode,
        occurred_at,
        event_type,
        subjects,
        data,
        principal_id,
        delivered,
        cursor,
    }
}

/// The text of a CTE `here`: the history of the database, the row at the cursor, and the last one.
macro_rules! here {
    () => {
        "here AS MATERIALIZED (
        SELECT s.position AS last, s.dropped,
               ARRAY(SELECT h.id FROM event_history h ORDER BY h.number) AS histories,
               ARRAY(SELECT h.begins FROM event_history h ORDER BY h.number) AS begins,
               (SELECT e.id FROM event_position p
                JOIN event e ON e.realm_id = p.realm_id AND e.seq = p.seq AND e.occurred_at = p.occurred_at
                WHERE p.position = {position}) AS there_id,
               (SELECT e.id FROM event_position p
                JOIN event e ON e.realm_id = p.realm_id AND e.seq = p.seq AND e.occurred_at = p.occurred_at
                WHERE p.position = s.position) AS last_id
        FROM event_sequencer s
     )"
    };
}

statement! {
    /// The histories of the database, and the row at a position.
    struct ReadPresent { position: i64 as BigInt } -> PresentSql,
    concat!("WITH ", here!(), " SELECT h.last, h.dropped, h.histories, h.begins, h.there_id, h.last_id FROM here h")
}

/// Declares the statement of one scope: its condition on `p`, the table of positions.
macro_rules! reads {
    ($name:ident, $scope:literal) => {
        statement! {
            /// The histories of the database; the last position that was read, how many were, how many match; and of those the rows of the first
            /// `limit` events.
            pub struct $name<'a> {
                realm: i32 as Integer,
                realms: &'a [i32] as Array<Integer>,
                position: i64 as BigInt,
                from: i64 as BigInt,
                types: &'a [String] as Array<Text>,
                subject: Option<&'a str> as Nullable<Text>,
                scan: i64 as BigInt,
                limit: i64 as BigInt,
            } -> (PresentSql, EdgeSql, Nullable<FoundSql>),
            concat!("WITH ", here!(), ",
             source AS MATERIALIZED (
                SELECT p.*
                FROM event_position p
                WHERE ", $scope, " p.position >= {from} AND p.position <= (SELECT h.last FROM here h)
                ORDER BY p.position
                LIMIT {scan}
             ),
             matching AS MATERIALIZED (
                SELECT s.position, e.*, sum(e.subject_count) OVER (ORDER BY s.position) - e.subject_count AS ahead
                FROM source s
                -- A lookup by key for each, whatever the planner believes of how many there are: LIMIT keeps this a query of its own.
                CROSS JOIN LATERAL (
                    SELECT e.id, e.realm_id, e.occurred_at, e.type, e.subjects, e.subject_count, e.data, e.principal_id
                    FROM event e
                    WHERE e.realm_id = s.realm_id AND e.seq = s.seq AND e.occurred_at = s.occurred_at
                    LIMIT 1
                ) e
                WHERE (cardinality({types}::text[]) = 0 OR e.type = ANY ({types}))
                  AND ({subject}::text IS NULL OR {subject} = ANY (e.subjects))
             ),
             edge AS (
                SELECT max(s.position) AS position, count(*) AS scanned, (SELECT count(*) FROM matching) AS matched FROM source s
             )
             SELECT h.last, h.dropped, h.histories, h.begins, h.there_id, h.last_id,
                    edge.position,
                    (SELECT e.id FROM source s
                     CROSS JOIN LATERAL (SELECT e.id FROM event e
                                         WHERE e.realm_id = s.realm_id AND e.seq = s.seq AND e.occurred_at = s.occurred_at LIMIT 1) e
                     WHERE s.position = edge.position),
                    edge.scanned, edge.matched,
                    m.position, m.id, m.realm_id, r.org, r.mode, m.occurred_at, m.type, m.subjects, m.data, m.principal_id
             FROM here h CROSS JOIN edge
             LEFT JOIN (matching m JOIN realm r ON r.id = m.realm_id) ON m.ahead < {limit}
             ORDER BY m.position")
        }
    };
}

reads!(ReadRealm, "p.realm_id = {realm} AND");
reads!(ReadRealms, "p.realm_id = ANY ({realms}) AND");
reads!(ReadAll, "");
