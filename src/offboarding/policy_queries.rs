//! The SQL of removal policies and of the retention that they ask for.

use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Double, Integer, Jsonb, Nullable, Text, Uuid as SqlUuid};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::db::{Realm, Work, lock_realm, statement};
use crate::entity::requirements::Requirements;
use crate::offboarding::policy::Policy;

type PolicyRow = (
    (Double, Double, Double),
    (Nullable<Double>, Nullable<Double>, Nullable<Double>),
    Array<Text>,
    (Jsonb, Jsonb),
);
type PolicyValues =
    ((f64, f64, f64), (Option<f64>, Option<f64>, Option<f64>), Vec<String>, (Json, Json));

impl From<PolicyValues> for Policy {
    fn from((graces, retentions, mail_domains, (hard_delete, soft_delete)): PolicyValues) -> Self {
        let (default_grace, max_grace, min_grace) = graces;
        let (tombstone_retention, request_retention, filter_retention) = retentions;
        // Stored intervals are checked to be of these bounds.
        let duration = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Policy {
            default_grace: duration(default_grace),
            max_grace: duration(max_grace),
            min_grace: duration(min_grace),
            tombstone_retention: tombstone_retention.map(duration),
            request_retention: request_retention.map(duration),
            filter_retention: filter_retention.map(duration),
            mail_domains,
            hard_delete: Requirements::from_json(&hard_delete),
            soft_delete: Requirements::from_json(&soft_delete),
        }
    }
}

/// The policy of the realm.
pub fn get(connection: &mut PgConnection, realm: &Realm) -> Work<Policy> {
    let found: Option<PolicyValues> =
        ReadPolicy { realm: realm.id() }.get_result(connection).optional()?;
    Ok(found.map(Policy::from).unwrap_or_default())
}

statement! {
    /// The policy, in seconds.
    struct ReadPolicy { realm: i32 as Integer } -> PolicyRow,
    "SELECT extract(epoch FROM default_grace)::float8, extract(epoch FROM max_grace)::float8, extract(epoch FROM min_grace)::float8,
            extract(epoch FROM tombstone_retention)::float8, extract(epoch FROM request_retention)::float8,
            extract(epoch FROM filter_retention)::float8, mail_domains, hard_delete, soft_delete
     FROM removal_policy
     WHERE realm_id = {realm}"
}

/// Reads the policy for a change of it; call it in a transaction. Other changes wait.
pub fn lock(connection: &mut PgConnection, realm: &Realm) -> Work<Policy> {
    // There is something to lock also where no policy is yet.
    lock_realm(connection, realm)?;
    get(connection, realm)
}

/// Stores the policy and records the change as an event.
pub fn put(
    connection: &mut PgConnection,
    realm: &Realm,
    principal: Uuid,
    policy: &Policy,
) -> Work<()> {
    let statement = PutPolicy {
        realm: realm.id(),
        org: realm.org(),
        principal,
        default_grace: policy.default_grace.as_secs_f64(),
        max_grace: policy.max_grace.as_secs_f64(),
        tombstone_retention: policy.tombstone_retention.map(|duration| duration.as_secs_f64()),
        request_retention: policy.request_retention.map(|duration| duration.as_secs_f64()),
        filter_retention: policy.filter_retention.map(|duration| duration.as_secs_f64()),
        mail_domains: &policy.mail_domains,
        min_grace: policy.min_grace.as_secs_f64(),
        hard_delete: policy.hard_delete.to_json(),
        soft_delete: policy.soft_delete.to_json(),
        event: policy.to_event(),
    };
    statement.execute(connection)?;
    Ok(())
}

statement! {
    /// The policy and its event.
    struct PutPolicy<'a> {
        realm: i32 as Integer,
        org: &'a str as Text,
        principal: Uuid as SqlUuid,
        default_grace: f64 as Double,
        max_grace: f64 as Double,
        tombstone_retention: Option<f64> as Nullable<Double>,
        request_retention: Option<f64> as Nullable<Double>,
        filter_retention: Option<f64> as Nullable<Double>,
        mail_domains: &'a [String] as Array<Text>,
        min_grace: f64 as Double,
        hard_delete: Json as Jsonb,
        soft_delete: Json as Jsonb,
        event: Json as Jsonb,
    } -> (),
    "WITH changed AS (
        INSERT INTO removal_policy
            (realm_id, default_grace, max_grace, min_grace, tombstone_retention, request_retention, filter_retention, mail_domains, hard_delete,
             soft_delete, updated_by)
        VALUES ({realm}, make_interval(secs => {default_grace}), make_interval(secs => {max_grace}), make_interval(secs => {min_grace}),
                make_interval(secs => {tombstone_retention}), make_interval(secs => {request_retention}),
                make_interval(secs => {filter_retention}), {mail_domains}, {hard_delete}, {soft_delete}, {principal})
        ON CONFLICT (realm_id) DO UPDATE
        SET default_grace = excluded.default_grace, max_grace = excluded.max_grace,
            tombstone_retention = excluded.tombstone_retention, request_retention = excluded.request_retention,
            mail_domains = excluded.mail_domains, min_grace = excluded.min_grace, hard_delete = excluded.hard_delete,
            soft_delete = excluded.soft_delete,
            filter_retention = excluded.filter_retention,
            -- Those that the policy so far may have had removed do not come back.
            tombstones_kept_since = greatest(removal_policy.tombstones_kept_since, now() - removal_policy.tombstone_retention),
            updated_at = now(), updated_by = excluded.updated_by
        RETURNING 1
     )
     INSERT INTO event (realm_id, type, subjects, principal_id, data)
     SELECT {realm}, 'removal_policy.updated', ARRAY[{org}], {principal},
            {event}
     FROM changed"
}

/// Removes some of the tombstones that have had their time, whichever realm they are of, and returns how many.
pub fn sweep_tombstones(connection: &mut PgConnection, at_most: i64) -> Work<usize> {
    Ok(SweepTombstones { at_most }.execute(connection)?)
}

statement! {
    /// A batch of old tombstones.
    struct SweepTombstones { at_most: i64 as BigInt } -> (),
    "WITH old AS MATERIALIZED (
        SELECT t.realm_id, t.entity_id, t.incarnation
        -- In another order each time, so that one realm with much to remove does not delay the others.
        FROM (SELECT * FROM removal_policy ORDER BY random()) p
        -- A query for each policy: where there is none, nothing is read.
        CROSS JOIN LATERAL (
            SELECT t.realm_id, t.entity_id, t.incarnation
            FROM tombstone t
            WHERE t.realm_id = p.realm_id AND t.removed_at < now() - p.tombstone_retention
            LIMIT {at_most}
            FOR UPDATE SKIP LOCKED
        ) t
        WHERE p.tombstone_retention IS NOT NULL
        LIMIT {at_most}
     )
     DELETE FROM tombstone t
     USING old o
     WHERE t.realm_id = o.realm_id AND t.entity_id = o.entity_id AND t.incarnation = o.incarnation"
}

/// Removes some of the requests that ended long ago, whichever realm they are of, and returns how many.
pub fn sweep_requests(connection: &mut PgConnection, at_most: i64) -> Work<usize> {
    Ok(SweepRequests { at_most }.execute(connection)?)
}

statement! {
    /// A batch of old requests. An open one has no end, and so stays.
    struct SweepRequests { at_most: i64 as BigInt } -> (),
    "WITH old AS MATERIALIZED (
        SELECT r.realm_id, r.id
        -- In another order each time, so that one realm with much to remove does not delay the others.
        FROM (SELECT * FROM removal_policy ORDER BY random()) p
        -- A query for each policy: where there is none, nothing is read.
        CROSS JOIN LATERAL (
            SELECT r.realm_id, r.id
            FROM offboarding_request r
            WHERE r.realm_id = p.realm_id AND r.finished_at < now() - p.request_retention
            LIMIT {at_most}
            FOR UPDATE SKIP LOCKED
        ) r
        WHERE p.request_retention IS NOT NULL
        LIMIT {at_most}
     )
     DELETE FROM offboarding_request r
     USING old o
     WHERE r.realm_id = o.realm_id AND r.id = o.id"
}

/// Blanks some of the filters that have had their time, whichever realm their tasks are of, and returns how many.
pub fn sweep_filters(connection: &mut PgConnection, at_most: i64) -> Work<usize> {
    Ok(SweepFilters { at_most }.execute(connection)?)
}

statement! {
    /// A batch of old filters. A task that is at work has no end, and so keeps its own.
    struct SweepFilters { at_most: i64 as BigInt } -> (),
    "WITH old AS MATERIALIZED (
        SELECT b.realm_id, b.id
        -- In another order each time, so that one realm with much to remove does not delay the others.
        FROM (SELECT * FROM removal_policy ORDER BY random()) p
        -- A query for each policy: where there is none, nothing is read.
        CROSS JOIN LATERAL (
            SELECT b.realm_id, b.id
            FROM bulk_delete b
            WHERE b.realm_id = p.realm_id AND b.ended_at IS NOT NULL AND b.ended_at < now() - p.filter_retention AND b.filter <> ''
            LIMIT {at_most}
            FOR UPDATE SKIP LOCKED
        ) b
        WHERE p.filter_retention IS NOT NULL
        LIMIT {at_most}
     )
     UPDATE bulk_delete b
     SET filter = '', parameters = b.parameters - 'filter'
     FROM old o
     WHERE b.realm_id = o.realm_id AND b.id = o.id"
}
