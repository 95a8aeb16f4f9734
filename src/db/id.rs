//! The ids of entities, portfolios and dependents.

use uuid::Uuid;

use crate::error::Violations;

/// The longest id, in characters.
pub const MAX_LENGTH: usize = 128;

/// Returns whether this is an id: 1 to 128 characters from `A-Z a-z 0-9 . _ ~ -`.
pub fn is_id(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
}

/// Adds a fault unless `text` is an id.
pub fn check_id(text: &str, field: &str, violations: &mut Violations) {
    if text.is_empty() {
        violations.add(field, "required", "must be given");
    } else if !is_id(text) {
        violations.add(field, "invalid", "must be 1 to 128 characters from A-Z a-z 0-9 . _ ~ -");
    }
}

/// Adds a fault unless `text` is an id that something new may have. `.` and `..` are ids, since there may be rows that have them, but clients take
/// them for steps in a path (RFC 3986, section 5.2.4), so that no request to the REST listener can name them.
pub fn check_new_id(text: &str, field: &str, violations: &mut Violations) {
    if is_dots(text) {
        violations.add(field, "invalid", "must not be `.` or `..`, which no path can name");
    } else {
        check_id(text, field, violations);
    }
}

/// Returns whether this is an id that something new may have.
pub fn is_new_id(text: &str) -> bool {
    is_id(text) && !is_dots(text)
}

fn is_dots(text: &str) -> bool {
    matches!(text, "." | "..")
}

/// A new id: a UUIDv7, so that keys made one after another lie side by side.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

#[cfg(test)]
mod tests {
    use super::{is_id, is_new_id};

    #[test]
    fn ids_are_of_unreserved_characters() {
        assert!(is_id("pypi.a-b_c~9"));
        assert!(is_id(&"x".repeat(128)));
        for bad in ["", "a b", "a/b", "ä", "a\n", "entities/x", &"x".repeat(129)] {
            assert!(!is_id(bad), "{bad:?}");
        }
    }

    #[test]
    fn nothing_new_has_an_id_that_is_a_step_in_a_path() {
        assert!(is_id(".") && is_id("..") && !is_new_id(".") && !is_new_id(".."));
        assert!(is_new_id("...") && is_new_id(".a") && !is_new_id("a/b"));
    }
}
