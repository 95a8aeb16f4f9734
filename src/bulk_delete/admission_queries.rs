//! The SQL that decides whether a bulk delete may start: the requirements of its realm, the accounts of its lists of ids, and its number.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Jsonb, Text};
use serde_json::Value as Json;

use crate::bulk_delete::lists::Ids;
use crate::db::{Realm, Work, statement};
use crate::entity::requirements::Requirements;
use crate::limits::requests::LISTED_IDS;
use crate::task::model::DeleteMode;

/// The requirements of the realm for a task of this mode.
pub fn requirements(
    connection: &mut PgConnection,
    realm: &Realm,
    mode: DeleteMode,
) -> Work<Requirements> {
    let found: Option<(Json,)> = ReadRequirements { realm: realm.id(), mode: mode.as_str() }
        .get_result(connection)
        .optional()?;
    Ok(found.map(|(stored,)| Requirements::from_json(&stored)).unwrap_or_default())
}

statement! {
    /// Nothing where the realm has no policy.
    struct ReadRequirements<'a> { realm: i32 as Integer, mode: &'a str as Text } -> (Jsonb,),
    "SELECT CASE {mode} WHEN 'hard' THEN p.hard_delete ELSE p.soft_delete END
     FROM removal_policy p
     WHERE p.realm_id = {realm}"
}

/// The ids that are of no entity visible to a task of this mode: a soft one does not see soft-deleted entities.
pub fn missing(
    connection: &mut PgConnection,
    realm: &Realm,
    mode: DeleteMode,
    ids: &[String],
) -> Work<Ids> {
    if ids.is_empty() {
        return Ok(Ids::default());
    }
    let statement = MissingIds {
        realm: realm.id(),
        ids,
        undeleted: mode == DeleteMode::Soft,
        shown: LISTED_IDS,
    };
    let (count, first): (i64, Vec<String>) = statement.get_result(connection)?;
    Ok(Ids { count, first })
}

statement! {
    /// How many there are, and the first of them.
    struct MissingIds<'a> {
        realm: i32 as Integer,
        ids: &'a [String] as Array<Text>,
        undeleted: bool as Bool,
        shown: i64 as BigInt,
    } -> (BigInt, Array<Text>),
    "WITH missing AS (
        SELECT u.id COLLATE \"C\" AS id
        FROM unnest({ids}) AS u(id)
        LEFT JOIN entity e ON e.realm_id = {realm} AND e.id = u.id COLLATE \"C\" AND NOT ({undeleted} AND e.deleted_at IS NOT NULL)
        WHERE e.id IS NULL
     )
     SELECT (SELECT count(*) FROM missing), ARRAY(SELECT m.id FROM missing m ORDER BY m.id LIMIT {shown})"
}

/// Draws the next number in the order of entities and tasks.
pub fn next_ordinal(connection: &mut PgConnection) -> Work<i64> {
    let (ordinal,): (i64,) = NextOrdinal {}.get_result(connection)?;
    Ok(ordinal)
}

statement! {
    /// A number that nobody had and nobody gets again.
    struct NextOrdinal {} -> (BigInt,),
    "SELECT nextval('ordinal')"
}
