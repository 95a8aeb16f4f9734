//! The SQL of dependents without an entity. Those of soft-deleted entities stay, like the entity's row.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Text};

use crate::consistency::model::CheckedRows;
use crate::consistency::queries::{CheckedColumns, CheckedValues, checked_rows};
use crate::db::{Realm, Work, statement};
use crate::task::work::Span;

/// Sorts behind every kind.
const KIND_END: &str = "\u{7f}";

/// Checks the next dependents.
pub fn check(connection: &mut PgConnection, realm: &Realm, span: &Span<'_>) -> Work<CheckedRows> {
    let (entity, kind, id) = position(span.cursor);
    let statement = CheckDependents {
        realm: realm.id(),
        entity,
        kind,
        id,
        until: span.until,
        limit: span.limit,
    };
    Ok(statement.get_result::<CheckedValues>(connection)?.into())
}

/// The page position of a key, `ENTITY/KIND/ID`. An entity alone is behind all that hangs on it.
fn position(key: &str) -> (&str, &str, &str) {
    match key.split_once('/').and_then(|(entity, rest)| Some((entity, rest.split_once('/')?))) {
        Some((entity, (kind, id))) => (entity, kind, id),
        None => (key, KIND_END, ""),
    }
}

statement! {
    /// The next dependents by key, and those of them whose entity has no row.
    pub struct CheckDependents<'a> {
        realm: i32 as Integer,
        entity: &'a str as Text,
        kind: &'a str as Text,
        id: &'a str as Text,
        until: &'a str as Text,
        limit: i64 as BigInt,
    } -> CheckedColumns,
    checked_rows!("WITH page AS MATERIALIZED (
        SELECT d.entity_id, d.kind, d.id
        FROM dependent d
        WHERE d.realm_id = {realm} AND (d.entity_id, d.kind, d.id) > ({entity}, {kind}, {id}) AND d.entity_id <= {until}
        ORDER BY d.entity_id, d.kind, d.id
        LIMIT {limit}
     ),
     walked AS (
        SELECT count(*) AS met, count(*) = {limit} AS more,
               (SELECT concat_ws('/', p.entity_id, p.kind, p.id)
                FROM page p
                ORDER BY p.entity_id DESC, p.kind DESC, p.id DESC
                LIMIT 1) AS cursor
        FROM page
     ),
     suspects AS (
        SELECT concat_ws('/', p.entity_id, p.kind, p.id) AS key, 'orphan_dependent' AS kind, p.entity_id AS subject,
               format('The dependent `%s/%s` hangs on no entity.', p.kind, p.id) AS detail, true AS mendable
        FROM page p
        WHERE NOT EXISTS (SELECT FROM entity e WHERE e.realm_id = {realm} AND e.id = p.entity_id)
     )")
}

/// Deletes those of these dependents that hang on no entity, and returns their keys.
///
/// They are locked first. A transaction that writes a dependent of an entity commits the entity's row before or with it; so if the latest
/// version of a locked dependent is of an entity, the deletion, which sees everything committed before the lock was taken, sees the entity
/// and excludes it. An entity that is created later under the same id never had these dependents.
pub fn repair(connection: &mut PgConnection, realm: &Realm, keys: &[&str]) -> Work<Vec<String>> {
    let positions = || keys.iter().map(|key| position(key));
    let entities: Vec<&str> = positions().map(|(entity, ..)| entity).collect();
    let kinds: Vec<&str> = positions().map(|(_, kind, _)| kind).collect();
    let ids: Vec<&str> = positions().map(|(.., id)| id).collect();
    LockDependents { realm: realm.id(), entities: &entities, kinds: &kinds, ids: &ids }
        .execute(connection)?;
    let deleted: Vec<(String,)> =
        DeleteOrphans { realm: realm.id(), entities: &entities, kinds: &kinds, ids: &ids }
            .load(connection)?;
    Ok(deleted.into_iter().map(|(key,)| key).collect())
}

statement! {
    /// Keeps these dependents as they are until the transaction ends.
    struct LockDependents<'a> {
        realm: i32 as Integer,
        entities: &'a [&'a str] as Array<Text>,
        kinds: &'a [&'a str] as Array<Text>,
        ids: &'a [&'a str] as Array<Text>,
    } -> (Text,),
    "SELECT d.id
     FROM unnest({entities}, {kinds}, {ids}) AS k(entity_id, kind, id)
     JOIN dependent d
       ON d.realm_id = {realm} AND d.entity_id = k.entity_id COLLATE \"C\" AND d.kind = k.kind COLLATE \"C\" AND d.id = k.id COLLATE \"C\"
     ORDER BY d.entity_id, d.kind, d.id
     FOR UPDATE OF d"
}

statement! {
    /// Removes dependents of no entity. Nobody saw them, so there is no event.
    struct DeleteOrphans<'a> {
        realm: i32 as Integer,
        entities: &'a [&'a str] as Array<Text>,
        kinds: &'a [&'a str] as Array<Text>,
        ids: &'a [&'a str] as Array<Text>,
    } -> (Text,),
    "DELETE FROM dependent d
     USING unnest({entities}, {kinds}, {ids}) AS k(entity_id, kind, id)
     WHERE d.realm_id = {realm} AND d.entity_id = k.entity_id COLLATE \"C\" AND d.kind = k.kind COLLATE \"C\" AND d.id = k.id COLLATE \"C\"
       AND NOT EXISTS (SELECT FROM entity e WHERE e.realm_id = {realm} AND e.id = d.entity_id)
     RETURNING concat_ws('/', d.entity_id, d.kind, d.id)"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_position_and_an_entity_alone_is_behind_its_dependents() {
        assert_eq!(position("e/task/t-1"), ("e", "task", "t-1"));
        assert_eq!(position(""), ("", KIND_END, ""));
        assert!(position("e") > position("e/zzz/~") && position("e") < position("e0/a/a"));
    }
}
