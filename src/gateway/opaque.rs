//! Free-form JSON as bytes: descriptors in which each field of `google.protobuf.Struct`, `Value` or `ListValue` is one of `bytes`.
//!
//! The two look the same on the wire: a tag, a length and the content. As messages, free-form values would be a tree with a node for each
//! of them, tens of times as large as the request; as bytes they are read and written in one pass
//! ([`Builder`](crate::proto::object::Builder)).

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, ReflectMessage, Value};

use super::json::{FreeForm, Shape};
use super::rules::BuildError;

/// `TYPE_BYTES` of `google.protobuf.FieldDescriptorProto.Type`, and `LABEL_OPTIONAL` of its labels.
const BYTES: i32 = 12;
const OPTIONAL: i32 = 1;

/// The descriptors with bytes in place of free-form values, and which fields that are.
pub fn opaque(pool: &DescriptorPool) -> Result<(DescriptorPool, FreeForm), BuildError> {
    let failed = |error: &dyn std::fmt::Display| BuildError::Descriptors(error.to_string());
    let mut free = FreeForm::new();
    // With its own descriptors, options that are extensions are kept.
    let Some(set) = pool.get_message_by_name("google.protobuf.FileDescriptorSet") else {
        return Ok((pool.clone(), free));
    };
    let mut set = DynamicMessage::decode(set, pool.encode_to_vec().as_slice())
        .map_err(|error| failed(&error))?;
    for file in messages(&mut set, "file") {
        if text(file, "name") != "google/protobuf/struct.proto" {
            let package = text(file, "package");
            messages(file, "message_type")
                .for_each(|message| replace(message, &package, &mut free));
        }
    }
    let pool =
        DescriptorPool::decode(set.encode_to_vec().as_slice()).map_err(|error| failed(&error))?;
    Ok((pool, free))
}

fn shape_of(type_name: &str) -> Option<Shape> {
    match type_name {
        ".google.protobuf.Struct" => Some(Shape::Struct),
        ".google.protobuf.Value" => Some(Shape::Value),
        ".google.protobuf.ListValue" => Some(Shape::ListValue),
        _ => None,
    }
}

fn replace(message: &mut DynamicMessage, parent: &str, free: &mut FreeForm) {
    let name = format!("{parent}.{}", text(message, "name"));
    messages(message, "nested_type").for_each(|nested| replace(nested, &name, free));
    let options = message.get_field_by_name("options");
    let is_map_entry = options
        .and_then(|options| options.as_message()?.get_field_by_name("map_entry")?.as_bool())
        == Some(true);
    let declared = message
        .get_field_by_name("oneof_decl")
        .and_then(|list| list.as_list().map(<[Value]>::len))
        .unwrap_or_default();
    let mut alone = Vec::new();
    for field in messages(message, "field") {
        let Some(shape) = shape_of(&text(field, "type_name")) else { continue };
        free.insert(format!("{name}.{}", text(field, "name")), shape);
        let label = field.get_field_by_name("label").and_then(|label| label.as_enum_number());
        field.set_field_by_name("type", Value::EnumNumber(BYTES));
        field.clear_field_by_name("type_name");
        // A message knows whether it is there; bytes do if they are a `oneof` of one.
        if label == Some(OPTIONAL) && !is_map_entry && !field.has_field_by_name("oneof_index") {
            field.set_field_by_name("proto3_optional", Value::Bool(true));
            field.set_field_by_name("oneof_index", Value::I32((declared + alone.len()) as i32));
            alone.push(text(field, "name"));
        }
    }
    if alone.is_empty() {
        return;
    }
    let declarations = message.descriptor().get_field_by_name("oneof_decl");
    let Some(Kind::Message(declaration)) = declarations.map(|field| field.kind()) else { return };
    let Some(list) = message.get_field_by_name_mut("oneof_decl").and_then(Value::as_list_mut)
    else {
        return;
    };
    list.extend(alone.into_iter().map(|name| {
        let mut oneof = DynamicMessage::new(declaration.clone());
        oneof.set_field_by_name("name", Value::String(format!("_{name}")));
        Value::Message(oneof)
    }));
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message
        .get_field_by_name(field)
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// The messages of a list.
fn messages<'m>(
    message: &'m mut DynamicMessage,
    field: &str,
) -> impl Iterator<Item = &'m mut DynamicMessage> {
    let list = if message.has_field_by_name(field) {
        message.get_field_by_name_mut(field).and_then(Value::as_list_mut)
    } else {
        None
    };
    list.into_iter().flatten().filter_map(Value::as_message_mut)
}
