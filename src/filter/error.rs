//! Why a filter cannot be read, and where.

use std::fmt;

/// How many characters of the faulty line [`ParseError::caret`] shows on each side of the fault.
const CONTEXT: usize = 60;

/// A filter that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ParseError {
    /// The fault, in lower case and without a full stop.
    pub message: String,
    /// Where, in characters from 0. The length of the text means its end.
    pub position: usize,
    /// The alternatives at this position; empty if there are none.
    pub expected: Vec<String>,
    /// The faults behind this one, which have no others themselves.
    pub others: Vec<ParseError>,
}

impl ParseError {
    pub(super) fn new(position: usize, message: impl Into<String>) -> Self {
        ParseError { message: message.into(), position, expected: Vec::new(), others: Vec::new() }
    }

    pub(super) fn expecting<I: IntoIterator<Item: Into<String>>>(mut self, expected: I) -> Self {
        self.expected.extend(expected.into_iter().map(Into::into));
        self
    }

    /// The first of these faults, with the others behind it; none if there is none.
    pub(super) fn first_of(mut faults: Vec<ParseError>) -> Option<Self> {
        if faults.is_empty() {
            return None;
        }
        let first = faults.remove(0);
        Some(ParseError { others: faults, ..first })
    }

    /// All of them in order, this one first.
    pub fn all(&self) -> impl Iterator<Item = &ParseError> {
        std::iter::once(self).chain(&self.others)
    }

    /// The line of `text` with the fault, and under it a line with a caret that points at it. `text` is what was parsed. A long line is cut
    /// to the fault's neighbourhood.
    pub fn caret(&self, text: &str) -> String {
        let before: Vec<char> = text.chars().take(self.position).collect();
        let line_start = before.iter().rposition(|c| *c == '\n').map_or(0, |newline| newline + 1);
        let start = line_start.max(before.len().saturating_sub(CONTEXT));
        let cut_before = if start > line_start { "…" } else { "" };
        let mut rest = text.chars().skip(start).take_while(|c| !matches!(c, '\n' | '\r'));
        let shown: String = rest.by_ref().take(before.len() - start + CONTEXT).collect();
        let cut_after = if rest.next().is_some() { "…" } else { "" };
        // A tab stays a tab, so that the caret lines up however wide it is shown.
        let indent = before.iter().skip(start).map(|c| if *c == '\t' { '\t' } else { ' ' });
        let indent: String = cut_before.chars().map(|_| ' ').chain(indent).collect();
        format!("{cut_before}{shown}{cut_after}\n{indent}^")
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at position {}", self.message, self.position)?;
        if !self.expected.is_empty() {
            write!(f, "; expected {}", self.expected.join(" or "))?;
        }
        self.others.iter().try_for_each(|other| write!(f, "\n{other}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_points_into_the_faulty_line() {
        let error = ParseError::new(9, "wrong");
        assert_eq!(error.caret("one and\n\té!"), "\té!\n\t^");
        assert_eq!(ParseError::new(3, "wrong").caret("abc"), "abc\n   ^");
        assert_eq!(ParseError::new(99, "wrong").caret("abc"), "abc\n   ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_fault() {
        let text = format!("{}!{}", "a".repeat(100), "b".repeat(100));
        let expected = format!("…{}!{}…\n{}^", "a".repeat(60), "b".repeat(59), " ".repeat(61));
        assert_eq!(ParseError::new(100, "wrong").caret(&text), expected);
    }

    #[test]
    fn it_says_where_and_what_was_expected() {
        let error = ParseError::new(4, "something is missing").expecting(["`(`", "a path"]);
        assert_eq!(error.to_string(), "something is missing at position 4; expected `(` or a path");
    }
}
