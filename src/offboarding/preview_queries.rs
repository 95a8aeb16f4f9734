//! The SQL of the preview of a removal.

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Double, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::db::{Realm, Work, statement};
use crate::entity::model::State;
use crate::proto::object::Struct;

/// How many open bulk deletes are checked.
const TASKS: i64 = 100;

/// An entity with all that a removal of it has to do with.
#[derive(Debug, diesel::Queryable)]
pub struct Outlook {
    /// The entity.
    pub type_: String,
    /// Its state.
    pub state: State,
    /// Why it must not be removed, if it must not.
    pub hold_reason: Option<String>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// How many references to other systems it has.
    pub crosswalks: i32,
    /// Its attributes, where a filter is to be tried on them; they may be large.
    pub attributes: Struct,
    /// Its parts.
    pub components: Vec<Uuid>,
    /// The portfolio that it is in.
    pub portfolio_id: Option<String>,
    /// How many dependents of each kind hang on it: an object.
    pub dependents: Json,
    /// The open request for it.
    pub live_request: Option<Uuid>,
    /// The bulk deletes that may be about to take it: an array of objects `{id, filter}`; the filter is for the caller to try.
    pub tasks: Json,
    /// The grace period of a request that does not say one, in seconds.
    pub default_grace: f64,
}

/// Reads an entity. None if it is missing or deleted.
pub fn outlook(
    connection: &mut PgConnection,
    realm: &Realm,
    entity_id: &str,
) -> Work<Option<Outlook>> {
    Ok(ReadOutlook { realm: realm.id(), entity: entity_id, tasks: TASKS }
        .get_result(connection)
        .optional()?)
}

statement! {
    /// One statement for everything, so that the preview was true at one moment.
    struct ReadOutlook<'a> {
        realm: i32 as Integer,
        entity: &'a str as Text,
        tasks: i64 as BigInt,
    } -> (Text, Text, Nullable<Text>, Timestamptz, Timestamptz, Integer, Jsonb, Array<SqlUuid>, Nullable<Text>, Jsonb, Nullable<SqlUuid>, Jsonb, Double),
    "SELECT e.type, e.state, e.hold_reason, e.created_at, e.updated_at, jsonb_array_length(e.crosswalks),
            CASE WHEN t.have_filters THEN e.attributes ELSE '{}' END, e.components, e.portfolio_id,
            (SELECT COALESCE(jsonb_object_agg(k.kind, k.parts), '{}')
             FROM (SELECT d.kind, count(*) AS parts
                   FROM dependent d
                   WHERE d.realm_id = e.realm_id AND d.entity_id = e.id
                   GROUP BY d.kind) k),
            (SELECT r.id
             FROM offboarding_request r
             WHERE r.realm_id = e.realm_id AND r.entity_id = e.id AND r.status IN ('pending', 'running')),
            t.found,
            COALESCE((SELECT extract(epoch FROM p.default_grace)::float8 FROM removal_policy p WHERE p.realm_id = e.realm_id), 0)
     FROM entity e,
          -- Tasks that have not ended, were asked for since the entity is there, and name it or its type.
          LATERAL (SELECT COALESCE(jsonb_agg(jsonb_build_object('id', b.id, 'filter', b.filter)), '[]') AS found,
                          bool_or(b.filter <> '') AS have_filters
             FROM (SELECT b.id, b.filter
                   FROM bulk_delete b
                   WHERE b.realm_id = e.realm_id AND b.kind <> 'check_consistency' AND b.status NOT IN ('canceled', 'completed', 'completed_with_errors', 'failed')
                     AND COALESCE(e.ordinal < b.ordinal, e.ordinal IS NULL AND (b.ordinal IS NOT NULL OR b.created_at >= e.created_at))
                     AND (b.entity_type IS NULL OR b.entity_type = e.type OR 'configuration/entityTypes/' || b.entity_type = e.type)
                     AND (b.entity_ids IS NULL OR e.id = ANY(b.entity_ids))
                     AND e.id <> ALL(b.excluded_ids)
                   ORDER BY b.ordinal NULLS FIRST, b.created_at
                   LIMIT {tasks}) b) t
     WHERE e.realm_id = {realm} AND e.id = {entity} AND e.deleted_at IS NULL"
}
