//! The SQL of the rows of an index that is built or removed.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection;
use diesel::pg::{PgConnection, PgRowByRowLoadingMode};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Jsonb, Nullable, Text, Timestamptz};

use crate::db::{Fault, Realm, Work, fault, statement};
use crate::entity::bounded::{self, PAGE_BYTES, Read};
use crate::entity::index::lease_queries::ClaimedIndex;
use crate::entity::index::model::{Declared, Rows};
use crate::limits::database::WORKER_STATEMENT_SECONDS;
use crate::proto::object::Struct;

/// The virtual transactions that run in this database, this one apart. A transaction has one from its start to its end, whether or not it has
/// written anything or has a snapshot, and anybody may see it.
pub fn running(connection: &mut PgConnection) -> Work<Vec<String>> {
    let (running,): (Vec<String>,) = Running {}.get_result(connection)?;
    Ok(running)
}

statement! {
    /// The transactions that run now. The vacuums of the database change nothing that is visible.
    struct Running {} -> (Array<Text>,),
    "SELECT ARRAY(SELECT l.virtualtransaction
                  FROM pg_locks l
                  JOIN pg_stat_activity s ON s.pid = l.pid
                  WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND s.datname = current_database()
                    AND l.pid <> pg_backend_pid() AND s.backend_type IS DISTINCT FROM 'autovacuum worker')"
}

/// How many entities the realm has, the soft-deleted among them; none if there are too many to count. Call it in a transaction.
pub fn count_entities(connection: &mut PgConnection, claim: &ClaimedIndex) -> Work<Option<i64>> {
    let counted = connection.transaction(|connection| {
        connection.batch_execute(&format!(
            "SET LOCAL statement_timeout = '{WORKER_STATEMENT_SECONDS}s'"
        ))?;
        CountEntities { realm: claim.realm.id() }.get_result::<(i64,)>(connection)
    });
    match counted {
        Ok((count,)) => Ok(Some(count)),
        // It shows people how far the build is, and is worth no more than that.
        Err(error) if fault(&error) == Fault::Timeout => Ok(None),
        Err(error) => Err(error.into()),
    }
}

statement! {
    /// From the index alone.
    struct CountEntities { realm: i32 as Integer } -> (BigInt,),
    "SELECT count(*) FROM entity e WHERE e.realm_id = {realm}"
}

/// An entity's id and, in an object, the attribute that the path begins with.
pub type Holder = (String, Option<Struct>);

/// The entities after this id, the soft-deleted among them; fewer if they are large.
pub fn walk(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    after: &str,
    limit: i64,
) -> Work<Read<Holder>> {
    let first = claim.declared.path.first().map(String::as_str).unwrap_or_default();
    let statement = Walk { realm: claim.realm.id(), first, after, limit };
    let rows = statement.load_iter::<Holder, PgRowByRowLoadingMode>(connection)?;
    Ok(bounded::read(rows, PAGE_BYTES, heavy)?)
}

fn heavy((id, attributes): &Holder) -> usize {
    id.len() + attributes.as_ref().map_or(0, Struct::weight)
}

statement! {
    /// Entities in the order of their ids.
    pub struct Walk<'a> {
        realm: i32 as Integer,
        first: &'a str as Text,
        after: &'a str as Text,
        limit: i64 as BigInt,
    } -> (Text, Nullable<Jsonb>),
    "SELECT e.id, CASE WHEN e.attributes ? {first} THEN jsonb_build_object({first}, e.attributes -> {first}) END
     FROM entity e
     WHERE e.realm_id = {realm} AND e.id > {after}
     ORDER BY e.id
     LIMIT {limit}"
}

/// Writes the rows of entities that were walked, and returns how many were not there.
pub fn add(connection: &mut PgConnection, realm: &Realm, rows: Rows<'_>) -> Work<i64> {
    if rows.is_empty() {
        return Ok(0);
    }
    let Rows { attributes, values, entities } = rows;
    let added = AddRows { realm: realm.id(), attributes, values, entities }.execute(connection)?;
    Ok(i64::try_from(added).unwrap_or(i64::MAX))
}

statement! {
    /// Rows, in the order of the index. Existing ones were written by a later transaction.
    struct AddRows<'a> {
        realm: i32 as Integer,
        attributes: Vec<&'a str> as Array<Text>,
        values: Vec<String> as Array<Text>,
        entities: Vec<&'a str> as Array<Text>,
    } -> (),
    "INSERT INTO attribute_index (realm_id, attribute, value, entity_id)
     SELECT {realm}, r.attribute, r.value, r.entity_id
     FROM unnest({attributes}, {values}, {entities}) AS r(attribute, value, entity_id)
     ORDER BY r.attribute COLLATE \"C\", r.value COLLATE \"C\", r.entity_id COLLATE \"C\"
     ON CONFLICT (realm_id, attribute, value, entity_id) DO NOTHING"
}

/// The last of the next `limit` rows after this entity, in the order of entities; none if there are no more.
pub fn span(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    after: &str,
    limit: i64,
) -> Work<Option<String>> {
    let (last,): (Option<String>,) =
        Span { realm: claim.realm.id(), after, limit }.get_result(connection)?;
    Ok(last)
}

statement! {
    /// The end of a read of rows.
    pub struct Span<'a> {
        realm: i32 as Integer,
        after: &'a str as Text,
        limit: i64 as BigInt,
    } -> (Nullable<Text>,),
    "SELECT max(x.entity_id)
     FROM (SELECT a.entity_id
           FROM attribute_index a
           WHERE a.realm_id = {realm} AND a.entity_id > {after}
           ORDER BY a.entity_id
           LIMIT {limit}) x"
}

/// Entities that have rows, after `after` and up to `until`, and were removed or changed since the attribute was declared; fewer if they
/// are large. A removed one has no attributes.
pub fn suspects(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    since: DateTime<Utc>,
    after: &str,
    until: &str,
) -> Work<Read<Holder>> {
    let Declared { attribute, path } = &claim.declared;
    let first = path.first().map(String::as_str).unwrap_or_default();
    let statement = Suspects { realm: claim.realm.id(), attribute, first, since, after, until };
    let rows = statement.load_iter::<Holder, PgRowByRowLoadingMode>(connection)?;
    Ok(bounded::read(rows, PAGE_BYTES, heavy)?)
}

statement! {
    /// A transaction dates its change of an entity by its start, and those that started before the declaration were waited for.
    pub struct Suspects<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
        first: &'a str as Text,
        since: DateTime<Utc> as Timestamptz,
        after: &'a str as Text,
        until: &'a str as Text,
    } -> (Text, Nullable<Jsonb>),
    "SELECT s.entity_id, CASE WHEN e.attributes ? {first} THEN jsonb_build_object({first}, e.attributes -> {first}) END
     FROM (SELECT DISTINCT a.entity_id
           FROM attribute_index a
           WHERE a.realm_id = {realm} AND a.entity_id > {after} AND a.entity_id <= {until} AND a.attribute = {attribute}) s
     LEFT JOIN entity e ON e.realm_id = {realm} AND e.id = s.entity_id
     WHERE e.id IS NULL OR e.updated_at >= {since}
     ORDER BY s.entity_id"
}

/// The rows of these entities: keys and ids.
pub fn rows_of(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    entities: &[&str],
) -> Work<BTreeSet<(String, String)>> {
    let statement =
        RowsOf { realm: claim.realm.id(), attribute: &claim.declared.attribute, entities };
    Ok(statement.load(connection)?.into_iter().collect())
}

statement! {
    /// The indexed values of entities.
    struct RowsOf<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
        entities: &'a [&'a str] as Array<Text>,
    } -> (Text, Text),
    "SELECT a.value, a.entity_id
     FROM attribute_index a
     WHERE a.realm_id = {realm} AND a.entity_id = ANY({entities}) AND a.attribute = {attribute}"
}

/// Removes the next rows of an index after this key and returns the last; none if there are no more.
pub fn clear(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    (value, id): (&str, &str),
    limit: i64,
) -> Work<Option<(String, String)>> {
    let statement =
        Clear { realm: claim.realm.id(), attribute: &claim.declared.attribute, value, id, limit };
    Ok(statement.get_result(connection).optional()?)
}

statement! {
    /// Walks the index, so that rows removed before are not stepped over again.
    pub struct Clear<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
        value: &'a str as Text,
        id: &'a str as Text,
        limit: i64 as BigInt,
    } -> (Text, Text),
    "WITH picked AS MATERIALIZED (
        SELECT a.ctid, a.value, a.entity_id
        FROM attribute_index a
        WHERE a.realm_id = {realm} AND a.attribute = {attribute} AND (a.value, a.entity_id) > ({value}, {id})
        ORDER BY a.value, a.entity_id
        LIMIT {limit}
     ),
     gone AS (
        DELETE FROM attribute_index a
        WHERE a.ctid = ANY(ARRAY(SELECT p.ctid FROM picked p))
     )
     SELECT p.value, p.entity_id
     FROM picked p
     ORDER BY p.value DESC, p.entity_id DESC
     LIMIT 1"
}
