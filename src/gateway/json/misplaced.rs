//! Finds the member that a misspelt one probably means: one with a similar name, or the same in another message.

use super::fault::Fault;
use super::schema::{Cardinality, Schema, Shape};

/// How it is said where members of the caller's own belong.
pub const OWN: &str = "your own data goes into";
/// How far below an object a member is looked for.
const DEPTH: usize = 2;

impl Schema {
    /// The path, in proto names, to the field of this name in a message that is once in this one, or in those inside it; none if none has
    /// it.
    pub fn way_down(&self, message: usize, name: &str) -> Option<String> {
        self.ways_down(message, name, DEPTH).into_iter().next()
    }

    /// All such ways that are the shortest.
    fn ways_down(&self, message: usize, name: &str, depth: usize) -> Vec<String> {
        let within = || {
            self.message(message).fields.iter().filter_map(|field| {
                match (&field.cardinality, &field.shape) {
                    (Cardinality::Single { .. }, Shape::Message(inner)) => {
                        Some((field.descriptor.name(), *inner))
                    }
                    _ => None,
                }
            })
        };
        let found = |(at, inner)| {
            self.message(inner)
                .find(name)
                .map(|(_, field)| format!("{at}.{}", field.descriptor.name()))
        };
        let nearest: Vec<_> = within().filter_map(found).collect();
        if !nearest.is_empty() || depth <= 1 {
            return nearest;
        }
        within()
            .flat_map(|(at, inner)| {
                self.ways_down(inner, name, depth - 1)
                    .into_iter()
                    .map(move |way| format!("{at}.{way}"))
            })
            .collect()
    }

    /// The one field of the message for free-form data; none if there is none, or more than one.
    fn free_form(&self, message: usize) -> Option<&str> {
        let is_free = |cardinality: &Cardinality, shape: &Shape| {
            matches!((cardinality, shape), (Cardinality::Single { .. }, Shape::Struct))
        };
        let mut fields = self
            .message(message)
            .fields
            .iter()
            .filter(|field| is_free(&field.cardinality, &field.shape));
        let only = fields.next()?;
        fields.next().is_none().then(|| only.descriptor.name())
    }
}

/// The fault of a member of this name, which the object at `here` does not have. `around` are the messages on the path to it, each by its
/// index in the schema and with the length of the path to it, its own the last. Paths begin at the top of the request.
pub(super) fn unknown(schema: &Schema, here: &str, around: &[(usize, usize)], name: &str) -> Fault {
    let Some(((message, _), above)) = around.split_last() else { return Fault::unknown(None) };
    let ways = schema.ways_down(*message, name, DEPTH);
    let ends: Vec<_> = ways.iter().filter_map(|way| way.rsplit_once('.')).collect();
    if let Some((_, field)) = ends.first() {
        let holders: Vec<_> =
            ends.iter().map(|(way, _)| format!("`{}`", joined(here, way))).collect();
        return Fault::misplaced(field, &format!("within {}", holders.join(" or ")));
    }
    // Neither a parent of the object, nor a member of a repeated parent.
    let beside = |(message, length): &(usize, usize)| {
        let (_, field) = schema.message(*message).find(name)?;
        let way = here[*length..].trim_start_matches('.');
        let is_within = way.split('.').next() == Some(field.descriptor.name());
        let neighbour = way.split('.').next().unwrap_or_default();
        let above = &here[..*length];
        (!is_within && !way.contains('[')).then(|| {
            (
                joined(above, field.descriptor.name()),
                format!("beside `{}`", joined(above, neighbour)),
            )
        })
    };
    if let Some((name, place)) = above.iter().rev().find_map(beside) {
        return Fault::misplaced(&name, &place);
    }
    match (schema.message(*message).nearest(name), schema.free_form(*message)) {
        (None, Some(field)) => {
            let Fault { code, description } = Fault::unknown(None);
            Fault { code, description: format!("{description}; {OWN} `{}`", joined(here, field)) }
        }
        (meant, _) => Fault::unknown(meant),
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
