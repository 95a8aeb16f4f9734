//! The SQL of tombstones.

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::statement::Statement;
use crate::db::{Realm, Work, statement, text_enum};
use crate::entity::list::BEHIND_ALL;
use crate::filter::{Filter, Property, PropertyKind, Vocabulary};

text_enum! {
    /// The kind of job that removed an entity.
    pub enum JobKind {
        /// An offboarding of this one entity.
        Offboarding = "offboarding",
        /// A bulk delete.
        BulkDelete = "bulk_delete",
    }
}

/// The record that a hard removal leaves of an entity.
#[derive(Clone, Debug, Queryable)]
pub struct Tombstone {
    /// The id that the entity had.
    pub entity_id: String,
    /// Distinguishes it from others that had the id before or after.
    pub incarnation: Uuid,
    /// Its type.
    pub type_: String,
    /// Its last version.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// When it was removed.
    pub removed_at: DateTime<Utc>,
    /// The principal who asked for it.
    pub removed_by: Uuid,
    /// The kind of job that removed it.
    pub job_kind: JobKind,
    /// Which one.
    pub job_id: Uuid,
}

/// The properties for the filter of a list of tombstones.
pub static TOMBSTONE: Vocabulary = Vocabulary {
    properties: &[
        Property::new(&["uri", "entityId", "entity_id"], PropertyKind::Uri, "t.entity_id"),
        Property::new(&["incarnation"], PropertyKind::Text, "CAST(t.incarnation AS text)"),
        Property::new(&["type"], PropertyKind::Text, "t.type"),
        Property::new(&["version"], PropertyKind::Number, "t.version"),
        Property::new(&["createdTime", "created_at"], PropertyKind::Time, "t.created_at"),
        Property::new(&["updatedTime", "updated_at"], PropertyKind::Time, "t.updated_at"),
        Property::new(&["removedTime", "removed_at"], PropertyKind::Time, "t.removed_at"),
        Property::new(
            &["removedBy", "removed_by"],
            PropertyKind::Text,
            "CAST(t.removed_by AS text)",
        ),
        Property::new(&["jobKind", "job_kind"], PropertyKind::Text, "t.job_kind")
            .one_of(JobKind::SPELLINGS),
        Property::new(&["jobId", "job_id"], PropertyKind::Text, "CAST(t.job_id AS text)"),
    ],
};

/// The tombstones after this position that match the filter, in the order of entity ids and incarnations; only those of one entity id
/// unless it is empty.
pub fn list(
    connection: &mut PgConnection,
    realm: &Realm,
    (entity, filter): (&str, Option<&Filter>),
    after: Option<(&str, Uuid)>,
    limit: i64,
) -> Work<Vec<Tombstone>> {
    // No incarnation is nil.
    let (after_entity, after_incarnation) = after.unwrap_or((entity, Uuid::nil()));
    let until = if entity.is_empty() { BEHIND_ALL } else { entity };
    let statement =
        ListTombstones { realm: realm.id(), after_entity, after_incarnation, until, limit };
    Ok(statement.filtered(filter.map(Filter::predicate)).load(connection)?)
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
     WHERE t.realm_id = {realm} AND (t.entity_id, t.incarnation) > ({after_entity}, {after_incarnation}) AND t.entity_id <= {until}{filter}
     ORDER BY t.entity_id, t.incarnation
     LIMIT {limit}"
}

#[cfg(test)]
crate::db::checked::filtered!(ListTombstones, crate::filter::conditions::conditions(&TOMBSTONE));
