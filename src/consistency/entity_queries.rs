//! The SQL of entities in `offboarding` without a request, and of entities that exist although they were removed.
//!
//! A request and the move of its entity are one transaction, and so are a removal and its trace; one snapshot shows both or neither.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Double, Integer, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::access::{Subject, erasure_queries};
use crate::consistency::event_queries::untold;
use crate::consistency::model::{CheckedRows, FindingKind};
use crate::consistency::portfolio_queries;
use crate::consistency::queries::{CheckedColumns, CheckedValues, checked_rows};
use crate::db::partitions::KEEP_EVENTS;
use crate::db::{Realm, Work, statement};
use crate::entity::model::{Action, State};
use crate::task::work::Span;

/// Checks the next entities.
pub fn check(connection: &mut PgConnection, realm: &Realm, span: &Span<'_>) -> Work<CheckedRows> {
    let keep = KEEP_EVENTS.as_seconds_f64();
    let statement = CheckEntities {
        realm: realm.id(),
        cursor: span.cursor,
        until: span.until,
        keep,
        limit: span.limit,
    };
    Ok(statement.get_result::<CheckedValues>(connection)?.into())
}

/// The text of a check of entities, those of a condition on `entity e`.
///
/// A removed entity is left alone if it is on hold, if it was changed since, for then somebody uses it, and if no event records the
/// removal, for then nobody would learn of it.
macro_rules! entities {
    ($of:literal, $more:literal) => {
        checked_rows!(concat!("WITH page AS MATERIALIZED (
        SELECT e.id, e.incarnation, e.version, e.updated_at, e.state = 'offboarding' AND e.deleted_at IS NULL AS leaving,
               e.hold_reason IS NOT NULL AS held
        FROM entity e
        WHERE e.realm_id = {realm} AND ", $of, "
     ),
     walked AS (SELECT count(*) AS met, max(p.id) AS cursor, ", $more, " AS more FROM page p),
     judged AS MATERIALIZED (
        SELECT p.*, COALESCE(t.removed_at, r.finished_at) AS removed_at, COALESCE(t.job_id, r.id)::text AS job_id,
               CASE WHEN t.entity_id IS NULL THEN p.updated_at > r.finished_at ELSE p.version > t.version END AS changed
        FROM page p
        LEFT JOIN tombstone t ON t.realm_id = {realm} AND t.entity_id = p.id AND t.incarnation = p.incarnation
        LEFT JOIN LATERAL (SELECT r.id, r.finished_at
                           FROM offboarding_request r
                           WHERE r.realm_id = {realm} AND r.entity_id = p.id AND r.incarnation = p.incarnation AND r.status = 'succeeded'
                           ORDER BY r.created_at DESC
                           LIMIT 1) r ON true
     ),
     due AS MATERIALIZED (
        -- What is older may be recorded by an event that was dropped; an hour is for those who drop meanwhile.
        SELECT j.id AS entity_id, j.removed_at, j.job_id
        FROM judged j
        WHERE j.removed_at > now() - make_interval(secs => {keep}) + interval '1 hour'
     ),
     ", untold!(), ",
     suspects AS (
        SELECT j.id AS key, 'stuck_offboarding' AS kind, j.id AS subject,
               'The entity is `offboarding`, and there is no open request to remove it.' AS detail, true AS mendable
        FROM judged j
        WHERE j.removed_at IS NULL AND j.leaving
          AND NOT EXISTS (SELECT
                          FROM offboarding_request r
                          WHERE r.realm_id = {realm} AND r.entity_id = j.id AND r.incarnation = j.incarnation
                            AND r.status IN ('pending', 'running'))
        UNION ALL
        SELECT r.id, 'removed_entity', r.id,
               format('The entity is there, and the job `%s` has removed it%s.', r.job_id,
                      CASE WHEN r.held THEN '; it is on hold'
                           WHEN r.changed THEN '; it was changed since'
                           WHEN r.untold THEN '; no event records that'
                           ELSE '' END),
               NOT (r.held OR r.changed OR r.untold)
        -- As a subplan the list is hashed.
        FROM (SELECT j.*, j.id IN (SELECT m.entity_id FROM missing m) AS untold FROM judged j WHERE j.removed_at IS NOT NULL) r
     )"))
    };
}

statement! {
    /// The next entities by id; those of them that are in `offboarding` without an open request, and those whose removal has left its
    /// trace.
    pub struct CheckEntities<'a> {
        realm: i32 as Integer,
        cursor: &'a str as Text,
        until: &'a str as Text,
        keep: f64 as Double,
        limit: i64 as BigInt,
    } -> CheckedColumns,
    entities!("e.id > {cursor} AND e.id <= {until}
        ORDER BY e.id
        LIMIT {limit}", "count(*) = {limit}")
}

/// Makes those of these entities active again that are in `offboarding` without an open request, and removes the rest of those that were
/// removed. Returns which of them are inconsistent, and whether that was repaired.
///
/// They are locked first: making a request for one changes its row, and adding a dependent to one locks it.
pub fn repair(
    connection: &mut PgConnection,
    realm: &Realm,
    task: Uuid,
    keys: &[&str],
) -> Work<Vec<(String, bool)>> {
    LockEntities { realm: realm.id(), keys }.execute(connection)?;
    let found = CheckAgain { realm: realm.id(), keys, keep: KEEP_EVENTS.as_seconds_f64() }
        .get_result::<CheckedValues>(connection)?;
    let suspects = CheckedRows::from(found).suspects;
    let of = |kind| {
        suspects
            .iter()
            .filter(|suspect| suspect.kind == kind && suspect.repairable)
            .map(|suspect| suspect.key.as_str())
            .collect()
    };
    let (stuck, removed): (Vec<&str>, Vec<&str>) =
        (of(FindingKind::StuckOffboarding), of(FindingKind::RemovedEntity));
    if !stuck.is_empty() {
        let (from, to) = (State::Offboarding, State::Offboarding.transition(Action::Restore)?);
        RestoreEntities {
            realm: realm.id(),
            task,
            keys: &stuck,
            from: from.as_str(),
            to: to.as_str(),
        }
        .execute(connection)?;
    }
    if !removed.is_empty() {
        let left: Vec<(Option<String>,)> =
            RemoveRemains { realm: realm.id(), keys: &removed }.load(connection)?;
        let removed: Vec<Subject> =
            removed.iter().map(|id| Subject::Entity((*id).to_owned())).collect();
        erasure_queries::erase(connection, realm, &removed)?;
        let portfolios: Vec<&str> =
            left.iter().filter_map(|(portfolio,)| portfolio.as_deref()).collect();
        // Most often they were not counted any more, and then nothing changes.
        if !portfolios.is_empty() {
            portfolio_queries::repair(connection, realm, task, &portfolios)?;
        }
    }
    Ok(suspects.into_iter().map(|suspect| (suspect.key, suspect.repairable)).collect())
}

statement! {
    /// Keeps these entities and what hangs on them as they are until the transaction ends.
    struct LockEntities<'a> {
        realm: i32 as Integer,
        keys: &'a [&'a str] as Array<Text>,
    } -> (Text,),
    "SELECT e.id FROM entity e WHERE e.realm_id = {realm} AND e.id = ANY({keys}) ORDER BY e.id FOR UPDATE"
}

statement! {
    /// The same check of these entities.
    struct CheckAgain<'a> {
        realm: i32 as Integer,
        keys: &'a [&'a str] as Array<Text>,
        keep: f64 as Double,
    } -> CheckedColumns,
    entities!("e.id = ANY({keys})", "false")
}

statement! {
    /// The way back, and the events.
    struct RestoreEntities<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        keys: &'a [&'a str] as Array<Text>,
        from: &'a str as Text,
        to: &'a str as Text,
    } -> (),
    "WITH restored AS (
        UPDATE entity e
        SET state = {to}, version = e.version + 1, updated_at = now()
        WHERE e.realm_id = {realm} AND e.id = ANY({keys}) AND e.state = {from}
        RETURNING e.id, e.version
     )
     INSERT INTO event (realm_id, type, subjects, principal_id, data)
     SELECT {realm}, 'entity.offboarding_canceled', ARRAY[r.id], b.principal_id,
            jsonb_build_object('version', r.version, 'bulk_delete_id', b.id)
     FROM restored r, bulk_delete b
     WHERE b.realm_id = {realm} AND b.id = {task}"
}

statement! {
    /// The rest of entities that were removed, deleted without another event, and the tombstone if there is none; returns the portfolios
    /// that they were in.
    struct RemoveRemains<'a> {
        realm: i32 as Integer,
        keys: &'a [&'a str] as Array<Text>,
    } -> (Nullable<Text>,),
    "WITH gone AS (
        DELETE FROM entity e
        WHERE e.realm_id = {realm} AND e.id = ANY({keys})
        RETURNING e.id, e.incarnation, e.type, e.version, e.created_at, e.updated_at, e.portfolio_id
     ),
     parts AS (
        DELETE FROM dependent d
        USING gone g
        WHERE d.realm_id = {realm} AND d.entity_id = g.id
     ),
     unindexed AS (
        DELETE FROM attribute_index a
        USING gone g
        WHERE a.realm_id = {realm} AND a.entity_id = g.id
     ),
     tombstones AS (
        -- What a request alone does not know, the row has kept.
        INSERT INTO tombstone
            (realm_id, entity_id, incarnation, type, version, created_at, updated_at, removed_at, removed_by, job_kind, job_id)
        SELECT {realm}, g.id, g.incarnation, g.type, g.version, g.created_at, g.updated_at, r.finished_at, r.principal_id, 'offboarding', r.id
        FROM gone g
        JOIN offboarding_request r
          ON r.realm_id = {realm} AND r.entity_id = g.id AND r.incarnation = g.incarnation AND r.status = 'succeeded'
        ORDER BY r.created_at DESC
        ON CONFLICT (realm_id, entity_id, incarnation) DO NOTHING
     )
     SELECT DISTINCT g.portfolio_id FROM gone g"
}
