//! The interface between the engine and a kind of work: its input and its results. The engine does the rest, which is the same for every
//! kind: leases, slices, pace, turns, pausing and stopping, progress.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use uuid::Uuid;

use crate::db::{Fail, Realm, Work};
use crate::error::{Error, Result};
use crate::task::model::{DeleteMode, Reason, TaskKind};
use crate::task::planning::Planning;

/// Sorts behind every id: ids are of ASCII up to `~`.
pub const ID_END: &str = "\u{7f}";

/// A kind of work that this version has workers for.
#[derive(Clone, Copy, Debug)]
pub struct WorkKind {
    /// The kind of its tasks.
    pub kind: TaskKind,
    /// The part of the task that its slices walk, if their keys are not those of entities.
    pub parts: &'static [&'static str],
    /// The work on one slice.
    pub of: fn(&ClaimedSlice) -> Result<Arc<dyn TaskWork>>,
}

/// Every kind of work that this version has workers for. Tasks of others are left to the workers of a later one.
#[derive(Clone, Copy, Debug)]
pub struct Works(pub &'static [WorkKind]);

impl Works {
    /// Their kinds.
    pub fn kinds(self) -> Vec<&'static str> {
        self.0.iter().map(|work| work.kind.as_str()).collect()
    }

    /// The parts of all.
    pub fn parts(self) -> Vec<&'static str> {
        self.0.iter().flat_map(|work| work.parts).copied().collect()
    }

    /// The work on a slice, with its kind and part.
    pub fn of(self, claim: &ClaimedSlice) -> Result<Arc<dyn TaskWork>> {
        let work = self.0.iter().find(|work| work.kind == claim.kind);
        work.map_or_else(
            || Err(Error::internal(format!("this version has no worker for `{}`", claim.kind))),
            |work| (work.of)(claim),
        )
    }
}

/// Why a step of work on a slice was not done. Whatever it did is rolled back.
#[derive(Debug)]
pub enum Undone {
    /// The slice is another worker's.
    LeaseLost,
    /// The database failed, or the work came to an end.
    Failed(Fail),
}

impl<F: Into<Fail>> From<F> for Undone {
    fn from(fail: F) -> Self {
        Undone::Failed(fail.into())
    }
}

/// The result of a step of work on a slice.
pub type Step<T> = std::result::Result<T, Undone>;

/// The work of one kind of task. A worker makes one for each slice that it takes up.
pub trait TaskWork: Send + Sync {
    /// Finds out how much there is to do, and cuts it into slices. Called in a transaction, which has locked the task's first slice, before anything
    /// else is done. Where a statement of it runs out of time the task is planned in steps.
    fn plan(&self, connection: &mut PgConnection, claim: &ClaimedSlice) -> Work<Plan>;

    /// Where planning in steps begins.
    fn planning(&self, claim: &ClaimedSlice) -> Planning;

    /// Does the next step of planning, in a transaction of its own that is like that of [`TaskWork::plan`]; none if there is more to come.
    fn plan_on(
        &self,
        connection: &mut PgConnection,
        claim: &ClaimedSlice,
        planning: &mut Planning,
    ) -> Work<Option<Plan>>;

    /// Does the next chunk, moves the slice's cursor past it and counts the objects it read. Called in a transaction that has locked the
    /// slice and checked its lease. Work that needs several statements moves the slice by [`super::slice_queries::advance`].
    fn chunk(
        &self,
        connection: &mut PgConnection,
        claim: &ClaimedSlice,
        span: &Span<'_>,
    ) -> Step<Moved>;

    /// The key of the object that the next chunk would take up first, whether or not it can be done; none where there is none, or where
    /// this kind of work cannot find it.
    fn next(
        &self,
        _connection: &mut PgConnection,
        _claim: &ClaimedSlice,
        _span: &Span<'_>,
    ) -> Work<Option<String>> {
        Ok(None)
    }

    /// A chunk is committed.
    fn committed(&self, _moved: Moved) {}
}

/// A slice that this worker has the lease of, and its task.
#[derive(Clone, Debug)]
pub struct ClaimedSlice {
    /// The realm.
    pub realm: Realm,
    /// The task.
    pub task_id: Uuid,
    /// The slice.
    pub slice: i32,
    /// Fences the lease.
    pub token: i64,
    /// How often it was tried since it last moved.
    pub attempts: i32,
    /// The part of the task that it walks, if its keys are not those of entities.
    pub part: Option<String>,
    /// The kind of the task.
    pub kind: TaskKind,
    /// How thoroughly to delete, where it deletes.
    pub mode: Option<DeleteMode>,
    /// True if to repair what a check finds.
    pub fix: bool,
    /// The task's filter.
    pub filter: Option<String>,
    /// The task's type.
    pub entity_type: Option<String>,
    /// True if the task has a list instead.
    pub listed: bool,
    /// True if it is to be found out before anything is deleted if every attribute of the filter is there.
    pub check_attributes: bool,
    /// True if the task was planned.
    pub planned: bool,
    /// When the task was asked for.
    pub asked_at: DateTime<Utc>,
    /// Its number in the order of entities and tasks, if it has one: entities with a higher one are not meant.
    pub ordinal: Option<i64>,
    /// True if the task has a pace.
    pub limited: bool,
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
    /// The part of the task that it is, if its keys are not those of entities.
    pub part: Option<String>,
    /// The key before the first; the empty one is before all.
    pub after: String,
    /// The last key; [`ID_END`] is behind all.
    pub until: String,
}

impl Range {
    /// All keys, cut behind each of these.
    pub fn cut(part: Option<&str>, cuts: &[String]) -> Vec<Range> {
        let starts = iter::once("").chain(cuts.iter().map(String::as_str));
        let ends = cuts.iter().map(String::as_str).chain(iter::once(ID_END));
        let range = |(after, until): (&str, &str)| Range {
            part: part.map(str::to_owned),
            after: after.to_owned(),
            until: until.to_owned(),
        };
        starts.zip(ends).map(range).collect()
    }
}

/// Where a chunk begins and how far it may go.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// It begins after this key.
    pub cursor: &'a str,
    /// It reaches no further than this key.
    pub until: &'a str,
    /// It takes up at most so many objects.
    pub limit: i64,
    /// It reads about so many, if it reads more than it takes up; as many as it takes up if there is no number.
    pub read_limit: Option<i64>,
    /// For how long the slice is to be leased from now on.
    pub lease: Duration,
    /// How to treat rows that others have locked.
    pub locked: Locked,
    /// The one object that it takes up, if that is not for it to find out.
    pub only: Option<&'a str>,
    /// Why nothing can be done to its objects, if that was tried: they are counted as failed for this reason.
    pub refused: Option<Reason>,
}

/// The result of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// How many objects it read.
    pub met: i64,
    /// How many of them were processed.
    pub processed: i64,
    /// True if the slice is done.
    pub done: bool,
    /// True if it ended because it had read as many as it may.
    pub reached_limit: bool,
}

/// How to treat entities that others have locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// Wait until they are free, which fails when it takes too long.
    Await,
    /// Leave them, and count them as failed. Also lets pass an incarnation that has a tombstone already.
    CountAsFailed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_cut_without_gap_or_overlap() {
        let ranges = Range::cut(Some("entities"), &["b".to_owned(), "d".to_owned()]);
        let ranges: Vec<_> =
            ranges.iter().map(|range| (range.after.as_str(), range.until.as_str())).collect();
        assert_eq!(ranges, [("", "b"), ("b", "d"), ("d", ID_END)]);
        assert_eq!(
            Range::cut(None, &[]),
            [Range { part: None, after: String::new(), until: ID_END.to_owned() }]
        );
    }
}
