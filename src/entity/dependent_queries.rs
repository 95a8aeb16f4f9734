//! The SQL of dependents. Each change raises the entity's version in the same statement, so that no removal misses it.

use chrono::{DateTime, Utc};
use diesel::pg::{PgConnection, PgRowByRowLoadingMode};
use diesel::prelude::*;
use diesel::sql_types::{
    BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use uuid::Uuid;

use crate::access::Caller;
use crate::db::statement::Statement;
use crate::db::{Realm, Work, statement};
use crate::entity::bounded::{self, PAGE_BYTES, Read};
use crate::entity::dependent::{Dependent, DependentChange, DependentKey};
use crate::entity::list::BEHIND_ALL;
use crate::entity::new_entity::MAX_DEPENDENTS;
use crate::filter::{Filter, Property, PropertyKind, Vocabulary};
use crate::proto::object::Struct;

/// About how many bytes a dependent has besides its data.
const FIXED_BYTES: usize = 512;

type DependentRow = (Text, Text, Jsonb, Timestamptz, Timestamptz);

/// The dependent with this key, unless it or its entity is missing or deleted.
pub fn get(
    connection: &mut PgConnection,
    realm: &Realm,
    key: &DependentKey,
) -> Work<Option<Dependent>> {
    let statement =
        GetDependent { realm: realm.id(), entity: &key.entity_id, kind: &key.kind, id: &key.id };
    Ok(statement.get_result(connection).optional()?)
}

statement! {
    /// A dependent of an entity that is visible.
    struct GetDependent<'a> {
        realm: i32 as Integer,
        entity: &'a str as Text,
        kind: &'a str as Text,
        id: &'a str as Text,
    } -> DependentRow,
    "SELECT d.kind, d.id, d.data, d.created_at, d.updated_at
     FROM dependent d
     JOIN entity e ON e.realm_id = d.realm_id AND e.id = d.entity_id AND e.deleted_at IS NULL
     WHERE d.realm_id = {realm} AND d.entity_id = {entity} AND d.kind = {kind} AND d.id = {id}"
}

/// The properties for the filter of a list of dependents.
pub static DEPENDENT: Vocabulary = Vocabulary {
    properties: &[
        Property::new(&["kind"], PropertyKind::Text, "d.kind"),
        Property::new(&["id"], PropertyKind::Text, "d.id"),
        Property::new(&["createdTime", "created_at"], PropertyKind::Time, "d.created_at"),
        Property::new(&["updatedTime", "updated_at"], PropertyKind::Time, "d.updated_at"),
        Property::new(&["data"], PropertyKind::Json, "d.data"),
    ],
};

/// The dependents of an entity after this kind and id that match the filter, in their order. None if the entity is missing or deleted. It
/// may end before its limit: see [`PAGE_BYTES`].
pub fn list(
    connection: &mut PgConnection,
    realm: &Realm,
    (entity, kind, filter): (&str, &str, Option<&Filter>),
    after: Option<(&str, &str)>,
    limit: i64,
) -> Work<Option<Read<Dependent>>> {
    let (after_kind, after_id) = after.unwrap_or((kind, ""));
    let until = if kind.is_empty() { BEHIND_ALL } else { kind };
    let statement =
        ListDependents { realm: realm.id(), entity, after_kind, after_id, until, limit };
    let statement = statement.filtered(filter.map(Filter::predicate));
    let rows = statement.load_iter::<Dependent, PgRowByRowLoadingMode>(connection)?;
    let page = bounded::read(rows, PAGE_BYTES, |dependent: &Dependent| {
        FIXED_BYTES + dependent.data.weight()
    })?;
    // The entity last: of one that is removed meanwhile nothing is returned.
    let (is_there,) = IsVisible { realm: realm.id(), entity }.get_result(connection)?;
    Ok(Some(page).filter(|_| is_there))
}

statement! {
    /// A page of what hangs on an entity. A page of one kind begins and ends with it.
    pub struct ListDependents<'a> {
        realm: i32 as Integer,
        entity: &'a str as Text,
        after_kind: &'a str as Text,
        after_id: &'a str as Text,
        until: &'a str as Text,
        limit: i64 as BigInt,
    } -> DependentRow,
    "SELECT d.kind, d.id, d.data, d.created_at, d.updated_at
     FROM dependent d
     WHERE d.realm_id = {realm} AND d.entity_id = {entity} AND (d.kind, d.id) > ({after_kind}, {after_id}) AND d.kind <= {until}{filter}
     ORDER BY d.kind, d.id
     LIMIT {limit}"
}

#[cfg(test)]
crate::db::checked::filtered!(ListDependents, crate::filter::conditions::conditions(&DEPENDENT));

statement! {
    /// True if an entity is there.
    struct IsVisible<'a> {
        realm: i32 as Integer,
        entity: &'a str as Text,
    } -> (Bool,),
    "SELECT EXISTS (SELECT FROM entity e WHERE e.realm_id = {realm} AND e.id = {entity} AND e.deleted_at IS NULL)"
}

/// The row where a dependent is to be put.
#[derive(Debug, Queryable)]
pub struct Spot {
    /// The present data.
    pub data: Option<Struct>,
    /// When the present row was created.
    pub created_at: Option<DateTime<Utc>>,
    /// When the present row was last changed.
    pub updated_at: Option<DateTime<Utc>>,
    /// True if nothing is there, and as much hangs on the entity as may.
    pub is_full: bool,
}

/// Reads the row where a dependent of a locked entity is to be put.
pub fn spot(connection: &mut PgConnection, realm: &Realm, key: &DependentKey) -> Work<Spot> {
    let statement = ReadSpot {
        realm: realm.id(),
        entity: &key.entity_id,
        kind: &key.kind,
        id: &key.id,
        others: MAX_DEPENDENTS as i64 - 1,
    };
    Ok(statement.get_result(connection)?)
}

statement! {
    /// A dependent that may be missing. Counting ends at the bound, and is done for new ones alone.
    pub struct ReadSpot<'a> {
        realm: i32 as Integer,
        entity: &'a str as Text,
        kind: &'a str as Text,
        id: &'a str as Text,
        others: i64 as BigInt,
    } -> (Nullable<Jsonb>, Nullable<Timestamptz>, Nullable<Timestamptz>, Bool),
    "SELECT d.data, d.created_at, d.updated_at,
            CASE WHEN d.id IS NULL
                 THEN EXISTS (SELECT FROM dependent o WHERE o.realm_id = {realm} AND o.entity_id = {entity} OFFSET {others})
                 ELSE false END
     FROM (SELECT) one
     LEFT JOIN dependent d ON d.realm_id = {realm} AND d.entity_id = {entity} AND d.kind = {kind} AND d.id = {id}"
}

/// Creates a dependent of a locked entity, or replaces its data.
pub fn put(
    connection: &mut PgConnection,
    caller: &Caller,
    key: &DependentKey,
    data: &Struct,
    change: DependentChange,
) -> Work<Dependent> {
    let statement = Put {
        realm: caller.realm.id(),
        principal: caller.principal_id,
        entity: &key.entity_id,
        kind: &key.kind,
        id: &key.id,
        data,
        change: change.as_str(),
    };
    Ok(statement.get_result(connection)?)
}

statement! {
    /// The dependent, the entity's step and the event.
    pub struct Put<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        entity: &'a str as Text,
        kind: &'a str as Text,
        id: &'a str as Text,
        data: &'a Struct as Jsonb,
        change: &'a str as Text,
    } -> DependentRow,
    "WITH put AS (
        INSERT INTO dependent AS d (realm_id, entity_id, kind, id, data)
        VALUES ({realm}, {entity}, {kind}, {id}, {data})
        ON CONFLICT (realm_id, entity_id, kind, id) DO UPDATE
        SET data = excluded.data, updated_at = now()
        RETURNING d.kind, d.id, d.data, d.created_at, d.updated_at
     ),
     stepped AS (
        UPDATE entity
        SET version = version + 1, updated_at = now()
        WHERE realm_id = {realm} AND id = {entity}
        RETURNING id, version
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'entity.updated', ARRAY[s.id], {principal},
               jsonb_build_object('version', s.version, 'dependent', jsonb_build_object('kind', {kind}, 'id', {id}, 'act', {change}))
        FROM stepped s
     )
     SELECT p.kind, p.id, p.data, p.created_at, p.updated_at FROM put p"
}

/// Removes a dependent of a locked entity. False if there is none.
pub fn delete(connection: &mut PgConnection, caller: &Caller, key: &DependentKey) -> Work<bool> {
    let statement = Delete {
        realm: caller.realm.id(),
        principal: caller.principal_id,
        entity: &key.entity_id,
        kind: &key.kind,
        id: &key.id,
        change: DependentChange::Deleted.as_str(),
    };
    Ok(statement.get_result::<(i64,)>(connection).optional()?.is_some())
}

statement! {
    /// The dependent's end, the entity's step and the event.
    pub struct Delete<'a> {
        realm: i32 as Integer,
        principal: Uuid as SqlUuid,
        entity: &'a str as Text,
        kind: &'a str as Text,
        id: &'a str as Text,
        change: &'a str as Text,
    } -> (BigInt,),
    "WITH gone AS (
        DELETE FROM dependent
        WHERE realm_id = {realm} AND entity_id = {entity} AND kind = {kind} AND id = {id}
        RETURNING entity_id
     ),
     stepped AS (
        UPDATE entity e
        SET version = e.version + 1, updated_at = now()
        FROM gone g
        WHERE e.realm_id = {realm} AND e.id = g.entity_id
        RETURNING e.id, e.version
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'entity.updated', ARRAY[s.id], {principal},
               jsonb_build_object('version', s.version, 'dependent', jsonb_build_object('kind', {kind}, 'id', {id}, 'act', {change}))
        FROM stepped s
     )
     SELECT s.version FROM stepped s"
}
