//! The SQL of portfolios that count other than they have.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::consistency::model::CheckedRows;
use crate::consistency::queries::{CheckedColumns, CheckedValues, checked_rows};
use crate::db::{Realm, Work, statement};
use crate::task::work::Span;

/// About how many members one check counts, unless a portfolio alone has more.
const MEMBERS: i64 = 200_000;

/// Checks the next portfolios. Their members are counted from the index of members; nothing is locked.
pub fn check(connection: &mut PgConnection, realm: &Realm, span: &Span<'_>) -> Work<CheckedRows> {
    let statement = CheckPortfolios {
        realm: realm.id(),
        cursor: span.cursor,
        until: span.until,
        limit: span.limit,
        members: MEMBERS,
    };
    Ok(statement.get_result::<CheckedValues>(connection)?.into())
}

statement! {
    /// The next portfolios by id, as many as have so many members together, and those of them that count other than they have.
    pub struct CheckPortfolios<'a> {
        realm: i32 as Integer,
        cursor: &'a str as Text,
        until: &'a str as Text,
        limit: i64 as BigInt,
        members: i64 as BigInt,
    } -> CheckedColumns,
    checked_rows!("WITH page AS MATERIALIZED (
        SELECT p.id, p.entity_count
        FROM portfolio p
        WHERE p.realm_id = {realm} AND p.id > {cursor} AND p.id <= {until}
        ORDER BY p.id
        LIMIT {limit}
     ),
     picked AS MATERIALIZED (
        SELECT r.id, r.entity_count
        FROM (SELECT p.id, p.entity_count, sum(p.entity_count) OVER (ORDER BY p.id) - p.entity_count AS before FROM page p) r
        WHERE r.before < {members}
     ),
     walked AS (
        SELECT count(*) AS met, max(p.id) AS cursor,
               count(*) = {limit} OR count(*) < (SELECT count(*) FROM page) AS more
        FROM picked p
     ),
     counted AS MATERIALIZED (
        SELECT p.id, p.entity_count,
               (SELECT count(*) FROM entity e WHERE e.realm_id = {realm} AND e.portfolio_id = p.id) AS members
        FROM picked p
     ),
     suspects AS (
        SELECT c.id AS key, 'portfolio_count' AS kind, c.id AS subject,
               format('The portfolio counts %s members and has %s.', c.entity_count, c.members) AS detail, true AS mendable
        FROM counted c
        WHERE c.entity_count <> c.members
     )")
}

/// Sets right what these portfolios count, each by one step of its version, and returns their ids.
///
/// The faults of a count stays the same however many members are added and removed, since each of them changes count and members alike. So the
/// members are counted in one snapshot while others continue, and the difference is added to the count as it is when its row is locked, for no
/// longer than that takes. Only another repair changes the difference, hence the lock that repairs of a portfolio have among themselves.
pub fn repair(
    connection: &mut PgConnection,
    realm: &Realm,
    task: Uuid,
    keys: &[&str],
) -> Work<Vec<String>> {
    LockRepairs { realm: realm.id(), keys }.execute(connection)?;
    let mended: Vec<(String,)> = RepairCounts { realm: realm.id(), task, keys }.load(connection)?;
    Ok(mended.into_iter().map(|(id,)| id).collect())
}

statement! {
    /// Makes repairs of the same portfolio come one after another. Changes of its members do not notice.
    struct LockRepairs<'a> {
        realm: i32 as Integer,
        keys: &'a [&'a str] as Array<Text>,
    } -> (BigInt,),
    "SELECT count(k.locked)
     FROM (SELECT pg_advisory_xact_lock(hashtextextended('offboard.portfolio_count', {realm}) # hashtextextended(o.id, {realm}))::text AS locked
           FROM (SELECT u.id FROM unnest({keys}) AS u(id) ORDER BY u.id COLLATE \"C\") o) k"
}

statement! {
    /// The differences, of one snapshot; the portfolios, locked in the order of their ids; their new counts, and the events.
    pub struct RepairCounts<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        keys: &'a [&'a str] as Array<Text>,
    } -> (Text,),
    "WITH drifted AS MATERIALIZED (
        SELECT p.id, p.created_at,
               (SELECT count(*) FROM entity e WHERE e.realm_id = {realm} AND e.portfolio_id = p.id) - p.entity_count AS drift
        FROM portfolio p
        WHERE p.realm_id = {realm} AND p.id = ANY({keys})
     ),
     held AS (
        -- One that was deleted and made again meanwhile is another, whose count is right. All is counted before the first is locked.
        SELECT p.id, p.entity_count, p.version, d.drift
        FROM (SELECT array_agg(d.id) AS ids FROM drifted d WHERE d.drift <> 0) w,
             portfolio p
        JOIN drifted d ON d.id = p.id
        WHERE p.realm_id = {realm} AND p.id = ANY(w.ids) AND p.created_at = d.created_at
        ORDER BY p.id
        FOR NO KEY UPDATE OF p
     ),
     mended AS (
        UPDATE portfolio p
        SET entity_count = h.entity_count + h.drift, version = h.version + 1, updated_at = now()
        FROM held h
        WHERE p.realm_id = {realm} AND p.id = h.id
        RETURNING p.id, p.version
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'portfolio.updated', ARRAY[m.id], b.principal_id,
               jsonb_build_object('fields', ARRAY['entity_count'], 'version', m.version, 'bulk_delete_id', b.id)
        FROM mended m, bulk_delete b
        WHERE b.realm_id = {realm} AND b.id = {task}
     )
     SELECT m.id FROM mended m"
}
