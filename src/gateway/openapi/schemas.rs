//! JSON schemas (draft 2020-12) of the messages, as the gateway reads and writes them.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::comments::Comments;
use crate::gateway::annotations::{Annotations, Limits};
use crate::gateway::json::{Cardinality, Enum, Field, Schema, Shape, Style};

/// The direction of a message. The two have different schemas: a response has every member, a request those that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the caller.
    Request,
    /// To the caller.
    Answer,
}

/// A use of a message type: its full name, whether it is spelled in camel case, and its direction.
type Use = (String, bool, Direction);

/// Makes the schemas, and keeps those that stand by their name.
#[derive(Debug)]
pub struct Schemas<'p> {
    comments: &'p Comments,
    annotations: &'p Annotations,
    uses: BTreeSet<Use>,
    made: BTreeMap<String, Value>,
}

impl<'p> Schemas<'p> {
    /// No schemas yet.
    pub fn new(comments: &'p Comments, annotations: &'p Annotations) -> Self {
        Schemas { comments, annotations, uses: BTreeSet::new(), made: BTreeMap::new() }
    }

    /// Notes that a value is used, with all that it contains. The name of a schema depends on how else its message is used, so that all
    /// uses must be known before the first is made.
    pub fn note(&mut self, schema: &Schema, shape: &Shape, direction: Direction) {
        match shape {
            Shape::Message(place) => {
                let message = schema.message(*place);
                if self.uses.insert(use_of(schema, &message.descriptor, direction)) {
                    message
                        .fields
                        .iter()
                        .for_each(|field| self.note(schema, &field.shape, direction));
                }
            }
            Shape::Wrapper(_, inner) => self.note(schema, inner, direction),
            _ => {}
        }
    }

    /// The schemas that stand by their name.
    pub fn components(self) -> Map<String, Value> {
        self.made.into_iter().collect()
    }

    /// Adds a schema by a name of its own.
    pub fn add(&mut self, name: &str, schema: Value) {
        self.made.insert(name.to_owned(), schema);
    }

    /// The schema of a value. That of a message is a reference.
    pub fn value(&mut self, schema: &Schema, shape: &Shape, direction: Direction) -> Value {
        match shape {
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Number(kind) => number(kind),
            Shape::String => json!({"type": "string"}),
            Shape::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Shape::Enum(values) => enumeration(values, direction),
            Shape::Timestamp { epoch_millis: false, .. } => {
                json!({"type": "string", "format": "date-time"})
            }
            Shape::Timestamp { epoch_millis: true, .. } => {
                json!({"type": "integer", "format": "int64", "description": "Milliseconds since the Unix epoch."})
            }
            Shape::Duration(_) => duration(direction),
            Shape::FieldMask(_) => json!({"type": "string"}),
            Shape::Struct => json!({"type": "object", "additionalProperties": true}),
            Shape::Value => json!({}),
            Shape::ListValue => json!({"type": "array", "items": {}}),
            Shape::Wrapper(_, inner) => self.value(schema, inner, direction),
            Shape::Any(_) => {
                json!({"type": "object", "properties": {"@type": {"type": "string"}}, "additionalProperties": true})
            }
            Shape::Message(place) => {
                let name = self.name(schema, &schema.message(*place).descriptor, direction);
                if !self.made.contains_key(&name) {
                    // Stands in for itself while it is made: messages may have themselves.
                    self.made.insert(name.clone(), Value::Null);
                    let made = self.object(schema, *place, direction, |_| true);
                    self.made.insert(name.clone(), made);
                }
                json!({"$ref": format!("#/components/schemas/{name}")})
            }
        }
    }

    /// The schema of a message as an object with those of its fields that are wanted.
    pub fn object(
        &mut self,
        schema: &Schema,
        place: usize,
        direction: Direction,
        wanted: impl Fn(&Field) -> bool,
    ) -> Value {
        let message = schema.message(place);
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in message.fields.iter().filter(|field| wanted(field)) {
            properties.insert(field.name.clone(), self.field(schema, field, direction));
            if direction == Direction::Answer || self.annotations.is_required(&field.descriptor) {
                required.push(field.name.as_str());
            }
        }
        let mut object = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            object["required"] = json!(required);
        }
        if direction == Direction::Request {
            object["additionalProperties"] = json!(false);
        }
        describe(
            &mut object,
            self.comments.get(&message.descriptor.parent_file(), message.descriptor.path()),
        );
        object
    }

    /// The schema of a member.
    pub fn field(&mut self, schema: &Schema, field: &Field, direction: Direction) -> Value {
        let limits = self.annotations.limits(&field.descriptor);
        let mut value = self.value(schema, &field.shape, direction);
        limit(&mut value, &limits.value);
        let mut member = match &field.cardinality {
            Cardinality::Single { .. } => value,
            Cardinality::List => json!({"type": "array", "items": value}),
            Cardinality::Map(_) => json!({"type": "object", "additionalProperties": value}),
        };
        limit(&mut member, &limits.list);
        if self.may_be_null(field, direction) {
            member = nullable(member);
        }
        describe(
            &mut member,
            self.comments
                .get(&field.descriptor.parent_message().parent_file(), field.descriptor.path()),
        );
        exemplify(&mut member, limits, field);
        member
    }

    /// Returns whether a field must be given.
    pub fn is_required(&self, field: &Field) -> bool {
        self.annotations.is_required(&field.descriptor)
    }

    /// In a request `null` means nothing, except for guards; in a response it marks an absent value.
    fn may_be_null(&self, field: &Field, direction: Direction) -> bool {
        match (direction, &field.cardinality) {
            (Direction::Request, _) => {
                !field.guard && !self.annotations.is_required(&field.descriptor)
            }
            (Direction::Answer, Cardinality::Single { optional }) => *optional,
            (Direction::Answer, _) => field.null_when_empty,
        }
    }

    /// The name of a message type's schema: its own, with as much of its path as distinguishes it from others.
    fn name(&self, schema: &Schema, message: &MessageDescriptor, direction: Direction) -> String {
        let (full, camel, _) = use_of(schema, message, direction);
        let is_used = |test: &dyn Fn(&Use) -> bool| self.uses.iter().any(test);
        let short = message.name();
        let same_short = |other: &str| other.rsplit('.').next() == Some(short);
        let mut name = if is_used(&|(other, _, _)| *other != full && same_short(other)) {
            full.clone()
        } else {
            short.to_owned()
        };
        if camel && is_used(&|(other, camel, _)| *other == full && !camel) {
            name.push_str("CamelCase");
        }
        if direction == Direction::Request
            && is_used(&|(other, _, direction)| *other == full && *direction == Direction::Answer)
        {
            name.push_str("Input");
        }
        name
    }
}

fn use_of(schema: &Schema, message: &MessageDescriptor, direction: Direction) -> Use {
    (message.full_name().to_owned(), schema.style == Style::CamelCase, direction)
}

/// Integers as callers should send them. The gateway takes them as strings as well, as the JSON mapping of protobuf has it.
/// Responses have seconds; requests may also have other units, such as `1h` and `P1D`.
fn duration(direction: Direction) -> Value {
    const SECONDS: &str = r"[0-9]{1,12}(\.[0-9]{1,9})?";
    let pattern = match direction {
        Direction::Answer => format!("-?{SECONDS}s"),
        Direction::Request => {
            const WHOLE: &str = "[0-9]{1,9}";
            // Each unit once, the longer before the shorter, and at least one: so one is the last.
            let last = |units: &[String]| {
                let optional = |before: &[String]| {
                    before.iter().map(|unit| format!("({unit})?")).collect::<String>()
                };
                let ending =
                    |place: usize| format!("{}{}", optional(&units[..place]), units[place]);
                (0..units.len()).map(ending).collect::<Vec<_>>().join("|")
            };
            let unit = |letter: &str| {
                if letter.eq_ignore_ascii_case("s") {
                    format!("{SECONDS}{letter}")
                } else {
                    format!("{WHOLE}{letter}")
                }
            };
            let units =
                |letters: &[&str]| letters.iter().map(|letter| unit(letter)).collect::<Vec<_>>();
            let (clock, date, time) = (
                last(&units(&["d", "h", "m", "s"])),
                last(&units(&["W", "D"])),
                last(&units(&["H", "M", "S"])),
            );
            format!("-?({clock}|P(({date})(T({time}))?|T({time})))")
        }
    };
    json!({"type": "string", "pattern": format!("^{pattern}$")})
}

fn number(kind: &Kind) -> Value {
    match kind {
        Kind::Double => json!({"type": "number", "format": "double"}),
        Kind::Float => json!({"type": "number", "format": "float"}),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            json!({"type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX})
        }
        Kind::Uint32 | Kind::Fixed32 => {
            json!({"type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX})
        }
        Kind::Uint64 | Kind::Fixed64 => {
            json!({"type": "integer", "format": "uint64", "minimum": 0})
        }
        _ => json!({"type": "integer", "format": "int64"}),
    }
}

fn enumeration(values: &Enum, direction: Direction) -> Value {
    let mut spellings: Vec<&str> = Vec::new();
    let reported =
        values.values.iter().filter(|value| value.is_taken || direction == Direction::Answer);
    for spelling in reported.filter_map(|value| value.spelling.as_deref()) {
        if !spellings.contains(&spelling) {
            spellings.push(spelling);
        }
    }
    let schema = json!({"type": "string", "enum": spellings});
    let has_unset = values.values.iter().any(|value| value.spelling.is_none());
    if has_unset && direction == Direction::Answer { nullable(schema) } else { schema }
}

/// The schema of what may also be `null`.
fn nullable(mut schema: Value) -> Value {
    let Some(members) = schema.as_object_mut() else { return schema };
    if members.contains_key("$ref") {
        return json!({"anyOf": [schema, {"type": "null"}]});
    }
    match members.get("type") {
        Some(Value::String(name)) => {
            let types = json!([name, "null"]);
            members.insert("type".to_owned(), types);
        }
        _ => return schema,
    }
    if let Some(Value::Array(values)) = members.get_mut("enum") {
        values.push(Value::Null);
    }
    schema
}

/// Takes back what [`nullable`] says.
pub fn never_null(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    if let Some(Value::Array(mut ways)) = members.remove("anyOf") {
        ways.retain(|way| way["type"] != "null");
        members.extend(
            ways.into_iter()
                .filter_map(|way| if let Value::Object(way) = way { Some(way) } else { None })
                .flatten(),
        );
    }
    if let Some(Value::Array(types)) = members.get("type") {
        let only = types.iter().find(|name| **name != "null").cloned().unwrap_or_default();
        members.insert("type".to_owned(), only);
    }
    if let Some(Value::Array(values)) = members.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}

fn limit(schema: &mut Value, limits: &[(&'static str, Value)]) {
    for (word, bound) in limits {
        schema[*word] = bound.clone();
    }
}

/// Adds a description; an existing one comes after it.
pub fn describe(schema: &mut Value, description: &str) {
    if description.is_empty() {
        return;
    }
    let more = schema["description"].as_str().map(|more| format!(" {more}")).unwrap_or_default();
    schema["description"] = json!(format!("{description}{more}"));
}

fn exemplify(schema: &mut Value, limits: Limits, field: &Field) {
    let Some(example) = limits.example else { return };
    let example =
        if matches!(field.cardinality, Cardinality::List) { json!([example]) } else { example };
    schema["examples"] = json!([example]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_of_a_request_may_be_written_as_it_is_read() {
        let is_one = |text: &str, direction| {
            regex::Regex::new(duration(direction)["pattern"].as_str().unwrap())
                .unwrap()
                .is_match(text)
        };
        for text in [
            "3600s", "-1.500s", "1h", "1h30m", "2d12h", "1m0.25s", "P1D", "P2W", "PT1H30M",
            "P1DT0.5S", "-PT1M",
        ] {
            assert!(is_one(text, Direction::Request), "{text}");
            assert_eq!(
                is_one(text, Direction::Answer),
                matches!(text, "3600s" | "-1.500s"),
                "{text}"
            );
        }
        for text in [
            "",
            "-",
            "s",
            "1",
            "1.s",
            "1.5h",
            "30m1h",
            "1h1h",
            "1H",
            "P",
            "PT",
            "P1DT",
            "P1M",
            "PT1D",
            "1.0000000001s",
        ] {
            assert!(!is_one(text, Direction::Request), "{text}");
        }
    }
}
