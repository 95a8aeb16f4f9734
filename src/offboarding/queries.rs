//! The SQL of asking for, seeing and calling off an offboarding.

use std::time::Duration;

use diesel::dsl::{AsSelect, IntoBoxed, Select};
use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::sql_types::{
    Array, Bool, Double, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use uuid::Uuid;

use crate::access::Caller;
use crate::db::condition::Condition;
use crate::db::schema::offboarding_request as request;
use crate::db::{Realm, Work, id, listen, statement};
use crate::entity::model::State;
use crate::filter::{Filter, Property, PropertyKind, Vocabulary};
use crate::offboarding::model::{MAX_GRACE, Offboarding, OffboardingState};

/// The topic that wakes the workers.
pub const TOPIC: &str = "offboarding";

pub(super) type OffboardingRow = (
    SqlUuid,
    Text,
    SqlUuid,
    Text,
    Array<SqlUuid>,
    Timestamptz,
    Timestamptz,
    Nullable<Timestamptz>,
    Nullable<Timestamptz>,
    Nullable<Jsonb>,
    Nullable<Text>,
    Nullable<Text>,
    Integer,
    Nullable<Text>,
    Nullable<Text>,
    Nullable<Timestamptz>,
);

/// The caller and the request.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The realm.
    pub realm: Realm,
    /// The caller.
    pub principal_id: Uuid,
    /// With which key.
    pub key_id: Uuid,
    /// For which entity.
    pub entity_id: String,
    /// How long it can still be canceled; the realm's default if not said.
    pub grace: Option<Duration>,
}

impl Ask {
    /// The request of a caller.
    pub fn of(caller: &Caller, entity_id: String, grace: Option<Duration>) -> Self {
        Ask {
            realm: caller.realm.clone(),
            principal_id: caller.principal_id,
            key_id: caller.key_id,
            entity_id,
            grace,
        }
    }
}

/// Moves an active entity to `offboarding` and makes its request. None if there is no entity that can be offboarded: [`eligibility`]
/// returns why.
pub fn request(connection: &mut PgConnection, ask: &Ask) -> Work<Option<Offboarding>> {
    let statement = Request {
        realm: ask.realm.id(),
        id: id::new_id(),
        entity: &ask.entity_id,
        principal: ask.principal_id,
        key: ask.key_id,
        grace: ask.grace.map(|grace| grace.as_secs_f64()),
        max_grace: MAX_GRACE.as_secs_f64(),
        channel: listen::CHANNEL,
        topic: TOPIC,
    };
    Ok(statement.get_result(connection).optional()?)
}

statement! {
    /// The entity's move, the request, the event and the wake-up.
    pub struct Request<'a> {
        realm: i32 as Integer,
        id: Uuid as SqlUuid,
        entity: &'a str as Text,
        principal: Uuid as SqlUuid,
        key: Uuid as SqlUuid,
        grace: Option<f64> as Nullable<Double>,
        max_grace: f64 as Double,
        channel: &'a str as Text,
        topic: &'a str as Text,
    } -> OffboardingRow,
    "WITH policy AS (
        SELECT COALESCE(make_interval(secs => {grace}), p.default_grace, '0') AS grace,
               COALESCE(p.max_grace, make_interval(secs => {max_grace})) AS max_grace, COALESCE(p.min_grace, '0') AS min_grace
        FROM (SELECT) one
        LEFT JOIN removal_policy p ON p.realm_id = {realm}
     ),
     leaving AS (
        UPDATE entity e
        SET state = 'offboarding', version = e.version + 1, updated_at = now()
        FROM policy
        WHERE e.realm_id = {realm} AND e.id = {entity} AND e.deleted_at IS NULL AND e.state = 'active' AND e.hold_reason IS NULL
          AND policy.grace BETWEEN policy.min_grace AND policy.max_grace
        RETURNING e.id, e.incarnation, e.components, e.version, policy.grace
     ),
     asked AS (
        INSERT INTO offboarding_request
            (realm_id, id, entity_id, incarnation, principal_id, api_key_id, status, components, execute_after, due_at)
        SELECT {realm}, {id}, l.id, l.incarnation, {principal}, {key}, 'pending', l.components,
               now() + l.grace, now() + l.grace
        FROM leaving l
        RETURNING *
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'entity.offboarding_requested', ARRAY[a.entity_id], {principal},
               jsonb_build_object('offboarding_request_id', a.id, 'execute_after', a.execute_after, 'version', l.version)
        FROM asked a, leaving l
     )
     SELECT a.id, a.entity_id, a.principal_id, a.status, a.components, a.created_at, a.execute_after, a.started_at, a.finished_at,
            a.removed, a.error_code, a.error_message, a.attempts, a.last_error_code, a.last_error_message, a.next_attempt_at
     FROM asked a
     -- A request that must wait wakes nobody, nor does one behind others that did: notifying transactions commit one by one, each waiting
     -- for the disk, and whoever takes those up reads them again. The wake-up never withholds the row.
     LEFT JOIN LATERAL (
        SELECT pg_notify({channel}, {topic})
        WHERE a.execute_after <= a.created_at
          AND (SELECT w.id
               FROM offboarding_request w
               WHERE w.status = 'pending' AND w.due_at <= now() AND w.execute_after <= w.created_at
               ORDER BY w.due_at
               LIMIT 1) IS NULL
     ) woken ON true"
}

/// True if an entity can be offboarded.
#[derive(Debug, diesel::Queryable)]
pub struct Eligibility {
    /// The state of the entity, unless it is missing.
    pub state: Option<State>,
    /// True if it is on hold.
    pub on_hold: bool,
}

/// Reads the entity's state, and the request that is open for it or, if it is removed, the one that has removed it. A request for another
/// entity that had the id before does not count.
pub fn eligibility(
    connection: &mut PgConnection,
    realm: &Realm,
    entity_id: &str,
) -> Work<(Eligibility, Option<Offboarding>)> {
    // The request first: one that ends in between has then left its entity removed or active, never the other way round. There is one at
    // most: the open one is unique, and adding an entity marks the requests for those that had the id before.
    let counts =
        [OffboardingState::Pending, OffboardingState::Running, OffboardingState::Succeeded]
            .map(OffboardingState::as_str);
    let request = request::table
        .filter(request::realm_id.eq(realm.id()).and(request::entity_id.eq(entity_id)))
        .filter(request::followed.eq(false).and(request::status.eq_any(counts)))
        .select(Offboarding::as_select())
        .order(request::created_at.desc())
        .first(connection)
        .optional()?;
    let eligibility =
        ReadEligibility { realm: realm.id(), entity: entity_id }.get_result(connection)?;
    Ok((eligibility, request))
}

statement! {
    /// The state and hold of an entity that may be missing.
    struct ReadEligibility<'a> {
        realm: i32 as Integer,
        entity: &'a str as Text,
    } -> (Nullable<Text>, Bool),
    "SELECT e.state, e.hold_reason IS NOT NULL
     FROM (SELECT) one
     LEFT JOIN entity e ON e.realm_id = {realm} AND e.id = {entity} AND e.deleted_at IS NULL"
}

/// The request with this id.
pub fn get(
    connection: &mut PgConnection,
    realm: &Realm,
    request_id: Uuid,
) -> Work<Option<Offboarding>> {
    let found = request::table
        .filter(request::realm_id.eq(realm.id()).and(request::id.eq(request_id)))
        .select(Offboarding::as_select())
        .first(connection)
        .optional()?;
    Ok(found)
}

/// Cancels a pending request: one compare-and-set against the worker that would start it. None if it is not pending, or not there.
pub fn cancel(
    connection: &mut PgConnection,
    realm: &Realm,
    principal: Uuid,
    request_id: Uuid,
) -> Work<Option<Offboarding>> {
    let statement = Cancel {
        realm: realm.id(),
        id: request_id,
        principal,
        from: OffboardingState::Pending.as_str(),
        to: OffboardingState::Canceled.as_str(),
    };
    Ok(statement.get_result(connection).optional()?)
}

statement! {
    /// The request's end, the entity's way back and the event.
    pub struct Cancel<'a> {
        realm: i32 as Integer,
        id: Uuid as SqlUuid,
        principal: Uuid as SqlUuid,
        from: &'a str as Text,
        to: &'a str as Text,
    } -> OffboardingRow,
    "WITH canceled AS (
        UPDATE offboarding_request
        SET status = {to}, finished_at = now(), due_at = NULL
        WHERE realm_id = {realm} AND id = {id} AND status = {from}
        RETURNING *
     ),
     restored AS (
        UPDATE entity e
        SET state = 'active', version = e.version + 1, updated_at = now()
        FROM canceled c
        WHERE e.realm_id = c.realm_id AND e.id = c.entity_id AND e.incarnation = c.incarnation AND e.state = 'offboarding'
        RETURNING e.version
     ),
     recorded AS (
        -- Behind the change of the entity: the numbers of events follow the order of its changes.
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'entity.offboarding_canceled', ARRAY[c.entity_id], {principal},
               jsonb_build_object('offboarding_request_id', c.id, 'version', e.version)
        FROM canceled c
        LEFT JOIN restored e ON true
     )
     SELECT c.id, c.entity_id, c.principal_id, c.status, c.components, c.created_at, c.execute_after, c.started_at, c.finished_at,
            c.removed, c.error_code, c.error_message, c.attempts, c.last_error_code, c.last_error_message, c.next_attempt_at
     FROM canceled c"
}

/// Which requests a list shows.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Only those in this state.
    pub state: Option<OffboardingState>,
    /// Only those for this entity.
    pub entity_id: Option<String>,
    /// Only those that match it.
    pub filter: Option<Filter>,
}

/// The properties for the filter of a list of requests.
pub static OFFBOARDING: Vocabulary = Vocabulary {
    properties: &[
        Property::new(&["id"], PropertyKind::Text, "CAST(offboarding_request.id AS text)"),
        Property::new(
            &["uri", "entityId", "entity_id"],
            PropertyKind::Uri,
            "offboarding_request.entity_id",
        ),
        Property::new(
            &["principalId", "principal_id"],
            PropertyKind::Text,
            "CAST(offboarding_request.principal_id AS text)",
        ),
        Property::new(&["status"], PropertyKind::Text, "offboarding_request.status")
            .one_of(OffboardingState::SPELLINGS),
        Property::new(&["attempts"], PropertyKind::Number, "offboarding_request.attempts"),
        Property::new(
            &["created", "createdTime", "created_at"],
            PropertyKind::Time,
            "offboarding_request.created_at",
        ),
        Property::new(
            &["executeAfter", "execute_after"],
            PropertyKind::Time,
            "offboarding_request.execute_after",
        ),
        Property::nullable(
            &["started", "startedTime", "started_at"],
            PropertyKind::Time,
            "offboarding_request.started_at",
        ),
        Property::nullable(
            &["finished", "finishedTime", "finished_at"],
            PropertyKind::Time,
            "offboarding_request.finished_at",
        ),
    ],
};

/// Requests of the realm, the latest first: those before this id, so many at most.
pub fn list(
    connection: &mut PgConnection,
    realm: &Realm,
    of: &Selection,
    before: Option<Uuid>,
    limit: i64,
) -> Work<Vec<Offboarding>> {
    Ok(page(realm, of, before, limit).load(connection)?)
}

type Page<'a> = IntoBoxed<'a, Select<request::table, AsSelect<Offboarding, Pg>>, Pg>;

fn page<'a>(realm: &Realm, of: &'a Selection, before: Option<Uuid>, limit: i64) -> Page<'a> {
    let mut query = request::table
        .select(Offboarding::as_select())
        .into_boxed()
        .filter(request::realm_id.eq(realm.id()));
    if let Some(state) = of.state {
        query = query.filter(request::status.eq(state.as_str()));
        if state.is_open() {
            // In the words of the index of open requests, which are few among all.
            query = query.filter(diesel::dsl::sql::<Bool>("status IN ('pending', 'running')"));
        }
    }
    if let Some(entity_id) = &of.entity_id {
        query = query.filter(request::entity_id.eq(entity_id));
    }
    if let Some(filter) = &of.filter {
        query = query.filter(Condition(filter.predicate()));
    }
    if let Some(before) = before {
        query = query.filter(request::id.lt(before));
    }
    // Ids are UUIDv7, so they are in the order of time.
    query.order(request::id.desc()).limit(limit)
}

#[cfg(test)]
mod forms {
    use super::*;
    use crate::db::checked::{Form, forms, realm};
    use crate::filter::conditions::filters;

    forms!(Page, || {
        let realm = realm();
        let plain = Selection { state: None, entity_id: None, filter: None };
        let mut selections = vec![
            Selection { entity_id: Some("a".to_owned()), ..plain.clone() },
            Selection { state: Some(OffboardingState::Pending), ..plain.clone() },
            Selection { state: Some(OffboardingState::Failed), ..plain.clone() },
        ];
        selections.extend(
            filters(&OFFBOARDING)
                .into_iter()
                .map(|(_, filter)| Selection { filter: Some(filter), ..plain.clone() }),
        );
        selections.push(plain);
        let forms = |of: &Selection| {
            [None, Some(Uuid::nil())]
                .map(|before| Form::built(format!("{of:?}"), &page(&realm, of, before, 1)))
        };
        selections.iter().flat_map(forms).collect()
    });
}
