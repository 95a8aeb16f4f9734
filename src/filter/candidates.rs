//! Index lookups of a filter: conditions on the values of an attribute that every match meets. Whether an entity is a match is then decided
//! on its own row.
//!
//! A value is indexed as a key, a text that sorts byte by byte: `t` and the folded text, cut after 256 characters, for a text or a boolean,
//! and `n` and 16 hexadecimal digits for a number, which are those of the nearest double: the doubles nearest to two numbers are in their
//! order or the same. A filter's values have at most 256 characters, so the cut makes no difference to whether a key may match. An entity
//! with very many values has one key instead of all of them, [`MANY`], and may match every condition.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::evaluate::any_value;
use super::fold::fold_character;
use super::function::Test;
use super::syntax::{Bounds, Call, Node, Path, Scale, Value};
use super::{Filter, MAX_VALUE_CHARACTERS, ParseError};
use crate::proto::object::{Object, View};

/// Keys of one attribute. Some value of every match has one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The attribute: its canonical path.
    pub attribute: String,
    /// The keys.
    pub keys: Keys,
}

/// A set of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Each of these.
    OneOf(Vec<String>),
    /// Those from `from` on that sort before `below`.
    Between {
        /// The first.
        from: String,
        /// Behind the last.
        below: String,
    },
}

/// The path of an attribute, as it is written behind `attributes.` in a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributePath {
    /// Its one spelling.
    pub canonical: String,
    /// The names that lead to the values.
    pub names: Vec<String>,
}

impl AttributePath {
    /// Reads a path such as `Address.City` or `'First name'`.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        const BEFORE: &str = "exists(attributes.";
        let filter = Filter::parse(&format!("{BEFORE}{text})")).map_err(|mut error| {
            error.position = error.position.saturating_sub(BEFORE.len());
            error
        })?;
        match filter.root {
            Node::Call(Call { path, .. }) if path.is_attribute() => Ok(AttributePath::of(&path)),
            _ => Err(ParseError::new(0, "not the path of one attribute")),
        }
    }

    pub(super) fn of(path: &Path) -> Self {
        let spelled = path.to_string();
        let canonical = spelled.strip_prefix("attributes.").unwrap_or(&spelled).to_owned();
        AttributePath { canonical, names: path.names.clone() }
    }
}

/// The keys of the values that these names lead to, each once; one key for all, if there are more than `at_most`.
pub fn keys(attributes: Object<'_>, names: &[String], at_most: usize) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let are_many = any_value(attributes, names, &mut |value| {
        keys.extend(key(value));
        keys.len() > at_most
    });
    if are_many { BTreeSet::from([MANY.to_owned()]) } else { keys }
}

impl AttributePath {
    /// Some value that is there, as a text.
    pub fn some_value(&self, attributes: Object<'_>) -> Option<String> {
        let mut found = None;
        any_value(attributes, &self.names, &mut |value| {
            found = match value {
                View::String(text) if !text.is_empty() => Some(text.to_owned()),
                View::Bool(truth) => Some(truth.to_string()),
                View::Number(number) => Some(number.text().into_owned()),
                View::String(_) | View::Null | View::List(_) | View::Object(_) => None,
            };
            found.is_some()
        });
        found
    }
}

/// Whether a key is in place of all values of an entity.
pub fn is_many(key: &str) -> bool {
    key == MANY
}

fn key(value: View<'_>) -> Option<String> {
    match value {
        View::String(text) => Some(text_key(text)),
        View::Bool(truth) => Some(text_key(if truth { "true" } else { "false" })),
        View::Number(number) => Some(number_key(number.nearest())),
        View::Null | View::List(_) | View::Object(_) => None,
    }
}

/// Of any values. It comes before those of numbers and of texts, and its first character distinguishes it.
const MANY: &str = "m";
const TEXT: &str = "t";
const NUMBER: &str = "n";
/// Behind every key of a number.
const BEHIND_NUMBERS: &str = "o";
/// Behind every key of a text.
const BEHIND_TEXTS: &str = "u";

fn text_key(text: &str) -> String {
    TEXT.chars().chain(text.chars().take(MAX_VALUE_CHARACTERS).map(fold_character)).collect()
}

/// Sorts as the numbers do: the bits of a double that is not negative are in order, and those of a negative one in the opposite order.
fn number_key(number: f64) -> String {
    // Both zeros are one, and a number beyond every double has the key of the last.
    let bits = (number.clamp(f64::MIN, f64::MAX) + 0.0).to_bits();
    let ordered = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    format!("{NUMBER}{ordered:016x}")
}

/// The keys of the numbers from `from` to `to`, both included.
pub fn numbers_between(from: f64, to: f64) -> Keys {
    Keys::Between { from: number_key(from), below: format!("{}~", number_key(to)) }
}

/// The keys of the texts from `from` to `to`, both included, in the order of their characters without case. Without an end the range is open.
pub fn texts_between(from: Option<&str>, to: Option<&str>) -> Keys {
    let from = from.map_or(TEXT.to_owned(), text_key);
    // A key that was cut may stand for a longer text; it sorts before that.
    let below = to.map_or(BEHIND_TEXTS.to_owned(), |to| format!("{}\u{1}", text_key(to)));
    Keys::Between { from, below }
}

fn texts_starting_with(start: &str) -> Keys {
    let from = text_key(start);
    let below = behind_all_starting_with(&from).unwrap_or_else(|| BEHIND_TEXTS.to_owned());
    Keys::Between { from, below }
}

/// The first text that sorts behind every text with this start. UTF-8 sorts as its characters do.
fn behind_all_starting_with(start: &str) -> Option<String> {
    let mut characters: Vec<char> = start.chars().collect();
    while let Some(last) = characters.pop() {
        // No character is a surrogate.
        let next =
            if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

impl Filter {
    /// Conditions that indexes over these attributes can serve. Each of them is necessary: every match is found by one of the lookups of each.
    /// There may be none; then an index can say nothing.
    pub fn candidates(&self, is_indexed: &dyn Fn(&str) -> bool) -> Vec<Vec<Lookup>> {
        necessary(&self.root, is_indexed)
    }
}

fn necessary(node: &Node, is_indexed: &dyn Fn(&str) -> bool) -> Vec<Vec<Lookup>> {
    match node {
        Node::Call(call) => lookups(call, is_indexed).into_iter().collect(),
        Node::And(members) => {
            members.iter().flat_map(|member| necessary(member, is_indexed)).collect()
        }
        // A condition that one value satisfies is true for some value.
        Node::SameValue { inner, .. } => necessary(inner, is_indexed),
        Node::Or(members) => {
            let first = |member| necessary(member, is_indexed).into_iter().next();
            let union: Option<Vec<Vec<Lookup>>> = members.iter().map(first).collect();
            union.into_iter().map(|members| members.concat()).collect()
        }
        Node::Not(_) => Vec::new(),
    }
}

fn lookups(call: &Call, is_indexed: &dyn Fn(&str) -> bool) -> Option<Vec<Lookup>> {
    if !call.path.is_attribute() {
        return None;
    }
    let attribute = AttributePath::of(&call.path).canonical;
    if !is_indexed(&attribute) {
        return None;
    }
    let mut keys = match call.function.test {
        Test::Equals | Test::EqualsCaseSensitive => vec![Keys::OneOf(equal_keys(&call.values))],
        Test::StartsWith => call.values.iter().flat_map(starting_keys).collect(),
        test if test.is_order() => keys_within(Bounds::of(test, &call.values)),
        // The condition asks for no value, or for something without a position in the order of values.
        _ => return None,
    };
    match keys.first_mut() {
        Some(Keys::OneOf(keys)) => keys.push(MANY.to_owned()),
        _ => keys.push(Keys::OneOf(vec![MANY.to_owned()])),
    }
    Some(keys.into_iter().map(|keys| Lookup { attribute: attribute.clone(), keys }).collect())
}

fn equal_keys(values: &[Value]) -> Vec<String> {
    let number = |value: &Value| {
        value.number.as_deref().and_then(|plain| plain.parse().ok()).map(number_key)
    };
    let keys: BTreeSet<String> = values
        .iter()
        .flat_map(|value| std::iter::once(text_key(&value.text)).chain(number(value)))
        .collect();
    keys.into_iter().collect()
}

/// A number begins with a text if its digits do, which are not in order: so where a number may be meant, all of them are.
fn starting_keys(value: &Value) -> Vec<Keys> {
    let mut keys = vec![texts_starting_with(&value.text)];
    if value.text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        keys.push(all_numbers());
    }
    keys
}

/// The keys of what may lie between two ends.
fn keys_within(bounds: Bounds<'_>) -> Vec<Keys> {
    let end = |end: Option<(&Value, bool)>, open: f64| {
        let number =
            end.and_then(|(value, _)| value.number.as_deref()).and_then(|plain| plain.parse().ok());
        number.unwrap_or(open)
    };
    let text = |end: Option<(&'_ Value, bool)>| end.map(|(value, _)| value.text.clone());
    match bounds.scale() {
        // A text that reads as a number may be anywhere among those that begin as one.
        Scale::Number => vec![
            numbers_between(end(bounds.low, f64::NEG_INFINITY), end(bounds.high, f64::INFINITY)),
            Keys::Between { from: format!("{TEXT}-"), below: format!("{TEXT}:") },
        ],
        Scale::Moment => {
            let (low, high) = bounds.moments(|value| value.moment);
            vec![dates_between(low, high)]
        }
        // A number is compared as its digits are written, in which it is not in order.
        Scale::Text => vec![
            texts_between(text(bounds.low).as_deref(), text(bounds.high).as_deref()),
            all_numbers(),
        ],
    }
}

/// Texts that are dates begin with their local day: within a day of that in UTC.
fn dates_between(low: Option<DateTime<Utc>>, high: Option<DateTime<Utc>>) -> Keys {
    let day = |moment: DateTime<Utc>, days: i64| {
        moment
            .checked_add_signed(TimeDelta::days(days))
            .map(|day| day.format("%Y-%m-%d").to_string())
    };
    // Years of other than four digits are not dates, and would be out of order.
    let day = |moment: Option<DateTime<Utc>>, days: i64| {
        moment.and_then(|moment| day(moment, days)).filter(|day| day.len() == 10)
    };
    let from = day(low, -1).unwrap_or_else(|| "0".to_owned());
    let below = day(high, 2).unwrap_or_else(|| ":".to_owned());
    Keys::Between { from: format!("{TEXT}{from}"), below: format!("{TEXT}{below}") }
}

fn all_numbers() -> Keys {
    Keys::Between { from: NUMBER.to_owned(), below: BEHIND_NUMBERS.to_owned() }
}

#[cfg(test)]
mod tests;
