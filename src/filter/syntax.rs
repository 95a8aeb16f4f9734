//! The syntax tree, and the canonical text of it.

use std::fmt;

use super::fold::fold;
use super::function::Function;
use super::lexer::is_word_character;
use super::number;

/// A condition on one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// All hold; at least two.
    And(Vec<Node>),
    /// One holds; at least two.
    Or(Vec<Node>),
    /// It does not hold.
    Not(Box<Node>),
    /// A function holds for the values of a property.
    Call(Call),
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub function: &'static Function,
    pub property: Property,
    /// As many as the function takes.
    pub values: Vec<Value>,
}

/// What a function looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Property {
    /// The entity's type in full.
    Type,
    /// `entities/ID`.
    Uri,
    /// The values that these names lead to from the attributes; at least one name.
    Attribute(Vec<String>),
}

/// The names of the properties, as `attributes` stands before the name of an attribute.
pub(super) const PROPERTIES: [&str; 3] = ["type", "uri", "attributes"];

/// A value to compare with, and what comparisons need of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// As it was given.
    pub text: String,
    /// Without case.
    pub folded: String,
    /// Its plain decimal, if it reads as a number.
    pub number: Option<String>,
}

impl Value {
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Value { folded: fold(&text), number: number::plain(&text), text }
    }
}

const URI_PREFIX: &str = "entities/";

/// What a value that is compared with a `uri` asks of the entity's id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UriStart {
    /// The value ends within `entities/`, so every URI begins with it.
    EveryUri,
    /// The id begins with this.
    Id(Value),
}

impl Value {
    /// The id that is meant by a URI, `entities/ID` or `ID`.
    pub fn uri_id(&self, ignore_case: bool) -> Value {
        let prefixed = if ignore_case { self.folded.starts_with(URI_PREFIX) } else { self.text.starts_with(URI_PREFIX) };
        if prefixed { Value::new(&self.text[URI_PREFIX.len()..]) } else { self.clone() }
    }

    /// What a URI begins with that begins with this value, case ignored.
    pub fn uri_start(&self) -> UriStart {
        if URI_PREFIX.starts_with(&self.folded) { UriStart::EveryUri } else { UriStart::Id(self.uri_id(true)) }
    }
}

impl Node {
    /// How deep parentheses and NOTs nest in the canonical text.
    pub fn nesting(&self) -> usize {
        match self {
            Node::Call(_) => 0,
            Node::Not(inner) => 1 + inner.nesting_as_operand(),
            Node::And(members) | Node::Or(members) => members.iter().map(Node::nesting_as_operand).max().unwrap_or(0),
        }
    }

    fn nesting_as_operand(&self) -> usize {
        self.nesting() + usize::from(self.is_chain())
    }

    fn is_chain(&self) -> bool {
        matches!(self, Node::And(_) | Node::Or(_))
    }

    fn fmt_operand(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_chain() { write!(f, "({self})") } else { write!(f, "{self}") }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (members, operator) = match self {
            Node::Call(call) => return write!(f, "{call}"),
            Node::Not(inner) => {
                f.write_str("not ")?;
                return inner.fmt_operand(f);
            }
            Node::And(members) => (members, " and "),
            Node::Or(members) => (members, " or "),
        };
        for (index, member) in members.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { operator })?;
            member.fmt_operand(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}", self.function.name, self.property)?;
        for value in &self.values {
            f.write_str(", ")?;
            fmt_quoted(f, &value.text)?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = match self {
            Property::Type => return f.write_str("type"),
            Property::Uri => return f.write_str("uri"),
            Property::Attribute(names) => names,
        };
        f.write_str("attributes")?;
        for name in names {
            f.write_str(".")?;
            if !name.is_empty() && name.chars().all(|c| c != '.' && is_word_character(c)) {
                f.write_str(name)?;
            } else {
                fmt_quoted(f, name)?;
            }
        }
        Ok(())
    }
}

fn fmt_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("'")?;
    for c in text.chars() {
        match c {
            '\'' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            _ => write!(f, "{c}")?,
        }
    }
    f.write_str("'")
}
