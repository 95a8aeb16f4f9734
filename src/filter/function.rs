//! The table of functions. A new function is a row here, and an arm in the evaluator and in the SQL of whatever is not made of these.

use std::ops::RangeInclusive;

use super::MAX_LIST;

/// The test of a function on the values at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Equals one of the values, case ignored.
    Equals,
    /// Equals one of the values.
    EqualsCaseSensitive,
    /// Begins with the value, case ignored.
    StartsWith,
    /// Has all words of the value but the last in full, and a word that begins with the last, case ignored.
    ContainsWords,
    /// Has one of the value's words, case ignored.
    AnyWord,
    /// Between two values, both included.
    Range,
    /// Is less than the value.
    Less,
    /// Is less than the value, or it.
    LessOrEqual,
    /// Is greater than the value.
    Greater,
    /// Is greater than the value, or it.
    GreaterOrEqual,
    /// Has the wildcards of the value, case ignored.
    Contains,
    /// Matches the expression in full.
    Matches,
    /// Is not empty.
    Exists,
    /// None is there that is not empty.
    Missing,
    /// All conditions are about one value: a filter takes the place of the path.
    SameValue,
}

impl Test {
    /// Returns whether it compares in an order.
    pub fn is_order(self) -> bool {
        matches!(
            self,
            Test::Range | Test::Less | Test::LessOrEqual | Test::Greater | Test::GreaterOrEqual
        )
    }

    /// Returns whether it asks for one of some values.
    pub fn is_equality(self) -> bool {
        matches!(self, Test::Equals | Test::EqualsCaseSensitive)
    }

    /// Returns whether it compares texts in lower case only.
    pub fn is_of_lowered(self) -> bool {
        matches!(
            self,
            Test::Equals | Test::StartsWith | Test::ContainsWords | Test::AnyWord | Test::Contains
        )
    }

    /// Returns whether it looks for a value that is not empty; what `missing` makes of it is decided over all values.
    pub fn is_presence(self) -> bool {
        matches!(self, Test::Exists | Test::Missing)
    }
}

/// The kind of values that follow the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Each is a value by itself.
    Plain,
    /// None may be the empty text.
    NotEmpty,
    /// A single one is a list in one text, with commas between; several are values by themselves.
    List,
    /// Each is a value by itself, but a single one must not be the address of a file.
    Listed,
    /// Each has a word.
    Words,
    /// Each is a text with wildcards.
    Wildcards,
    /// Each is a regular expression.
    Expression,
}

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// How it is spelled.
    pub name: &'static str,
    /// Its test.
    pub test: Test,
    /// How many values may follow the path.
    pub arity: RangeInclusive<usize>,
    /// Their kind.
    pub values: Values,
}

const fn function(
    name: &'static str,
    test: Test,
    arity: RangeInclusive<usize>,
    values: Values,
) -> Function {
    Function { name, test, arity, values }
}

/// Every function of the language.
pub static FUNCTIONS: &[Function] = &[
    function("equals", Test::Equals, 1..=1, Values::Plain),
    function("equalsCaseSensitive", Test::EqualsCaseSensitive, 1..=1, Values::Plain),
    function("startsWith", Test::StartsWith, 1..=1, Values::NotEmpty),
    function("containsWordStartingWith", Test::ContainsWords, 1..=1, Values::Words),
    function("fullText", Test::AnyWord, 1..=1, Values::Words),
    function("in", Test::Equals, 1..=MAX_LIST, Values::List),
    function("listEquals", Test::Equals, 1..=MAX_LIST, Values::Listed),
    function("listEqualsCaseSensitive", Test::EqualsCaseSensitive, 1..=MAX_LIST, Values::Listed),
    function("range", Test::Range, 2..=2, Values::NotEmpty),
    function("lt", Test::Less, 1..=1, Values::NotEmpty),
    function("lte", Test::LessOrEqual, 1..=1, Values::NotEmpty),
    function("gt", Test::Greater, 1..=1, Values::NotEmpty),
    function("gte", Test::GreaterOrEqual, 1..=1, Values::NotEmpty),
    function("contains", Test::Contains, 1..=1, Values::Wildcards),
    function("regexp", Test::Matches, 1..=1, Values::Expression),
    function("exists", Test::Exists, 0..=0, Values::Plain),
    function("missing", Test::Missing, 0..=0, Values::Plain),
    function("inSameAttributeValue", Test::SameValue, 0..=0, Values::Plain),
];

impl Function {
    /// The function of this name, which is spelled exactly so.
    pub fn named(name: &str) -> Option<&'static Function> {
        FUNCTIONS.iter().find(|function| function.name == name)
    }

    /// How the function is called, for people.
    pub fn usage(&self) -> String {
        let values = match (self.test, *self.arity.end()) {
            (Test::SameValue, _) => return format!("{}(filter)", self.name),
            (Test::Range, _) => ", from, to",
            (_, 0) => "",
            (_, 1) => ", value",
            _ => ", value, …",
        };
        format!("{}(path{values})", self.name)
    }
}
