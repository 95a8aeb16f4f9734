//! One step of a worker along a slice: a chunk of any kind of work, in a transaction that holds the slice and knows that its lease holds.

use std::time::Duration;

use diesel::Connection;
use diesel::pg::PgConnection;

use crate::bulk_delete::control_queries;
use crate::bulk_delete::kind::{Moved, Span, TaskWork};
use crate::bulk_delete::selector::{ID_END, Locked};
use crate::bulk_delete::slice_queries::{self, lease_lost};
use crate::bulk_delete::task_queries::Claimed;
use crate::db::{Fail, Fault, Work, fault};

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A chunk is done.
    Moved(Moved),
    /// Nothing was done: the task may go only so fast, and nothing was reserved.
    Limited,
    /// Nothing was done: the task is to pause or to stop, or is over.
    Halt,
}

/// How large a step may be.
#[derive(Clone, Copy, Debug)]
pub struct Stride {
    /// It takes up at most so many objects.
    pub limit: i64,
    /// It looks at about so many, if that is limited.
    pub reach: Option<i64>,
    /// Whether that many were reserved, where a task may go only so fast.
    pub reserved: bool,
    /// For how long the slice is to be held from now on.
    pub lease: Duration,
}

/// Does the next chunk in a transaction of its own. An object that stays locked costs itself and not the chunk.
pub fn step(connection: &mut PgConnection, work: &dyn TaskWork, claim: &Claimed, stride: Stride) -> Work<Progress> {
    match connection.transaction(|connection| attempt(connection, work, claim, stride, Locked::Await)) {
        Err(Fail::Database(error)) if fault(&error) == Fault::Locked => {
            connection.transaction(|connection| attempt(connection, work, claim, stride, Locked::Pass))
        }
        outcome => outcome,
    }
}

/// The slice's row stays locked, so that nobody takes it over meanwhile.
fn attempt(connection: &mut PgConnection, work: &dyn TaskWork, claim: &Claimed, stride: Stride, locked: Locked) -> Work<Progress> {
    let held = slice_queries::hold(connection, claim, stride.lease)?.ok_or_else(lease_lost)?;
    if !held.state.is_at_work() {
        return Ok(Progress::Halt);
    }
    if held.max_objects_per_second.is_some() && !stride.reserved {
        return Ok(Progress::Limited);
    }
    let limit = held.max_objects_per_second.map_or(stride.limit, |most| stride.limit.min(most.into()));
    let until = held.until.as_deref().unwrap_or(ID_END);
    let span = Span { cursor: &held.cursor, until, limit, reach: stride.reach, lease: stride.lease, locked };
    let moved = work.chunk(connection, claim, &span)?;
    if moved.done {
        control_queries::complete(connection, &claim.realm, claim.task_id)?;
    }
    Ok(Progress::Moved(moved))
}
