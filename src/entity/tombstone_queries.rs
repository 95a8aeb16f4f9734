//! The SQL of what hard removals leave.

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::{Realm, Work, statement, text_enum};
use crate::entity::list::BEHIND_ALL;

text_enum! {
    /// What kind of job removed an entity.
    pub enum JobKind {
        /// An offboarding of this one entity.
        Offboarding = "offboarding",
        /// A bulk delete.
        BulkDelete = "bulk_delete",
    }
}

/// What a hard removal leaves of an entity.
#[derive(Clone, Debug, Queryable)]
pub struct Tombstone {
    /// The id that the entity had.
    pub entity_id: String,
    /// Tells it from others that had the id before or after.
    pub incarnation: Uuid,
    /// What it was.
    pub type_: String,
    /// Its last version.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was removed.
    pub removed_at: DateTime<Utc>,
    /// Who asked for it.
    pub removed_by: Uuid,
    /// What kind of job removed it.
    pub job_kind: JobKind,
    /// Which one.
    pub job_id: Uuid,
}

/// The tombstones behind this place, in the order of entity ids and incarnations; only those of one entity id unless it is empty.
pub fn list(connection: &mut PgConnection, realm: &Realm, entity: &str, after: Option<(&str, Uuid)>, limit: i64) -> Work<Vec<Tombstone>> {
    // No incarnation is nil.
    let (after_entity, after_incarnation) = after.unwrap_or((entity, Uuid::nil()));
    let until = if entity.is_empty() { BEHIND_ALL } else { entity };
    Ok(ListTombstones { realm: realm.id(), after_entity, after_incarnation, until, limit }.load(connection)?)
}

statement! {
    /// A page of tombstones. A page of one entity id begins and ends with it.
    pub struct ListTombstones<'a> {
        realm: i32 as Integer,
        after_entity: &'a str as Text,
        after_incarnation: Uuid as SqlUuid,
        until: &'a str as Text,
        limit: i64 as BigInt,
    } -> (Text, SqlUuid, Text, BigInt, Timestamptz, Timestamptz, Timestamptz, SqlUuid, Text, SqlUuid),
    "SELECT t.entity_id, t.incarnation, t.type, t.version, t.created_at, t.updated_at, t.removed_at, t.removed_by, t.job_kind, t.job_id
     FROM tombstone t
     WHERE t.realm_id = {realm} AND (t.entity_id, t.incarnation) > ({after_entity}, {after_incarnation}) AND t.entity_id <= {until}
     ORDER BY t.entity_id, t.incarnation
     LIMIT {limit}"
}
