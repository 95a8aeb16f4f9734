//! The SQL of the worker: claiming requests, removing entities, and giving up.

use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Binary, Bool, Double, Integer, Nullable, Text, Uuid as SqlUuid,
};
use uuid::Uuid;

use crate::access::erasure_queries::{blanked, erased_answer};
use crate::db::{Mode, Realm, Work, statement};

/// A request that this worker has the lease of.
#[derive(Clone, Debug)]
pub struct ClaimedRequest {
    /// The realm.
    pub realm: Realm,
    /// The request.
    pub id: Uuid,
    /// The entity.
    pub entity_id: String,
    /// Fences the lease: a later one has a higher token, and with an older one nothing can be changed.
    pub token: i64,
    /// How often it was claimed, this time included.
    pub attempts: i32,
}

/// Claims requests that are ready, also those whose worker was lost: of each realm that has any about as many, those that have been ready for longest.
pub fn claim(
    connection: &mut PgConnection,
    owner: &str,
    lease: Duration,
    limit: i64,
) -> Work<Vec<ClaimedRequest>> {
    let rows: Vec<(i32, String, Mode, Uuid, String, i64, i32)> =
        ClaimRequests { owner, lease: lease.as_secs_f64(), limit }.load(connection)?;
    let claimed = rows.into_iter().map(|(realm_id, org, mode, id, entity_id, token, attempts)| {
        ClaimedRequest {
            realm: Realm::from_row(realm_id, org, mode),
            id,
            entity_id,
            token,
            attempts,
        }
    });
    Ok(claimed.collect())
}

/// The period in which a request becomes ready, as the index `offboarding_request_turn` has it. Of one that is over every request is ready, so realms that
/// wait for their time cost nothing.
macro_rules! period {
    ($due:literal) => {
        concat!("date_bin('10 minutes', ", $due, ", 'epoch'::timestamptz)")
    };
}

statement! {
    /// Leases on ready requests of any realm.
    pub struct ClaimRequests<'a> {
        owner: &'a str as Text,
        lease: f64 as Double,
        limit: i64 as BigInt,
    } -> (Integer, Text, Text, SqlUuid, Text, BigInt, Integer),
    concat!("WITH RECURSIVE queue AS (
        -- Who has something due, and in which periods, the first ones first: a step along the index for each.
        (SELECT ", period!("due_at"), " AS period, realm_id, 1 AS nth
         FROM offboarding_request
         WHERE status IN ('pending', 'running') AND ", period!("due_at"), " <= now()
         ORDER BY ", period!("due_at"), ", realm_id
         LIMIT 1)
        UNION ALL
        SELECT n.period, n.realm_id, q.nth + 1
        FROM queue q
        CROSS JOIN LATERAL (
            SELECT ", period!("r.due_at"), " AS period, r.realm_id
            FROM offboarding_request r
            WHERE r.status IN ('pending', 'running') AND ", period!("r.due_at"), " <= now()
              AND (", period!("r.due_at"), ", r.realm_id) > (q.period, q.realm_id)
            ORDER BY ", period!("r.due_at"), ", r.realm_id
            LIMIT 1
        ) n
        WHERE q.nth < 1000
     ),
     turn AS (
        SELECT realm_id, min(period) AS period, count(*) OVER () AS realms FROM queue GROUP BY realm_id
     ),
     next AS (
        -- The first of each realm, the second of each, and so on. Where there are more realms than requests to claim, chance has no favourites.
        SELECT c.realm_id, c.id
        FROM turn t
        CROSS JOIN LATERAL (
            SELECT r.realm_id, r.id, row_number() OVER (ORDER BY r.due_at) AS nth
            FROM offboarding_request r
            WHERE r.status IN ('pending', 'running') AND ", period!("r.due_at"), " = t.period AND r.realm_id = t.realm_id AND r.due_at <= now()
            ORDER BY r.due_at
            -- More than its part, for where others have less. All in all it is little.
            LIMIT 1 + 20::int8 * {limit} / t.realms
        ) c
        WHERE t.realms > 1
        ORDER BY c.nth, random()
     ),
     fair AS MATERIALIZED (
        SELECT f.realm_id, f.id
        FROM next n
        CROSS JOIN LATERAL (
            SELECT r.realm_id, r.id
            FROM offboarding_request r
            WHERE r.realm_id = n.realm_id AND r.id = n.id AND r.status IN ('pending', 'running') AND r.due_at <= now()
            FOR UPDATE SKIP LOCKED
        ) f
        LIMIT {limit}
     ),
     rest AS MATERIALIZED (
        -- Where turns leave room, as when one realm alone has something due or others are claiming the same: whatever is due.
        SELECT r.realm_id, r.id
        FROM offboarding_request r
        WHERE r.status IN ('pending', 'running') AND r.due_at <= now() AND (r.realm_id, r.id) NOT IN (SELECT f.realm_id, f.id FROM fair f)
        ORDER BY r.due_at
        LIMIT {limit} - (SELECT count(*) FROM fair)
        FOR UPDATE OF r SKIP LOCKED
     ),
     due AS (
        -- Of arrays the planner believes that they are short, as these are.
        SELECT d.realm_id, d.id
        FROM (SELECT array_agg(b.realm_id) AS realms, array_agg(b.id) AS ids FROM (SELECT * FROM fair UNION ALL SELECT * FROM rest) b) a,
             unnest(a.realms, a.ids) d(realm_id, id)
     )
     UPDATE offboarding_request r
     SET status = 'running', started_at = COALESCE(r.started_at, now()), attempts = r.attempts + 1,
         lease_token = nextval('lease_token'), lease_owner = {owner}, due_at = now() + make_interval(secs => {lease}), next_attempt_at = NULL
     FROM due JOIN realm ON realm.id = due.realm_id
     WHERE r.realm_id = due.realm_id AND r.id = due.id
     RETURNING r.realm_id, realm.org, realm.mode, r.id, r.entity_id, r.lease_token, r.attempts")
}

/// The longest wait for another try.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Makes requests ready now that would become ready later than so long from now. See [`crate::jobs::watch_clock`]. A grace period is over when the clock says
/// so, and not before; where none was asked for the request is ready at once, whatever the clock says.
pub fn recall(connection: &mut PgConnection, bound: Duration) -> Work<usize> {
    Ok(Recall { bound: bound.max(LONGEST_WAIT).as_secs_f64(), at_once: AT_ONCE }
        .execute(connection)?)
}

/// A request without a grace period is scheduled no later than so many seconds from now: the clock was read by another transaction.
const AT_ONCE: f64 = 1.0;

statement! {
    /// Requests that were postponed, or leased by a lost worker, before the clock stepped back, and those made then.
    struct Recall {
        bound: f64 as Double,
        at_once: f64 as Double,
    } -> (),
    "UPDATE offboarding_request
     SET due_at = now(), next_attempt_at = CASE WHEN next_attempt_at IS NOT NULL THEN now() END
     WHERE status IN ('pending', 'running') AND due_at > now() + make_interval(secs => {at_once})
       AND CASE status WHEN 'pending' THEN execute_after <= created_at ELSE due_at > now() + make_interval(secs => {bound}) END"
}

/// Removes the entities of these requests with all that hangs on them, in one statement, and returns the ids of the requests that are done.
/// The others are as they were: their entity changed in between, must not be removed, or the lease is lost.
pub fn remove(connection: &mut PgConnection, claimed: &[ClaimedRequest]) -> Work<Vec<Uuid>> {
    let statement = Remove {
        realms: claimed.iter().map(|claim| claim.realm.id()).collect(),
        ids: claimed.iter().map(|claim| claim.id).collect(),
        tokens: claimed.iter().map(|claim| claim.token).collect(),
        erased: erased_answer(),
    };
    Ok(statement.load(connection)?.into_iter().map(|(id,): (Uuid,)| id).collect())
}

statement! {
    /// Everything a removal owes, for many requests at once.
    pub struct Remove {
        realms: Vec<i32> as Array<Integer>,
        ids: Vec<Uuid> as Array<SqlUuid>,
        tokens: Vec<i64> as Array<BigInt>,
        erased: Vec<u8> as Binary,
    } -> (SqlUuid,),
    concat!("WITH leased AS (
        -- The requests whose lease is still valid, with the entity as this statement sees it.
        SELECT r.realm_id, r.id, r.entity_id, r.incarnation, r.principal_id, e.version
        FROM unnest({realms}, {ids}, {tokens}) AS c(realm_id, id, token)
        JOIN offboarding_request r
          ON r.realm_id = c.realm_id AND r.id = c.id AND r.lease_token = c.token AND r.status = 'running'
        JOIN entity e ON e.realm_id = r.realm_id AND e.id = r.entity_id
        FOR UPDATE OF r
     ),
     gone AS (
        -- An entity that was changed after the statement began has another version and stays: what was added to it is not seen here.
        DELETE FROM entity e
        USING leased l
        WHERE e.realm_id = l.realm_id AND e.id = l.entity_id AND e.incarnation = l.incarnation AND e.version = l.version
          AND e.state = 'offboarding' AND e.deleted_at IS NULL AND e.hold_reason IS NULL
        RETURNING l.id AS request_id, l.principal_id, e.realm_id, e.id, e.incarnation, e.type, e.version, e.created_at, e.updated_at,
                  e.portfolio_id
     ),
     parts AS (
        DELETE FROM dependent d
        USING gone g
        WHERE d.realm_id = g.realm_id AND d.entity_id = g.id
        RETURNING g.request_id, d.kind
     ),
     unindexed AS (
        DELETE FROM attribute_index a
        USING gone g
        WHERE a.realm_id = g.realm_id AND a.entity_id = g.id
     ),
     unshown AS (
        -- What was answered under idempotency keys shows the entity as it was before it was on its way out, so this statement sees all of it.
        DELETE FROM idempotency_subject x
        USING gone g
        WHERE x.realm_id = g.realm_id AND x.kind = 'entity' AND x.subject = g.id
        RETURNING x.*
     ),
     ", blanked!(), ",
     counts AS (
        SELECT k.request_id, jsonb_object_agg(k.kind, k.parts) AS removed
        FROM (SELECT request_id, kind, count(*) AS parts FROM parts GROUP BY request_id, kind) k
        GROUP BY k.request_id
     ),
     tombstones AS (
        INSERT INTO tombstone
            (realm_id, entity_id, incarnation, type, version, created_at, updated_at, removed_by, job_kind, job_id)
        SELECT g.realm_id, g.id, g.incarnation, g.type, g.version, g.created_at, g.updated_at, g.principal_id, 'offboarding', g.request_id
        FROM gone g
        -- What was removed before may be here again, as when a table was restored and another was not.
        ON CONFLICT DO NOTHING
     ),
     held AS (
        -- The portfolios that lose members, locked in the order of their keys, as all do who change several.
        SELECT p.realm_id, p.id, m.members
        FROM portfolio p
        JOIN (SELECT realm_id, portfolio_id, count(*) AS members
              FROM gone
              WHERE portfolio_id IS NOT NULL
              GROUP BY realm_id, portfolio_id) m
          ON m.realm_id = p.realm_id AND m.portfolio_id = p.id
        ORDER BY p.realm_id, p.id
        FOR NO KEY UPDATE OF p
     ),
     folio AS (
        -- Each removal is one step of the portfolio's version, and recorded as such, whichever are done at once.
        UPDATE portfolio p
        SET entity_count = p.entity_count - h.members, version = p.version + h.members, updated_at = now()
        FROM held h
        WHERE p.realm_id = h.realm_id AND p.id = h.id
        RETURNING p.realm_id, p.id, p.version - h.members AS before
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT g.realm_id, 'entity.offboarded', ARRAY[g.id], g.principal_id,
               jsonb_build_object('offboarding_request_id', g.request_id, 'incarnation', g.incarnation, 'version', g.version)
        FROM gone g
        UNION ALL
        SELECT g.realm_id, 'portfolio.entity_detached', ARRAY[f.id], g.principal_id,
               jsonb_build_object('entity_ids', jsonb_build_array(g.id),
                                  'version', f.before + row_number() OVER (PARTITION BY f.realm_id, f.id ORDER BY g.id))
        FROM gone g
        JOIN folio f ON f.realm_id = g.realm_id AND f.id = g.portfolio_id
     )
     UPDATE offboarding_request r
     SET status = 'succeeded', finished_at = now(), due_at = NULL, next_attempt_at = NULL, removed = COALESCE(c.removed, '{}'::jsonb)
     FROM gone g
     LEFT JOIN counts c ON c.request_id = g.request_id
     WHERE r.realm_id = g.realm_id AND r.id = g.request_id
     RETURNING r.id")
}

/// Why a claimed request was not done.
#[derive(Debug, diesel::Queryable)]
pub struct Obstacle {
    /// True if the entity is still there, the same incarnation and on its way out.
    pub leaving: bool,
    /// True if it is on hold.
    pub on_hold: bool,
}

/// Reads why a claimed request was not done. None if the lease is lost.
pub fn obstacle(connection: &mut PgConnection, claim: &ClaimedRequest) -> Work<Option<Obstacle>> {
    Ok(ReadObstacle { realm: claim.realm.id(), id: claim.id, token: claim.token }
        .get_result(connection)
        .optional()?)
}

statement! {
    /// The state of the entity of a leased request.
    struct ReadObstacle {
        realm: i32 as Integer,
        id: Uuid as SqlUuid,
        token: i64 as BigInt,
    } -> (Bool, Bool),
    "SELECT e.id IS NOT NULL, e.hold_reason IS NOT NULL
     FROM offboarding_request r
     LEFT JOIN entity e
       ON e.realm_id = r.realm_id AND e.id = r.entity_id AND e.incarnation = r.incarnation AND e.state = 'offboarding'
      AND e.deleted_at IS NULL
     WHERE r.realm_id = {realm} AND r.id = {id} AND r.lease_token = {token} AND r.status = 'running'"
}

/// Ends a claimed request as failed; its entity is active again. False if the lease is lost.
pub fn fail(
    connection: &mut PgConnection,
    claim: &ClaimedRequest,
    code: &str,
    message: &str,
) -> Work<bool> {
    let failed: Option<(Uuid,)> =
        FailRequest { realm: claim.realm.id(), id: claim.id, token: claim.token, code, message }
            .get_result(connection)
            .optional()?;
    Ok(failed.is_some())
}

statement! {
    /// The request's end, the entity's way back and the event.
    struct FailRequest<'a> {
        realm: i32 as Integer,
        id: Uuid as SqlUuid,
        token: i64 as BigInt,
        code: &'a str as Text,
        message: &'a str as Text,
    } -> (SqlUuid,),
    "WITH failed AS (
        UPDATE offboarding_request
        SET status = 'failed', finished_at = now(), due_at = NULL, error_code = {code}, error_message = {message},
            last_error_code = {code}, last_error_message = {message}
        WHERE realm_id = {realm} AND id = {id} AND lease_token = {token} AND status = 'running'
        RETURNING *
     ),
     restored AS (
        UPDATE entity e
        SET state = 'active', version = e.version + 1, updated_at = now()
        FROM failed f
        WHERE e.realm_id = f.realm_id AND e.id = f.entity_id AND e.incarnation = f.incarnation AND e.state = 'offboarding'
        RETURNING e.version
     ),
     recorded AS (
        -- Behind the change of the entity: the numbers of events follow the order of its changes.
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'entity.offboarding_failed', ARRAY[f.entity_id], f.principal_id,
               jsonb_build_object('offboarding_request_id', f.id, 'code', f.error_code, 'version', e.version)
        FROM failed f
        LEFT JOIN restored e ON true
     )
     SELECT id FROM failed"
}

/// Why a claimed request is put off.
#[derive(Clone, Copy, Debug)]
pub struct Reason<'a> {
    /// A code.
    pub code: &'a str,
    /// A sentence for people.
    pub message: &'a str,
}

/// Puts a claimed request off, giving its lease back and recording why. False if the lease is lost.
pub fn put_off(
    connection: &mut PgConnection,
    claim: &ClaimedRequest,
    delay: Duration,
    reason: Reason<'_>,
) -> Work<bool> {
    let statement = PutOff {
        realm: claim.realm.id(),
        id: claim.id,
        token: claim.token,
        delay: delay.as_secs_f64(),
        code: reason.code,
        message: reason.message,
    };
    let put_off: Option<(Option<i64>,)> = statement.get_result(connection).optional()?;
    Ok(put_off.is_some())
}

statement! {
    /// A new token, so that the old one opens nothing, and a later date.
    struct PutOff<'a> {
        realm: i32 as Integer,
        id: Uuid as SqlUuid,
        token: i64 as BigInt,
        delay: f64 as Double,
        code: &'a str as Text,
        message: &'a str as Text,
    } -> (Nullable<BigInt>,),
    "UPDATE offboarding_request
     SET lease_token = nextval('lease_token'), due_at = now() + make_interval(secs => {delay}),
         next_attempt_at = now() + make_interval(secs => {delay}), last_error_code = {code}, last_error_message = {message}
     WHERE realm_id = {realm} AND id = {id} AND lease_token = {token} AND status = 'running'
     RETURNING lease_token"
}
