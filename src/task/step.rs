//! One step of a worker along a slice: a chunk of any kind of work, in a transaction that has locked the slice and knows that its lease is
//! valid.

use std::time::{Duration, Instant};

use diesel::Connection;
use diesel::pg::PgConnection;

use crate::db::{Fail, Fault, fault, is_refusal};
use crate::error::one_line;
use crate::task::caution::Caution;
use crate::task::model::Reason;
use crate::task::work::{ClaimedSlice, ID_END, Locked, Moved, Span, Step, TaskWork, Undone};
use crate::task::{control_queries, slice_queries};

/// So many objects that the database refuses are logged one by one, and then ever fewer of them.
const LOGGED: u64 = 100;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// A chunk is done.
    Moved(Moved),
    /// Nothing was done: the task has a pace, and nothing was reserved.
    Limited,
    /// Nothing was done: the task is to pause or to stop, or is over.
    Halt,
}

/// How large a step may be.
#[derive(Clone, Copy, Debug)]
pub struct StepSize {
    /// It takes up at most so many objects.
    pub limit: i64,
    /// It reads about so many, if that is limited.
    pub read_limit: Option<i64>,
    /// True if that many were reserved, where a task has a pace.
    pub reserved: bool,
    /// For how long the slice is to be leased from now on.
    pub lease: Duration,
    /// How long each statement of a chunk may take.
    pub time: Duration,
    /// How long a chunk may wait for what others have locked before it unlocks all that it has locked itself.
    pub lock_wait: Duration,
    /// For how long that is tried again before the step leaves locked objects to a later one.
    pub patience: Duration,
    /// How large it would be without caution.
    pub full: i64,
}

/// Does the next chunk in a transaction of its own. If something is locked it retries with less, until the chunk ends before that or waits
/// for nothing else; an object that stays locked costs itself and not the chunk. So does one that the database refuses to change: the chunk
/// retries with half as many until that is found, and with few after it.
pub fn step(
    connection: &mut PgConnection,
    work: &dyn TaskWork,
    claim: &ClaimedSlice,
    size: StepSize,
    caution: &mut Caution,
) -> Step<StepEnd> {
    let until = Instant::now() + size.patience;
    let (mut limit, mut locked) = (caution.limit(size.limit), Locked::Await);
    loop {
        let chunk = StepSize { limit, ..size };
        let outcome = connection
            .transaction(|connection| attempt(connection, work, claim, chunk, locked, caution));
        let Err(Undone::Failed(Fail::Database(error))) = &outcome else { return outcome };
        match (fault(error), locked) {
            (Fault::Locked, Locked::Await) if Instant::now() < until => limit = (limit / 2).max(1),
            (Fault::Locked | Fault::Duplicate, Locked::Await) => {
                locked = Locked::CountAsFailed;
                limit = caution.limit(size.limit);
            }
            // The object that was tried alone was counted; so it is the statement that fails, whatever the object.
            _ if refusal(error, locked).is_none() || caution.is_alone() => return outcome,
            _ => {
                caution.chunk_refused(limit);
                limit = caution.limit(size.limit);
                slice_queries::renew(connection, claim, size.lease)?;
            }
        }
    }
}

/// Why an object is counted as failed at which a chunk failed so; none if it is not a fault of any object's.
fn refusal(error: &diesel::result::Error, locked: Locked) -> Option<Reason> {
    match fault(error) {
        // A lock that is not a row's: where those are locked they were passed.
        Fault::Locked if locked == Locked::CountAsFailed => Some(Reason::Locked),
        _ => is_refusal(error).then_some(Reason::Refused),
    }
}

/// The slice's row stays locked, so that nobody takes it over meanwhile.
fn attempt(
    connection: &mut PgConnection,
    work: &dyn TaskWork,
    claim: &ClaimedSlice,
    size: StepSize,
    locked: Locked,
    caution: &mut Caution,
) -> Step<StepEnd> {
    let slice = slice_queries::lock(connection, claim, size.lease, size.lock_wait, size.time)?;
    if !slice.state.is_at_work() {
        return Ok(StepEnd::Halt);
    }
    if slice.max_objects_per_second.is_some() && !size.reserved {
        return Ok(StepEnd::Limited);
    }
    let limit = slice.max_objects_per_second.map_or(size.limit, |most| size.limit.min(most.into()));
    let until = slice.until.as_deref().unwrap_or(ID_END);
    let (cursor, read_limit, lease) = (&slice.cursor, size.read_limit, size.lease);
    let span = Span { cursor, until, limit, read_limit, lease, locked, only: None, refused: None };
    let mut after = *caution;
    let moved = if after.is_alone() {
        one(connection, work, claim, &span, &mut after)?
    } else {
        work.chunk(connection, claim, &span)?
    };
    if let Some(cap) = slice.cap {
        control_queries::hold_to_cap(connection, &claim.realm, claim.task_id, cap)?;
    }
    if moved.done {
        control_queries::complete(connection, &claim.realm, claim.task_id)?;
    }
    if after == *caution {
        after.moved(moved.met, size.full);
    }
    *caution = after;
    Ok(StepEnd::Moved(moved))
}

/// Takes up the next object alone; one that the database refuses to change is counted as failed, and logged.
fn one(
    connection: &mut PgConnection,
    work: &dyn TaskWork,
    claim: &ClaimedSlice,
    span: &Span<'_>,
    caution: &mut Caution,
) -> Step<Moved> {
    let next = work.next(connection, claim, span)?;
    let span = Span { limit: 1, only: next.as_deref(), ..*span };
    let outcome = connection.transaction(|connection| work.chunk(connection, claim, &span));
    let Err(Undone::Failed(Fail::Database(error))) = &outcome else { return outcome };
    let Some(reason) = refusal(error, span.locked) else { return outcome };
    let moved = work.chunk(connection, claim, &Span { refused: Some(reason), ..span })?;
    let (count, cause) = (caution.object_refused(), one_line(&error.to_string()));
    if count <= LOGGED || count.is_power_of_two() {
        tracing::warn!(task = %claim.task_id, object = next, %reason, cause, count, "the database refuses to have an object changed");
    }
    Ok(moved)
}
