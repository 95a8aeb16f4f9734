//! The paths of update masks: in the spelling of callers, and those that a body implies (AIP-134): its members, and those of messages
//! within it.

use serde_json::{Map, Value};

use super::json::{Cardinality, Field, Schema, Shape};

/// A path from the caller, in proto names. The parts behind it may be the name of a member of a free-form object, and are kept. A path that
/// leads to no field is kept as it was sent, and so reported.
pub fn in_proto_names(schema: &Schema, message: usize, path: &str) -> String {
    let mut inside = Some(message);
    let mut names = Vec::new();
    for name in path.split('.') {
        let Some(message) = inside else {
            names.push(name);
            continue;
        };
        let Some((_, field)) = schema.message(message).find(name) else { return path.to_owned() };
        names.push(field.descriptor.name());
        inside = message_in(field);
    }
    names.join(".")
}

/// The paths of a body that names these members of its message. A message that is empty, or `null`, is named itself.
pub fn inner(schema: &Schema, message: usize, named: Vec<String>, body: &[u8]) -> Vec<String> {
    let has_messages = named.iter().any(|name| message_at(schema, message, name).is_some());
    match serde_json::from_slice::<Map<String, Value>>(body) {
        Ok(members) if has_messages => paths(schema, message, &members),
        _ => named,
    }
}

fn paths(schema: &Schema, message: usize, members: &Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in members {
        let Some((_, field)) = schema.message(message).find(name) else { continue };
        let name = field.descriptor.name();
        match (message_at(schema, message, name), value) {
            (Some(inner), Value::Object(within)) => {
                let within = paths(schema, inner, within);
                if within.is_empty() {
                    found.push(name.to_owned());
                }
                found.extend(within.into_iter().map(|path| format!("{name}.{path}")));
            }
            _ => found.push(name.to_owned()),
        }
    }
    found
}

/// The place of the message that the member of this name has; none if it has something else, or many.
fn message_at(schema: &Schema, message: usize, name: &str) -> Option<usize> {
    message_in(schema.message(message).find(name)?.1)
}

/// The place of the message that a field has once.
pub fn message_in(field: &Field) -> Option<usize> {
    match (&field.cardinality, &field.shape) {
        (Cardinality::Single { .. }, Shape::Message(inner)) => Some(*inner),
        _ => None,
    }
}
