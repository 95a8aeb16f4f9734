//! The SQL that reads a task: its account, and its failures.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Double, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use uuid::Uuid;

use crate::db::statement::Statement;
use crate::db::{Realm, Work, statement};
use crate::filter::{self, Filter, Property, Vocabulary};
use crate::task::model::{FAILURES_SHOWN, Reason, Task};

/// The task with this id and its account.
pub fn get(connection: &mut PgConnection, realm: &Realm, task_id: Uuid) -> Work<Option<Task>> {
    Ok(GetTask { realm: realm.id(), id: task_id, shown: FAILURES_SHOWN }
        .get_result(connection)
        .optional()?)
}

/// The columns of a [`Task`], of `bulk_delete b` and its [`sums!`].
macro_rules! account {
    () => {
        "b.id, b.kind, b.status, b.name, b.entity_type, b.parameters, b.principal_id, b.updated_by, b.selected, b.instances,
            b.created_at, b.started_at, b.paused_at, b.ended_at, now(), s.matched, s.processed, s.failed, s.excluded, s.skipped,
            ARRAY(SELECT f.entity_id
                  FROM bulk_delete_failure f
                  WHERE f.realm_id = b.realm_id AND f.bulk_delete_id = b.id
                  ORDER BY f.entity_id
                  LIMIT {shown}),
            (SELECT coalesce(sum(p.events), 0)::int8
             FROM publisher_failure p
             WHERE p.realm_id = b.realm_id AND p.bulk_delete_id = b.id),
            extract(epoch FROM b.worked + COALESCE(greatest(now() - b.working_since, '0'), '0'))::float8, b.working_since,
            b.max_objects_per_second, k.met_lately, k.processed_in_hour, b.error_code, b.error_message,
            (SELECT coalesce(jsonb_object_agg(k.kind, jsonb_build_array(k.found, k.mended)), '{}')
             FROM (SELECT c.kind, sum(c.found) AS found, sum(c.mended) AS mended
                   FROM bulk_delete_finding_count c
                   WHERE c.realm_id = b.realm_id AND c.bulk_delete_id = b.id
                   GROUP BY c.kind) k),
            (SELECT jsonb_build_object('status', m.status, 'reason', m.reason)
             FROM bulk_delete_mail m
             WHERE m.realm_id = b.realm_id AND m.bulk_delete_id = b.id),
            b.lists"
    };
}
pub(super) use account;

/// The sums `s` of the slices and `k` of the samples of `bulk_delete b`.
macro_rules! sums {
    () => {
        "LATERAL (SELECT sum(s.matched)::int8 AS matched, sum(s.processed)::int8 AS processed, sum(s.failed)::int8 AS failed,
                          sum(s.excluded)::int8 AS excluded, sum(s.skipped)::int8 AS skipped
                   FROM bulk_delete_slice s
                   WHERE s.realm_id = b.realm_id AND s.bulk_delete_id = b.id) s,
          -- A sample of ten seconds counts as far as it lies in what is asked for.
          LATERAL (SELECT coalesce(sum(k.matched) FILTER (WHERE k.at >= greatest(
                              to_timestamp(floor(extract(epoch FROM now()) / 10) * 10 - 20),
                              to_timestamp(floor(extract(epoch FROM b.working_since) / 10) * 10))), 0)::int8 AS met_lately,
                          coalesce(sum(k.processed), 0)::int8 AS processed_in_hour
                   FROM bulk_delete_sample k
                   WHERE k.realm_id = b.realm_id AND k.bulk_delete_id = b.id AND k.at > now() - interval '1 hour') k"
    };
}
pub(super) use sums;

/// The SQL types of [`account!`].
pub(super) type AccountRow = (
    SqlUuid,
    Text,
    Text,
    Text,
    Nullable<Text>,
    Jsonb,
    SqlUuid,
    SqlUuid,
    Nullable<BigInt>,
    Array<Text>,
    Timestamptz,
    Nullable<Timestamptz>,
    Nullable<Timestamptz>,
    Nullable<Timestamptz>,
    Timestamptz,
    BigInt,
    BigInt,
    BigInt,
    BigInt,
    BigInt,
    Array<Text>,
    BigInt,
    Double,
    Nullable<Timestamptz>,
    Nullable<Integer>,
    BigInt,
    BigInt,
    Nullable<Text>,
    Nullable<Text>,
    Jsonb,
    Nullable<Jsonb>,
    Nullable<Jsonb>,
);

statement! {
    /// A task, the sums of its slices, and the first failures. One statement, so that all of it is of one moment.
    struct GetTask {
        realm: i32 as Integer,
        id: Uuid as SqlUuid,
        shown: i64 as BigInt,
    } -> AccountRow,
    concat!("SELECT ", account!(), " FROM bulk_delete b, ", sums!(), " WHERE b.realm_id = {realm} AND b.id = {id}")
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

/// The properties for the filter of a list of failures.
pub static FAILURE: Vocabulary = Vocabulary {
    properties: &[
        Property::new(&["uri", "entityId", "entity_id"], filter::PropertyKind::Uri, "f.entity_id"),
        Property::new(&["reason"], filter::PropertyKind::Text, "f.reason")
            .one_of(Reason::SPELLINGS),
        Property::new(&["time"], filter::PropertyKind::Time, "f.occurred_at"),
    ],
};

/// The failures of a task after this entity id that match the filter, in the order of ids. None if there is no such task.
pub fn failures(
    connection: &mut PgConnection,
    realm: &Realm,
    (task, filter): (Uuid, Option<&Filter>),
    after: &str,
    limit: i64,
) -> Work<Option<Vec<Failure>>> {
    if get(connection, realm, task)?.is_none() {
        return Ok(None);
    }
    let statement = ListFailures { realm: realm.id(), task, after, limit };
    Ok(Some(statement.filtered(filter.map(Filter::predicate)).load(connection)?))
}

statement! {
    /// A page of failures.
    struct ListFailures<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        after: &'a str as Text,
        limit: i64 as BigInt,
    } -> (Text, Text, Timestamptz),
    "SELECT f.entity_id, f.reason, f.occurred_at
     FROM bulk_delete_failure f
     WHERE f.realm_id = {realm} AND f.bulk_delete_id = {task} AND f.entity_id > {after}{filter}
     ORDER BY f.entity_id
     LIMIT {limit}"
}

#[cfg(test)]
crate::db::checked::filtered!(ListFailures, crate::filter::conditions::conditions(&FAILURE));

/// Removes samples that no rate is made of any more. See [`crate::db::sweep`].
pub fn sweep_samples(connection: &mut PgConnection, limit: i64) -> Work<usize> {
    Ok(SweepSamples { limit }.execute(connection)?)
}

statement! {
    /// Samples of more than an hour ago.
    struct SweepSamples {
        limit: i64 as BigInt,
    } -> (),
    "DELETE FROM bulk_delete_sample
     WHERE ctid IN (SELECT k.ctid FROM bulk_delete_sample k WHERE k.at < now() - interval '61 minutes' LIMIT {limit})"
}
