//! The SQL of what the lists of ids of a request come to: which are of no entity, and which are not selected anyway.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Text};

use crate::bulk_delete::lists::Ids;
use crate::bulk_delete::model::Mode;
use crate::db::{Realm, Work, statement};
use crate::limits::requests::LISTED_IDS;

/// Which of these ids are of no entity that a task of this mode sees: a soft one does not see what was soft-deleted.
pub fn missing(connection: &mut PgConnection, realm: &Realm, mode: Mode, ids: &[String]) -> Work<Ids> {
    if ids.is_empty() {
        return Ok(Ids::default());
    }
    let statement = MissingIds { realm: realm.id(), ids, live: mode == Mode::Soft, shown: LISTED_IDS };
    let (count, first): (i64, Vec<String>) = statement.get_result(connection)?;
    Ok(Ids { count, first })
}

statement! {
    /// How many there are, and the first of them.
    struct MissingIds<'a> {
        realm: i32 as Integer,
        ids: &'a [String] as Array<Text>,
        live: bool as Bool,
        shown: i64 as BigInt,
    } -> (BigInt, Array<Text>),
    "WITH missing AS (
        SELECT u.id COLLATE \"C\" AS id
        FROM unnest({ids}) AS u(id)
        LEFT JOIN entity e ON e.realm_id = {realm} AND e.id = u.id COLLATE \"C\" AND NOT ({live} AND e.deleted_at IS NOT NULL)
        WHERE e.id IS NULL
     )
     SELECT (SELECT count(*) FROM missing), ARRAY(SELECT m.id FROM missing m ORDER BY m.id LIMIT {shown})"
}
