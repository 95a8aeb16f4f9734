//! How far a reader is, and whether this database is still the one that it read from. Pure.
//!
//! Every committed row of the outbox has a position, and a reader follows positions alone. Positions are those of one history of the
//! database: a restore or a promotion that lacks the last commits gives the same positions again to other rows. So a cursor also names the
//! history that its position is of, and the first bits of the id of the row there.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Code, Error};

/// How far a reader is: everything up to its position was delivered; of the row at the position perhaps only the first subjects.
///
/// A cursor stays valid for as long as the events after it are kept, on every replica. Events before it never come again, and no later
/// event gets a position before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The history of the position; nil before everything.
    #[serde(rename = "h")]
    history: Uuid,
    #[serde(rename = "p")]
    position: i64,
    /// How many subjects of the row at the position were delivered; none means that all were.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    part: Option<u32>,
    /// The first bits of the id of the row at the position; none where that is not known.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    print: Option<u32>,
}

impl Cursor {
    /// Before everything that is kept.
    pub fn beginning() -> Self {
        Cursor { history: Uuid::nil(), position: 0, part: None, print: None }
    }

    /// The position.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// The history of the position.
    pub fn history(&self) -> Uuid {
        self.history
    }

    /// Returns whether it is within a row.
    pub fn is_partial(&self) -> bool {
        self.part.is_some()
    }

    /// Returns whether nothing was delivered yet.
    pub fn is_beginning(&self) -> bool {
        self.history.is_nil()
    }

    /// The lowest position that is still to be delivered, be it in part.
    pub(super) fn next(&self) -> i64 {
        if self.part.is_some() { self.position } else { self.position + 1 }
    }

    /// How many subjects of the row at this position were delivered.
    pub(super) fn delivered(&self, position: i64) -> usize {
        if position == self.position { self.part.unwrap_or_default() as usize } else { 0 }
    }

    /// How many subjects of the row at this position, which has `of`, are still to be delivered.
    pub(super) fn left(&self, position: i64, of: usize) -> usize {
        if position < self.next() { 0 } else { of.saturating_sub(self.delivered(position)) }
    }

    /// The same position with the first `subjects` of its row delivered, which has `of`.
    pub(super) fn within(&self, subjects: usize, of: usize) -> Self {
        let part = (subjects < of).then(|| u32::try_from(subjects).unwrap_or(u32::MAX));
        Cursor { part, ..self.clone() }
    }
}

/// One history of this database, as far as readers need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Names it.
    pub id: Uuid,
    /// The first position that belongs to it.
    pub begins: i64,
}

/// The histories that this database has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histories {
    /// From the first to the present one.
    pub all: Vec<History>,
    /// The last position that was given.
    pub last: i64,
    /// The highest position of an event that is not kept any more.
    pub dropped: i64,
}

/// Why a cursor leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorFault {
    /// Events after it are not kept any more.
    Expired,
    /// It was given on another history of the database. Up to `parted_at`, where that is known, both are the same.
    OutOfRange {
        /// The last position that both have.
        parted_at: Option<i64>,
    },
}

impl Histories {
    /// The cursor behind the row at a position. `id` is that of the row, if it is known.
    pub fn behind(&self, position: i64, id: Option<Uuid>) -> Cursor {
        let history =
            self.all.iter().rev().find(|history| history.begins <= position).or(self.all.first());
        match history {
            // No event has a position yet, or the positions were dropped.
            None => Cursor::beginning(),
            Some(history) => Cursor { history: history.id, position, part: None, print: print(id) },
        }
    }

    /// The last position before the present history, if a cursor is before that.
    pub fn earlier_than_present(&self, cursor: &Cursor) -> Option<i64> {
        let last = self.all.last()?.begins - 1;
        (cursor.next() <= last).then_some(last)
    }

    /// Returns whether a cursor is of one of them. `there` is the id of the row at its position, if that is kept.
    pub fn check(&self, cursor: &Cursor, there: Option<Uuid>) -> Result<(), CursorFault> {
        if cursor.is_beginning() {
            return Ok(());
        }
        let Some(index) = self.all.iter().position(|history| history.id == cursor.history) else {
            return Err(CursorFault::OutOfRange { parted_at: None });
        };
        let ends = self.all.get(index + 1).map_or(self.last, |next| next.begins - 1);
        if cursor.position > ends {
            return Err(CursorFault::OutOfRange { parted_at: Some(ends) });
        }
        if cursor.position < self.dropped {
            return Err(CursorFault::Expired);
        }
        let other = there.is_some() && cursor.print.is_some() && print(there) != cursor.print;
        if other { Err(CursorFault::OutOfRange { parted_at: None }) } else { Ok(()) }
    }
}

/// The first bits of an id, which no two rows at one position share.
fn print(id: Option<Uuid>) -> Option<u32> {
    id.map(|id| id.as_fields().0)
}

impl From<CursorFault> for Error {
    fn from(fault: CursorFault) -> Error {
        match fault {
            CursorFault::Expired => Error::invalid(
                "cursor",
                "expired",
                "is older than the events that are kept; start from the beginning of what is",
            ),
            CursorFault::OutOfRange { parted_at } => {
                let message = "The database was restored or has failed over, and lacks events before this cursor.";
                let error = Error::new(Code::OutOfRange, message);
                match parted_at {
                    Some(position) => error.with("parted_at", position),
                    None => error,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);
    const C: Uuid = Uuid::from_u128(3);

    fn row(position: i64) -> Option<Uuid> {
        Some(Uuid::from_u128((position as u128) << 96))
    }

    fn histories(all: &[(Uuid, i64)], last: i64) -> Histories {
        let all = all.iter().map(|(id, begins)| History { id: *id, begins: *begins }).collect();
        Histories { all, last, dropped: 0 }
    }

    #[test]
    fn the_end_of_a_row_is_the_start_of_the_next() {
        let behind = histories(&[(A, 1)], 9).behind(7, row(7));
        assert_eq!(
            (behind.next(), behind.delivered(7), behind.left(7, 5), behind.left(8, 5)),
            (8, 0, 0, 5)
        );
        let inside = behind.within(4, 5);
        assert_eq!(
            (inside.next(), inside.delivered(7), inside.left(7, 5), inside.left(6, 5)),
            (7, 4, 1, 0)
        );
        assert_eq!(inside.delivered(8), 0);
        assert_eq!(behind.within(5, 5), behind);
        assert!(Cursor::beginning().is_beginning() && !behind.is_beginning());
    }

    #[test]
    fn a_position_is_of_the_history_in_which_it_was_given() {
        let histories = histories(&[(A, 1), (B, 5), (C, 5)], 9);
        assert_eq!(
            [1, 4, 5, 9].map(|position| histories.behind(position, None).history()),
            [A, A, C, C]
        );
        let empty = Histories { all: Vec::new(), last: 0, dropped: 0 };
        assert!(empty.behind(0, None).is_beginning());
    }

    #[test]
    fn a_cursor_is_valid_up_to_where_the_histories_part_and_never_after() {
        let before = histories(&[(A, 1)], 9);
        let after = histories(&[(A, 1), (B, 5)], 30);
        for position in 0..=9 {
            let cursor = before.behind(position, row(position));
            let expected = if position <= 4 {
                Ok(())
            } else {
                Err(CursorFault::OutOfRange { parted_at: Some(4) })
            };
            assert_eq!(after.check(&cursor, row(position)), expected, "{position}");
        }
        // Before the new history is known, the end of the present one decides.
        let unaware = histories(&[(A, 1)], 4);
        assert_eq!(
            unaware.check(&before.behind(5, row(5)), None),
            Err(CursorFault::OutOfRange { parted_at: Some(4) })
        );
        // The histories that a lost database had begun are unknown.
        let lost = histories(&[(A, 1), (C, 3)], 9).behind(4, row(4));
        assert_eq!(after.check(&lost, row(4)), Err(CursorFault::OutOfRange { parted_at: None }));
    }

    #[test]
    fn another_row_at_the_position_shows_another_history_where_nothing_else_does() {
        let histories = histories(&[(A, 1)], 9);
        let cursor = histories.behind(5, row(5));
        assert_eq!(
            histories.check(&cursor, row(6)),
            Err(CursorFault::OutOfRange { parted_at: None })
        );
        assert_eq!(histories.check(&cursor, None), Ok(()), "its row is not kept");
        assert_eq!(histories.check(&histories.behind(5, None), row(6)), Ok(()));
    }

    #[test]
    fn a_cursor_lasts_as_long_as_what_is_behind_it() {
        let histories = Histories { dropped: 5, ..histories(&[(A, 1)], 9) };
        assert_eq!(histories.check(&histories.behind(4, row(4)), None), Err(CursorFault::Expired));
        assert_eq!(histories.check(&histories.behind(5, row(5)), None), Ok(()));
        assert_eq!(histories.check(&Cursor::beginning(), None), Ok(()));
    }

    #[test]
    fn a_cursor_of_the_version_before_is_none() {
        assert!(serde_json::from_str::<Cursor>(r#"{"seen":["1:1:",0]}"#).is_err());
    }

    proptest! {
        /// Rows that are read a few subjects at a time, from cursors that pass through their text form, come out whole and once.
        #[test]
        fn going_on_from_any_cursor_leaves_nothing_out(sizes in prop::collection::vec(1_usize..5, 0..8), cuts in prop::collection::vec(1_usize..4, 1..30)) {
            let histories = histories(&[(A, 1), (B, 4)], sizes.len() as i64);
            let all: Vec<(i64, usize)> = (1..).zip(&sizes).flat_map(|(position, size)| (0..*size).map(move |subject| (position, subject))).collect();
            let mut cursor = Cursor::beginning();
            let mut delivered = Vec::new();
            for cut in cuts {
                cursor = serde_json::from_str(&serde_json::to_string(&cursor).unwrap()).unwrap();
                prop_assert_eq!(histories.check(&cursor, row(cursor.position())), Ok(()));
                let rest = all.iter().filter(|(position, subject)| *position >= cursor.next() && *subject >= cursor.delivered(*position));
                for (position, subject) in rest.copied().take(cut).collect::<Vec<_>>() {
                    delivered.push((position, subject));
                    cursor = histories.behind(position, row(position)).within(subject + 1, sizes[position as usize - 1]);
                }
            }
            prop_assert_eq!(&delivered[..], &all[..delivered.len()]);
        }
    }
}
