//! Field paths in errors: where a reader is, and from the proto names that services speak to the spelling of the contract.

use std::fmt::Write as _;

use super::schema::{Cardinality, Schema, Shape};
use crate::error::MAX_FIELD_CHARACTERS;

/// Where a reader of a document is. Of a name no more is kept than could be reported in a fault.
pub struct Path {
    text: String,
    /// How much of it was given.
    root: usize,
}

impl Path {
    /// At the top of the value at this path.
    pub fn new(root: &str) -> Self {
        Path { text: root.to_owned(), root: root.len() }
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part that was given.
    pub fn root(&self) -> &str {
        &self.text[..self.root]
    }

    /// Enters a member, and returns where to truncate the path afterwards.
    pub fn enter(&mut self, name: &str) -> usize {
        let mark = self.text.len();
        if mark > 0 {
            self.text.push('.');
        }
        match name.char_indices().nth(MAX_FIELD_CHARACTERS + 1) {
            Some((end, _)) => self.text.push_str(&name[..end]),
            None => self.text.push_str(name),
        }
        mark
    }

    /// Enters an element, as [`Path::enter`] does a member.
    pub fn enter_element(&mut self, index: usize) -> usize {
        let mark = self.text.len();
        write!(self.text, "[{index}]").expect("memory can always be written to");
        mark
    }

    /// Leaves a member.
    pub fn truncate(&mut self, mark: usize) {
        self.text.truncate(mark);
    }
}

impl Schema {
    /// Spells a path of proto names, such as `objects.uri_list[3]`, as the members of the JSON document are spelled: `objects.uriList[3]`.
    /// Parts that are not fields, such as a key of a map or a member of a free-form object, stay as they are.
    pub fn spell(&self, message: usize, path: &str) -> String {
        let mut spelled = String::with_capacity(path.len());
        let mut inside = Some(message);
        let mut key_of: Option<&Shape> = None;
        for (count, part) in path.split('.').enumerate() {
            if count > 0 {
                spelled.push('.');
            }
            if let Some(shape) = key_of.take() {
                spelled.push_str(part);
                inside = message_of(shape);
                continue;
            }
            let (name, index) = part.split_at(part.find('[').unwrap_or(part.len()));
            match inside.and_then(|message| self.message(message).find(name)) {
                Some((_, field)) => {
                    spelled.push_str(&field.name);
                    inside = match field.cardinality {
                        Cardinality::Map(_) if index.is_empty() => {
                            key_of = Some(&field.shape);
                            None
                        }
                        _ => message_of(&field.shape),
                    };
                }
                None => {
                    spelled.push_str(name);
                    inside = None;
                }
            }
            spelled.push_str(index);
        }
        spelled
    }

    /// Spells the name of a field of the message, or of a message in it; none if there is no such field.
    pub fn spell_name(&self, message: usize, name: &str) -> Option<&str> {
        let (mut seen, mut next) = (vec![message], 0);
        while let Some(place) = seen.get(next).copied() {
            for field in &self.message(place).fields {
                if field.descriptor.name() == name {
                    return Some(&field.name);
                }
                seen.extend(message_of(&field.shape).filter(|inner| !seen.contains(inner)));
            }
            next += 1;
        }
        None
    }
}

fn message_of(shape: &Shape) -> Option<usize> {
    match shape {
        Shape::Message(place) => Some(*place),
        _ => None,
    }
}
