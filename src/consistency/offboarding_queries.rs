//! The SQL of requests without an entity on its way out.
//!
//! A request and the move of its entity are one transaction, and so are the ends of both; one snapshot shows both or neither.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::consistency::model::CheckedRows;
use crate::consistency::queries::{CheckedColumns, CheckedValues, checked_rows};
use crate::db::{Realm, Work, statement};
use crate::error::Error;
use crate::task::work::Span;

/// Why a request ends that has no entity to remove: what its worker would find.
const CODE: &str = "not_found";
const MESSAGE: &str = "The entity is not there any more.";

/// Checks the next requests.
pub fn check_requests(
    connection: &mut PgConnection,
    realm: &Realm,
    span: &Span<'_>,
) -> Work<CheckedRows> {
    let after = if span.cursor.is_empty() {
        Uuid::nil()
    } else {
        Uuid::try_parse(span.cursor).map_err(Error::internal)?
    };
    let statement = CheckRequests { realm: realm.id(), after, limit: span.limit };
    Ok(statement.get_result::<CheckedValues>(connection)?.into())
}

statement! {
    /// The next requests by id; those of them that are open and have no entity on its way out, and those that succeeded and left neither the
    /// entity nor, where it must still be there, a tombstone.
    pub struct CheckRequests {
        realm: i32 as Integer,
        after: Uuid as SqlUuid,
        limit: i64 as BigInt,
    } -> CheckedColumns,
    checked_rows!("WITH page AS MATERIALIZED (
        SELECT r.id, r.entity_id, r.incarnation, r.status, r.finished_at, r.status IN ('pending', 'running') AS live
        FROM offboarding_request r
        WHERE r.realm_id = {realm} AND r.id > {after}
        ORDER BY r.id
        LIMIT {limit}
     ),
     kept AS (
        -- Since when every tombstone must be there, and an hour for those who sweep meanwhile.
        SELECT COALESCE(max(greatest(now() - p.tombstone_retention, p.tombstones_kept_since)) + interval '1 hour', '-infinity') AS since
        FROM removal_policy p
        WHERE p.realm_id = {realm}
     ),
     walked AS (
        SELECT count(*) AS met, count(*) = {limit} AS more, (SELECT p.id::text FROM page p ORDER BY p.id DESC LIMIT 1) AS cursor FROM page
     ),
     suspects AS (
        SELECT p.id::text AS key, 'orphan_request' AS kind, p.id::text AS subject, p.live AS mendable,
               CASE WHEN p.live THEN format('The request is `%s`, and the entity `%s` that it is for is not on its way out.', p.status, p.entity_id)
                    ELSE format('The request has removed the entity `%s` and left no tombstone.', p.entity_id) END AS detail
        FROM page p
        CROSS JOIN kept k
        -- Joined, since a condition inside of CASE would be looked up in a hash of all entities.
        LEFT JOIN entity e ON e.realm_id = {realm} AND e.id = p.entity_id AND e.incarnation = p.incarnation
        LEFT JOIN tombstone t ON t.realm_id = {realm} AND t.entity_id = p.entity_id AND t.incarnation = p.incarnation
        WHERE CASE WHEN p.live THEN (e.state = 'offboarding' AND e.deleted_at IS NULL) IS NOT TRUE
                   ELSE p.status = 'succeeded' AND p.finished_at > k.since AND e.id IS NULL AND t.entity_id IS NULL END
     )")
}

/// Ends those of these requests that are open and have no entity in `offboarding`, as canceled if no worker has begun, else as failed, and
/// returns their ids. They are locked first. No entity moves to `offboarding` for an existing request: both are one transaction.
pub fn repair_requests(
    connection: &mut PgConnection,
    realm: &Realm,
    task: Uuid,
    keys: &[&str],
) -> Work<Vec<String>> {
    LockRequests { realm: realm.id(), keys }.execute(connection)?;
    let statement = EndRequests { realm: realm.id(), task, keys, code: CODE, message: MESSAGE };
    let ended: Vec<(String,)> = statement.load(connection)?;
    Ok(ended.into_iter().map(|(id,)| id).collect())
}

statement! {
    /// Keeps these requests as they are until the transaction ends.
    struct LockRequests<'a> {
        realm: i32 as Integer,
        keys: &'a [&'a str] as Array<Text>,
    } -> (SqlUuid,),
    "SELECT r.id FROM offboarding_request r WHERE r.realm_id = {realm} AND r.id = ANY({keys}::uuid[]) ORDER BY r.id FOR UPDATE"
}

statement! {
    /// The ends, and the events. A worker with a lease on one finds that it is not running any more.
    struct EndRequests<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        keys: &'a [&'a str] as Array<Text>,
        code: &'a str as Text,
        message: &'a str as Text,
    } -> (Text,),
    "WITH ended AS (
        UPDATE offboarding_request r
        SET status = CASE r.status WHEN 'pending' THEN 'canceled' ELSE 'failed' END, finished_at = now(), due_at = NULL,
            next_attempt_at = NULL, last_error_code = {code}, last_error_message = {message},
            error_code = CASE r.status WHEN 'running' THEN {code} END, error_message = CASE r.status WHEN 'running' THEN {message} END
        WHERE r.realm_id = {realm} AND r.id = ANY({keys}::uuid[]) AND r.status IN ('pending', 'running')
          AND NOT EXISTS (SELECT
                          FROM entity e
                          WHERE e.realm_id = {realm} AND e.id = r.entity_id AND e.incarnation = r.incarnation AND e.state = 'offboarding'
                            AND e.deleted_at IS NULL)
        RETURNING r.id, r.entity_id, r.status, r.error_code
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, CASE e.status WHEN 'canceled' THEN 'entity.offboarding_canceled' ELSE 'entity.offboarding_failed' END,
               ARRAY[e.entity_id], b.principal_id,
               jsonb_strip_nulls(jsonb_build_object('offboarding_request_id', e.id, 'code', e.error_code, 'bulk_delete_id', b.id))
        FROM ended e, bulk_delete b
        WHERE b.realm_id = {realm} AND b.id = {task}
     )
     SELECT e.id::text FROM ended e"
}
