//! How far a reader is. Pure.
//!
//! Neither the transaction's id nor `seq` alone orders events as a reader needs it. A transaction that began early may commit late, so a
//! reader that goes by a number steps over what is still to come; and a transaction with an early id may wait for a row that one with a later
//! id changes, so the id does not order the changes of one entity. `seq` does, for it is drawn while the row is locked. So a reader goes from
//! snapshot to snapshot, and in the order of `seq` between two.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Which transactions had ended at one moment, as `pg_snapshot` writes it, and when that was. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, i64)", into = "(String, i64)")]
pub struct Snapshot {
    text: Arc<str>,
    taken_at: i64,
}

impl Snapshot {
    /// A snapshot in the text form of `pg_snapshot`, taken at this time.
    pub fn new(text: &str, taken_at: DateTime<Utc>) -> Self {
        Snapshot { text: text.into(), taken_at: taken_at.timestamp() }
    }

    /// The snapshot that sees nothing.
    fn empty() -> Self {
        Snapshot { text: "1:1:".into(), taken_at: 0 }
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<(String, i64)> for Snapshot {
    fn from((text, taken_at): (String, i64)) -> Self {
        Snapshot { text: text.into(), taken_at }
    }
}

impl From<Snapshot> for (String, i64) {
    fn from(snapshot: Snapshot) -> Self {
        (snapshot.text.as_ref().to_owned(), snapshot.taken_at)
    }
}

/// How the rows of a batch are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// By their transactions: there are few.
    Tail,
    /// By walking all rows in the order of `seq`: most of them are new.
    Walk,
}

/// A batch under way: what one snapshot sees and the one before did not, in the order of `seq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    /// What the batch reaches up to.
    pub until: Snapshot,
    /// How its rows are found.
    pub way: Way,
    /// The lowest `seq` that is still to be delivered.
    pub from: i64,
    /// How many subjects of the row with just this `seq` were delivered.
    pub skip: u32,
}

/// How far a reader is: everything that `seen` sees was delivered, and of the batch under way what stands before its place.
///
/// A cursor stays good for as long as events are kept, on every replica. What was delivered before it never comes again, and nothing that
/// comes to light later stands before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    seen: Snapshot,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch: Option<UnderWay>,
}

impl Cursor {
    /// Before everything that is kept.
    pub fn beginning() -> Self {
        Cursor::behind(Snapshot::empty())
    }

    /// Behind everything that a snapshot sees.
    pub fn behind(seen: Snapshot) -> Self {
        Cursor { seen, batch: None }
    }

    /// What was delivered before the batch under way.
    pub fn seen(&self) -> &Snapshot {
        &self.seen
    }

    /// The batch under way.
    pub fn batch(&self) -> Option<&UnderWay> {
        self.batch.as_ref()
    }

    /// Whether nothing was delivered yet.
    pub fn is_beginning(&self) -> bool {
        self.seen.taken_at == 0
    }

    /// Whether events that come behind this cursor may have been dropped, since they are kept for `keep` only. The beginning never expires.
    pub fn is_expired(&self, now: DateTime<Utc>, keep: TimeDelta) -> bool {
        let latest = self.batch.as_ref().map_or(&self.seen, |batch| &batch.until);
        latest.taken_at != 0 && now.timestamp() - latest.taken_at >= keep.num_seconds()
    }

    /// Begins a batch up to a snapshot, whose lowest `seq` is at least `from`.
    pub(super) fn open(&self, until: Snapshot, way: Way, from: i64) -> Self {
        Cursor { seen: self.seen.clone(), batch: Some(UnderWay { until, way, from, skip: 0 }) }
    }

    /// Ends the batch under way: everything up to its snapshot was delivered.
    pub(super) fn close(&self) -> Self {
        Cursor::behind(self.batch.as_ref().map_or_else(|| self.seen.clone(), |batch| batch.until.clone()))
    }

    /// Goes on in the batch under way: behind the first `subjects` of the row with this `seq`, which has `of`.
    pub(super) fn advance(&self, seq: i64, subjects: usize, of: usize) -> Self {
        let (from, skip) = if subjects < of { (seq, u32::try_from(subjects).unwrap_or(u32::MAX)) } else { (seq + 1, 0) };
        let batch = self.batch.clone().map(|batch| UnderWay { from, skip, ..batch });
        Cursor { seen: self.seen.clone(), batch }
    }

    /// How many subjects of the row with this `seq` were delivered.
    pub(super) fn delivered(&self, seq: i64) -> usize {
        self.batch.as_ref().filter(|batch| batch.from == seq).map_or(0, |batch| batch.skip as usize)
    }
}
