//! The SQL of changing one entity: it is locked and read, the change is decided, and then written with its event.

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::access::Caller;
use crate::db::schema::entity;
use crate::db::{Realm, Work, statement};
use crate::entity::entity_update::Changes;
use crate::entity::index::model::Declared;
use crate::entity::index::queries::{DeclaredColumn, declared, index_change};
use crate::entity::model::{Entity, State};
use crate::proto::object::{Objects, Struct};

/// An entity that nobody else can change or remove before the transaction ends.
#[derive(Debug, Queryable)]
pub struct Locked {
    /// The entity.
    pub entity: Entity,
    /// Its references to other systems, a JSON array.
    pub crosswalks: Objects,
    /// True if its hold, if it has one, was placed with the scope `admin`.
    pub hold_by_admin: bool,
}

/// Locks the entity with this id, unless it is missing or deleted, and reads its latest version.
pub fn lock(connection: &mut PgConnection, realm: &Realm, id: &str) -> Work<Option<Locked>> {
    let found = entity::table
        .filter(
            entity::realm_id
                .eq(realm.id())
                .and(entity::id.eq(id))
                .and(entity::deleted_at.is_null()),
        )
        .select((Entity::as_select(), entity::crosswalks, entity::hold_by_admin))
        .for_no_key_update()
        .first(connection)
        .optional()?;
    Ok(found)
}

/// Locks the entity with this id, unless it is missing or deleted, and reads no more than its state.
pub fn lock_state(connection: &mut PgConnection, realm: &Realm, id: &str) -> Work<Option<State>> {
    let found = entity::table
        .filter(
            entity::realm_id
                .eq(realm.id())
                .and(entity::id.eq(id))
                .and(entity::deleted_at.is_null()),
        )
        .select(entity::state)
        .for_no_key_update()
        .first(connection)
        .optional()?;
    Ok(found)
}

/// A step of an entity: its new version, and when it was made.
#[derive(Clone, Copy, Debug, Queryable)]
pub struct Step {
    version: i64,
    at: DateTime<Utc>,
}

impl Step {
    /// Writes the step into the entity as it was read, and returns when it was made.
    pub fn apply(self, entity: &mut Entity) -> DateTime<Utc> {
        (entity.version, entity.updated_at) = (self.version, self.at);
        self.at
    }
}

/// Writes what changes in a locked entity, and the rows of its indexed attributes.
pub fn update(
    connection: &mut PgConnection,
    caller: &Caller,
    entity: &Entity,
    changes: &Changes,
) -> Work<Step> {
    let id = entity.id.as_str();
    let statement = Update {
        realm: caller.realm.id(),
        principal: caller.principal_id,
        id,
        new_type: changes.type_.as_deref(),
        attributes: changes.attributes.as_ref(),
        components: changes.components.as_deref(),
        crosswalks: changes.crosswalks.as_ref(),
        names: changes.names(),
    };
    let (version, at, declared): (i64, DateTime<Utc>, Option<Json>) =
        statement.get_result(connection)?;
    if let Some(attributes) = changes.attributes.as_ref().filter(|_| declared.is_some()) {
        index_change(
            connection,
            &caller.realm,
            &Declared::read(declared),
            id,
            (entity.attributes.view(), attributes.view()),
        )?;
    }
    Ok(Step { version, at })
}

statement! {
    /// The parts that are given; the others are not written anew.
    struct Update<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        id: &'a str as Text,
        new_type: Option<&'a str> as Nullable<Text>,
        attributes: Option<&'a Struct> as Nullable<Jsonb>,
        components: Option<&'a [Uuid]> as Nullable<Array<SqlUuid>>,
        crosswalks: Option<&'a Objects> as Nullable<Jsonb>,
        names: Vec<&'static str> as Array<Text>,
    } -> (BigInt, Timestamptz, DeclaredColumn),
    concat!("WITH changed AS (
        UPDATE entity
        SET type = COALESCE({new_type}, type), attributes = COALESCE({attributes}, attributes), components = COALESCE({components}, components),
            crosswalks = COALESCE({crosswalks}, crosswalks), version = version + 1, updated_at = now()
        WHERE realm_id = {realm} AND id = {id}
        RETURNING id, version, updated_at
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'entity.updated', ARRAY[c.id], {principal}, jsonb_build_object('version', c.version, 'fields', to_jsonb({names}))
        FROM changed c
     )
     SELECT c.version, c.updated_at, ", declared!(), "
     FROM changed c")
}

/// Moves a locked entity from `onboarding` on.
pub fn complete_onboarding(
    connection: &mut PgConnection,
    caller: &Caller,
    id: &str,
    to: State,
) -> Work<Step> {
    let statement = CompleteOnboarding {
        realm: caller.realm.id(),
        principal: caller.principal_id,
        id,
        to: to.as_str(),
    };
    Ok(statement.get_result(connection)?)
}

statement! {
    /// The entity's new state and the event.
    struct CompleteOnboarding<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        id: &'a str as Text,
        to: &'a str as Text,
    } -> (BigInt, Timestamptz),
    "WITH changed AS (
        UPDATE entity
        SET state = {to}, version = version + 1, updated_at = now()
        WHERE realm_id = {realm} AND id = {id}
        RETURNING id, version, updated_at
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'entity.onboarded', ARRAY[c.id], {principal}, jsonb_build_object('version', c.version)
        FROM changed c
     )
     SELECT c.version, c.updated_at FROM changed c"
}

/// Puts a locked entity on hold.
pub fn place_hold(
    connection: &mut PgConnection,
    caller: &Caller,
    id: &str,
    reason: &str,
) -> Work<Step> {
    let (realm, principal, by_admin) = (caller.realm.id(), caller.principal_id, caller.is_admin());
    Ok(PlaceHold { realm, principal, by_admin, id, reason }.get_result(connection)?)
}

statement! {
    /// The hold and the event, which does not have the reason: it would outlive the entity.
    struct PlaceHold<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        by_admin: bool as Bool,
        id: &'a str as Text,
        reason: &'a str as Text,
    } -> (BigInt, Timestamptz),
    "WITH changed AS (
        UPDATE entity
        SET hold_reason = {reason}, hold_placed_by = {principal}, hold_placed_at = now(), hold_by_admin = {by_admin}, version = version + 1, updated_at = now()
        WHERE realm_id = {realm} AND id = {id}
        RETURNING id, version, updated_at
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'entity.held', ARRAY[c.id], {principal}, jsonb_build_object('version', c.version)
        FROM changed c
     )
     SELECT c.version, c.updated_at FROM changed c"
}

/// Removes the hold of a locked entity.
pub fn release_hold(connection: &mut PgConnection, caller: &Caller, id: &str) -> Work<Step> {
    Ok(ReleaseHold { realm: caller.realm.id(), principal: caller.principal_id, id }
        .get_result(connection)?)
}

statement! {
    /// The end of the hold and the event.
    struct ReleaseHold<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        id: &'a str as Text,
    } -> (BigInt, Timestamptz),
    "WITH changed AS (
        UPDATE entity
        SET hold_reason = NULL, hold_placed_by = NULL, hold_placed_at = NULL, hold_by_admin = false, version = version + 1, updated_at = now()
        WHERE realm_id = {realm} AND id = {id}
        RETURNING id, version, updated_at
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'entity.released', ARRAY[c.id], {principal}, jsonb_build_object('version', c.version)
        FROM changed c
     )
     SELECT c.version, c.updated_at FROM changed c"
}
