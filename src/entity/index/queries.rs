//! The SQL that declares attributes, and writes index rows when entities change.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Double, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};

use crate::access::Caller;
use crate::db::statement::Statement;
use crate::db::{Realm, Work, listen, lock_realm, statement};
use crate::entity::index::model::{AttributeIndex, Declared, IndexAction, IndexState, Rows};
use crate::filter::{self, AttributePath, Filter, Property, PropertyKind, Vocabulary};
use crate::proto::object::Object;

/// The topic that wakes the worker.
pub const TOPIC: &str = "attribute_indexes";

/// The attributes of which rows are to be written, as a column of the statement that writes the entity: it costs no statement of its own, and
/// the rows are written in the same transaction. A transaction that does not see a declaration is one that the build waits for.
macro_rules! declared {
    () => {
        "(SELECT jsonb_object_agg(d.attribute, d.path)
             FROM attribute_declaration d
             WHERE d.realm_id = {realm} AND d.state IN ('building', 'ready'))"
    };
}
pub(in crate::entity) use declared;

/// The SQL type of what `declared!` returns.
pub type DeclaredColumn = Nullable<Jsonb>;

type IndexRow = (
    Text,
    Text,
    BigInt,
    Nullable<BigInt>,
    BigInt,
    Timestamptz,
    Nullable<Timestamptz>,
    Nullable<Text>,
    Nullable<Text>,
);
type IndexValues = (
    String,
    IndexState,
    i64,
    Option<i64>,
    i64,
    DateTime<Utc>,
    Option<DateTime<Utc>>,
    Option<String>,
    Option<String>,
);

impl From<IndexValues> for AttributeIndex {
    fn from(row: IndexValues) -> Self {
        let (
            attribute,
            state,
            entities_done,
            entities_total,
            rows_written,
            created_at,
            ready_at,
            code,
            message,
        ) = row;
        let error = code.map(|code| (code, message.unwrap_or_default()));
        AttributeIndex {
            attribute,
            state,
            entities_done,
            entities_total,
            rows_written,
            created_at,
            ready_at,
            error,
        }
    }
}

/// How many attributes the realm has declared; call it in a transaction. Other declarations wait.
pub fn lock_count(connection: &mut PgConnection, realm: &Realm) -> Work<i64> {
    // There is something to lock also where nothing is declared.
    lock_realm(connection, realm)?;
    let (count,): (i64,) = CountDeclarations { realm: realm.id() }.get_result(connection)?;
    Ok(count)
}

statement! {
    /// The declarations that there are, those that are being dropped among them.
    struct CountDeclarations { realm: i32 as Integer } -> (BigInt,),
    "SELECT count(*) FROM attribute_declaration WHERE realm_id = {realm}"
}

/// Declares an attribute. None if it is declared.
pub fn create(
    connection: &mut PgConnection,
    caller: &Caller,
    path: &AttributePath,
) -> Work<Option<AttributeIndex>> {
    let statement = CreateIndex {
        realm: caller.realm.id(),
        principal: caller.principal_id,
        attribute: &path.canonical,
        path: &path.names,
        channel: listen::CHANNEL,
        topic: TOPIC,
    };
    Ok(statement.get_result::<IndexValues>(connection).optional()?.map(AttributeIndex::from))
}

statement! {
    /// A declaration, its event, and the wake-up.
    struct CreateIndex<'a> {
        realm: i32 as Integer,
        principal: uuid::Uuid as SqlUuid,
        attribute: &'a str as Text,
        path: &'a [String] as Array<Text>,
        channel: &'a str as Text,
        topic: &'a str as Text,
    } -> IndexRow,
    "WITH fresh AS (
        INSERT INTO attribute_declaration (realm_id, attribute, path, state, phase, principal_id)
        VALUES ({realm}, {attribute}, {path}, 'building', 'waiting', {principal})
        ON CONFLICT (realm_id, attribute) DO NOTHING
        RETURNING *
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id)
        SELECT {realm}, 'attribute_index.created', ARRAY[f.attribute], {principal} FROM fresh f
     )
     SELECT f.attribute, f.state, f.entities_done, f.entities_total, f.rows_written, f.created_at, f.ready_at, f.error_code, f.error_message
     FROM fresh f, (SELECT pg_notify({channel}, {topic})) woken"
}

/// The index of an attribute.
pub fn get(
    connection: &mut PgConnection,
    realm: &Realm,
    attribute: &str,
) -> Work<Option<AttributeIndex>> {
    let found: Option<IndexValues> =
        GetIndex { realm: realm.id(), attribute }.get_result(connection).optional()?;
    Ok(found.map(AttributeIndex::from))
}

statement! {
    /// One declaration.
    struct GetIndex<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
    } -> IndexRow,
    "SELECT d.attribute, d.state, d.entities_done, d.entities_total, d.rows_written, d.created_at, d.ready_at, d.error_code, d.error_message
     FROM attribute_declaration d
     WHERE d.realm_id = {realm} AND d.attribute = {attribute}"
}

/// The properties for the filter of a list of indexes.
pub static ATTRIBUTE_INDEX: Vocabulary = Vocabulary {
    properties: &[
        Property::new(&["attribute"], PropertyKind::Text, "d.attribute"),
        Property::new(&["state"], PropertyKind::Text, "d.state").one_of(IndexState::SPELLINGS),
        Property::new(&["entitiesDone", "entities_done"], PropertyKind::Number, "d.entities_done"),
        Property::nullable(
            &["entitiesTotal", "entities_total"],
            PropertyKind::Number,
            "d.entities_total",
        ),
        Property::new(&["rowsWritten", "rows_written"], PropertyKind::Number, "d.rows_written"),
        Property::new(&["createdTime", "created_at"], PropertyKind::Time, "d.created_at"),
        Property::nullable(&["readyTime", "ready_at"], PropertyKind::Time, "d.ready_at"),
        Property::nullable(&["errorCode", "error_code"], PropertyKind::Text, "d.error_code"),
    ],
};

/// The indexes of a realm after this attribute that match the filter, in the order of attributes.
pub fn list(
    connection: &mut PgConnection,
    realm: &Realm,
    filter: Option<&Filter>,
    after: &str,
    limit: i64,
) -> Work<Vec<AttributeIndex>> {
    let statement = ListIndexes { realm: realm.id(), after, limit };
    let rows: Vec<IndexValues> =
        statement.filtered(filter.map(Filter::predicate)).load(connection)?;
    Ok(rows.into_iter().map(AttributeIndex::from).collect())
}

statement! {
    /// A page of declarations.
    struct ListIndexes<'a> {
        realm: i32 as Integer,
        after: &'a str as Text,
        limit: i64 as BigInt,
    } -> IndexRow,
    "SELECT d.attribute, d.state, d.entities_done, d.entities_total, d.rows_written, d.created_at, d.ready_at, d.error_code, d.error_message
     FROM attribute_declaration d
     WHERE d.realm_id = {realm} AND d.attribute > {after}{filter}
     ORDER BY d.attribute
     LIMIT {limit}"
}

#[cfg(test)]
crate::db::checked::filtered!(ListIndexes, crate::filter::conditions::conditions(&ATTRIBUTE_INDEX));

/// Ends the use of an index and has it removed; call it in a transaction. None if the attribute is not declared. One that is being dropped stays
/// as it is.
pub fn drop_index(
    connection: &mut PgConnection,
    caller: &Caller,
    attribute: &str,
) -> Work<Option<AttributeIndex>> {
    let realm = caller.realm.id();
    let found: Option<(IndexState,)> =
        LockIndex { realm, attribute }.get_result(connection).optional()?;
    let Some((state,)) = found else { return Ok(None) };
    if state != IndexState::Dropping {
        let to = state.transition(IndexAction::Drop)?;
        let principal = caller.principal_id;
        let statement = DropIndex {
            realm,
            principal,
            attribute,
            to: to.as_str(),
            channel: listen::CHANNEL,
            topic: TOPIC,
        };
        statement.execute(connection)?;
    }
    get(connection, &caller.realm, attribute)
}

statement! {
    /// The state of an index, which stays as it is until the transaction ends.
    struct LockIndex<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
    } -> (Text,),
    "SELECT d.state FROM attribute_declaration d WHERE d.realm_id = {realm} AND d.attribute = {attribute} FOR UPDATE"
}

statement! {
    /// The end of an index, its event, and the wake-up. The worker with the lease of its build loses it.
    struct DropIndex<'a> {
        realm: i32 as Integer,
        principal: uuid::Uuid as SqlUuid,
        attribute: &'a str as Text,
        to: &'a str as Text,
        channel: &'a str as Text,
        topic: &'a str as Text,
    } -> (Text,),
    "WITH dropped AS (
        UPDATE attribute_declaration
        SET state = {to}, phase = 'retiring', waits_for = NULL, cursor_value = '', cursor_id = '', error_code = NULL, error_message = NULL,
            lease_token = nextval('lease_token'), lease_owner = NULL, due_at = '-infinity', attempts = 0
        WHERE realm_id = {realm} AND attribute = {attribute}
        RETURNING attribute
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id)
        SELECT {realm}, 'attribute_index.deleted', ARRAY[d.attribute], {principal} FROM dropped d
     )
     SELECT d.attribute FROM dropped d, (SELECT pg_notify({channel}, {topic})) woken"
}

/// Writes the rows of entities that are new, in the transaction that creates them.
pub fn index_new<'a>(
    connection: &mut PgConnection,
    realm: &Realm,
    declared: &'a [Declared],
    entities: impl Iterator<Item = (&'a str, Object<'a>)>,
) -> Work<()> {
    let mut rows = Rows::default();
    for (entity, attributes) in entities {
        for declaration in declared {
            rows.extend(&declaration.attribute, entity, declaration.keys(attributes));
        }
    }
    write(connection, realm, rows)
}

/// Writes and removes the rows of an entity whose attributes change, in the transaction that changes them. The entity is locked.
pub fn index_change(
    connection: &mut PgConnection,
    realm: &Realm,
    declared: &[Declared],
    entity: &str,
    (from, to): (Object<'_>, Object<'_>),
) -> Work<()> {
    let (mut removed, mut added) = (Rows::default(), Rows::default());
    for declaration in declared {
        let (from, to) = (declaration.keys(from), declaration.keys(to));
        removed.extend(&declaration.attribute, entity, from.difference(&to).cloned());
        // Of very many values an earlier version has written a row for each, and not the one for all.
        let is_new = |key: &&String| !from.contains(*key) || filter::is_many(key);
        added.extend(&declaration.attribute, entity, to.iter().filter(is_new).cloned());
    }
    remove(connection, realm, removed)?;
    write(connection, realm, added)
}

fn write(connection: &mut PgConnection, realm: &Realm, rows: Rows<'_>) -> Work<()> {
    if !rows.is_empty() {
        let Rows { attributes, values, entities } = rows;
        WriteRows { realm: realm.id(), attributes, values, entities }.execute(connection)?;
    }
    Ok(())
}

statement! {
    /// Rows that must exist. An existing one is written anew, so that a transaction about to remove it as stale finds it changed.
    pub struct WriteRows<'a> {
        realm: i32 as Integer,
        attributes: Vec<&'a str> as Array<Text>,
        values: Vec<String> as Array<Text>,
        entities: Vec<&'a str> as Array<Text>,
    } -> (),
    "INSERT INTO attribute_index (realm_id, attribute, value, entity_id)
     SELECT {realm}, r.attribute, r.value, r.entity_id
     FROM unnest({attributes}, {values}, {entities}) AS r(attribute, value, entity_id)
     ON CONFLICT (realm_id, attribute, value, entity_id) DO UPDATE SET entity_id = excluded.entity_id"
}

/// Removes rows.
pub(crate) fn remove(connection: &mut PgConnection, realm: &Realm, rows: Rows<'_>) -> Work<()> {
    if !rows.is_empty() {
        let Rows { attributes, values, entities } = rows;
        RemoveRows { realm: realm.id(), attributes, values, entities }.execute(connection)?;
    }
    Ok(())
}

statement! {
    /// Deletes rows.
    pub struct RemoveRows<'a> {
        realm: i32 as Integer,
        attributes: Vec<&'a str> as Array<Text>,
        values: Vec<String> as Array<Text>,
        entities: Vec<&'a str> as Array<Text>,
    } -> (),
    "DELETE FROM attribute_index a
     USING unnest({attributes}, {values}, {entities}) AS r(attribute, value, entity_id)
     WHERE a.realm_id = {realm} AND a.attribute = r.attribute COLLATE \"C\" AND a.value = r.value COLLATE \"C\"
       AND a.entity_id = r.entity_id COLLATE \"C\""
}

/// Makes indexes ready that are scheduled later than so long from now. See [`crate::jobs::watch_clock`].
pub fn recall(connection: &mut PgConnection, bound: Duration) -> Work<usize> {
    Ok(Recall { bound: bound.as_secs_f64() }.execute(connection)?)
}

statement! {
    /// Indexes that were postponed, or leased by a lost worker, before the clock stepped back.
    struct Recall {
        bound: f64 as Double,
    } -> (),
    "UPDATE attribute_declaration
     SET due_at = '-infinity'
     WHERE state IN ('building', 'dropping') AND due_at > now() + make_interval(secs => {bound})"
}
