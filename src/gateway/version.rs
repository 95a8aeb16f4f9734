//! Conditional requests (RFC 9110, section 13) over the versions that resources have.
//!
//! A response with a resource that has a `version` has `ETag: "N"`. `If-Match: "N"` is the `expected_version` of a request that has one;
//! the service refuses another version by `state_conflict`, as the contracts have it. `If-None-Match` saves a reader a body that it has
//! already. A condition that cannot be kept is refused: a caller who names a condition does not want the operation regardless.

use http::{HeaderMap, HeaderValue, Method, header};
use prost_reflect::DynamicMessage;

use super::binding::Binding;
use crate::error::Violations;

/// The condition of a request on the version of its resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The version that it must be at.
    pub expected: Option<i64>,
    /// The entity tags that the caller has.
    known: Vec<String>,
}

/// Conditions and parts that no request can be carried out by, since things have versions and no dates, and change as a whole.
pub const UNKEPT: [&str; 6] = [
    "if-unmodified-since",
    "if-modified-since",
    "if-range",
    "content-range",
    "if",
    "if-schedule-tag-match",
];

impl Conditions {
    /// Reads the conditions of a request, and returns their faults.
    pub fn of(method: &Method, headers: &HeaderMap, binding: &Binding) -> (Conditions, Violations) {
        let mut faults = Violations::new();
        let expected = match expected(headers, binding) {
            Ok(expected) => expected,
            Err((code, description)) => {
                faults.add("If-Match", code, description);
                None
            }
        };
        let known = listed(headers, header::IF_NONE_MATCH);
        if matches!(*method, Method::GET | Method::HEAD) {
            if headers.contains_key(header::IF_NONE_MATCH) && !are_tags(&known) {
                faults.add("If-None-Match", "invalid", "must be `*` or entity tags of responses, such as `\"7\"`, with commas between them");
            }
        } else {
            if headers.contains_key(header::IF_NONE_MATCH) {
                faults.add(
                    "If-None-Match",
                    "unsupported",
                    "can be kept only where something is read",
                );
            }
            for name in UNKEPT.iter().filter(|name| headers.contains_key(**name)) {
                faults.add(
                    *name,
                    "unsupported",
                    "cannot be kept; `If-Match` says at which version the thing must be, where the request expects one",
                );
            }
        }
        (Conditions { expected, known }, faults)
    }

    /// Returns whether the caller has what this tag names, compared as RFC 9110 has it for reading: a weak tag is as good as a strong one.
    pub fn has(&self, tag: &HeaderValue) -> bool {
        let tag = tag.to_str().unwrap_or_default();
        self.known.iter().any(|known| {
            known == "*" || known.trim_start_matches("W/") == tag.trim_start_matches("W/")
        })
    }
}

/// The version that `If-Match` asks for, or its fault.
fn expected(
    headers: &HeaderMap,
    binding: &Binding,
) -> Result<Option<i64>, (&'static str, &'static str)> {
    match listed(headers, header::IF_MATCH).as_slice() {
        // A caller who sends one without a tag means some version, and not any.
        [] if headers.contains_key(header::IF_MATCH) && binding.expected_version.is_some() => {
            Err(("invalid", WANTED))
        }
        [] => Ok(None),
        _ if binding.expected_version.is_none() => {
            Err(("unsupported", "cannot be kept here: this request expects no version"))
        }
        [any] if any == "*" => Ok(None),
        [tag] => version(tag).map(Some).ok_or(("invalid", WANTED)),
        _ => Err(("invalid", WANTED)),
    }
}

const WANTED: &str = "must be `*` or one strong entity tag of a response, such as `\"7\"`";

/// Returns whether these are what `If-None-Match` may have: tags, or `*` alone.
fn are_tags(listed: &[String]) -> bool {
    match listed {
        [] => false,
        [any] if any == "*" => true,
        tags => tags.iter().all(|tag| is_tag(tag)),
    }
}

/// Returns whether this is an entity tag (RFC 9110, section 8.8.3), be it none of ours.
fn is_tag(text: &str) -> bool {
    let opaque = text
        .strip_prefix("W/")
        .unwrap_or(text)
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    opaque.is_some_and(|opaque| {
        opaque.chars().all(|character| {
            character != '"' && !character.is_whitespace() && !character.is_control()
        })
    })
}

/// The entity tag of a response: its version.
pub fn tag(binding: &Binding, message: &DynamicMessage) -> Option<HeaderValue> {
    let version = binding.rpc.schema.value_at(message, binding.version.as_ref()?)?.as_i64()?;
    HeaderValue::try_from(format!("\"{version}\"")).ok()
}

fn version(tag: &str) -> Option<i64> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    let version: i64 = digits.parse().ok()?;
    // Any other spelling of a number is not one of our tags.
    (version > 0 && version.to_string() == digits).then_some(version)
}

/// The tags in a header. Ours have no commas.
fn listed(headers: &HeaderMap, name: header::HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
    values
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().to_owned())
        .filter(|tag| !tag.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tags_as_answers_have_them_are_versions() {
        assert_eq!(
            (version("\"7\""), version("\"9223372036854775807\"")),
            (Some(7), Some(i64::MAX))
        );
        for other in ["7", "W/\"7\"", "\"07\"", "\"+7\"", "\"0\"", "\"-7\"", "\"\"", "\"x\"", "\"7"]
        {
            assert_eq!(version(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_tag_is_reported_from_one_of_others() {
        let read = |text: &'static str| {
            let headers =
                HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(text))]);
            are_tags(&listed(&headers, header::IF_NONE_MATCH))
        };
        for tags in ["*", "\"7\"", "W/\"7\"", "\"x-y\", W/\"\"", "\"1\",\"2\","] {
            assert!(read(tags), "{tags}");
        }
        for other in [
            "",
            ",",
            "1",
            "zz",
            "\"1",
            "\"1\" \"2\"",
            "*, \"1\"",
            "\"1\", 2",
            "w/\"1\"",
            "\"a\"b\"",
        ] {
            assert!(!read(other), "{other}");
        }
    }

    #[test]
    fn a_reader_has_what_one_of_its_tags_names() {
        let has = |known: &str| {
            Conditions { expected: None, known: vec!["\"1\"".to_owned(), known.to_owned()] }
                .has(&HeaderValue::from_static("\"7\""))
        };
        assert!(has("\"7\"") && has("W/\"7\"") && has("*"));
        assert!(!has("\"8\"") && !has("7"));
    }
}
