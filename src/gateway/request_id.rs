//! Request ids: one for each request, kept when the caller brings a sane one.

/// The header, and the metadata, that carries it.
pub const HEADER: &str = "x-request-id";

const MAX_LENGTH: usize = 128;

/// The caller's id if it is 1 to 128 characters of `[A-Za-z0-9._~-]`, else a new one: `req_` and a UUIDv7.
pub fn sane_or_new(given: Option<&str>) -> String {
    match given {
        Some(id) if is_sane(id) => id.to_owned(),
        _ => format!("req_{}", uuid::Uuid::now_v7().simple()),
    }
}

fn is_sane(id: &str) -> bool {
    (1..=MAX_LENGTH).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
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
