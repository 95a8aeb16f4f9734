//! The meaning of a filter on one record in memory. `sql.rs` says the same in SQL, and `tests/filter_agrees.rs` checks that the two agree.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};

use super::fold::fold;
use super::function::Test;
use super::moment::instant;
use super::number;
use super::record::{Datum, Record};
use super::syntax::{Bounds, Call, Node, Scale, URI_PREFIX, Value};
use super::vocabulary::PropertyKind;
use super::wildcard::Wildcards;
use super::words::words;
use crate::proto::object::{Object, View};

/// How many arrays may be directly in one another. A value in deeper ones is reached as an array, which only `exists` finds.
pub(super) const MAX_NESTED_ARRAYS: usize = 8;

pub(super) fn matches(node: &Node, record: &dyn Record) -> bool {
    is_true(node, record, None)
}

/// One of the objects that `inSameAttributeValue` looks into, and how many names have led to it.
#[derive(Clone, Copy)]
struct Within<'a> {
    object: Object<'a>,
    names: usize,
}

fn is_true(node: &Node, record: &dyn Record, within: Option<Within<'_>>) -> bool {
    match node {
        Node::And(members) => members.iter().all(|member| is_true(member, record, within)),
        Node::Or(members) => members.iter().any(|member| is_true(member, record, within)),
        Node::Not(inner) => !is_true(inner, record, within),
        Node::Call(call) => {
            call_holds(call, record, within) != (call.function.test == Test::Missing)
        }
        Node::SameValue { property, names, inner } => {
            let Datum::Json(root) = record.datum(property.name()) else { return false };
            any_value(root, names, &mut |value| {
                value.as_object().is_some_and(|object| {
                    is_true(inner, record, Some(Within { object, names: names.len() }))
                })
            })
        }
    }
}

/// Returns whether some value passes; of `missing`, whether its negation is true.
fn call_holds(call: &Call, record: &dyn Record, within: Option<Within<'_>>) -> bool {
    if let Some(within) = within {
        return json_holds(call, within.object, &call.path.names[within.names..]);
    }
    match record.datum(call.path.property.name()) {
        Datum::None => false,
        Datum::Json(root) => json_holds(call, root, &call.path.names),
        Datum::Text(id) if call.path.property.kind == PropertyKind::Uri => uri_passes(call, id),
        Datum::Text(text) => text_passes(call, text),
        Datum::Number(number) => number_passes(call, &number.to_string()),
        Datum::Time(time) => time_passes(call, time),
    }
}

fn json_holds(call: &Call, root: Object<'_>, names: &[String]) -> bool {
    if call.path.counted {
        let mut count = 0_usize;
        any_value(root, names, &mut |value| {
            count += usize::from(is_there(value));
            false
        });
        return number_passes(call, &count.to_string());
    }
    let passes = &mut |value: View<'_>| json_passes(call, value);
    if call.path.names.is_empty() {
        root.members().any(|(_, value)| any_inside(value, passes))
    } else {
        any_value(root, names, passes)
    }
}

/// Returns whether some value passes that the names lead to. Arrays on the way stand for their elements.
pub(super) fn any_value<'a>(
    root: Object<'a>,
    names: &[String],
    passes: &mut dyn FnMut(View<'a>) -> bool,
) -> bool {
    let Some((name, rest)) = names.split_first() else { return false };
    root.get(name).is_some_and(|value| any_reached(value, rest, MAX_NESTED_ARRAYS, passes))
}

fn any_reached<'a>(
    value: View<'a>,
    names: &[String],
    arrays: usize,
    passes: &mut dyn FnMut(View<'a>) -> bool,
) -> bool {
    match (value, names) {
        (View::List(list), _) if arrays > 0 => {
            list.elements().any(|element| any_reached(element, names, arrays - 1, passes))
        }
        (_, []) => passes(value),
        (View::Object(object), [name, rest @ ..]) => object
            .get(name)
            .is_some_and(|member| any_reached(member, rest, MAX_NESTED_ARRAYS, passes)),
        _ => false,
    }
}

/// Returns whether the value passes, or one anywhere inside. An array stands for its elements, however deep.
fn any_inside<'a>(value: View<'a>, passes: &mut dyn FnMut(View<'a>) -> bool) -> bool {
    match value {
        View::List(list) => list.elements().any(|element| any_inside(element, passes)),
        View::Object(object) => {
            passes(value) || object.members().any(|(_, member)| any_inside(member, passes))
        }
        _ => passes(value),
    }
}

/// Returns whether a value is not empty.
fn is_there(value: View<'_>) -> bool {
    match value {
        View::Null => false,
        View::String(text) => !text.is_empty(),
        View::Bool(_) | View::Number(_) => true,
        View::List(list) => !list.is_empty(),
        View::Object(object) => !object.is_empty(),
    }
}

fn json_passes(call: &Call, value: View<'_>) -> bool {
    if call.function.test.is_presence() {
        return is_there(value);
    }
    match value {
        View::String(text) => text_passes(call, text),
        View::Bool(truth) => text_passes(call, if truth { "true" } else { "false" }),
        View::Number(number) => {
            let text = number.text();
            number_passes(call, &number::plain(&text).unwrap_or_else(|| text.into_owned()))
        }
        View::Null | View::List(_) | View::Object(_) => false,
    }
}

/// Returns whether a text passes; of `missing`, whether it is there.
pub(super) fn text_passes(call: &Call, text: &str) -> bool {
    let mut values = call.values.iter();
    match call.function.test {
        Test::Equals => {
            let folded = fold(text);
            values.any(|value| value.folded == folded)
        }
        Test::EqualsCaseSensitive => values.any(|value| value.text == text),
        Test::StartsWith => {
            let folded = fold(text);
            values.any(|value| folded.starts_with(&value.folded))
        }
        Test::ContainsWords => {
            let folded = fold(text);
            values.any(|value| has_words(&folded, &value.folded))
        }
        Test::AnyWord => {
            let folded = fold(text);
            values.any(|value| {
                words(&value.folded).any(|wanted| words(&folded).any(|word| word == wanted))
            })
        }
        Test::Contains => {
            let folded = fold(text);
            values.any(|value| {
                Wildcards::parse(&value.folded).is_some_and(|wildcards| wildcards.is_in(&folded))
            })
        }
        Test::Matches => call.pattern.as_ref().is_some_and(|pattern| pattern.matches(text)),
        Test::Range | Test::Less | Test::LessOrEqual | Test::Greater | Test::GreaterOrEqual => {
            text_is_between(call, text)
        }
        Test::Exists | Test::Missing | Test::SameValue => !text.is_empty(),
    }
}

fn has_words(text: &str, wanted: &str) -> bool {
    let wanted: Vec<&str> = words(wanted).collect();
    let Some((last, before)) = wanted.split_last() else { return false };
    before.iter().all(|wanted| words(text).any(|word| word == *wanted))
        && words(text).any(|word| word.starts_with(last))
}

fn text_is_between(call: &Call, text: &str) -> bool {
    let bounds = Bounds::of(call.function.test, &call.values);
    match bounds.scale() {
        Scale::Number => {
            number::of_text(text).is_some_and(|plain| number_is_between(bounds, &plain))
        }
        Scale::Moment => instant(text).is_some_and(|instant| {
            is_between_moments(bounds.moments(|value| value.moment), instant)
        }),
        Scale::Text => {
            let folded = fold(text);
            lies_between(bounds, |value| folded.as_str().cmp(value.folded.as_str()))
        }
    }
}

fn number_is_between(bounds: Bounds<'_>, plain: &str) -> bool {
    lies_between(bounds, |value| {
        value.number.as_deref().map_or(Ordering::Equal, |number| number::compare(plain, number))
    })
}

/// Returns whether a value is between both ends; `against` compares it with one of them.
fn lies_between(bounds: Bounds<'_>, against: impl Fn(&Value) -> Ordering) -> bool {
    let beyond = |end: Option<(&Value, bool)>, inside: Ordering| {
        end.is_none_or(|(value, included)| {
            let order = against(value);
            order == inside || (included && order == Ordering::Equal)
        })
    };
    beyond(bounds.low, Ordering::Greater) && beyond(bounds.high, Ordering::Less)
}

fn is_between_moments(
    (low, high): (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
    moment: DateTime<Utc>,
) -> bool {
    low.is_none_or(|low| moment >= low) && high.is_none_or(|high| moment < high)
}

fn number_passes(call: &Call, plain: &str) -> bool {
    let test = call.function.test;
    if test.is_presence() {
        return true;
    }
    if test.is_equality() {
        return call.values.iter().any(|value| value.number.as_deref() == Some(plain));
    }
    let bounds = Bounds::of(test, &call.values);
    if test.is_order() && bounds.scale() == Scale::Number {
        number_is_between(bounds, plain)
    } else {
        text_passes(call, plain)
    }
}

fn time_passes(call: &Call, time: DateTime<Utc>) -> bool {
    let test = call.function.test;
    if test.is_order() {
        return is_between_moments(Bounds::of(test, &call.values).moments(Value::time), time);
    }
    test.is_presence()
        || call.values.iter().filter_map(Value::time).any(|moment| moment.contains(time))
}

pub(super) fn uri_passes(call: &Call, id: &str) -> bool {
    if call.looks_at_whole_uris() {
        return text_passes(call, &format!("{URI_PREFIX}{id}"));
    }
    let begins_all =
        call.function.test == Test::StartsWith && call.values.iter().any(Value::begins_every_uri);
    begins_all || text_passes(&call.of_ids(), id)
}
