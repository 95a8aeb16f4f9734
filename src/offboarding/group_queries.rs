//! The SQL of calls that are done together. Requests and cancellations leave out what is not plain, for [`queries`](super::queries) to do by
//! itself: such a statement waits for nobody, so what others have locked is left out, and the order of its locks is of no matter.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Double, Integer, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::{Realm, Together, Work, id, listen, placed, statement};
use crate::offboarding::model::{MAX_GRACE, Offboarding, OffboardingState};
use crate::offboarding::queries::{Ask, OffboardingRow, TOPIC};

/// An entity whose offboarding is requested.
pub(super) struct Request(pub Ask);

impl Together for Request {
    type Answer = Offboarding;
    const ONLY_READS: bool = false;
    const IS_SMALL: bool = true;

    fn together(connection: &mut PgConnection, calls: &[Self]) -> Work<Vec<Option<Offboarding>>> {
        let asks = || calls.iter().map(|Request(ask)| ask);
        let statement = RequestEach {
            realms: asks().map(|ask| ask.realm.id()).collect(),
            ids: asks().map(|_| id::new_id()).collect(),
            entities: asks().map(|ask| ask.entity_id.as_str()).collect(),
            principals: asks().map(|ask| ask.principal_id).collect(),
            keys: asks().map(|ask| ask.key_id).collect(),
            graces: asks().map(|ask| ask.grace.map(|grace| grace.as_secs_f64())).collect(),
            max_grace: MAX_GRACE.as_secs_f64(),
            channel: listen::CHANNEL,
            topic: TOPIC,
        };
        Ok(placed(statement.load::<(i64, Offboarding)>(connection)?, calls.len()))
    }
}

statement! {
    /// The moves of the entities, their requests, an event of each and one wake-up.
    struct RequestEach<'a> {
        realms: Vec<i32> as Array<Integer>,
        ids: Vec<Uuid> as Array<SqlUuid>,
        entities: Vec<&'a str> as Array<Text>,
        principals: Vec<Uuid> as Array<SqlUuid>,
        keys: Vec<Uuid> as Array<SqlUuid>,
        graces: Vec<Option<f64>> as Array<Nullable<Double>>,
        max_grace: f64 as Double,
        channel: &'a str as Text,
        topic: &'a str as Text,
    } -> (BigInt, OffboardingRow),
    "WITH wanted AS MATERIALIZED (
        SELECT DISTINCT ON (w.realm, w.entity) w.*
        FROM unnest({realms}, {ids}, {entities}, {principals}, {keys}, {graces}) WITH ORDINALITY
             w(realm, id, entity, principal, key, grace, place)
        ORDER BY w.realm, w.entity, w.place
     ),
     leaving AS MATERIALIZED (
        SELECT w.*, e.incarnation, e.components, e.version + 1 AS version, wait.grace AS wait
        FROM wanted w
        CROSS JOIN LATERAL (
            SELECT COALESCE(make_interval(secs => w.grace), p.default_grace, '0') AS grace,
                   COALESCE(p.max_grace, make_interval(secs => {max_grace})) AS max_grace, COALESCE(p.min_grace, '0') AS min_grace
            FROM (SELECT) one
            LEFT JOIN removal_policy p ON p.realm_id = w.realm
        ) wait
        JOIN entity e ON e.realm_id = w.realm AND e.id = w.entity
        WHERE e.deleted_at IS NULL AND e.state = 'active' AND e.hold_reason IS NULL
          AND wait.grace BETWEEN wait.min_grace AND wait.max_grace
        FOR NO KEY UPDATE OF e SKIP LOCKED
     ),
     moved AS (
        UPDATE entity e
        SET state = 'offboarding', version = l.version, updated_at = now()
        FROM leaving l
        WHERE e.realm_id = l.realm AND e.id = l.entity
     ),
     asked AS (
        INSERT INTO offboarding_request
            (realm_id, id, entity_id, incarnation, principal_id, api_key_id, status, components, execute_after, due_at)
        SELECT l.realm, l.id, l.entity, l.incarnation, l.principal, l.key, 'pending', l.components, now() + l.wait, now() + l.wait
        FROM leaving l
        RETURNING *
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT l.realm, 'entity.offboarding_requested', ARRAY[l.entity], l.principal,
               jsonb_build_object('offboarding_request_id', l.id, 'execute_after', a.execute_after, 'version', l.version)
        FROM leaving l
        JOIN asked a ON a.id = l.id
        ORDER BY l.place
     ),
     woken AS MATERIALIZED (
        -- Nobody, where requests that are due already have done so.
        SELECT pg_notify({channel}, {topic}) AS notified
        WHERE EXISTS (SELECT FROM asked a WHERE a.execute_after <= a.created_at)
          AND (SELECT w.id
               FROM offboarding_request w
               WHERE w.status = 'pending' AND w.due_at <= now() AND w.execute_after <= w.created_at
               ORDER BY w.due_at
               LIMIT 1) IS NULL
     )
     SELECT l.place, a.id, a.entity_id, a.principal_id, a.status, a.components, a.created_at, a.execute_after, a.started_at, a.finished_at,
            a.removed, a.error_code, a.error_message, a.attempts, a.last_error_code, a.last_error_message, a.next_attempt_at
     FROM asked a
     JOIN leaving l ON l.id = a.id
     -- A count is always one row: the wake-up withholds none. An outer join that nothing is taken from would be left out by the planner.
     CROSS JOIN (SELECT count(w.notified) FROM woken w) notified"
}

/// A request that is read.
pub(super) struct Get {
    pub realm: Realm,
    pub id: Uuid,
}

impl Together for Get {
    type Answer = Option<Offboarding>;
    const ONLY_READS: bool = true;
    const IS_SMALL: bool = true;

    fn together(
        connection: &mut PgConnection,
        calls: &[Self],
    ) -> Work<Vec<Option<Option<Offboarding>>>> {
        let statement = GetEach {
            realms: calls.iter().map(|call| call.realm.id()).collect(),
            ids: calls.iter().map(|call| call.id).collect(),
        };
        Ok(placed(statement.load::<(i64, Offboarding)>(connection)?, calls.len())
            .into_iter()
            .map(Some)
            .collect())
    }
}

statement! {
    /// Requests by key, each for whoever asks for it.
    struct GetEach {
        realms: Vec<i32> as Array<Integer>,
        ids: Vec<Uuid> as Array<SqlUuid>,
    } -> (BigInt, OffboardingRow),
    "SELECT w.place, r.id, r.entity_id, r.principal_id, r.status, r.components, r.created_at, r.execute_after, r.started_at, r.finished_at,
            r.removed, r.error_code, r.error_message, r.attempts, r.last_error_code, r.last_error_message, r.next_attempt_at
     FROM unnest({realms}, {ids}) WITH ORDINALITY w(realm, id, place)
     JOIN offboarding_request r ON r.realm_id = w.realm AND r.id = w.id"
}

/// A pending request that is canceled.
pub(super) struct Cancel {
    pub realm: Realm,
    pub principal: Uuid,
    pub id: Uuid,
}

impl Together for Cancel {
    type Answer = Offboarding;
    const ONLY_READS: bool = false;
    const IS_SMALL: bool = true;

    fn together(connection: &mut PgConnection, calls: &[Self]) -> Work<Vec<Option<Offboarding>>> {
        let statement = CancelEach {
            realms: calls.iter().map(|call| call.realm.id()).collect(),
            ids: calls.iter().map(|call| call.id).collect(),
            principals: calls.iter().map(|call| call.principal).collect(),
            from: OffboardingState::Pending.as_str(),
            to: OffboardingState::Canceled.as_str(),
        };
        Ok(placed(statement.load::<(i64, Offboarding)>(connection)?, calls.len()))
    }
}

statement! {
    /// The ends of the requests, the ways back of the entities and an event of each.
    struct CancelEach<'a> {
        realms: Vec<i32> as Array<Integer>,
        ids: Vec<Uuid> as Array<SqlUuid>,
        principals: Vec<Uuid> as Array<SqlUuid>,
        from: &'a str as Text,
        to: &'a str as Text,
    } -> (BigInt, OffboardingRow),
    "WITH wanted AS MATERIALIZED (
        SELECT DISTINCT ON (w.realm, w.id) w.*
        FROM unnest({realms}, {ids}, {principals}) WITH ORDINALITY w(realm, id, principal, place)
        ORDER BY w.realm, w.id, w.place
     ),
     pending AS MATERIALIZED (
        SELECT w.*, r.entity_id, r.incarnation
        FROM wanted w
        JOIN offboarding_request r ON r.realm_id = w.realm AND r.id = w.id
        WHERE r.status = {from}
        FOR NO KEY UPDATE OF r SKIP LOCKED
     ),
     restoring AS MATERIALIZED (
        SELECT p.*, e.version + 1 AS version
        FROM pending p
        JOIN entity e ON e.realm_id = p.realm AND e.id = p.entity_id
        WHERE e.incarnation = p.incarnation AND e.state = 'offboarding'
        FOR NO KEY UPDATE OF e SKIP LOCKED
     ),
     canceled AS (
        UPDATE offboarding_request r
        SET status = {to}, finished_at = now(), due_at = NULL
        FROM restoring b
        WHERE r.realm_id = b.realm AND r.id = b.id
        RETURNING r.*
     ),
     restored AS (
        UPDATE entity e
        SET state = 'active', version = b.version, updated_at = now()
        FROM restoring b
        WHERE e.realm_id = b.realm AND e.id = b.entity_id
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT b.realm, 'entity.offboarding_canceled', ARRAY[b.entity_id], b.principal,
               jsonb_build_object('offboarding_request_id', b.id, 'version', b.version)
        FROM restoring b
        ORDER BY b.place
     )
     SELECT b.place, c.id, c.entity_id, c.principal_id, c.status, c.components, c.created_at, c.execute_after, c.started_at, c.finished_at,
            c.removed, c.error_code, c.error_message, c.attempts, c.last_error_code, c.last_error_message, c.next_attempt_at
     FROM canceled c
     JOIN restoring b ON b.realm = c.realm_id AND b.id = c.id"
}
