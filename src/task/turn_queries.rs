//! The SQL of turns: which slice a worker takes up next, and whether it is to turn to another.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use uuid::Uuid;

use crate::db::{self, Realm, Work, statement};
use crate::task::model::{DeleteMode, TaskKind};
use crate::task::state::TaskState;
use crate::task::work::{ClaimedSlice, Works};

/// Claims a slice that is open and ready, also one whose worker was lost, of a kind that this version knows. The realm with the fewest
/// slices at work comes first, and of these the one that was served least recently; so it is with the tasks of a realm.
pub fn claim(
    connection: &mut PgConnection,
    works: Works,
    owner: &str,
    lease: Duration,
) -> Work<Option<ClaimedSlice>> {
    let (startable, kinds, parts) = (TaskState::startable(), works.kinds(), works.parts());
    let claim = ClaimSlice { owner, lease: lease.as_secs_f64(), startable, kinds, parts };
    Ok(claim.get_result::<ClaimedRow>(connection).optional()?.map(ClaimedSlice::from))
}

type ClaimedRow = (
    (i32, String, db::Mode),
    (Uuid, i32, i64, i32, Option<String>),
    (TaskKind, Option<DeleteMode>, bool, bool, (DateTime<Utc>, Option<i64>), bool),
    (Option<String>, Option<String>, bool, bool),
);

impl From<ClaimedRow> for ClaimedSlice {
    fn from((realm, slice, task, selection): ClaimedRow) -> ClaimedSlice {
        let (task_id, slice, token, attempts, part) = slice;
        let (kind, mode, fix, planned, (asked_at, ordinal), limited) = task;
        let (filter, entity_type, listed, check_attributes) = selection;
        let realm = Realm::from_row(realm.0, realm.1, realm.2);
        ClaimedSlice {
            realm,
            task_id,
            slice,
            token,
            attempts,
            part,
            kind,
            mode,
            fix,
            planned,
            asked_at,
            ordinal,
            limited,
            filter,
            entity_type,
            listed,
            check_attributes,
        }
    }
}

statement! {
    /// A lease on a slice; its task is at work, and starts with its first lease.
    pub struct ClaimSlice<'a> {
        owner: &'a str as Text,
        lease: f64 as Double,
        startable: Vec<&'static str> as Array<Text>,
        kinds: Vec<&'static str> as Array<Text>,
        parts: Vec<&'static str> as Array<Text>,
    } -> (
        (Integer, Text, Text), (SqlUuid, Integer, BigInt, Integer, Nullable<Text>), (Text, Nullable<Text>, Bool, Bool, (Timestamptz, Nullable<BigInt>), Bool),
        (Nullable<Text>, Nullable<Text>, Bool, Bool)
    ),
    "WITH busy AS (
        -- The open slices of tasks that are not over, and how many of their realm and of their task are at work.
        SELECT s.realm_id, s.bulk_delete_id, s.slice,
               count(*) FILTER (WHERE s.lease_owner IS NOT NULL AND s.due_at > now()) OVER (PARTITION BY s.realm_id) AS in_realm,
               count(*) FILTER (WHERE s.lease_owner IS NOT NULL AND s.due_at > now()) OVER (PARTITION BY s.realm_id, s.bulk_delete_id) AS in_task
        FROM bulk_delete b
        JOIN bulk_delete_slice s ON s.realm_id = b.realm_id AND s.bulk_delete_id = b.id
        WHERE b.status NOT IN ('canceled', 'completed', 'completed_with_errors', 'failed') AND NOT s.done
     ),
     due AS (
        SELECT s.realm_id, s.bulk_delete_id, s.slice
        FROM busy w
        JOIN bulk_delete_slice s ON s.realm_id = w.realm_id AND s.bulk_delete_id = w.bulk_delete_id AND s.slice = w.slice
        JOIN bulk_delete b ON b.realm_id = s.realm_id AND b.id = s.bulk_delete_id
        LEFT JOIN bulk_delete_turn t ON t.realm_id = s.realm_id
        WHERE b.status = ANY({startable}) AND NOT s.done AND s.due_at <= now()
          -- What a later version has brought is left to its workers.
          AND b.kind = ANY({kinds}) AND (s.part IS NULL OR s.part = ANY({parts}))
        -- By tokens and numbers, which show which came first whatever the clock did.
        ORDER BY w.in_realm, t.served NULLS FIRST, w.in_task, b.served NULLS FIRST, b.ordinal NULLS FIRST, b.created_at, s.slice
        LIMIT 1
        FOR UPDATE OF s SKIP LOCKED
        FOR NO KEY UPDATE OF b
     ),
     leased AS (
        UPDATE bulk_delete_slice s
        SET lease_token = nextval('lease_token'), lease_owner = {owner}, due_at = now() + make_interval(secs => {lease}),
            attempts = s.attempts + 1
        FROM due
        WHERE s.realm_id = due.realm_id AND s.bulk_delete_id = due.bulk_delete_id AND s.slice = due.slice
        RETURNING s.realm_id, s.bulk_delete_id, s.slice, s.lease_token, s.attempts, s.part
     ),
     task AS (
        UPDATE bulk_delete b
        SET status = 'processing', started_at = COALESCE(b.started_at, now()), working_since = COALESCE(b.working_since, now()),
            paused_at = NULL, served_at = now(), served = l.lease_token,
            instances = CASE WHEN {owner} = ANY(b.instances) THEN b.instances ELSE b.instances || {owner}::text END
        FROM leased l
        WHERE b.realm_id = l.realm_id AND b.id = l.bulk_delete_id
        RETURNING b.*
     ),
     turned AS (
        INSERT INTO bulk_delete_turn AS n (realm_id, served_at, served)
        SELECT t.realm_id, now(), t.served FROM task t
        ON CONFLICT (realm_id) DO UPDATE
        SET served_at = greatest(n.served_at, excluded.served_at), served = greatest(n.served, excluded.served)
     ),
     recorded AS (
        -- Only if it was not at work before.
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT t.realm_id, CASE WHEN t.started_at = now() THEN 'bulk_delete.started' ELSE 'bulk_delete.continued' END,
               ARRAY[t.id::text], t.principal_id, jsonb_build_object('status', t.status)
        FROM task t
        WHERE t.working_since = now()
     )
     SELECT l.realm_id, r.org, r.mode, l.bulk_delete_id, l.slice, l.lease_token, l.attempts, l.part, t.kind, t.mode, COALESCE(t.fix, false),
            t.selected IS NOT NULL, t.created_at, t.ordinal, t.max_objects_per_second IS NOT NULL, t.filter, t.entity_type, t.entity_ids IS NOT NULL, t.check_attributes
     FROM leased l
     JOIN task t ON t.realm_id = l.realm_id AND t.id = l.bulk_delete_id
     JOIN realm r ON r.id = l.realm_id"
}

/// Returns whether a slice is ready that comes before the one that this worker has: of a realm with fewer slices at work, or of another
/// task of the realm with fewer.
pub fn others_wait(
    connection: &mut PgConnection,
    works: Works,
    claim: &ClaimedSlice,
) -> Work<bool> {
    let (startable, kinds, parts) = (TaskState::startable(), works.kinds(), works.parts());
    let statement =
        OthersWait { realm: claim.realm.id(), task: claim.task_id, startable, kinds, parts };
    let (wait,): (bool,) = statement.get_result(connection)?;
    Ok(wait)
}

statement! {
    /// True if others have more of a claim to the worker of a slice of this task.
    pub struct OthersWait {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        startable: Vec<&'static str> as Array<Text>,
        kinds: Vec<&'static str> as Array<Text>,
        parts: Vec<&'static str> as Array<Text>,
    } -> (Bool,),
    "WITH active AS (
        SELECT s.realm_id, s.bulk_delete_id,
               count(*) FILTER (WHERE s.lease_owner IS NOT NULL AND s.due_at > now()) AS at_work,
               count(*) FILTER (WHERE s.due_at <= now() AND b.status = ANY({startable}) AND b.kind = ANY({kinds})
                                  AND (s.part IS NULL OR s.part = ANY({parts}))) AS due
        FROM bulk_delete b
        JOIN bulk_delete_slice s ON s.realm_id = b.realm_id AND s.bulk_delete_id = b.id
        WHERE b.status NOT IN ('canceled', 'completed', 'completed_with_errors', 'failed') AND NOT s.done
        GROUP BY s.realm_id, s.bulk_delete_id
     ),
     realms AS (
        SELECT a.*, sum(a.at_work) OVER (PARTITION BY a.realm_id) AS realm_at_work FROM active a
     )
     SELECT EXISTS (
        SELECT FROM realms mine, realms other
        WHERE mine.realm_id = {realm} AND mine.bulk_delete_id = {task} AND other.due > 0
          AND CASE WHEN other.realm_id = mine.realm_id THEN other.at_work < mine.at_work
                   ELSE other.realm_at_work < mine.realm_at_work END
     )"
}

/// Which slices of other tasks count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadySlices {
    /// All.
    Any,
    /// Those of tasks with a pace. They take up little and are late soon.
    Limited,
}

/// Returns whether a slice of another task, of any realm, could be taken up.
pub fn is_any_ready(
    connection: &mut PgConnection,
    realm: &Realm,
    task: Uuid,
    ready: ReadySlices,
) -> Work<bool> {
    let statement = OthersReady {
        realm: realm.id(),
        task,
        any: ready == ReadySlices::Any,
        startable: TaskState::startable(),
    };
    let (is_any,): (bool,) = statement.get_result(connection)?;
    Ok(is_any)
}

statement! {
    /// True if others wait for a worker.
    pub struct OthersReady {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        any: bool as Bool,
        startable: Vec<&'static str> as Array<Text>,
    } -> (Bool,),
    "SELECT EXISTS (
        SELECT
        FROM bulk_delete b
        JOIN bulk_delete_slice s ON s.realm_id = b.realm_id AND s.bulk_delete_id = b.id
        WHERE b.status NOT IN ('canceled', 'completed', 'completed_with_errors', 'failed') AND b.status = ANY({startable})
          AND (b.realm_id, b.id) <> ({realm}, {task}) AND ({any} OR b.max_objects_per_second IS NOT NULL)
          AND NOT s.done AND s.due_at <= now()
     )"
}
