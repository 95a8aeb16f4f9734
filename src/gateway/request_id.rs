//! Request ids: one for each request, kept when the caller brings a sane one.

/// The header, and the metadata, that carries it.
pub const HEADER: &str = "x-request-id";

const MAX_LENGTH: usize = 128;

/// The prefix of the secrets of keys.
const SECRETS: [&str; 2] = ["sk_test_", "sk_live_"];

/// The caller's id if it is 1 to 128 characters of `[A-Za-z0-9._~-]` and no key, which must not come into logs and responses; else a new one: `req_` and
/// a UUIDv7.
pub fn sane_or_new(given: Option<&str>) -> String {
    match given {
        Some(id) if is_sane(id) && !has_secret(id) => id.to_owned(),
        _ => format!("req_{}", uuid::Uuid::now_v7().simple()),
    }
}

fn is_sane(id: &str) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
}

fn has_secret(id: &str) -> bool {
    let lower = id.to_ascii_lowercase();
    // The end of a longer word, such as `task_live_1`, begins no key.
    let begins_word =
        |at: usize| !lower[..at].ends_with(|before: char| before.is_ascii_alphanumeric());
    SECRETS.iter().any(|begin| lower.match_indices(begin).any(|(at, _)| begins_word(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept() {
        let longest = "x".repeat(128);
        for id in ["a", "req_1.2~3-4", longest.as_str()] {
            assert_eq!(sane_or_new(Some(id)), id);
        }
    }

    #[test]
    fn a_key_is_no_id() {
        for id in ["sk_live_0123", "sk_test_0123", "a.sk_live_0123", "SK_LIVE_0123"] {
            assert!(sane_or_new(Some(id)).starts_with("req_"), "{id}");
        }
        assert_eq!(sane_or_new(Some("task_live_1")), "task_live_1");
    }

    #[test]
    fn any_other_is_replaced() {
        let too_long = "x".repeat(129);
        for id in [None, Some(""), Some("a b"), Some("a\nb"), Some("é"), Some(too_long.as_str())] {
            let new = sane_or_new(id);
            assert!(new.starts_with("req_") && new.len() == 36, "{new}");
            assert!(is_sane(&new));
        }
        assert_ne!(sane_or_new(None), sane_or_new(None));
    }
}
