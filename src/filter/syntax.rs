//! The syntax tree.

use super::fold::fold;
use super::function::{Function, Test};
use super::moment::Moment;
use super::number;
use super::pattern::Pattern;
use super::vocabulary::{Property, PropertyKind};

/// A condition on one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// All are true; at least two.
    And(Vec<Node>),
    /// One is true; at least two.
    Or(Vec<Node>),
    /// It is not true.
    Not(Box<Node>),
    /// A function that is true for the values at a path.
    Call(Call),
    /// A condition is true within one object that `names` lead to; all of its paths begin so, and continue.
    SameValue {
        /// The property that has the objects, of [`PropertyKind::Json`].
        property: &'static Property,
        /// The names that lead to the objects; at least one.
        names: Vec<String>,
        /// The condition. Its paths are whole.
        inner: Box<Node>,
    },
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The function.
    pub function: &'static Function,
    /// The property it reads.
    pub path: Path,
    /// As many as the function takes.
    pub values: Vec<Value>,
    /// The expression, of a function that takes one.
    pub pattern: Option<Pattern>,
}

/// The property that a function reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The property.
    pub property: &'static Property,
    /// Of [`PropertyKind::Json`], the names that lead from the property to the values; without any, every value at any depth is meant.
    pub names: Vec<String>,
    /// True if it is the number of the values that counts.
    pub counted: bool,
}

impl Path {
    /// Returns whether the names lead to values of JSON.
    pub fn is_attribute(&self) -> bool {
        self.property.kind == PropertyKind::Json && !self.names.is_empty() && !self.counted
    }
}

/// A value to compare with, and what comparisons need of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// As it was given.
    pub text: String,
    /// Without case.
    pub folded: String,
    /// Its plain decimal, if it reads as a number.
    pub number: Option<String>,
    /// The moments, if it reads as a date.
    pub moment: Option<Moment>,
}

impl Value {
    pub(super) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Value {
            folded: fold(&text),
            number: number::plain(&text),
            moment: Moment::of_text(&text),
            text,
        }
    }

    /// The moments of a value where a time is wanted: a date, or a whole number of milliseconds.
    pub fn time(&self) -> Option<Moment> {
        self.moment.or_else(|| self.whole_number().and_then(Moment::of_milliseconds))
    }

    /// The probable meaning of a number that is not a time; see [`Moment::of_milliseconds`].
    pub(super) fn meant_time(&self) -> Option<String> {
        self.whole_number().and_then(Moment::meant_by).map(|meant| meant.as_time())
    }

    fn whole_number(&self) -> Option<i64> {
        self.number.as_ref()?.parse().ok()
    }
}

/// How values are ordered, which depends on the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// By their number: JSON numbers, and texts that read as one.
    Number,
    /// By the moment that they stand for: texts that read as a date.
    Moment,
    /// By their text, case ignored.
    Text,
}

/// The ends of what an ordering function asks for, each with whether it is included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds<'a> {
    pub low: Option<(&'a Value, bool)>,
    pub high: Option<(&'a Value, bool)>,
}

impl<'a> Bounds<'a> {
    /// The ends, of the values of an ordering function.
    pub fn of(test: Test, values: &'a [Value]) -> Bounds<'a> {
        let (first, last) = (values.first(), values.last());
        let end = |value: Option<&'a Value>, included: bool| value.map(|value| (value, included));
        match test {
            Test::Less => Bounds { low: None, high: end(last, false) },
            Test::LessOrEqual => Bounds { low: None, high: end(last, true) },
            Test::Greater => Bounds { low: end(first, false), high: None },
            Test::GreaterOrEqual => Bounds { low: end(first, true), high: None },
            _ => Bounds { low: end(first, true), high: end(last, true) },
        }
    }

    fn values(self) -> impl Iterator<Item = &'a Value> {
        self.low.into_iter().chain(self.high).map(|(value, _)| value)
    }

    pub fn scale(self) -> Scale {
        if self.values().all(|value| value.number.is_some()) {
            Scale::Number
        } else if self.values().all(|value| value.moment.is_some()) {
            Scale::Moment
        } else {
            Scale::Text
        }
    }

    /// The first moment that is included, and the first that is not any more.
    pub fn moments(
        self,
        of: impl Fn(&Value) -> Option<Moment>,
    ) -> (Option<chrono::DateTime<chrono::Utc>>, Option<chrono::DateTime<chrono::Utc>>) {
        let low = self.low.and_then(|(value, included)| {
            of(value).map(|moment| if included { moment.start } else { moment.end })
        });
        let high = self.high.and_then(|(value, included)| {
            of(value).map(|moment| if included { moment.end } else { moment.start })
        });
        (low, high)
    }
}

pub(super) const URI_PREFIX: &str = "entities/";

impl Value {
    /// The id that is meant by a URI, `entities/ID` or `ID`.
    pub(super) fn uri_id(&self, ignore_case: bool) -> Value {
        let prefixed = if ignore_case {
            self.folded.starts_with(URI_PREFIX)
        } else {
            self.text.starts_with(URI_PREFIX)
        };
        if prefixed { Value::new(&self.text[URI_PREFIX.len()..]) } else { self.clone() }
    }

    /// Returns whether every URI begins with this, case ignored.
    pub(super) fn begins_every_uri(&self) -> bool {
        URI_PREFIX.starts_with(&self.folded)
    }
}

impl Call {
    /// The same call, of the ids that are meant by its values.
    pub(super) fn of_ids(&self) -> Call {
        let ignore_case = self.function.test != Test::EqualsCaseSensitive;
        Call {
            values: self.values.iter().map(|value| value.uri_id(ignore_case)).collect(),
            ..self.clone()
        }
    }

    /// Returns whether it compares `entities/ID` as a whole, and not the id.
    pub(super) fn looks_at_whole_uris(&self) -> bool {
        matches!(
            self.function.test,
            Test::ContainsWords | Test::AnyWord | Test::Contains | Test::Matches
        )
    }
}
