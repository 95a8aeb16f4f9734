//! What the tasks of one kind do. All the rest is the same for every kind: leases, slices, pace, turns, pausing and stopping, progress.

use std::sync::Arc;
use std::time::Duration;

use diesel::pg::PgConnection;

use crate::bulk_delete::chunk::Chunks;
use crate::bulk_delete::consistency::{Check, Part};
use crate::bulk_delete::model::{Kind, Reason, parse_filter};
use crate::bulk_delete::planning::Planning;
use crate::bulk_delete::selector::{Locked, Selector};
use crate::bulk_delete::task_queries::Claimed;
use crate::db::Work;
use crate::error::{Error, Result};

/// What is done for a task of one kind. A worker makes one for each slice that it takes up.
pub trait TaskWork: Send + Sync {
    /// Finds out how much there is to do, and cuts it into slices. Called in a transaction, which holds the task's first slice, before anything
    /// else is done. Where a statement of it runs out of time the task is planned in steps.
    fn plan(&self, connection: &mut PgConnection, claim: &Claimed) -> Work<Plan>;

    /// Where planning in steps begins.
    fn planning(&self, claim: &Claimed) -> Planning;

    /// Does the next step of planning, in a transaction of its own that is like that of [`TaskWork::plan`]; none if there is more to come.
    fn plan_on(&self, connection: &mut PgConnection, claim: &Claimed, planning: &mut Planning) -> Work<Option<Plan>>;

    /// Does the next chunk, moves the slice's cursor behind it and counts what it met. Called in a transaction, which holds the slice and has
    /// made sure of its lease. Whatever cannot be done in one statement moves the slice by [`super::slice_queries::advance`].
    fn chunk(&self, connection: &mut PgConnection, claim: &Claimed, span: &Span<'_>) -> Work<Moved>;

    /// The key of the object that the next chunk would take up first, whether or not it can be done; none where there is none, or where this
    /// kind of work cannot tell.
    fn next(&self, _connection: &mut PgConnection, _claim: &Claimed, _span: &Span<'_>) -> Work<Option<String>> {
        Ok(None)
    }

    /// A chunk is committed.
    fn committed(&self, _moved: Moved) {}
}

/// The kinds of tasks that this version has workers for.
pub fn known_kinds() -> Vec<&'static str> {
    Kind::ALL.iter().map(|kind| kind.as_str()).collect()
}

/// The parts of tasks that this version has workers for.
pub fn known_parts() -> Vec<&'static str> {
    Part::ALL.iter().map(|part| part.as_str()).collect()
}

/// The work of a claimed slice, which is of a kind and a part that are known.
pub fn work_of(claim: &Claimed) -> Result<Arc<dyn TaskWork>> {
    match (claim.kind, claim.mode) {
        (Kind::Delete, Some(mode)) => {
            let filter = claim.filter.clone().map(|filter| parse_filter(filter, "filter")).transpose()?.map(|(_, filter)| filter);
            Ok(Arc::new(Chunks::new(Selector::new(mode, claim.listed, filter.as_ref(), claim.entity_type.as_deref(), claim.bound))))
        }
        (Kind::CheckConsistency, None) => Ok(Arc::new(Check::of(claim)?)),
        (kind, _) => Err(Error::internal(format!("this version has no worker for `{kind}`"))),
    }
}

/// How much there is to do, and in which slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many objects the task will meet, as far as one can know.
    pub selected: i64,
    /// At least one. Workers take them up in this order.
    pub slices: Vec<Range>,
}

/// The keys of a slice: behind `after`, up to and with `until`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// What of the task it is, where its keys are not those of entities.
    pub part: Option<String>,
    /// The key before the first; the empty one is before all.
    pub after: String,
    /// The last key; [`super::selector::ID_END`] is behind all.
    pub until: String,
}

/// Where a chunk begins and how far it may go.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// It begins behind this key.
    pub cursor: &'a str,
    /// It goes no further than this key.
    pub until: &'a str,
    /// It takes up at most so many objects.
    pub limit: i64,
    /// It looks at about so many, where it looks at more than it takes up; at as many as it takes if there is no number.
    pub reach: Option<i64>,
    /// For how long the slice is to be held from now on.
    pub lease: Duration,
    /// What to do about rows that others have locked.
    pub locked: Locked,
    /// The one object that it takes up, if that is not for it to find out.
    pub only: Option<&'a str>,
    /// Why nothing can be done to what it takes up, if that was tried: it is counted as failed for this reason.
    pub refused: Option<Reason>,
}

/// What a chunk came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// How many objects it met.
    pub met: i64,
    /// How many of them were processed.
    pub processed: i64,
    /// Whether the slice is done.
    pub done: bool,
    /// Whether it ended because it had looked at as many as it may.
    pub reached: bool,
}
