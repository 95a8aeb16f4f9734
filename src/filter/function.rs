//! The table of functions. A new function is a row here, and an arm in the evaluator and in the SQL of whatever is not made of these.

use std::ops::RangeInclusive;

use super::MAX_LIST;

/// What a function asks of the values at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// Equals the one value, case ignored.
    Equals,
    /// Equals the one value.
    EqualsCaseSensitive,
    /// Begins with the one value, case ignored.
    StartsWith,
    /// Equals one of the values, case ignored.
    In,
    /// Is not empty.
    Exists,
    /// None is there that is not empty.
    Missing,
}

/// What kind of values follow the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Each is what it is.
    Plain,
    /// None may be the empty text.
    NotEmpty,
    /// A single one is a list in one text, with commas between; several are what they are.
    List,
}

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub name: &'static str,
    pub test: Test,
    /// How many values may follow the path.
    pub arity: RangeInclusive<usize>,
    pub values: Values,
}

const fn function(name: &'static str, test: Test, arity: RangeInclusive<usize>, values: Values) -> Function {
    Function { name, test, arity, values }
}

/// Every function of the language.
pub(super) static FUNCTIONS: &[Function] = &[
    function("equals", Test::Equals, 1..=1, Values::Plain),
    function("equalsCaseSensitive", Test::EqualsCaseSensitive, 1..=1, Values::Plain),
    function("startsWith", Test::StartsWith, 1..=1, Values::NotEmpty),
    function("in", Test::In, 1..=MAX_LIST, Values::List),
    function("exists", Test::Exists, 0..=0, Values::Plain),
    function("missing", Test::Missing, 0..=0, Values::Plain),
];

impl Function {
    /// The function of this name, which is spelled exactly so.
    pub fn named(name: &str) -> Option<&'static Function> {
        FUNCTIONS.iter().find(|function| function.name == name)
    }

    /// How the function is called, for people.
    pub fn usage(&self) -> String {
        let values = match (self.values, *self.arity.end()) {
            (Values::List, _) => ", value, …",
            (_, 0) => "",
            _ => ", value",
        };
        format!("{}(path{values})", self.name)
    }
}

/// The name that was probably meant, if one of them is near enough.
pub(super) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase());
    // The names are short; a word much longer than any of them is none of them, and not worth the comparison.
    let candidates = names.into_iter().filter(|candidate| name.len() <= 2 * candidate.len() + 2);
    candidates
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(far, candidate)| *far <= candidate.len().div_ceil(3))
        .min()
        .map(|(_, name)| name)
}
