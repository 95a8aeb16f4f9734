//! How large the automaton is that Postgres makes of an expression.
//!
//! Postgres removes the empty steps of its automaton before it is used: the rest leads from each character or set of the expression to each
//! that may come next, once for each colour, a class of characters that the expression never distinguishes. So `a?b?c?d?` has a step from
//! every character to all after it, and `(a?){200}` some 20,000. Building the steps and taking them costs time, so they are counted.

use std::collections::{BTreeSet, HashSet};

use regex_syntax::hir::ClassUnicode;

/// The size of a part of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// The steps within it.
    steps: u64,
    /// How many characters and sets it may begin with.
    first: u64,
    /// How many it may end with, each counted once for each of its colours.
    last: u64,
    /// True if it matches the empty text.
    empty: bool,
    /// True if something in it is repeated without an end.
    endless: bool,
}

impl Size {
    /// The empty text. It counts as a character that may be left out, for it takes its time too where it is repeated.
    pub const EMPTY: Size = Size { steps: 0, first: 1, last: 1, empty: true, endless: false };

    /// One character or set, of so many colours.
    pub fn of_one(colours: u64) -> Size {
        Size { steps: 0, first: 1, last: colours, empty: false, endless: false }
    }

    /// This and then another part.
    pub fn then(self, next: Size) -> Size {
        let across = self.last.saturating_mul(next.first);
        Size {
            steps: self.steps.saturating_add(next.steps).saturating_add(across),
            first: if self.empty { self.first.saturating_add(next.first) } else { self.first },
            last: if next.empty { next.last.saturating_add(self.last) } else { next.last },
            empty: self.empty && next.empty,
            endless: self.endless || next.endless,
        }
    }

    /// This or another part.
    pub fn or(self, other: Size) -> Size {
        Size {
            steps: self.steps.saturating_add(other.steps),
            first: self.first.saturating_add(other.first),
            last: self.last.saturating_add(other.last),
            empty: self.empty || other.empty,
            endless: self.endless || other.endless,
        }
    }

    /// This part from `least` to `most` times, without an end if there is no `most`. Postgres writes it as often as it may come; the first
    /// ones are those that may be left out.
    pub fn repeated(self, least: u32, most: Option<u32>) -> Size {
        let times = u64::from(most.unwrap_or(least)).max(1);
        let starts = if self.empty || least == 0 {
            times
        } else {
            times.saturating_sub(u64::from(least)) + 1
        };
        let follows = if self.empty { times * (times - 1) / 2 } else { times - 1 }
            + u64::from(most.is_none());
        let across = self.last.saturating_mul(self.first);
        Size {
            steps: self.steps.saturating_mul(times).saturating_add(across.saturating_mul(follows)),
            first: self.first.saturating_mul(starts),
            last: if self.empty { self.last.saturating_mul(times) } else { self.last },
            empty: self.empty || least == 0,
            endless: self.endless || most.is_none(),
        }
    }

    /// All steps of a whole expression, those to its end among them. They count three times where a text of any length may be read: else it
    /// is clear after some hundred characters that it does not match.
    pub fn total(self) -> u64 {
        self.steps.saturating_add(self.last).saturating_mul(if self.endless { 3 } else { 1 })
    }
}

/// The colours of an expression.
#[derive(Debug)]
pub(super) struct Colours {
    /// A character of each.
    samples: Vec<char>,
}

impl Colours {
    /// The colours that these sets distinguish.
    pub fn of(sets: &[ClassUnicode]) -> Colours {
        let ranges = sets.iter().flat_map(|set| set.ranges());
        let borders: BTreeSet<char> = ranges
            .flat_map(|range| std::iter::once(range.start()).chain(behind(range.end())))
            .collect();
        let mut known = HashSet::new();
        let reports_apart = |c: &char| {
            known.insert(sets.iter().map(|set| contains(set, *c)).collect::<Vec<bool>>())
        };
        Colours { samples: borders.into_iter().filter(reports_apart).collect() }
    }

    /// How many colours a set has.
    pub fn count(&self, set: &ClassUnicode) -> u64 {
        self.samples.iter().filter(|sample| contains(set, **sample)).count() as u64
    }
}

fn contains(set: &ClassUnicode, c: char) -> bool {
    set.ranges().iter().any(|range| range.start() <= c && c <= range.end())
}

/// The next character; none is a surrogate.
fn behind(c: char) -> Option<char> {
    if c == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(c) + 1) }
}

#[cfg(test)]
mod tests {
    use regex_syntax::hir::ClassUnicodeRange;

    use super::*;

    fn set(ranges: &[(char, char)]) -> ClassUnicode {
        ClassUnicode::new(ranges.iter().map(|(start, end)| ClassUnicodeRange::new(*start, *end)))
    }

    #[test]
    fn a_colour_is_what_no_set_reports_apart() {
        let sets = [
            set(&[('a', 'z')]),
            set(&[('c', 'e')]),
            set(&[('x', 'x')]),
            set(&[('d', 'f'), ('\u{e000}', '\u{ffff}')]),
        ];
        let colours = Colours::of(&sets);
        // `a-b g-w y z`, `c`, `d e`, `f`, `x`; and for the last also everything beyond.
        assert_eq!(sets.each_ref().map(|set| colours.count(set)), [5, 2, 1, 3]);
        assert_eq!(Colours::of(&[set(&[('\0', char::MAX)])]).count(&set(&[('\0', char::MAX)])), 1);
    }

    #[test]
    fn what_may_be_left_out_leads_to_all_that_is_behind_it() {
        let one = Size::of_one(1);
        assert_eq!(one.then(one).then(one).total(), 3);
        assert_eq!(one.or(one).then(one).total(), 3);
        let optional = one.repeated(0, Some(1));
        assert_eq!(optional.then(optional).then(optional).total(), 3 + 3);
        assert_eq!(optional.repeated(200, Some(200)).total(), 200 * 199 / 2 + 200);
        assert_eq!(one.repeated(0, Some(200)).total(), 200);
        assert_eq!(one.then(one.repeated(0, Some(200))).total(), 200 + 200 + 1);
        assert_eq!(Size::of_one(3).repeated(1, None).total(), 3 * (3 + 3));
        assert_eq!(Size::EMPTY.repeated(255, Some(255)).total(), 255 * 254 / 2 + 255);
    }
}
