//! The SQL of what a realm demands of a bulk delete.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Integer, Jsonb, Text};
use serde_json::Value as Json;

use crate::bulk_delete::model::Mode;
use crate::db::{Realm, Work, statement};
use crate::entity::requirements::Requirements;

/// What the realm demands of a task of this mode.
pub fn get(connection: &mut PgConnection, realm: &Realm, mode: Mode) -> Work<Requirements> {
    let found: Option<(Json,)> = ReadRequirements { realm: realm.id(), mode: mode.as_str() }.get_result(connection).optional()?;
    Ok(found.map(|(stored,)| Requirements::from_json(&stored)).unwrap_or_default())
}

statement! {
    /// Nothing where the realm has no policy.
    struct ReadRequirements<'a> { realm: i32 as Integer, mode: &'a str as Text } -> (Jsonb,),
    "SELECT CASE {mode} WHEN 'hard' THEN p.hard_delete ELSE p.soft_delete END
     FROM removal_policy p
     WHERE p.realm_id = {realm}"
}
