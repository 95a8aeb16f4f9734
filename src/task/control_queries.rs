//! The SQL of a task's moves from state to state. Each is one statement with its event, in a transaction that has locked the task.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::access::{Caller, Scope};
use crate::db::{Realm, Work, listen, statement};
use crate::error::{Error, Result};
use crate::task::model::{DeleteMode, TOPIC, cap_exceeded};
use crate::task::state::{TaskAction, TaskState};
use crate::task::turn_queries::{self, ReadySlices};

/// Pauses, resumes or stops a task, and returns its state after that. If no worker has a slice of it, it pauses or stops at once. None if
/// there is no such task; `invalid_state_transition` if its state does not allow it; `permission_denied` for a caller who may not delete
/// for good and would resume such a delete. Call it in a transaction.
pub fn apply(
    connection: &mut PgConnection,
    caller: &Caller,
    task: Uuid,
    action: TaskAction,
) -> Work<Option<TaskState>> {
    let realm = &caller.realm;
    let Some((state, mode)) = lock(connection, realm, task)? else { return Ok(None) };
    let to = state.transition(action)?;
    if action == TaskAction::Resume {
        may_go_on(caller, mode)?;
    }
    if to == state {
        return Ok(Some(state));
    }
    change(
        connection,
        realm,
        task,
        Move { from: state, to, by: Some(caller.principal_id), error: None },
    )?;
    if action == TaskAction::Resume {
        Wake { channel: listen::CHANNEL, topic: TOPIC }.execute(connection)?;
    }
    settle(connection, realm, task, None).map(Some)
}

/// Returns whether workers are to continue with a task: not if it is to pause or to stop, or is over.
pub fn is_at_work(connection: &mut PgConnection, realm: &Realm, task: Uuid) -> Work<bool> {
    let state: Option<(TaskState,)> =
        ReadState { realm: realm.id(), task }.get_result(connection).optional()?;
    Ok(state.is_some_and(|(state,)| state.is_at_work()))
}

statement! {
    /// The task's state, as it is now.
    struct ReadState {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (Text,),
    "SELECT b.status FROM bulk_delete b WHERE b.realm_id = {realm} AND b.id = {task}"
}

/// Changes the pace of a task. None if there is no such task; `invalid_state_transition` if it has ended. Call it in a transaction.
pub fn set_pace(
    connection: &mut PgConnection,
    caller: &Caller,
    task: Uuid,
    most: Option<i32>,
) -> Work<Option<()>> {
    let Some((state, mode)) = lock(connection, &caller.realm, task)? else { return Ok(None) };
    state.transition(TaskAction::Update)?;
    may_go_on(caller, mode)?;
    SetPace { realm: caller.realm.id(), task, most, principal: caller.principal_id }
        .execute(connection)?;
    Ok(Some(()))
}

/// Halting a task takes less than having it continue.
fn may_go_on(caller: &Caller, mode: Option<DeleteMode>) -> Result<()> {
    if mode == Some(DeleteMode::Hard) { caller.require(Scope::EntitiesDeleteHard) } else { Ok(()) }
}

/// Moves a task without workers to its next state: paused or stopped if that was asked for, else by `unless_halted`, if it was at work.
/// Returns the state. Call it in a transaction; of two workers that give back the last two slices at once, the later one to lock the task
/// sees both.
pub fn settle(
    connection: &mut PgConnection,
    realm: &Realm,
    task: Uuid,
    unless_halted: Option<TaskAction>,
) -> Work<TaskState> {
    let (state, _) = lock(connection, realm, task)?
        .ok_or_else(|| Error::internal("a task was removed while it was at work"))?;
    let action = match state {
        TaskState::Pausing => TaskAction::Paused,
        TaskState::Canceling => TaskAction::Stopped,
        TaskState::Processing => match unless_halted {
            Some(action) => action,
            None => return Ok(state),
        },
        _ => return Ok(state),
    };
    if survey(connection, realm, task)?.leased {
        return Ok(state);
    }
    let to = state.transition(action)?;
    change(connection, realm, task, Move { from: state, to, by: None, error: None })?;
    Ok(to)
}

/// Ends a task whose slices are all done, in the transaction that did the last. Of two workers that do the last two slices at once, the
/// later one to lock the task sees both.
pub fn complete(connection: &mut PgConnection, realm: &Realm, task: Uuid) -> Work<()> {
    let Some((state, _)) = lock(connection, realm, task)? else { return Ok(()) };
    let Survey { open, failed, .. } = survey(connection, realm, task)?;
    let end = if failed == 0 { TaskAction::Complete } else { TaskAction::CompleteWithErrors };
    match state.after(end) {
        Some(to) if !open => {
            change(connection, realm, task, Move { from: state, to, by: None, error: None })
        }
        _ => {
            // Where nobody else waits, it continues at once.
            let others = turn_queries::is_any_ready(connection, realm, task, ReadySlices::Any)?;
            settle(connection, realm, task, others.then_some(TaskAction::Wait)).map(drop)
        }
    }
}

/// Checks a task against how many objects it may take up, in the transaction of the chunk that took up the last of them: `count_mismatch`
/// where they are more. Those that were skipped do not count.
pub fn hold_to_cap(connection: &mut PgConnection, realm: &Realm, task: Uuid, cap: i64) -> Work<()> {
    // Each of two workers that do a chunk at once sees that of the other, or is seen by it.
    lock(connection, realm, task)?;
    let (taken_up,): (i64,) = TakenUp { realm: realm.id(), task }.get_result(connection)?;
    if taken_up > cap { Err(cap_exceeded(cap).into()) } else { Ok(()) }
}

statement! {
    /// How many objects a task has read that existed.
    struct TakenUp {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (BigInt,),
    "SELECT sum(s.matched - s.skipped)::int8 FROM bulk_delete_slice s WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task}"
}

/// Ends a task that cannot continue, unless it is to pause or to stop: then it does that. Chunks that other workers have in hand come
/// first. Call it in a transaction.
pub fn fail(
    connection: &mut PgConnection,
    realm: &Realm,
    task: Uuid,
    code: &str,
    message: &str,
) -> Work<()> {
    let Some((state, _)) = lock(connection, realm, task)? else { return Ok(()) };
    match state.after(TaskAction::Fail) {
        Some(to) => change(
            connection,
            realm,
            task,
            Move { from: state, to, by: None, error: Some((code, message)) },
        ),
        None => settle(connection, realm, task, None).map(drop),
    }
}

/// The state of the task, which stays so until the transaction ends, and its mode, if it deletes.
fn lock(
    connection: &mut PgConnection,
    realm: &Realm,
    task: Uuid,
) -> Work<Option<(TaskState, Option<DeleteMode>)>> {
    Ok(LockTask { realm: realm.id(), task }.get_result(connection).optional()?)
}

statement! {
    /// The task's state and mode.
    struct LockTask {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (Text, Nullable<Text>),
    "SELECT b.status, b.mode FROM bulk_delete b WHERE b.realm_id = {realm} AND b.id = {task} FOR NO KEY UPDATE"
}

/// The slices of a task, at a glance.
#[derive(diesel::Queryable)]
struct Survey {
    open: bool,
    leased: bool,
    failed: i64,
}

fn survey(connection: &mut PgConnection, realm: &Realm, task: Uuid) -> Work<Survey> {
    Ok(SurveySlices { realm: realm.id(), task }.get_result(connection)?)
}

statement! {
    /// True if slices are open, whether workers have any of those, and how many objects failed or were found and not repaired. A lease that
    /// ran out counts until the slice is freed of it.
    struct SurveySlices {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (Bool, Bool, BigInt),
    "SELECT bool_or(NOT s.done), bool_or(NOT s.done AND s.lease_owner IS NOT NULL),
            sum(s.failed)::int8 + (SELECT COALESCE(sum(c.found - c.mended), 0)::int8
                                   FROM bulk_delete_finding_count c
                                   WHERE c.realm_id = {realm} AND c.bulk_delete_id = {task})
     FROM bulk_delete_slice s
     WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task}"
}

struct Move<'a> {
    from: TaskState,
    to: TaskState,
    by: Option<Uuid>,
    error: Option<(&'a str, &'a str)>,
}

fn change(connection: &mut PgConnection, realm: &Realm, task: Uuid, step: Move<'_>) -> Work<()> {
    let Move { from, to, by, error } = step;
    let statement = Change {
        realm: realm.id(),
        task,
        from: from.as_str(),
        to: to.as_str(),
        ended: to.is_ended(),
        working: to.may_hold_slices(),
        by,
        code: error.map(|(code, _)| code),
        message: error.map(|(_, message)| message),
    };
    let _: (bool,) = statement.get_result(connection)?;
    Ok(())
}

statement! {
    /// A task in another state, with its event. It is at work while workers may have slices of it.
    struct Change<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        from: &'a str as Text,
        to: &'a str as Text,
        ended: bool as Bool,
        working: bool as Bool,
        by: Option<Uuid> as Nullable<SqlUuid>,
        code: Option<&'a str> as Nullable<Text>,
        message: Option<&'a str> as Nullable<Text>,
    } -> (Bool,),
    "WITH changed AS (
        UPDATE bulk_delete
        SET status = {to}, updated_by = COALESCE({by}, updated_by), error_code = {code}, error_message = {message},
            paused_at = CASE WHEN {to} = 'paused' THEN clock_timestamp() END,
            ended_at = CASE WHEN {ended} THEN clock_timestamp() END,
            worked = CASE WHEN {working} THEN worked ELSE worked + COALESCE(greatest(clock_timestamp() - working_since, '0'), '0') END,
            working_since = CASE WHEN {working} THEN COALESCE(working_since, clock_timestamp()) END
        WHERE realm_id = {realm} AND id = {task} AND status = {from}
        RETURNING id, status, principal_id
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {realm},
               CASE WHEN {ended} THEN 'bulk_delete.ended'
                    WHEN c.status = 'pausing' THEN 'bulk_delete.pausing'
                    WHEN c.status = 'paused' THEN 'bulk_delete.paused'
                    WHEN c.status = 'canceling' THEN 'bulk_delete.canceling'
                    WHEN c.status = 'waiting_for_resource' THEN 'bulk_delete.waiting'
                    WHEN c.status = 'scheduled_poll' THEN 'bulk_delete.lost'
                    ELSE 'bulk_delete.resumed' END,
               ARRAY[c.id::text], COALESCE({by}, c.principal_id), jsonb_build_object('status', c.status)
        FROM changed c
     )
     SELECT true FROM changed"
}

statement! {
    /// Another pace, with its event.
    struct SetPace {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        most: Option<i32> as Nullable<Integer>,
        principal: Uuid as SqlUuid,
    } -> (),
    "WITH changed AS (
        UPDATE bulk_delete
        SET max_objects_per_second = {most}, updated_by = {principal}
        WHERE realm_id = {realm} AND id = {task} AND max_objects_per_second IS DISTINCT FROM {most}
        RETURNING id, max_objects_per_second
     )
     INSERT INTO event (realm_id, type, subjects, principal_id, data)
     SELECT {realm}, 'bulk_delete.updated', ARRAY[c.id::text], {principal},
            jsonb_build_object('max_objects_per_second', c.max_objects_per_second)
     FROM changed c"
}

statement! {
    /// A word to the workers.
    struct Wake<'a> {
        channel: &'a str as Text,
        topic: &'a str as Text,
    } -> (Text,),
    "SELECT pg_notify({channel}, {topic})::text"
}
