//! The filter expression language: text such as `startsWith(attributes.Name, 'acme') and not exists(attributes.Owner)`.
//!
//! A filter is parsed once into a tree. The tree becomes either a SQL predicate over the `entity` table ([`Filter::predicate`]) or is
//! evaluated on a record in memory ([`Filter::matches`]); the two agree on every record, on every Postgres and whatever its locale.
//! `docs/filter.md` is the reference of the language and its semantics. This room is pure: it talks to no database.

mod candidates;
mod error;
mod evaluate;
mod fold;
mod function;
mod lexer;
mod number;
mod parser;
mod predicate;
mod sql;
mod syntax;

use std::fmt;
use std::str::FromStr;

pub use candidates::{AttributePath, Keys, Lookup, keys, numbers_between, texts_between};
pub use error::ParseError;
pub use fold::fold;
pub use predicate::Predicate;

/// The most characters that a value, or the name of an attribute, may have.
pub const MAX_VALUE_CHARACTERS: usize = 256;
/// The deepest nesting of parentheses and NOTs, and the most names in a path.
pub const MAX_DEPTH: usize = 32;
/// The most calls, NOTs, ANDs and ORs of one filter. A chain of ANDs counts as one.
pub const MAX_NODES: usize = 256;
/// The most values of one list.
pub const MAX_LIST: usize = 5_000;

/// A filter that has been read without fault. Its `Display` is the canonical text, which parses back to an equal filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    root: syntax::Node,
}

/// What a filter looks at in one entity.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The entity's id, without `entities/`.
    pub id: &'a str,
    /// The entity's type in full, as it is stored.
    pub r#type: &'a str,
    /// The entity's attributes: a JSON object.
    pub attributes: &'a serde_json::Value,
}

impl Filter {
    /// Reads a filter. AND binds tighter than OR.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parser::parse(text, parser::Strictness::Lenient).map(|root| Filter { root })
    }

    /// Reads a filter that chooses what will be destroyed. Refuses what people misread: AND and OR side by side without parentheses, and a
    /// `startsWith(uri, …)` whose value is itself a beginning of `entities/`, and so matches every entity.
    pub fn parse_strict(text: &str) -> Result<Self, ParseError> {
        parser::parse(text, parser::Strictness::Strict).map(|root| Filter { root })
    }

    /// Whether the record satisfies the filter.
    pub fn matches(&self, record: &Record<'_>) -> bool {
        evaluate::matches(&self.root, record)
    }

    /// The filter as a boolean SQL expression over the alias `e` of the table `entity`.
    pub fn predicate(&self) -> Predicate {
        sql::predicate(&self.root)
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
mod tests;
