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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(days: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(days)
    }

    fn under_way(from: i64) -> Cursor {
        Cursor::beginning().open(Snapshot::new("5:9:6,7", at(1)), Way::Walk, from)
    }

    #[test]
    fn the_end_of_a_row_is_the_start_of_the_next() {
        let cursor = under_way(3);
        assert_eq!(cursor.advance(7, 1, 1).batch().map(|batch| (batch.from, batch.skip)), Some((8, 0)));
        assert_eq!(cursor.advance(7, 4, 5).batch().map(|batch| (batch.from, batch.skip)), Some((7, 4)));
        assert_eq!(cursor.advance(7, 4, 5).delivered(7), 4);
        assert_eq!(cursor.advance(7, 4, 5).delivered(8), 0, "if the row is gone, nothing of the next was delivered");
    }

    #[test]
    fn a_batch_that_ends_is_seen() {
        let closed = under_way(3).advance(7, 1, 2).close();
        assert_eq!((closed.seen().as_str(), closed.batch()), ("5:9:6,7", None));
        assert_eq!(closed.close(), closed);
        assert!(Cursor::beginning().is_beginning() && !closed.is_beginning());
    }

    #[test]
    fn a_cursor_lasts_as_long_as_events_are_kept() {
        let keep = TimeDelta::days(30);
        let closed = under_way(3).close();
        assert!(!closed.is_expired(at(30), keep) && closed.is_expired(at(31), keep));
        assert!(!Cursor::beginning().is_expired(at(1000), keep));
        // A batch that began lately is still being read, however old what it follows is.
        let going_on = closed.open(Snapshot::new("9:9:", at(60)), Way::Tail, 1);
        assert!(!going_on.is_expired(at(61), keep) && going_on.is_expired(at(90), keep));
    }

    proptest! {
        #[test]
        fn a_cursor_survives_being_written_down(from in 0i64.., subjects in 0usize..9, of in 1usize..9, opened in any::<bool>()) {
            let cursor = if opened { under_way(from).advance(from / 2, subjects, of) } else { under_way(from).close() };
            let text = serde_json::to_string(&cursor).unwrap();
            prop_assert_eq!(serde_json::from_str::<Cursor>(&text).unwrap(), cursor);
        }

        /// Rows are cut anywhere, again and again: each subject is delivered once, in order.
        #[test]
        fn going_on_from_any_cursor_delivers_the_rest(sizes in prop::collection::vec(1usize..5, 1..8), cuts in prop::collection::vec(1usize..4, 1..40)) {
            let all: Vec<(i64, usize)> =
                sizes.iter().enumerate().flat_map(|(seq, size)| (0..*size).map(move |subject| (seq as i64, subject))).collect();
            let (mut cursor, mut delivered) = (under_way(0), Vec::new());
            for cut in cuts {
                let from = cursor.batch().map_or(0, |batch| batch.from);
                let rest = all.iter().filter(|(seq, subject)| *seq >= from && *subject >= cursor.delivered(*seq));
                for (seq, subject) in rest.copied().take(cut).collect::<Vec<_>>() {
                    delivered.push((seq, subject));
                    cursor = cursor.advance(seq, subject + 1, sizes[seq as usize]);
                }
            }
            prop_assert_eq!(&delivered[..], &all[..delivered.len()]);
        }
    }
}
