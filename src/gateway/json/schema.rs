//! The JSON form of each message type, computed once when the gateway is built.

mod build;

use std::collections::HashMap;
use std::sync::Arc;

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};

use super::enumeration::Enum;
use super::fault::Fault;
use super::style::Style;
use crate::error::nearest;

/// The JSON form of the fields that are bytes here and free-form values to callers, by their full names.
pub type FreeForm = HashMap<String, Shape>;

/// The JSON forms of the message types of one style. Types refer to each other by their place here, so that they may be recursive.
#[derive(Debug)]
pub struct Schema {
    /// The spelling.
    pub style: Style,
    messages: Vec<Message>,
    places: HashMap<String, usize>,
    enums: HashMap<String, Arc<Enum>>,
    free: FreeForm,
    has_any: bool,
    contents: HashMap<String, Content>,
    base_path: String,
}

/// The types that a `google.protobuf.Any` may contain.
#[derive(Debug)]
pub struct Content {
    /// The type.
    pub descriptor: MessageDescriptor,
    /// Its JSON form.
    pub shape: Shape,
}

/// The JSON form of a message type.
#[derive(Debug)]
pub struct Message {
    /// The type.
    pub descriptor: MessageDescriptor,
    /// Its fields in the order of their numbers, which is the order of the members.
    pub fields: Vec<Field>,
}

/// The JSON form of a field.
#[derive(Debug)]
pub struct Field {
    /// The field.
    pub descriptor: FieldDescriptor,
    /// The member's name.
    pub name: String,
    /// The member's name as it is written: quoted, with a colon.
    pub key: String,
    /// How often its value may stand.
    pub cardinality: Cardinality,
    /// Its value, its elements or the values of its map.
    pub shape: Shape,
    /// True if an empty list or map is written as `null`.
    pub null_when_empty: bool,
    /// True if it is the id of a server-sent event.
    pub sse_id: bool,
    /// True if a body alone gives it, never a query.
    pub body_only: bool,
    /// True if it is a path of the API.
    pub path: bool,
    /// True if it guards the request: a caller who names it does not want to do without, so neither `null` nor an empty text counts as
    /// missing.
    pub guard: bool,
    /// True if the service is informed when it is named and empty.
    pub report_void: bool,
    /// True if an empty list is refused: it may be the rest of a longer one.
    pub filled: bool,
    /// How many elements of a list are read.
    pub max_items: usize,
}

/// How often the value of a field may stand.
#[derive(Clone, Debug)]
pub enum Cardinality {
    /// Once. Where it may be absent, absent is `null`.
    Single {
        /// True if it may be absent.
        optional: bool,
    },
    /// A list.
    List,
    /// A map, with the kind of its keys.
    Map(Kind),
}

/// The JSON form of one value.
#[derive(Clone, Debug)]
pub enum Shape {
    /// `true` or `false`.
    Bool,
    /// A number; the kind says which.
    Number(Kind),
    /// A string.
    String,
    /// A string in base64.
    Bytes,
    /// A string, one of the enum's.
    Enum(Arc<Enum>),
    /// An object: the place of its type in the schema.
    Message(usize),
    /// RFC 3339, or milliseconds since the Unix epoch.
    Timestamp {
        /// The type.
        descriptor: MessageDescriptor,
        /// True if it is a number of milliseconds.
        epoch_millis: bool,
    },
    /// Seconds with an `s`.
    Duration(MessageDescriptor),
    /// Paths with commas between them.
    FieldMask(MessageDescriptor),
    /// Any object. As a field it is the bytes of its message, as are the next two ([`opaque`](crate::gateway::opaque)).
    Struct,
    /// Anything.
    Value,
    /// Any array.
    ListValue,
    /// A value that may be `null`.
    Wrapper(MessageDescriptor, Box<Shape>),
    /// An object whose `@type` names its type.
    Any(MessageDescriptor),
}

/// The way to a field from the top of a message: the places of the fields in their messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath(Vec<(usize, usize)>);

impl Schema {
    /// An empty schema. `free` says which fields of bytes are free-form values.
    pub fn new(style: Style, free: &FreeForm) -> Self {
        Schema {
            style,
            messages: Vec::new(),
            places: HashMap::new(),
            enums: HashMap::new(),
            free: free.clone(),
            has_any: false,
            contents: HashMap::new(),
            base_path: String::new(),
        }
    }

    /// The same for an API that callers reach below this path: it is prepended to every path in a response.
    pub fn below(self, base_path: &str) -> Self {
        Schema { base_path: base_path.to_owned(), ..self }
    }

    /// The prefix of the paths in responses.
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    /// The type of an `Any` with this URL: its last part is the name.
    pub fn content(&self, type_url: &str) -> Option<&Content> {
        type_url.rsplit_once('/').and_then(|(_, name)| self.contents.get(name))
    }

    /// The place of the message of this name.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// The message type at a place.
    pub fn message(&self, place: usize) -> &Message {
        &self.messages[place]
    }

    /// Finds a field by a path of names, in either spelling, through messages that stand once.
    pub fn resolve(&self, message: usize, path: &str) -> Option<FieldPath> {
        let mut steps = Vec::new();
        let mut inside = Some(message);
        for name in path.split('.') {
            let message = inside?;
            let (place, field) = self.message(message).find(name)?;
            steps.push((message, place));
            inside = match (&field.cardinality, &field.shape) {
                (Cardinality::Single { .. }, Shape::Message(inner)) => Some(*inner),
                _ => None,
            };
        }
        Some(FieldPath(steps))
    }

    /// The field at the end of a path.
    pub fn field_at(&self, path: &FieldPath) -> &Field {
        let (message, place) = path.0.last().expect("a path has at least one step");
        &self.messages[*message].fields[*place]
    }

    /// The path in proto names.
    pub fn path_name(&self, path: &FieldPath) -> String {
        let names: Vec<&str> = path
            .0
            .iter()
            .map(|(message, place)| self.messages[*message].fields[*place].descriptor.name())
            .collect();
        names.join(".")
    }

    /// The message with the field at the end of a path; it and those on the way are made if they are missing.
    pub fn holder_mut<'m>(
        &self,
        message: &'m mut DynamicMessage,
        path: &FieldPath,
    ) -> &'m mut DynamicMessage {
        let (_, way) = path.0.split_last().expect("a path has at least one step");
        way.iter().fold(message, |message, (place, field)| {
            let descriptor = &self.messages[*place].fields[*field].descriptor;
            message
                .get_field_mut(descriptor)
                .as_message_mut()
                .expect("a path leads through messages")
        })
    }

    /// The value of the field at the end of a path, where it and all on the way to it are there.
    pub fn value_at(&self, message: &DynamicMessage, path: &FieldPath) -> Option<Value> {
        let (last, way) = path.0.split_last()?;
        let field =
            |(place, field): &(usize, usize)| &self.messages[*place].fields[*field].descriptor;
        match way {
            [] => {
                message.has_field(field(last)).then(|| message.get_field(field(last)).into_owned())
            }
            [first, rest @ ..] => {
                let inner = message.get_field(field(first));
                let rest = FieldPath([rest, &[*last]].concat());
                self.value_at(inner.as_message()?, &rest)
            }
        }
    }

    /// The fault of setting a field where another of the same `oneof` is set.
    pub fn rival(&self, field: &Field, message: &DynamicMessage) -> Option<Fault> {
        let oneof = field.descriptor.containing_oneof()?;
        let rival =
            oneof.fields().find(|other| *other != field.descriptor && message.has_field(other))?;
        Some(Fault::new(
            "conflict",
            format!("cannot be given together with `{}`", self.style.spell_path(rival.name())),
        ))
    }
}

impl Message {
    /// Finds a field by its name in either spelling.
    pub fn find(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields.iter().enumerate().find(|(_, field)| {
            field.descriptor.name() == name || field.descriptor.json_name() == name
        })
    }

    /// The member that was probably meant by a name that no field has, in the spelling of the service.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let names = || self.fields.iter().map(|field| field.name.as_str());
        // `id` for `entity_id`: the last word of a name alone.
        let is_last_word = |field: &&Field| {
            field
                .descriptor
                .name()
                .rsplit_once('_')
                .is_some_and(|(_, word)| word.eq_ignore_ascii_case(name))
        };
        nearest(name, names())
            .or_else(|| self.fields.iter().find(is_last_word).map(|field| field.name.as_str()))
    }
}

impl Shape {
    /// Returns whether the value is an object or array, which has no form in a path or query.
    pub fn is_document(&self) -> bool {
        matches!(
            self,
            Shape::Message(_) | Shape::Struct | Shape::Value | Shape::ListValue | Shape::Any(_)
        )
    }
}

impl FieldPath {
    /// The place of the first field of the path in the message at the top.
    pub fn first(&self) -> usize {
        self.0[0].1
    }

    /// Returns whether the field is one of the message at the top.
    pub fn is_top(&self) -> bool {
        self.0.len() == 1
    }
}

/// The descriptor of a message, for building one of a well-known type.
pub(super) fn well_known<const N: usize>(
    descriptor: &MessageDescriptor,
    fields: [(u32, Value); N],
) -> Value {
    let mut message = DynamicMessage::new(descriptor.clone());
    debug_assert_eq!(message.descriptor(), *descriptor);
    for (number, value) in fields {
        message.set_field_by_number(number, value);
    }
    Value::Message(message)
}
