//! The SQL of starting and seeing a task.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::bulk_delete::model::{FAILURES_SHOWN, NewTask, Reason, Target, Task};
use crate::db::schema::bulk_delete_failure as failure;
use crate::db::{Realm, Work, id, listen, statement};

/// The topic that wakes the workers.
pub const TOPIC: &str = "bulk_delete";

/// Who starts a task.
#[derive(Clone, Debug)]
pub struct Starter {
    /// Whose world.
    pub realm: Realm,
    /// Who.
    pub principal_id: Uuid,
    /// With which key.
    pub key_id: Uuid,
}

/// Records a task with one slice, the whole key space, and returns its id.
pub fn start(connection: &mut PgConnection, starter: &Starter, task: &NewTask) -> Work<Uuid> {
    let (filter, entity_type, ids) = match &task.target {
        Target::Matching { filter, entity_type } => (filter.as_ref().map(|(text, _)| text.as_str()), entity_type.as_deref(), None),
        Target::Listed(ids) => (None, None, Some(ids.as_slice())),
    };
    let parameters = task.parameters(starter.realm.org()).into_iter().map(|(name, value)| (name.to_owned(), Json::String(value)));
    let statement = Start {
        realm: starter.realm.id(),
        id: id::new_id(),
        name: &task.name(),
        mode: task.mode.as_str(),
        filter,
        entity_type,
        ids,
        excluded: &task.excluded,
        parameters: parameters.collect(),
        principal: starter.principal_id,
        key: starter.key_id,
        channel: listen::CHANNEL,
        topic: TOPIC,
    };
    let (id,): (Uuid,) = statement.get_result(connection)?;
    Ok(id)
}

statement! {
    /// The task, its first slice, the event and the wake-up.
    struct Start<'a> {
        realm: i32 as Integer,
        id: Uuid as SqlUuid,
        name: &'a str as Text,
        mode: &'a str as Text,
        filter: Option<&'a str> as Nullable<Text>,
        entity_type: Option<&'a str> as Nullable<Text>,
        ids: Option<&'a [String]> as Nullable<Array<Text>>,
        excluded: &'a [String] as Array<Text>,
        parameters: Json as Jsonb,
        principal: Uuid as SqlUuid,
        key: Uuid as SqlUuid,
        channel: &'a str as Text,
        topic: &'a str as Text,
    } -> (SqlUuid,),
    "WITH task AS (
        INSERT INTO bulk_delete
            (realm_id, id, name, mode, status, filter, entity_type, entity_ids, excluded_ids, parameters, principal_id, api_key_id, updated_by)
        VALUES ({realm}, {id}, {name}, {mode}, 'scheduled', {filter}, {entity_type}, {ids}, {excluded}, {parameters}, {principal}, {key},
                {principal})
        RETURNING id
     ),
     whole AS (
        INSERT INTO bulk_delete_slice (realm_id, bulk_delete_id, slice)
        SELECT {realm}, t.id, 0 FROM task t
     ),
     told AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'bulk_delete.scheduled', ARRAY[t.id::text], {principal}, jsonb_build_object('parameters', {parameters})
        FROM task t
     )
     SELECT t.id
     FROM task t, (SELECT pg_notify({channel}, {topic})) woken"
}

/// The task with this id and its account.
pub fn get(connection: &mut PgConnection, realm: &Realm, task_id: Uuid) -> Work<Option<Task>> {
    Ok(GetTask { realm: realm.id(), id: task_id, shown: FAILURES_SHOWN }.get_result(connection).optional()?)
}

statement! {
    /// A task, the sums of its slices, and the first failures. One statement, so that all of it is of one moment.
    struct GetTask {
        realm: i32 as Integer,
        id: Uuid as SqlUuid,
        shown: i64 as BigInt,
    } -> (
        SqlUuid, Text, Text, Text, Nullable<Text>, Jsonb, SqlUuid, SqlUuid, Nullable<BigInt>, Array<Text>, Timestamptz,
        Nullable<Timestamptz>, Nullable<Timestamptz>, Nullable<Timestamptz>, Timestamptz, BigInt, BigInt, BigInt, BigInt, BigInt, Array<Text>,
        BigInt, Jsonb
    ),
    "SELECT b.id, b.kind, b.status, b.name, b.entity_type, b.parameters, b.principal_id, b.updated_by, b.selected, b.instances,
            b.created_at, b.started_at, b.paused_at, b.ended_at, now(), s.matched, s.processed, s.failed, s.excluded, s.skipped,
            ARRAY(SELECT f.entity_id
                  FROM bulk_delete_failure f
                  WHERE f.realm_id = {realm} AND f.bulk_delete_id = {id}
                  ORDER BY f.entity_id
                  LIMIT {shown}),
            (SELECT coalesce(sum(p.events), 0)::int8
             FROM publisher_failure p
             WHERE p.realm_id = {realm} AND p.bulk_delete_id = {id}),
            (SELECT coalesce(jsonb_object_agg(k.kind, jsonb_build_array(k.found, k.mended)), '{}')
             FROM (SELECT c.kind, sum(c.found) AS found, sum(c.mended) AS mended
                   FROM bulk_delete_finding_count c
                   WHERE c.realm_id = {realm} AND c.bulk_delete_id = {id}
                   GROUP BY c.kind) k)
     FROM bulk_delete b,
          LATERAL (SELECT sum(s.matched)::int8 AS matched, sum(s.processed)::int8 AS processed, sum(s.failed)::int8 AS failed,
                          sum(s.excluded)::int8 AS excluded, sum(s.skipped)::int8 AS skipped
                   FROM bulk_delete_slice s
                   WHERE s.realm_id = {realm} AND s.bulk_delete_id = {id}) s
     WHERE b.realm_id = {realm} AND b.id = {id}"
}

/// An entity that a task could not delete.
#[derive(Clone, Debug, diesel::Queryable)]
pub struct Failure {
    /// The entity.
    pub entity_id: String,
    /// Why.
    pub reason: Reason,
    /// When.
    pub occurred_at: chrono::DateTime<chrono::Utc>,
}

/// The failures of a task behind this entity id, in the order of ids. None if there is no such task.
pub fn failures(connection: &mut PgConnection, realm: &Realm, task_id: Uuid, after: &str, limit: i64) -> Work<Option<Vec<Failure>>> {
    if get(connection, realm, task_id)?.is_none() {
        return Ok(None);
    }
    let page = failure::table
        .filter(failure::realm_id.eq(realm.id()).and(failure::bulk_delete_id.eq(task_id)).and(failure::entity_id.gt(after)))
        .order(failure::entity_id)
        .limit(limit)
        .select((failure::entity_id, failure::reason, failure::occurred_at))
        .load(connection)?;
    Ok(Some(page))
}

/// Removes samples that no rate is made of any more. See [`crate::db::sweep`].
pub fn sweep_samples(connection: &mut PgConnection, limit: i64) -> Work<usize> {
    Ok(SweepSamples { limit }.execute(connection)?)
}

statement! {
    /// What lies more than an hour back.
    struct SweepSamples {
        limit: i64 as BigInt,
    } -> (BigInt,),
    "DELETE FROM bulk_delete_sample
     WHERE ctid IN (SELECT k.ctid FROM bulk_delete_sample k WHERE k.at < now() - interval '61 minutes' LIMIT {limit})"
}
