//! How the JSON form of a message type is made of its descriptor and of the annotations of its fields.

use std::sync::Arc;

use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value,
};

use super::{Cardinality, Content, Field, Message, Schema, Shape};
use crate::gateway::annotations::Annotations;
use crate::gateway::json::enumeration::Enum;
use crate::gateway::json::style::Style;
use crate::limits::bodies::DEFAULT_MAX_ITEMS;

impl Schema {
    /// Adds a message type with all that it contains, and reports its place.
    pub fn add(&mut self, descriptor: &MessageDescriptor) -> usize {
        if let Some(place) = self.places.get(descriptor.full_name()) {
            return *place;
        }
        let place = self.messages.len();
        self.places.insert(descriptor.full_name().to_owned(), place);
        self.messages.push(Message { descriptor: descriptor.clone(), fields: Vec::new() });
        let fields = descriptor.fields().map(|field| self.field(field)).collect();
        self.messages[place].fields = fields;
        place
    }

    /// Adds all that a `google.protobuf.Any` of the added types may have: any message of the pool. To be called once, behind the last type.
    pub fn add_contents(&mut self, pool: &DescriptorPool) {
        if !self.has_any {
            return;
        }
        for descriptor in pool.all_messages().filter(|message| !message.is_map_entry()) {
            let shape = self.message_shape(descriptor.clone(), false);
            self.contents.insert(descriptor.full_name().to_owned(), Content { descriptor, shape });
        }
    }

    fn field(&mut self, descriptor: FieldDescriptor) -> Field {
        let name = match self.style {
            Style::SnakeCase => descriptor.name().to_owned(),
            Style::CamelCase => descriptor.json_name().to_owned(),
        };
        let [null_when_empty, epoch_millis, sse_id, body_only, path, guard, report_void] =
            json_field_options(
                &descriptor,
                [
                    "null_when_empty",
                    "epoch_millis",
                    "sse_id",
                    "body_only",
                    "path",
                    "guard",
                    "tell_void",
                ],
            );
        let (cardinality, value) = match descriptor.kind() {
            Kind::Message(entry) if descriptor.is_map() => (
                Cardinality::Map(entry.map_entry_key_field().kind()),
                entry.map_entry_value_field(),
            ),
            _ if descriptor.is_list() => (Cardinality::List, descriptor.clone()),
            _ => (
                Cardinality::Single { optional: descriptor.supports_presence() },
                descriptor.clone(),
            ),
        };
        let shape = match (self.shape(&value, epoch_millis), values_not_taken(&descriptor)) {
            (Shape::Enum(values), not_taken) if !not_taken.is_empty() => {
                Shape::Enum(Arc::new(values.without(&not_taken)))
            }
            (shape, _) => shape,
        };
        let key = format!("\"{name}\":");
        let annotations = Annotations::of(descriptor.parent_pool());
        let filled =
            matches!(cardinality, Cardinality::List) && annotations.takes_some(&descriptor);
        let max_items =
            annotations.takes_at_most(&descriptor).unwrap_or_default().max(DEFAULT_MAX_ITEMS);
        Field {
            descriptor,
            name,
            key,
            cardinality,
            shape,
            null_when_empty,
            sse_id,
            body_only,
            path,
            guard,
            report_void,
            filled,
            max_items,
        }
    }

    fn shape(&mut self, field: &FieldDescriptor, epoch_millis: bool) -> Shape {
        match field.kind() {
            Kind::Bool => Shape::Bool,
            Kind::String => Shape::String,
            Kind::Bytes => self.free.get(field.full_name()).cloned().unwrap_or(Shape::Bytes),
            Kind::Enum(descriptor) => Shape::Enum(self.enumeration(&descriptor)),
            Kind::Message(descriptor) => self.message_shape(descriptor, epoch_millis),
            number => Shape::Number(number),
        }
    }

    /// The JSON form of a message that is a value; its type is added.
    pub fn message_shape(&mut self, descriptor: MessageDescriptor, epoch_millis: bool) -> Shape {
        match descriptor.full_name() {
            "google.protobuf.Timestamp" => Shape::Timestamp { descriptor, epoch_millis },
            "google.protobuf.Duration" => Shape::Duration(descriptor),
            "google.protobuf.FieldMask" => Shape::FieldMask(descriptor),
            "google.protobuf.Struct" => Shape::Struct,
            "google.protobuf.Value" => Shape::Value,
            "google.protobuf.ListValue" => Shape::ListValue,
            "google.protobuf.Any" => {
                self.has_any = true;
                Shape::Any(descriptor)
            }
            name if is_wrapper(name) => {
                let value = descriptor.get_field(1).expect("a wrapper has a value");
                let shape = self.shape(&value, false);
                Shape::Wrapper(descriptor, Box::new(shape))
            }
            _ => Shape::Message(self.add(&descriptor)),
        }
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor) -> Arc<Enum> {
        let style = self.style;
        let made = self
            .enums
            .entry(descriptor.full_name().to_owned())
            .or_insert_with(|| Arc::new(Enum::new(descriptor, style)));
        Arc::clone(made)
    }
}

fn is_wrapper(name: &str) -> bool {
    let wrapped = name.strip_prefix("google.protobuf.").and_then(|name| name.strip_suffix("Value"));
    matches!(
        wrapped,
        Some(
            "Double"
                | "Float"
                | "Int64"
                | "UInt64"
                | "Int32"
                | "UInt32"
                | "Bool"
                | "String"
                | "Bytes"
        )
    )
}

/// Flags of the field's `(offboard.v1.json_field)`.
fn json_field_options<const N: usize>(descriptor: &FieldDescriptor, names: [&str; N]) -> [bool; N] {
    let Some(extension) = descriptor.parent_pool().get_extension_by_name("offboard.v1.json_field")
    else {
        return [false; N];
    };
    let options = descriptor.options();
    let option = options.get_extension(&extension);
    names.map(|name| {
        let value = option
            .as_message()
            .and_then(|message| message.get_field_by_name(name).and_then(|value| value.as_bool()));
        value.unwrap_or(false)
    })
}

/// The values of an enum, by their names in the proto file, that the field's `(offboard.v1.json_field)` excludes from requests.
fn values_not_taken(descriptor: &FieldDescriptor) -> Vec<String> {
    let extension = descriptor.parent_pool().get_extension_by_name("offboard.v1.json_field");
    let Some(extension) = extension else { return Vec::new() };
    let options = descriptor.options();
    let option = options.get_extension(&extension);
    let names =
        option.as_message().and_then(|message| message.get_field_by_name("values_not_taken"));
    let names = names.as_deref().and_then(Value::as_list).unwrap_or_default();
    names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
