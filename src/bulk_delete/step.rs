//! One step of a worker along a slice: a chunk of any kind of work, in a transaction that holds the slice and knows that its lease holds.

use std::time::{Duration, Instant};

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
    /// How long a chunk may wait for what others have locked before it lets go of all that it has locked itself.
    pub lock_wait: Duration,
    /// For how long that is tried again before the step leaves to others what they have locked.
    pub patience: Duration,
}

/// Does the next chunk in a transaction of its own. Where something is locked it comes back with less, until the chunk ends before that or waits
/// for nothing else; an object that stays locked costs itself and not the chunk.
pub fn step(connection: &mut PgConnection, work: &dyn TaskWork, claim: &Claimed, stride: Stride) -> Work<Progress> {
    let until = Instant::now() + stride.patience;
    let mut limit = stride.limit;
    loop {
        let outcome = connection.transaction(|connection| attempt(connection, work, claim, Stride { limit, ..stride }, Locked::Await));
        let Err(Fail::Database(error)) = &outcome else { return outcome };
        match fault(error) {
            Fault::Locked if Instant::now() < until => limit = (limit / 2).max(1),
            Fault::Locked | Fault::Duplicate => {
                return connection.transaction(|connection| attempt(connection, work, claim, stride, Locked::Pass));
            }
            _ => return outcome,
        }
    }
}

/// The slice's row stays locked, so that nobody takes it over meanwhile.
fn attempt(connection: &mut PgConnection, work: &dyn TaskWork, claim: &Claimed, stride: Stride, locked: Locked) -> Work<Progress> {
    let held = slice_queries::hold(connection, claim, stride.lease, stride.lock_wait)?.ok_or_else(lease_lost)?;
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
    if let Some(cap) = held.cap {
        control_queries::hold_to_cap(connection, &claim.realm, claim.task_id, cap)?;
    }
    if moved.done {
        control_queries::complete(connection, &claim.realm, claim.task_id)?;
    }
    Ok(Progress::Moved(moved))
}
