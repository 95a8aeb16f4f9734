//! The meaning of a filter on one record in memory. `sql.rs` says the same in SQL, and `tests/filter_agrees.rs` holds the two together.

use serde_json::Value as Json;

use super::Record;
use super::fold::fold;
use super::function::Test;
use super::number;
use super::syntax::{Call, Node, Property, UriStart, Value};

/// How many arrays may lie directly in one another. What lies deeper is reached as an array, which only `exists` finds.
pub(super) const MAX_NESTED_ARRAYS: usize = 8;

pub(super) fn matches(node: &Node, record: &Record<'_>) -> bool {
    match node {
        Node::And(members) => members.iter().all(|member| matches(member, record)),
        Node::Or(members) => members.iter().any(|member| matches(member, record)),
        Node::Not(inner) => !matches(inner, record),
        Node::Call(call) => call_holds(call, record),
    }
}

fn call_holds(call: &Call, record: &Record<'_>) -> bool {
    match &call.property {
        Property::Type => text_passes(call.function.test, record.r#type, &call.values),
        Property::Uri => uri_passes(call, record.id),
        Property::Attribute(names) => {
            let found = any_value(record.attributes, names, &|value| json_passes(call, value));
            found != (call.function.test == Test::Missing)
        }
    }
}

/// Whether some value passes that the names lead to. Arrays on the way stand for their elements.
pub(super) fn any_value(attributes: &Json, names: &[String], passes: &dyn Fn(&Json) -> bool) -> bool {
    match (attributes.as_object(), names) {
        (Some(members), [name, rest @ ..]) => members.get(name).is_some_and(|value| any_reached(value, rest, MAX_NESTED_ARRAYS, passes)),
        _ => false,
    }
}

fn any_reached(value: &Json, names: &[String], arrays: usize, passes: &dyn Fn(&Json) -> bool) -> bool {
    match (value, names) {
        (Json::Array(elements), _) if arrays > 0 => elements.iter().any(|element| any_reached(element, names, arrays - 1, passes)),
        (_, []) => passes(value),
        (Json::Object(members), [name, rest @ ..]) => {
            members.get(name).is_some_and(|member| any_reached(member, rest, MAX_NESTED_ARRAYS, passes))
        }
        _ => false,
    }
}

fn json_passes(call: &Call, value: &Json) -> bool {
    let test = call.function.test;
    match value {
        Json::Null => false,
        Json::String(text) => text_passes_or_is_there(test, text, &call.values),
        Json::Bool(truth) => text_passes_or_is_there(test, if *truth { "true" } else { "false" }, &call.values),
        Json::Number(number) => {
            let text = number.to_string();
            number_passes(test, &number::plain(&text).unwrap_or(text), &call.values)
        }
        Json::Array(elements) => is_presence(test) && !elements.is_empty(),
        Json::Object(members) => is_presence(test) && !members.is_empty(),
    }
}

/// The two that look for a value that is not empty; what `missing` makes of it is decided over all values.
fn is_presence(test: Test) -> bool {
    matches!(test, Test::Exists | Test::Missing)
}

fn text_passes_or_is_there(test: Test, text: &str, values: &[Value]) -> bool {
    if is_presence(test) { !text.is_empty() } else { text_passes(test, text, values) }
}

/// A text property has one value, always.
fn text_passes(test: Test, text: &str, values: &[Value]) -> bool {
    let mut values = values.iter();
    match test {
        Test::Equals | Test::In => {
            let folded = fold(text);
            values.any(|value| value.folded == folded)
        }
        Test::EqualsCaseSensitive => values.any(|value| value.text == text),
        Test::StartsWith => {
            let folded = fold(text);
            values.any(|value| folded.starts_with(&value.folded))
        }
        Test::Exists => !text.is_empty(),
        Test::Missing => text.is_empty(),
    }
}

fn number_passes(test: Test, plain: &str, values: &[Value]) -> bool {
    let mut values = values.iter();
    match test {
        Test::Equals | Test::EqualsCaseSensitive | Test::In => values.any(|value| value.number.as_deref() == Some(plain)),
        Test::StartsWith => values.any(|value| plain.starts_with(&value.text)),
        Test::Exists | Test::Missing => true,
    }
}

fn uri_passes(call: &Call, id: &str) -> bool {
    let test = call.function.test;
    if test == Test::StartsWith {
        return call.values.iter().any(|value| match value.uri_start() {
            UriStart::EveryUri => true,
            UriStart::Id(start) => text_passes(test, id, &[start]),
        });
    }
    let ids: Vec<Value> = call.values.iter().map(|value| value.uri_id(test != Test::EqualsCaseSensitive)).collect();
    text_passes(test, id, &ids)
}
