//! The SQL of planning a task, whatever its kind: its count and its slices, and how far that is.

use std::time::{Duration, Instant};

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Double, Integer, Jsonb, Nullable, Text, Uuid as SqlUuid,
};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::db::{Fail, Fault, fault, listen, statement};
use crate::error::Error;
use crate::limits::database::{WORKER_STATEMENT, WORKER_STATEMENT_SECONDS};
use crate::task::model::TOPIC;
use crate::task::planning::Planning;
use crate::task::slice_queries;
use crate::task::work::{ClaimedSlice, Plan, Step, TaskWork, Undone};

/// How planning a task continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Its count and its slices are there.
    Whole,
    /// There is more to do.
    Partly,
    /// Nothing was done: the task is to pause or to stop, or is over.
    Halt,
}

/// Plans a task, its count and its slices, or does the next step of that: at first all at once, and in steps where there is not the time for that. A step
/// shall take `target`. Call it in a transaction.
pub fn plan(
    connection: &mut PgConnection,
    claim: &ClaimedSlice,
    work: &dyn TaskWork,
    lease: Duration,
    target: Duration,
) -> Step<Planned> {
    // Locked, so that nobody else plans it however long this takes.
    let time = Duration::from_secs(WORKER_STATEMENT_SECONDS);
    let slice = slice_queries::lock(connection, claim, lease, lease, time)?;
    if !slice.state.is_at_work() {
        return Ok(Planned::Halt);
    }
    let (realm, task) = (claim.realm.id(), claim.task_id);
    let (known,): (Option<Json>,) = ReadPlanning { realm, task }.get_result(connection)?;
    let mut planning: Option<Planning> =
        known.map(serde_json::from_value).transpose().map_err(Error::internal)?;
    let started = Instant::now();
    let step = connection.transaction(|connection| match &mut planning {
        None => work.plan(connection, claim).map(Some),
        Some(planning) => {
            slice_queries::give_time(connection, Duration::from_secs(planning.seconds))?;
            work.plan_on(connection, claim, planning)
        }
    });
    match step {
        Ok(Some(plan)) => return set_plan(connection, claim, plan, lease).map(|()| Planned::Whole),
        Ok(None) => {
            planning.iter_mut().for_each(|planning| planning.took(started.elapsed(), target))
        }
        Err(Fail::Database(error)) if fault(&error) == Fault::Timeout => {
            WORKER_STATEMENT.reached();
            match &mut planning {
                Some(planning) => planning.took_too_long(),
                None => planning = Some(work.planning(claim)),
            }
        }
        Err(fail) => return Err(fail.into()),
    }
    let planning = serde_json::to_value(planning).map_err(Error::internal)?;
    SetPlanning { realm, task, planning }.execute(connection)?;
    slice_queries::renew(connection, claim, lease)?;
    Ok(Planned::Partly)
}

statement! {
    /// The progress of planning.
    struct ReadPlanning {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (Nullable<Jsonb>,),
    "SELECT b.planning FROM bulk_delete b WHERE b.realm_id = {realm} AND b.id = {task}"
}

statement! {
    /// Its present progress.
    struct SetPlanning {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        planning: Json as Jsonb,
    } -> (),
    "UPDATE bulk_delete SET planning = {planning} WHERE realm_id = {realm} AND id = {task}"
}

fn set_plan(
    connection: &mut PgConnection,
    claim: &ClaimedSlice,
    plan: Plan,
    lease: Duration,
) -> Step<()> {
    let Plan { selected, slices } = plan;
    let statement = SetPlan {
        realm: claim.realm.id(),
        task: claim.task_id,
        token: claim.token,
        lease: lease.as_secs_f64(),
        selected,
        parts: slices.iter().map(|slice| slice.part.clone()).collect(),
        starts: slices.iter().map(|slice| slice.after.clone()).collect(),
        ends: slices.into_iter().map(|slice| slice.until).collect(),
        channel: listen::CHANNEL,
        topic: TOPIC,
    };
    let planned: Option<(bool,)> = statement.get_result(connection).optional()?;
    planned.map(drop).ok_or(Undone::LeaseLost)
}

statement! {
    /// The count, the range of the first slice, the slices after it, and a wake-up of the workers that may take those up.
    struct SetPlan<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        token: i64 as BigInt,
        lease: f64 as Double,
        selected: i64 as BigInt,
        parts: Vec<Option<String>> as Array<Nullable<Text>>,
        starts: Vec<String> as Array<Text>,
        ends: Vec<String> as Array<Text>,
        channel: &'a str as Text,
        topic: &'a str as Text,
    } -> (Bool,),
    "WITH first AS (
        UPDATE bulk_delete_slice s
        SET part = ({parts}::text[])[1], cursor_id = ({starts}::text[])[1], until_id = ({ends}::text[])[1],
            due_at = clock_timestamp() + make_interval(secs => {lease})
        WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task} AND s.slice = 0 AND s.lease_token = {token}
        RETURNING s.slice
     ),
     others AS (
        INSERT INTO bulk_delete_slice (realm_id, bulk_delete_id, slice, part, cursor_id, until_id)
        SELECT {realm}, {task}, c.n - 1, ({parts}::text[])[c.n], c.start, ({ends}::text[])[c.n]
        FROM unnest({starts}) WITH ORDINALITY AS c(start, n), first
        WHERE c.n > 1
        RETURNING slice
     ),
     woken AS (SELECT pg_notify({channel}, {topic}) FROM others LIMIT 1)
     UPDATE bulk_delete b
     SET selected = {selected}, planning = NULL
     FROM first
     WHERE b.realm_id = {realm} AND b.id = {task} AND (SELECT count(*) FROM woken) >= 0
     RETURNING true"
}
