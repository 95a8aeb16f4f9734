//! Checks the arguments in the parentheses of a function: whether each is of a kind that the function takes.

use std::cmp::Ordering;

use super::error::ParseError;
use super::evaluate::uri_passes;
use super::function::{FUNCTIONS, Function, Test, Values};
use super::lexer::shorten;
use super::number::{self, MAX_EXPONENT};
use super::pattern::Pattern;
use super::syntax::{Bounds, Call, Node, Path, Scale, Value};
use super::vocabulary::{Property, PropertyKind};
use super::wildcard::Wildcards;
use super::words::words;
use super::{MAX_LIST, MAX_VALUE_CHARACTERS};
use crate::error::nearest;

/// A value as it was given, and its position.
pub(super) type Given = (usize, String);

/// Puts a call together. `strict` is its position in a filter that chooses entities to destroy.
pub(super) fn call_of(
    function: &'static Function,
    (path_at, path): (usize, Path),
    given: Vec<Given>,
    strict: Option<usize>,
) -> Result<Call, ParseError> {
    check_kind(function, path_at, &path)?;
    let mut values = Vec::with_capacity(given.len());
    let mut pattern = None;
    let alone = given.len() == 1;
    for (position, text) in &given {
        check_length(*position, "a value", text)?;
        match function.values {
            Values::Expression => pattern = Some(check_expression(*position, text)?),
            Values::Listed if alone => refuse_file(*position, text)?,
            _ => check_text(function, *position, text)?,
        }
        let value = Value::new(text);
        check_scale(function.test, &path, *position, &value)?;
        values.push(value);
    }
    let call = Call { function, path, values, pattern };
    if let [_, (position, _)] = given.as_slice() {
        refuse_empty_range(&call, *position)?;
    }
    match strict {
        Some(start) => refuse_every_uri(start, call),
        None => Ok(call),
    }
}

/// Refuses a function that says nothing about a property of this kind.
fn check_kind(function: &Function, position: usize, path: &Path) -> Result<(), ParseError> {
    let (test, property) = (function.test, path.property);
    let is_number = path.counted || property.kind == PropertyKind::Number;
    let presence =
        !is_number && property.kind != PropertyKind::Time || property.nullable && !path.counted;
    let possible = |test: Test| {
        let compares = test.is_equality() || test.is_order();
        test != Test::SameValue
            && (compares
                || if test.is_presence() {
                    presence
                } else {
                    !is_number && property.kind != PropertyKind::Time
                })
    };
    if possible(test) {
        return Ok(());
    }
    let expected = FUNCTIONS
        .iter()
        .filter(|function| possible(function.test))
        .map(|function| format!("`{}`", function.name));
    let message = match (test.is_presence(), path.counted) {
        (true, true) => format!(
            "a count is always there; `gt({}, 0)` asks whether it counts something",
            shorten(&path.to_string())
        ),
        (true, false) => format!("`{path}` is always there"),
        _ => format!(
            "{} takes texts, and `{path}` is a {}",
            function.name,
            if is_number { "number" } else { "time" }
        ),
    };
    Err(ParseError::new(position, message).expecting(expected))
}

/// Refuses a value that the property cannot be compared with.
fn check_scale(test: Test, path: &Path, position: usize, value: &Value) -> Result<(), ParseError> {
    let is_number = path.counted || path.property.kind == PropertyKind::Number;
    if (is_number || test.is_order()) && number::is_beyond(&value.text) {
        let message =
            format!("a number may have an exponent from -{MAX_EXPONENT} to {MAX_EXPONENT}");
        return Err(ParseError::new(position, message).expecting(["a number"]));
    }
    match path.property.kind {
        _ if is_number && value.number.is_none() => {
            Err(ParseError::new(position, format!("`{path}` is a number")).expecting(["a number"]))
        }
        PropertyKind::Time if value.time().is_none() => {
            let message = match value.meant_time() {
                Some(meant) => {
                    format!("`{path}` is a time, and a number is milliseconds since 1970; {meant}")
                }
                None => format!("`{path}` is a time"),
            };
            let expected = ["milliseconds since 1970", "`YYYY-MM-DD`", "`YYYY-MM-DDTHH:MM:SSZ`"];
            Err(ParseError::new(position, message).expecting(expected))
        }
        PropertyKind::Text if test.is_equality() => check_value(path, position, value),
        PropertyKind::Uri if test.is_order() && value.uri_id(true).text.is_empty() => {
            let message = "an id is missing behind `entities/`, with which every uri begins";
            Err(ParseError::new(position, message).expecting(["`entities/ID`", "an id"]))
        }
        _ => Ok(()),
    }
}

/// Refuses a value that no property of these values ever has: `not` would make a condition of it that everything meets.
fn check_value(path: &Path, position: usize, value: &Value) -> Result<(), ParseError> {
    let values = path.property.values;
    if values.is_empty() || values.contains(&value.folded.as_str()) {
        return Ok(());
    }
    let hint = nearest(&value.text, values.iter().copied())
        .map(|meant| format!("; did you mean `{meant}`?"))
        .unwrap_or_default();
    let message = format!("`{path}` is never `{}`{hint}", shorten(&value.text));
    Err(ParseError::new(position, message)
        .expecting(values.iter().map(|value| format!("`{value}`"))))
}

/// Refuses a text of which the function could not make anything.
fn check_text(function: &Function, position: usize, text: &str) -> Result<(), ParseError> {
    let fault = |message: String| Err(ParseError::new(position, message));
    match function.values {
        Values::NotEmpty if text.is_empty() => fault(format!(
            "{} needs at least one character; `exists(path)` asks for any value",
            function.name
        )),
        Values::Words if words(text).next().is_none() => {
            fault(format!("{} needs at least one word; this has only separators", function.name))
        }
        Values::Wildcards => match Wildcards::parse(text) {
            None => Err(ParseError::new(
                position,
                "a backslash in a text with wildcards must be followed by `*`, `?` or another one",
            )
            .expecting(["`\\\\*`", "`\\\\?`", "`\\\\\\\\`"])),
            Some(wildcards) if wildcards.is_everywhere() => fault(format!(
                "{} needs at least one character besides `*`; `exists(path)` asks for any value",
                function.name
            )),
            Some(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

fn check_expression(position: usize, text: &str) -> Result<Pattern, ParseError> {
    Pattern::parse(text).map_err(|refusal| {
        let message = format!(
            "the expression cannot be used: {}, at its character {}",
            refusal.message, refusal.position
        );
        ParseError::new(position, message).expecting([
            "an expression of characters, sets, groups, alternatives and bounded repetitions",
        ])
    })
}

fn refuse_file(position: usize, text: &str) -> Result<(), ParseError> {
    let has_scheme = text
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.starts_with(|c: char| c.is_ascii_alphabetic()));
    // An address of a file may do with one slash (RFC 8089).
    let is_file = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"));
    if has_scheme || is_file {
        let message = "a list in a file is not read; give the values themselves, and an address that is a value with `equals`";
        return Err(ParseError::new(position, message).expecting(["values"]));
    }
    Ok(())
}

/// Refuses an empty range, which `not` would turn into one of everything. The second end is at `position`.
fn refuse_empty_range(call: &Call, position: usize) -> Result<(), ParseError> {
    if call.function.test != Test::Range {
        return Ok(());
    }
    let of_ids = (call.path.property.kind == PropertyKind::Uri).then(|| call.of_ids());
    let call = of_ids.as_ref().unwrap_or(call);
    let bounds = Bounds::of(Test::Range, &call.values);
    let (Some((low, _)), Some((high, _))) = (bounds.low, bounds.high) else { return Ok(()) };
    let is_empty = match (call.path.property.kind, bounds.scale()) {
        (PropertyKind::Time, _) => {
            matches!(bounds.moments(Value::time), (Some(low), Some(high)) if low >= high)
        }
        (_, Scale::Moment) => {
            matches!(bounds.moments(|value| value.moment), (Some(low), Some(high)) if low >= high)
        }
        (_, Scale::Number) => match (&low.number, &high.number) {
            (Some(low), Some(high)) => number::compare(low, high) == Ordering::Greater,
            _ => false,
        },
        (_, Scale::Text) => low.folded > high.folded,
    };
    if is_empty {
        return Err(ParseError::new(
            position,
            "this range is empty: its second end comes before its first",
        ));
    }
    Ok(())
}

/// Ids of the shapes that ids usually have.
const USUAL_IDS: [&str; 6] = [
    "01a20223-122a-737b-bdc4-d069f65a2b80",
    "pypi.azure-core",
    "ACME_0042~b",
    "70419",
    "zZ",
    "i-9",
];

/// Refuses, where entities are destroyed, conditions on the beginning or the whole of a URI that are true whatever the id is.
fn refuse_every_uri(start: usize, call: Call) -> Result<Call, ParseError> {
    let is_of_uris =
        call.path.property.kind == PropertyKind::Uri && !call.function.test.is_presence();
    if is_of_uris && USUAL_IDS.iter().all(|id| uri_passes(&call, id)) {
        let message = "this matches the URIs of all usual ids, since every URI begins with `entities/`; \
                       write `entities/` before the beginning of an id";
        return Err(ParseError::new(start, message).expecting(["`startsWith(uri, 'entities/…')`"]));
    }
    Ok(call)
}

/// The elements of a list that is given as one text; a list that is given as such is left alone.
pub(super) fn split_list(mut given: Vec<Given>) -> Result<Vec<Given>, ParseError> {
    if given.len() != 1 {
        return Ok(given);
    }
    let (position, list) = given.remove(0);
    let elements: Vec<_> = list
        .split(',')
        .take(MAX_LIST + 1)
        .map(|element| (position, element.trim().to_owned()))
        .collect();
    if elements.len() > MAX_LIST {
        return Err(too_long_a_list(position));
    }
    if elements.iter().any(|(_, element)| element.is_empty()) {
        return Err(ParseError::new(
            position,
            "the list has an empty element; the empty text is asked for as `equals(path, '')`",
        ));
    }
    Ok(elements)
}

pub(super) fn too_long_a_list(position: usize) -> ParseError {
    ParseError::new(position, format!("a list may have at most {MAX_LIST} values"))
}

pub(super) fn check_length(position: usize, what: &str, text: &str) -> Result<(), ParseError> {
    let length = text.chars().count();
    if length > MAX_VALUE_CHARACTERS {
        return Err(ParseError::new(
            position,
            format!(
                "{what} may have at most {MAX_VALUE_CHARACTERS} characters, this one has {length}"
            ),
        ));
    }
    Ok(())
}

/// Makes a condition apply within one object: the one that the longest names lead to which all of its paths begin with, and continue
/// behind.
pub(super) fn same_value(start: usize, inner: Node) -> Result<Node, ParseError> {
    let fault = |message: &str| {
        ParseError::new(start, message)
            .expecting(["`inSameAttributeValue(equals(attributes.A.B, …) and …)`"])
    };
    let mut common: Option<(&'static Property, Vec<String>)> = None;
    let mut nested = false;
    visit(&inner, &mut |path| {
        let Some(path) = path else {
            nested = true;
            return;
        };
        let parents = path.names.split_last().map(|(_, parents)| parents).unwrap_or_default();
        let shared = |(property, names): (&'static Property, Vec<String>)| {
            let length = if property == path.property {
                names.iter().zip(parents).take_while(|(one, other)| one == other).count()
            } else {
                0
            };
            (property, names[..length].to_vec())
        };
        common = Some(common.take().map_or_else(|| (path.property, parents.to_vec()), shared));
    });
    if nested {
        return Err(fault("inSameAttributeValue cannot contain another one"));
    }
    match common {
        Some((property, names)) if property.kind == PropertyKind::Json && !names.is_empty() => {
            Ok(Node::SameValue { property, names, inner: Box::new(inner) })
        }
        _ => Err(fault(
            "the conditions have no nested attribute in common, so there is no one value for them to match",
        )),
    }
}

/// Visits the path of each call, and of each `inSameAttributeValue` none.
fn visit(node: &Node, visitor: &mut impl FnMut(Option<&Path>)) {
    match node {
        Node::And(members) | Node::Or(members) => {
            members.iter().for_each(|member| visit(member, visitor))
        }
        Node::Not(inner) => visit(inner, visitor),
        Node::Call(call) => visitor(Some(&call.path)),
        Node::SameValue { .. } => visitor(None),
    }
}
