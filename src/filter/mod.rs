//! The filter expression language: text such as `startsWith(attributes.Name, 'acme') and not exists(attributes.Owner)`.
//!
//! A filter is parsed once into a tree. The tree becomes either a SQL predicate ([`Filter::predicate`]) or is evaluated on a record in
//! memory ([`Filter::matches`]); the two agree on every record, on every Postgres and whatever its locale. The properties for filters are a
//! table, the [`Vocabulary`]: that of entities is [`ENTITY`], and each other list has its own. `docs/filter.md` is the reference of the
//! language and its semantics. This room is pure: it talks to no database.

mod arguments;
mod attributes;
mod automaton;
mod candidates;
mod comparison;
#[cfg(test)]
pub(crate) mod conditions;
mod display;
mod error;
mod evaluate;
mod fold;
mod function;
mod lexer;
mod meant;
mod moment;
mod named;
mod number;
mod only;
mod parser;
mod pattern;
mod plain_marks;
mod predicate;
mod record;
mod request;
mod set;
mod shape;
mod sql;
mod sql_json;
mod sql_shared;
mod sql_text;
mod suspect;
mod syntax;
mod vocabulary;
mod wildcard;
mod words;

use std::fmt;
use std::str::FromStr;

pub use candidates::{AttributePath, Keys, Lookup, is_many, keys};
pub use comparison::{Comparison, Mismatch, With};
pub use error::ParseError;
pub use fold::fold;
pub use function::{FUNCTIONS, Function, Test, Values};
pub use moment::Moment;
pub use named::NamedValue;
pub use pattern::Pattern;
pub use predicate::Predicate;
pub use record::{Datum, EntityRecord, Record};
pub use request::{check_filter, has_fit_length, invalid_filter, only_filter};
pub use shape::{MASKS, Shape, ShapeCounts};
pub use suspect::{Meant, SuspectValue};
pub use vocabulary::{ENTITY, Property, PropertyKind, Vocabulary};

/// The most characters that a value, or the name of an attribute, may have.
pub const MAX_VALUE_CHARACTERS: usize = 256;
/// The deepest nesting of parentheses and NOTs, and the most names in a path.
pub const MAX_DEPTH: usize = 32;
/// The most calls, NOTs, ANDs and ORs of one filter. A chain of ANDs counts as one.
pub const MAX_NODES: usize = 256;
/// The most regular expressions of one filter. Postgres keeps 32 of them ready for a connection; with more it would read each anew for every record.
pub const MAX_EXPRESSIONS: usize = 24;
/// The most values of one list.
pub const MAX_LIST: usize = 5_000;

/// A filter that has been read without fault. Its `Display` is the canonical text, which parses back to an equal filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    root: syntax::Node,
}

impl Filter {
    /// Reads a filter of entities. AND binds tighter than OR.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Filter::parse_for(&ENTITY, text)
    }

    /// Reads a filter of what the vocabulary describes.
    pub fn parse_for(vocabulary: &'static Vocabulary, text: &str) -> Result<Self, ParseError> {
        parser::parse(vocabulary, text, parser::Strictness::Lenient).map(|root| Filter { root })
    }

    /// Reads a filter that chooses which entities will be destroyed. Refuses what people misread: AND and OR side by side without
    /// parentheses, and a prefix that every `uri` has, since all of them begin with `entities/`.
    pub fn parse_strict(text: &str) -> Result<Self, ParseError> {
        parser::parse(&ENTITY, text, parser::Strictness::Strict).map(|root| Filter { root })
    }

    /// Returns whether the record satisfies the filter. It must have the properties of the filter's vocabulary.
    pub fn matches(&self, record: &dyn Record) -> bool {
        evaluate::matches(&self.root, record)
    }

    /// The filter as a boolean SQL expression over what its vocabulary names; of entities, over the alias `e` of the table `entity`.
    pub fn predicate(&self) -> Predicate {
        sql::predicate(&self.root)
    }

    /// The type that every entity has that match it, if it names one.
    pub fn only_type(&self) -> Option<&str> {
        only::only(&self.root, "type").map(|value| value.text.as_str())
    }

    /// The syntax tree.
    pub fn root(&self) -> &syntax::Node {
        &self.root
    }
}

impl FromStr for Filter {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Filter::parse(text)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}

#[cfg(test)]
mod harm_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod selection_tests;
#[cfg(test)]
mod tests;
