//! The SQL of the ids that a task excludes.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::{Realm, Work, statement};
use crate::task::queries;

/// The ids after this one, in their order. None if there is no such task.
pub fn list(
    connection: &mut PgConnection,
    realm: &Realm,
    task: Uuid,
    after: &str,
    limit: i64,
) -> Work<Option<Vec<String>>> {
    if queries::get(connection, realm, task)?.is_none() {
        return Ok(None);
    }
    let found: Vec<(String,)> =
        ListExcludes { realm: realm.id(), task, after, limit }.load(connection)?;
    Ok(Some(found.into_iter().map(|(id,)| id).collect()))
}

statement! {
    /// A page of a list that is a column of its task.
    struct ListExcludes<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        after: &'a str as Text,
        limit: i64 as BigInt,
    } -> (Text,),
    "SELECT u.id
     FROM bulk_delete b, unnest(b.excluded_ids) AS u(id)
     WHERE b.realm_id = {realm} AND b.id = {task} AND u.id COLLATE \"C\" > {after}
     ORDER BY u.id COLLATE \"C\"
     LIMIT {limit}"
}
