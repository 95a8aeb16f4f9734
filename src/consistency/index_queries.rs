//! The SQL of index rows that contradict the entities.
//!
//! Only indexes in use are compared with the entities: one that is being built or dropped has surplus rows, or lacks some, by its nature.
//! The declarations, the attributes and the rows are read in one snapshot.

use std::collections::BTreeSet;

use diesel::pg::{PgConnection, PgRowByRowLoadingMode};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Uuid as SqlUuid};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::consistency::model::{CheckedRows, FindingKind, Suspect};
use crate::consistency::queries::{CheckedColumns, CheckedValues, checked_rows};
use crate::db::{Realm, Work, statement};
use crate::entity::bounded::{self, PAGE_BYTES};
use crate::entity::fields::weight;
use crate::entity::index;
use crate::entity::index::model::{Declared, Rows};
use crate::error::{Error, Result};
use crate::proto::object::{Object, Struct};
use crate::task::work::Span;

/// How many entities are read at once to be repaired.
const AT_ONCE: usize = 100;

/// An entity with its indexed data: its id, the paths by attribute, its attributes as far as paths begin with them, and pairs of attribute
/// and key.
type Indexed = (String, Json, Option<Struct>, Json);
type IndexedRow = (Text, Jsonb, Nullable<Jsonb>, Jsonb);

/// The text that reads entities, those of a condition on `entity e`.
macro_rules! indexed {
    ($of:literal) => {
        concat!(
            "WITH declared AS MATERIALIZED (
        SELECT jsonb_object_agg(d.attribute, d.path) AS paths, array_agg(d.attribute) AS attributes, array_agg(DISTINCT d.path[1]) AS firsts
        FROM attribute_declaration d
        WHERE d.realm_id = {realm} AND d.state = 'ready'
     )
     SELECT e.id, d.paths,
            (SELECT jsonb_object_agg(f.name, e.attributes -> f.name) FROM unnest(d.firsts) AS f(name) WHERE e.attributes ? f.name),
            (SELECT COALESCE(jsonb_agg(jsonb_build_array(a.attribute, a.value)), '[]')
             FROM attribute_index a
             WHERE a.realm_id = {realm} AND a.entity_id = e.id AND a.attribute = ANY(d.attributes))
     FROM declared d, entity e
     WHERE d.paths IS NOT NULL AND e.realm_id = {realm} AND ",
            $of
        )
    };
}

/// A row of an index: the attribute and the key of a value.
type Key = (String, String);

/// The missing index rows of an entity, and the surplus ones.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    missing: BTreeSet<Key>,
    surplus: BTreeSet<Key>,
}

impl Difference {
    fn of((_, paths, attributes, rows): &Indexed) -> Difference {
        let declared = Declared::read(Some(paths.clone()));
        let attributes = attributes.as_ref().map_or(Object::EMPTY, Struct::view);
        let keys = |declared: &Declared| {
            declared
                .keys(attributes)
                .into_iter()
                .map(|key| (declared.attribute.clone(), key))
                .collect::<Vec<_>>()
        };
        let due: BTreeSet<Key> = declared.iter().flat_map(keys).collect();
        let text = |pair: &Json, index: usize| {
            pair.get(index).and_then(Json::as_str).unwrap_or_default().to_owned()
        };
        let there: BTreeSet<Key> = rows
            .as_array()
            .into_iter()
            .flatten()
            .map(|pair| (text(pair, 0), text(pair, 1)))
            .collect();
        Difference { missing: &due - &there, surplus: &there - &due }
    }

    fn is_none(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty()
    }
}

fn heavy((id, _, attributes, rows): &Indexed) -> usize {
    id.len() + attributes.as_ref().map_or(0, Struct::weight) + weight(rows)
}

/// Checks the next entities; fewer if their indexed data is large. None if no index is in use.
pub fn check_entities(
    connection: &mut PgConnection,
    realm: &Realm,
    span: &Span<'_>,
) -> Work<CheckedRows> {
    let (in_use,): (bool,) = InUse { realm: realm.id() }.get_result(connection)?;
    if !in_use {
        return Ok(CheckedRows::default());
    }
    let statement = CheckIndexed {
        realm: realm.id(),
        cursor: span.cursor,
        until: span.until,
        limit: span.limit,
    };
    let rows = statement.load_iter::<Indexed, PgRowByRowLoadingMode>(connection)?;
    let page = bounded::read(rows, PAGE_BYTES, heavy)?;
    let met = page.rows.len() as i64;
    let suspects = page
        .rows
        .iter()
        .map(|row| (&row.0, Difference::of(row)))
        .filter(|(_, difference)| !difference.is_none());
    let suspect = |(id, Difference { missing, surplus }): (&String, Difference)| Suspect {
        key: id.clone(),
        kind: FindingKind::AttributeIndex,
        subject: id.clone(),
        detail: format!(
            "The indexes lack {} rows of the entity, and have {} that are not true.",
            missing.len(),
            surplus.len()
        ),
        repairable: true,
    };
    let suspects = suspects.map(suspect).collect();
    let cursor = page.rows.last().map(|(id, ..)| id.clone());
    Ok(CheckedRows { met, cursor, more: page.more || met == span.limit, suspects })
}

statement! {
    /// True if there is anything to compare with the entities.
    struct InUse { realm: i32 as Integer } -> (Bool,),
    "SELECT EXISTS (SELECT FROM attribute_declaration d WHERE d.realm_id = {realm} AND d.state = 'ready')"
}

statement! {
    /// The next entities by id, the soft-deleted among them: they keep their rows.
    pub struct CheckIndexed<'a> {
        realm: i32 as Integer,
        cursor: &'a str as Text,
        until: &'a str as Text,
        limit: i64 as BigInt,
    } -> IndexedRow,
    indexed!("e.id > {cursor} AND e.id <= {until}
     ORDER BY e.id
     LIMIT {limit}")
}

/// Sets right what the indexes have of these entities, and returns the ids of those of which it was wrong.
///
/// The entities are locked and read anew: a transaction that writes rows of an entity has locked or just created it. An entity of which
/// rows are added raises its version, so that a removal that waits for it reads again and includes them.
pub fn repair_entities(
    connection: &mut PgConnection,
    realm: &Realm,
    task: Uuid,
    keys: &[&str],
) -> Work<Vec<String>> {
    LockIndexed { realm: realm.id(), keys }.execute(connection)?;
    let mut mended = Vec::new();
    for keys in keys.chunks(AT_ONCE) {
        let found: Vec<Indexed> = ReadIndexed { realm: realm.id(), keys }.load(connection)?;
        let wrong: Vec<(&str, Difference)> =
            found.iter().map(|row| (row.0.as_str(), Difference::of(row))).collect();
        let wrong: Vec<_> =
            wrong.into_iter().filter(|(_, difference)| !difference.is_none()).collect();
        let (mut missing, mut surplus, mut stepped) =
            (Rows::default(), Rows::default(), Vec::new());
        for (id, difference) in &wrong {
            difference
                .missing
                .iter()
                .for_each(|(attribute, key)| missing.extend(attribute, id, [key.clone()]));
            difference
                .surplus
                .iter()
                .for_each(|(attribute, key)| surplus.extend(attribute, id, [key.clone()]));
            if !difference.missing.is_empty() {
                stepped.push(*id);
            }
        }
        index::queries::remove(connection, realm, surplus)?;
        let Rows { attributes, values, entities } = missing;
        AddMissing { realm: realm.id(), task, attributes, values, entities, stepped }
            .execute(connection)?;
        mended.extend(wrong.into_iter().map(|(id, _)| id.to_owned()));
    }
    Ok(mended)
}

statement! {
    /// Keeps these entities as they are until the transaction ends.
    struct LockIndexed<'a> {
        realm: i32 as Integer,
        keys: &'a [&'a str] as Array<Text>,
    } -> (Text,),
    "SELECT e.id FROM entity e WHERE e.realm_id = {realm} AND e.id = ANY({keys}) ORDER BY e.id FOR NO KEY UPDATE"
}

statement! {
    /// These entities.
    struct ReadIndexed<'a> {
        realm: i32 as Integer,
        keys: &'a [&'a str] as Array<Text>,
    } -> IndexedRow,
    indexed!("e.id = ANY({keys})
     ORDER BY e.id")
}

statement! {
    /// Rows that must be there, the steps of their entities, and the events.
    struct AddMissing<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        attributes: Vec<&'a str> as Array<Text>,
        values: Vec<String> as Array<Text>,
        entities: Vec<&'a str> as Array<Text>,
        stepped: Vec<&'a str> as Array<Text>,
    } -> (),
    "WITH added AS (
        INSERT INTO attribute_index (realm_id, attribute, value, entity_id)
        SELECT {realm}, r.attribute, r.value, r.entity_id
        FROM unnest({attributes}, {values}, {entities}) AS r(attribute, value, entity_id)
        ON CONFLICT (realm_id, attribute, value, entity_id) DO UPDATE SET entity_id = excluded.entity_id
     ),
     steps AS (
        UPDATE entity e
        SET version = e.version + 1, updated_at = now()
        WHERE e.realm_id = {realm} AND e.id = ANY({stepped})
        RETURNING e.id, e.version, e.deleted_at
     )
     INSERT INTO event (realm_id, type, subjects, principal_id, data)
     SELECT {realm}, 'entity.updated', ARRAY[s.id], b.principal_id,
            jsonb_build_object('version', s.version, 'fields', '[]'::jsonb, 'bulk_delete_id', b.id)
     FROM steps s, bulk_delete b
     -- Of what is soft-deleted nobody hears any more.
     WHERE s.deleted_at IS NULL AND b.realm_id = {realm} AND b.id = {task}"
}

/// Checks the next rows of all indexes.
pub fn check_rows(
    connection: &mut PgConnection,
    realm: &Realm,
    span: &Span<'_>,
) -> Work<CheckedRows> {
    let (attribute, value, entity) =
        if span.cursor.is_empty() { Default::default() } else { row_position(span.cursor)? };
    let statement = CheckRows {
        realm: realm.id(),
        attribute: &attribute,
        value: &value,
        entity: &entity,
        limit: span.limit,
    };
    Ok(statement.get_result::<CheckedValues>(connection)?.into())
}

/// The page position of a key, a JSON array of attribute, key and entity.
fn row_position(key: &str) -> Result<(String, String, String)> {
    serde_json::from_str(key).map_err(Error::internal)
}

statement! {
    /// The next rows by key, and those of them that are of no index, or of an index in use and of no entity. The rows of existing entities
    /// are compared with them entity by entity.
    pub struct CheckRows<'a> {
        realm: i32 as Integer,
        attribute: &'a str as Text,
        value: &'a str as Text,
        entity: &'a str as Text,
        limit: i64 as BigInt,
    } -> CheckedColumns,
    checked_rows!("WITH page AS MATERIALIZED (
        SELECT a.attribute, a.value, a.entity_id
        FROM attribute_index a
        WHERE a.realm_id = {realm} AND (a.attribute, a.value, a.entity_id) > ({attribute}, {value}, {entity})
        ORDER BY a.attribute, a.value, a.entity_id
        LIMIT {limit}
     ),
     walked AS (
        SELECT count(*) AS met, count(*) = {limit} AS more,
               (SELECT jsonb_build_array(p.attribute, p.value, p.entity_id)::text
                FROM page p
                ORDER BY p.attribute DESC, p.value DESC, p.entity_id DESC
                LIMIT 1) AS cursor
        FROM page
     ),
     suspects AS (
        SELECT jsonb_build_array(p.attribute, p.value, p.entity_id)::text AS key, 'attribute_index' AS kind, p.entity_id AS subject,
               true AS mendable,
               CASE WHEN d.attribute IS NULL THEN format('The attribute `%s` is not declared, and a row of the entity is indexed.', p.attribute)
                    ELSE format('The index over `%s` has a row of an entity that is not there.', p.attribute) END AS detail
        FROM page p
        LEFT JOIN attribute_declaration d ON d.realm_id = {realm} AND d.attribute = p.attribute
        LEFT JOIN entity e ON e.realm_id = {realm} AND e.id = p.entity_id
        WHERE d.attribute IS NULL OR (d.state = 'ready' AND e.id IS NULL)
     )")
}

/// Deletes those of these rows that are of no index, or of an index in use and of no entity, and returns their keys.
///
/// They are locked first, and writing an existing row writes it anew: so a row that has become right is seen with its entity. An attribute
/// that is declared after that waits for this transaction before its rows are written.
pub fn repair_rows(
    connection: &mut PgConnection,
    realm: &Realm,
    keys: &[&str],
) -> Work<Vec<String>> {
    let rows = keys.iter().map(|key| row_position(key)).collect::<Result<Vec<_>>>()?;
    let attributes: Vec<&str> = rows.iter().map(|(attribute, ..)| attribute.as_str()).collect();
    let values: Vec<&str> = rows.iter().map(|(_, value, _)| value.as_str()).collect();
    let entities: Vec<&str> = rows.iter().map(|(.., entity)| entity.as_str()).collect();
    LockRows { realm: realm.id(), attributes: &attributes, values: &values, entities: &entities }
        .execute(connection)?;
    let statement = DeleteRows {
        realm: realm.id(),
        attributes: &attributes,
        values: &values,
        entities: &entities,
    };
    let deleted: Vec<(String,)> = statement.load(connection)?;
    Ok(deleted.into_iter().map(|(key,)| key).collect())
}

statement! {
    /// Keeps these rows as they are until the transaction ends.
    struct LockRows<'a> {
        realm: i32 as Integer,
        attributes: &'a [&'a str] as Array<Text>,
        values: &'a [&'a str] as Array<Text>,
        entities: &'a [&'a str] as Array<Text>,
    } -> (Text,),
    "SELECT a.entity_id
     FROM unnest({attributes}, {values}, {entities}) AS r(attribute, value, entity_id)
     JOIN attribute_index a
       ON a.realm_id = {realm} AND a.attribute = r.attribute COLLATE \"C\" AND a.value = r.value COLLATE \"C\"
      AND a.entity_id = r.entity_id COLLATE \"C\"
     ORDER BY a.attribute, a.value, a.entity_id
     FOR UPDATE OF a"
}

statement! {
    /// Removes rows of no index or of no entity. Nobody saw them, so there is no event.
    struct DeleteRows<'a> {
        realm: i32 as Integer,
        attributes: &'a [&'a str] as Array<Text>,
        values: &'a [&'a str] as Array<Text>,
        entities: &'a [&'a str] as Array<Text>,
    } -> (Text,),
    "DELETE FROM attribute_index a
     USING unnest({attributes}, {values}, {entities}) AS r(attribute, value, entity_id)
     WHERE a.realm_id = {realm} AND a.attribute = r.attribute COLLATE \"C\" AND a.value = r.value COLLATE \"C\"
       AND a.entity_id = r.entity_id COLLATE \"C\"
       AND NOT EXISTS (SELECT
                       FROM attribute_declaration d
                       WHERE d.realm_id = {realm} AND d.attribute = a.attribute
                         AND (d.state <> 'ready' OR EXISTS (SELECT FROM entity e WHERE e.realm_id = {realm} AND e.id = a.entity_id)))
     RETURNING jsonb_build_array(a.attribute, a.value, a.entity_id)::text"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn missing_and_surplus_rows_of_an_index_are_distinguished() {
        let entity = |rows: Json| {
            let paths = json!({"name": ["name"], "Address.City": ["Address", "City"]});
            (
                "e".to_owned(),
                paths,
                Some(Struct::from_json(&json!({"name": "Ada", "Address": [{"City": "Bonn"}]}))),
                rows,
            )
        };
        let key = |attribute: &str, key: &str| (attribute.to_owned(), key.to_owned());
        assert!(
            Difference::of(&entity(json!([["name", "tada"], ["Address.City", "tbonn"]]))).is_none()
        );
        let wrong = Difference::of(&entity(json!([["name", "tada"], ["name", "tbob"]])));
        assert_eq!(wrong.missing, BTreeSet::from([key("Address.City", "tbonn")]));
        assert_eq!(wrong.surplus, BTreeSet::from([key("name", "tbob")]));
    }

    #[test]
    fn a_key_of_a_row_is_a_place_whatever_its_value_holds() {
        let position = ("name".to_owned(), "ta\"/,b".to_owned(), "e".to_owned());
        assert_eq!(
            row_position(&json!([position.0, position.1, position.2]).to_string()).unwrap(),
            position
        );
        assert!(row_position("e").is_err());
    }
}
