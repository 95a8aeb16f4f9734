//! The canonical text of a syntax tree, which parses back to an equal one.

use std::fmt;

use super::lexer::is_word_character;
use super::syntax::{Call, Node, Path};
use super::vocabulary::Property;

/// The name that counts the values before it, unless it is quoted.
pub(super) const COUNT: &str = "count";

impl Node {
    /// How deep parentheses and NOTs nest in the canonical text.
    pub(super) fn nesting(&self) -> usize {
        match self {
            Node::Call(_) => 0,
            Node::SameValue { inner, .. } => 1 + inner.nesting(),
            Node::Not(inner) => 1 + inner.nesting_as_operand(),
            Node::And(members) | Node::Or(members) => {
                members.iter().map(Node::nesting_as_operand).max().unwrap_or(0)
            }
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
            Node::SameValue { inner, .. } => return write!(f, "inSameAttributeValue({inner})"),
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
        write!(f, "{}({}", self.function.name, self.path)?;
        for value in &self.values {
            f.write_str(", ")?;
            fmt_quoted(f, &value.text)?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.property)?;
        for (index, name) in self.names.iter().enumerate() {
            f.write_str(".")?;
            let would_count =
                index > 0 && index + 1 == self.names.len() && !self.counted && name == COUNT;
            if !would_count
                && !name.is_empty()
                && name.chars().all(|c| c != '.' && is_word_character(c))
            {
                f.write_str(name)?;
            } else {
                fmt_quoted(f, name)?;
            }
        }
        f.write_str(if self.counted { ".count" } else { "" })
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
