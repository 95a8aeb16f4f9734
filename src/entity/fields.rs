//! The rules for the parts of an entity. Pure.

use serde_json::Value as Json;
use uuid::Uuid;

use crate::error::Violations;
use crate::proto::object::{self, Objects, Struct};

/// The largest JSON object, in bytes of JSON.
pub const MAX_OBJECT_BYTES: usize = object::MAX_BYTES;
const MAX_COMPONENTS: usize = 1_000;
const MAX_CROSSWALKS: usize = 1_000;
const MAX_TYPE_CHARACTERS: usize = 256;
const MAX_KIND_LENGTH: usize = 64;

/// Adds a fault unless `text` is a type that an entity may be given.
pub fn check_type(text: &str, field: &str, faults: &mut Violations) {
    if text.is_empty() {
        faults.add(field, "required", "must be given");
    } else if text.chars().count() > MAX_TYPE_CHARACTERS || text.contains('\0') {
        faults.add(field, "invalid", "must be 1 to 256 characters, none of them U+0000");
    } else if text.trim() != text {
        faults.add(field, "invalid", "must not begin or end with a blank");
    }
}

/// A JSON object of a message within the bounds of objects; absent is empty.
pub fn object(message: Option<Struct>, field: &str, faults: &mut Violations) -> Struct {
    let message = message.unwrap_or_default();
    if let Some(fault) = message.fault() {
        faults.add(field, fault.code(), fault.description());
    }
    message.in_order()
}

/// The ids of components; `at` is the path of their owner.
pub fn check_components(components: &[String], at: &str, faults: &mut Violations) -> Vec<Uuid> {
    if components.len() > MAX_COMPONENTS {
        faults.add(format!("{at}.components"), "too_many", "must be at most 1,000");
    }
    let mut checked = Vec::with_capacity(components.len().min(MAX_COMPONENTS));
    for (n, component) in components.iter().take(MAX_COMPONENTS).enumerate() {
        match Uuid::try_parse(component) {
            Ok(component) => checked.push(component),
            Err(_) => faults.add(format!("{at}.components[{n}]"), "invalid", "must be a UUID"),
        }
    }
    checked
}

/// The references to other systems; `at` is the path of their owner.
pub fn check_crosswalks(crosswalks: Vec<Struct>, at: &str, faults: &mut Violations) -> Objects {
    if crosswalks.len() > MAX_CROSSWALKS {
        faults.add(format!("{at}.crosswalks"), "too_many", "must be at most 1,000");
    }
    let crosswalks = crosswalks.into_iter().take(MAX_CROSSWALKS).enumerate();
    Objects(
        crosswalks
            .map(|(n, value)| object(Some(value), &format!("{at}.crosswalks[{n}]"), faults))
            .collect(),
    )
}

/// Adds a fault unless `text` is a kind of dependents.
pub fn check_kind(text: &str, field: &str, faults: &mut Violations) {
    if text.is_empty() {
        faults.add(field, "required", "must be given");
    } else if !is_kind(text) {
        faults.add(field, "invalid", "must be 1 to 64 characters from a-z 0-9 _, a letter first");
    }
}

fn is_kind(text: &str) -> bool {
    let characters =
        text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    text.len() <= MAX_KIND_LENGTH
        && characters
        && text.starts_with(|first: char| first.is_ascii_lowercase())
}

/// About how many bytes a JSON value has in memory.
pub fn weight(value: &Json) -> usize {
    match value {
        Json::Null | Json::Bool(_) => 4,
        Json::Number(_) => 12,
        Json::String(text) => text.len() + 6,
        Json::Array(items) => 6 + items.iter().map(weight).sum::<usize>(),
        Json::Object(members) => {
            6 + members.iter().map(|(name, value)| name.len() + 8 + weight(value)).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_weight_of_a_value_is_about_the_size_of_its_message() {
        let values = [
            json!({"a": [1, 2.5, null, true, "x", {"b": []}]}),
            json!({"text": "x".repeat(100_000), "ü": "ö".repeat(1_000)}),
            (0..2_000)
                .map(|n| (format!("k{n}"), json!([[n], {"n": n}])))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        ];
        for value in values {
            let (weight, bytes) = (weight(&value), Struct::from_json(&value).weight());
            assert!(weight >= bytes && weight <= 2 * bytes, "{weight} for {bytes}");
        }
    }
}
