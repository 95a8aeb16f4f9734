//! The SQL of the worker around the chunks: claiming a slice, planning a task, ending it.

use std::marker::PhantomData;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::bulk_delete::model::Mode;
use crate::bulk_delete::selector::{ID_END, Selector};
use crate::bulk_delete::state::{TaskAction, TaskState};
use crate::db::statement::{Segment, segments};
use crate::db::{self, Realm, Work, statement};

/// A slice that this worker has the lease of, and its task.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Whose world.
    pub realm: Realm,
    /// The task.
    pub task_id: Uuid,
    /// The slice.
    pub slice: i32,
    /// Fences the lease.
    pub token: i64,
    /// How often it was tried since it last moved.
    pub attempts: i32,
    /// How thoroughly to delete.
    pub mode: Mode,
    /// The task's filter.
    pub filter: Option<String>,
    /// The task's type.
    pub entity_type: Option<String>,
    /// Whether the task has a list instead.
    pub listed: bool,
    /// Whether the task was planned.
    pub planned: bool,
    /// When the task was asked for. What was created later is not meant.
    pub as_of: DateTime<Utc>,
}

/// Claims a slice that is open and due, of the oldest task first, also one whose worker was lost.
pub fn claim(connection: &mut PgConnection, owner: &str, lease: Duration) -> Work<Option<Claimed>> {
    type Row = (i32, String, db::Mode, Uuid, i32, i64, i32, Mode, Option<String>, Option<String>, bool, bool, DateTime<Utc>);
    let row: Option<Row> = Claim { owner, lease: lease.as_secs_f64() }.get_result(connection).optional()?;
    Ok(row.map(|(realm_id, org, world, task_id, slice, token, attempts, mode, filter, entity_type, listed, planned, as_of)| Claimed {
        realm: Realm::from_row(realm_id, org, world),
        task_id,
        slice,
        token,
        attempts,
        mode,
        filter,
        entity_type,
        listed,
        planned,
        as_of,
    }))
}

statement! {
    /// A lease on a slice; its task is at work, and starts with its first lease.
    pub struct Claim<'a> {
        owner: &'a str as Text,
        lease: f64 as Double,
    } -> (Integer, Text, Text, SqlUuid, Integer, BigInt, Integer, Text, Nullable<Text>, Nullable<Text>, Bool, Bool, Timestamptz),
    "WITH due AS (
        SELECT s.realm_id, s.bulk_delete_id, s.slice
        FROM bulk_delete b
        JOIN bulk_delete_slice s ON s.realm_id = b.realm_id AND s.bulk_delete_id = b.id
        -- The first condition is that of the index over tasks that are not over; the second is what may be worked on.
        WHERE b.status NOT IN ('canceled', 'completed', 'completed_with_errors', 'failed')
          AND b.status IN ('scheduled', 'processing', 'scheduled_poll', 'waiting_for_resource') AND NOT s.done AND s.due_at <= now()
        ORDER BY b.created_at, s.slice
        LIMIT 1
        FOR UPDATE OF s SKIP LOCKED
     ),
     leased AS (
        UPDATE bulk_delete_slice s
        SET lease_token = nextval('lease_token'), lease_owner = {owner}, due_at = now() + make_interval(secs => {lease}),
            attempts = s.attempts + 1
        FROM due
        WHERE s.realm_id = due.realm_id AND s.bulk_delete_id = due.bulk_delete_id AND s.slice = due.slice
        RETURNING s.realm_id, s.bulk_delete_id, s.slice, s.lease_token, s.attempts
     ),
     task AS (
        UPDATE bulk_delete b
        SET status = 'processing', started_at = COALESCE(b.started_at, now()),
            instances = CASE WHEN {owner} = ANY(b.instances) THEN b.instances ELSE b.instances || {owner}::text END
        FROM leased l
        WHERE b.realm_id = l.realm_id AND b.id = l.bulk_delete_id
          AND b.status IN ('scheduled', 'processing', 'scheduled_poll', 'waiting_for_resource')
        RETURNING b.*
     ),
     told AS (
        INSERT INTO event (realm_id, type, subjects, principal_id)
        SELECT t.realm_id, 'bulk_delete.started', ARRAY[t.id::text], t.principal_id
        FROM task t
        WHERE t.started_at = now()
     )
     SELECT l.realm_id, r.org, r.mode, l.bulk_delete_id, l.slice, l.lease_token, l.attempts, t.mode, t.filter, t.entity_type,
            t.entity_ids IS NOT NULL, t.selected IS NOT NULL, t.created_at
     FROM leased l
     JOIN task t ON t.realm_id = l.realm_id AND t.id = l.bulk_delete_id
     JOIN realm r ON r.id = l.realm_id"
}

/// Above this many selected entities a task is cut into slices, so that several workers can share it.
const CUT_ABOVE: i64 = 50_000;
const SLICES: usize = 4;
/// About how many keys are looked at to find where to cut.
const SAMPLE: f64 = 4_000.0;

/// Counts what the task selects and cuts its key space where that pays. Call it in a transaction. Reads the whole realm once, unless indexes tell that
/// few may be selected.
pub fn plan(connection: &mut PgConnection, claim: &Claimed, selector: &Selector) -> Work<()> {
    // A realm of a hundred million takes longer than a call may.
    connection.batch_execute("SET LOCAL statement_timeout = 0")?;
    let narrowed = selector.narrowed(connection, &claim.realm)?;
    let selector = narrowed.as_ref().unwrap_or(selector);
    let (selected,): (i64,) = Selected::<BigInt>::new(selector, claim, selector.count_text()).get_result(connection)?;
    let mut cuts = Vec::new();
    if selected > CUT_ABOVE && !claim.listed {
        let percent = (100.0 * SAMPLE / selected as f64).min(100.0);
        let keys: Vec<(String,)> = Selected::<Text>::new(selector, claim, selector.sample_text(percent)).load(connection)?;
        cuts = (1..SLICES).filter_map(|n| keys.get(keys.len() * n / SLICES).map(|(key,)| key.clone())).collect();
        cuts.dedup();
    }
    let mut ends = cuts.clone();
    ends.push(ID_END.to_owned());
    let statement = Plan { realm: claim.realm.id(), task: claim.task_id, token: claim.token, selected, starts: cuts, ends };
    let planned: Option<(bool,)> = statement.get_result(connection).optional()?;
    planned.map(|_| ()).ok_or_else(|| lease_lost().into())
}

/// A query over what a task selects, with one column of the SQL type `T`.
struct Selected<'a, T> {
    selector: &'a Selector,
    claim: &'a Claimed,
    text: String,
    column: PhantomData<T>,
}

impl<'a, T> Selected<'a, T> {
    fn new(selector: &'a Selector, claim: &'a Claimed, text: String) -> Self {
        Selected { selector, claim, text, column: PhantomData }
    }
}

impl<T> QueryFragment<diesel::pg::Pg> for Selected<'_, T> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, diesel::pg::Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        for segment in segments(&self.text) {
            match segment {
                Segment::Sql(sql) => out.push_sql(sql),
                Segment::Parameter("realm") => out.push_bind_param::<Integer, _>(self.claim.realm.id_ref())?,
                Segment::Parameter("task") => out.push_bind_param::<SqlUuid, _>(&self.claim.task_id)?,
                Segment::Parameter("as_of") => out.push_bind_param::<Timestamptz, _>(&self.claim.as_of)?,
                Segment::Parameter(name) => self.selector.push(name, &mut out)?,
            }
        }
        Ok(())
    }
}

impl<T> QueryId for Selected<'_, T> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<T> Query for Selected<'_, T> {
    type SqlType = (T,);
}

impl<T> RunQueryDsl<PgConnection> for Selected<'_, T> {}

statement! {
    /// The count, the first slice's new end, and the slices behind it.
    struct Plan {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        token: i64 as BigInt,
        selected: i64 as BigInt,
        starts: Vec<String> as Array<Text>,
        ends: Vec<String> as Array<Text>,
    } -> (Bool,),
    "WITH first AS (
        UPDATE bulk_delete_slice s
        SET until_id = ({ends}::text[])[1]
        WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task} AND s.slice = 0 AND s.lease_token = {token}
        RETURNING s.slice
     ),
     others AS (
        INSERT INTO bulk_delete_slice (realm_id, bulk_delete_id, slice, cursor_id, until_id)
        SELECT {realm}, {task}, c.n, c.start, ({ends}::text[])[c.n + 1]
        FROM unnest({starts}) WITH ORDINALITY AS c(start, n), first
     )
     UPDATE bulk_delete b
     SET selected = {selected}
     FROM first
     WHERE b.realm_id = {realm} AND b.id = {task}
     RETURNING true"
}

/// Ends a task whose slices are all done, in the transaction that did the last. Of two workers that do the last two slices at once the later
/// one to lock the task sees both.
pub fn complete(connection: &mut PgConnection, claim: &Claimed) -> Work<bool> {
    let (realm, task) = (claim.realm.id(), claim.task_id);
    let (state,): (TaskState,) = LockTask { realm, task }.get_result(connection)?;
    let (open, failed): (bool, i64) = Progress { realm, task }.get_result(connection)?;
    if open || !state.is_at_work() {
        return Ok(false);
    }
    let to = state.transition(if failed == 0 { TaskAction::Complete } else { TaskAction::CompleteWithErrors })?;
    let ended: Option<(SqlOk,)> =
        EndTask { realm, task, from: state.as_str(), to: to.as_str(), code: None, message: None }.get_result(connection).optional()?;
    Ok(ended.is_some())
}

type SqlOk = bool;

/// Ends a task that cannot go on; a worker that lost its lease ends nothing. Call it in a transaction.
pub fn fail(connection: &mut PgConnection, claim: &Claimed, code: &str, message: &str) -> Work<()> {
    if !release(connection, claim, Duration::ZERO)? {
        return Ok(());
    }
    let (realm, task) = (claim.realm.id(), claim.task_id);
    let (state,): (TaskState,) = LockTask { realm, task }.get_result(connection)?;
    if let Ok(to) = state.transition(TaskAction::Fail) {
        let ending = EndTask { realm, task, from: state.as_str(), to: to.as_str(), code: Some(code), message: Some(message) };
        let _: Option<(SqlOk,)> = ending.get_result(connection).optional()?;
    }
    Ok(())
}

statement! {
    /// The task's state, which stays as it is until the transaction ends.
    struct LockTask {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (Text,),
    "SELECT b.status FROM bulk_delete b WHERE b.realm_id = {realm} AND b.id = {task} FOR UPDATE"
}

statement! {
    /// Whether slices are open, and how many entities failed.
    struct Progress {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (Bool, BigInt),
    "SELECT bool_or(NOT s.done), sum(s.failed)::int8
     FROM bulk_delete_slice s
     WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task}"
}

statement! {
    /// The task's end and its event.
    struct EndTask<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        from: &'a str as Text,
        to: &'a str as Text,
        code: Option<&'a str> as Nullable<Text>,
        message: Option<&'a str> as Nullable<Text>,
    } -> (Bool,),
    "WITH ended AS (
        UPDATE bulk_delete
        SET status = {to}, ended_at = clock_timestamp(), error_code = {code}, error_message = {message}
        WHERE realm_id = {realm} AND id = {task} AND status = {from}
        RETURNING id, status, principal_id
     ),
     told AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm}, 'bulk_delete.ended', ARRAY[e.id::text], e.principal_id, jsonb_build_object('status', e.status)
        FROM ended e
     )
     SELECT true FROM ended"
}

/// Gives a slice back, to be claimed again after `delay`. False if the lease is lost.
pub fn release(connection: &mut PgConnection, claim: &Claimed, delay: Duration) -> Work<bool> {
    let statement =
        Release { realm: claim.realm.id(), task: claim.task_id, slice: claim.slice, token: claim.token, delay: delay.as_secs_f64() };
    Ok(statement.execute(connection)? == 1)
}

statement! {
    /// A slice without an owner. The old token opens nothing any more.
    struct Release {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        slice: i32 as Integer,
        token: i64 as BigInt,
        delay: f64 as Double,
    } -> (Bool,),
    "UPDATE bulk_delete_slice
     SET lease_token = nextval('lease_token'), lease_owner = NULL, due_at = now() + make_interval(secs => {delay})
     WHERE realm_id = {realm} AND bulk_delete_id = {task} AND slice = {slice} AND lease_token = {token}"
}

/// What a worker learns that is not alone at its slice.
pub fn lease_lost() -> crate::error::Error {
    crate::error::Error::unavailable("The lease was lost to another worker.")
}
