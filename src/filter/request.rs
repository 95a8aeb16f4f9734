//! Filters as calls bring them.

use super::{Filter, ParseError, Vocabulary};
use crate::error::{Error, Result, Violations};

const MAX_BYTES: usize = 64 << 10;
/// How many faults of a filter are shown with their lines.
const SHOWN_FAULTS: usize = 3;

/// Reads the filter of a list; an empty one counts as none. Fails with `invalid_filter`; one that is too long is a fault among others.
pub fn check_filter(
    vocabulary: &'static Vocabulary,
    text: &str,
    faults: &mut Violations,
) -> Result<Option<Filter>> {
    if text.is_empty() {
        return Ok(None);
    }
    if !has_fit_length(text, "filter", faults) {
        return Ok(None);
    }
    Filter::parse_for(vocabulary, text)
        .map(Some)
        .map_err(|error| invalid_filter(&error, text, "filter"))
}

/// Returns whether the filter at this path is short enough to be read; one that is too long is a fault.
pub fn has_fit_length(text: &str, field: &str, faults: &mut Violations) -> bool {
    if text.len() > MAX_BYTES {
        faults.add(field, "too_long", "must be at most 64 KiB");
    }
    text.len() <= MAX_BYTES
}

/// Reads the filter of a list as the last of what there is to check, and fails with all that is wrong.
pub fn only_filter(
    vocabulary: &'static Vocabulary,
    text: &str,
    mut faults: Violations,
) -> Result<Option<Filter>> {
    let filter = check_filter(vocabulary, text, &mut faults);
    faults.check_with(filter)
}

/// The error for a filter that cannot be read, which stands at this path. Each of its faults is a violation, and the first few are shown.
pub fn invalid_filter(error: &ParseError, text: &str, field: &str) -> Error {
    let shown: Vec<String> = error
        .all()
        .take(SHOWN_FAULTS)
        .map(|fault| format!("{}\n{}", fault.message, fault.caret(text)))
        .collect();
    let described =
        error.all().map(|fault| format!("{} (at position {})", fault.message, fault.position));
    Error::invalid_filter(field, shown.join("\n"), described)
        .with("position", error.position)
        .with_choices("expected", &error.expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::filter::ENTITY;

    #[test]
    fn the_fault_of_a_filter_is_shown_where_it_is() {
        let error =
            check_filter(&ENTITY, "equals(LastName, x)", &mut Violations::new()).unwrap_err();
        assert_eq!(error.code(), Code::InvalidFilter);
        assert!(error.message().contains("equals(LastName, x)\n       ^"), "{error}");
        assert_eq!(check_filter(&ENTITY, "", &mut Violations::new()).unwrap(), None);
    }

    #[test]
    fn a_filter_that_is_too_long_is_a_fault() {
        let mut faults = Violations::new();
        assert_eq!(check_filter(&ENTITY, &" ".repeat(MAX_BYTES + 1), &mut faults).unwrap(), None);
        assert_eq!(faults.as_slice()[0].field, "filter");
    }
}
