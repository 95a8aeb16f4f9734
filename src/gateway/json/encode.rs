//! Messages to JSON, written straight from the message into a buffer.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MapKey, Value};
use serde::Serialize;

use super::schema::{Cardinality, Field, Schema, Shape};
use crate::proto::convert::duration_text;
use crate::proto::object::{Struct, write_list, write_object, write_value};

/// A response of the service that has no JSON form, such as a time in the year 10000.
#[derive(Debug, thiserror::Error)]
#[error("a value of the response has no JSON form: {0}")]
pub struct Unwritable(String);

/// Writes a message that is a value of this shape.
pub fn encode_value(
    schema: &Schema,
    shape: &Shape,
    message: &DynamicMessage,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    Writer { schema }.message(shape, message, out)
}

/// Writes a message with these of its members alone, by their places.
pub fn encode_some(
    schema: &Schema,
    place: usize,
    members: &[usize],
    message: &DynamicMessage,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    out.push(b'{');
    let fields = &schema.message(place).fields;
    write_members(schema, members.iter().map(|member| &fields[*member]), message, out)?;
    out.push(b'}');
    Ok(())
}

/// Writes the members of a message, whose type is at `place` in the schema, as an object: all of them, after the present content.
fn encode_members(
    schema: &Schema,
    place: usize,
    message: &DynamicMessage,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    write_members(schema, schema.message(place).fields.iter(), message, out)
}

fn write_members<'f>(
    schema: &Schema,
    fields: impl Iterator<Item = &'f Field>,
    message: &DynamicMessage,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    for field in fields {
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        out.extend_from_slice(field.key.as_bytes());
        encode_field(schema, field, message, out)?;
    }
    Ok(())
}

/// Writes the value that a field has in a message.
pub fn encode_field(
    schema: &Schema,
    field: &Field,
    message: &DynamicMessage,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    let writer = Writer { schema };
    match &field.cardinality {
        Cardinality::Single { optional: true } if !message.has_field(&field.descriptor) => {
            out.extend_from_slice(b"null")
        }
        Cardinality::Single { .. } if field.path => {
            let value = message.get_field(&field.descriptor);
            let path = value.as_str().ok_or_else(|| Unwritable(field.name.clone()))?;
            json(&format!("{}{path}", schema.base_path()), out);
        }
        Cardinality::Single { .. } => {
            return writer.value(&field.shape, &message.get_field(&field.descriptor), out);
        }
        _ if field.null_when_empty && !message.has_field(&field.descriptor) => {
            out.extend_from_slice(b"null")
        }
        Cardinality::List => {
            let value = message.get_field(&field.descriptor);
            let elements = value.as_list().ok_or_else(|| Unwritable(field.name.clone()))?;
            return writer
                .list(elements, out, |element, out| writer.value(&field.shape, element, out));
        }
        Cardinality::Map(_) => {
            let value = message.get_field(&field.descriptor);
            let entries = value.as_map().ok_or_else(|| Unwritable(field.name.clone()))?;
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            return writer
                .object(entries, out, |value, out| writer.value(&field.shape, value, out));
        }
    }
    Ok(())
}

struct Writer<'s> {
    schema: &'s Schema,
}

impl Writer<'_> {
    fn value(&self, shape: &Shape, value: &Value, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        match (shape, value) {
            (Shape::Enum(values), Value::EnumNumber(number)) => {
                match values.values.iter().find(|value| value.number == *number) {
                    Some(value) => json(&value.spelling, out),
                    None => json(number, out),
                }
            }
            (shape, Value::Message(message)) => return self.message(shape, message, out),
            (Shape::Struct, Value::Bytes(bytes)) => write_object(bytes, out),
            (Shape::Value, Value::Bytes(bytes)) => write_value(bytes, out),
            (Shape::ListValue, Value::Bytes(bytes)) => write_list(bytes, out),
            (_, Value::Bool(value)) => json(value, out),
            (_, Value::String(value)) => json(value, out),
            (_, Value::Bytes(value)) => json(&STANDARD.encode(value), out),
            (_, Value::I32(value)) => json(value, out),
            (_, Value::I64(value)) => json(value, out),
            (_, Value::U32(value)) => json(value, out),
            (_, Value::U64(value)) => json(value, out),
            (_, Value::F32(value)) if value.is_finite() => json(value, out),
            (_, Value::F64(value)) if value.is_finite() => json(value, out),
            (_, Value::F32(value)) => json(special(f64::from(*value)), out),
            (_, Value::F64(value)) => json(special(*value), out),
            (shape, _) => {
                return Err(Unwritable(format!("a value that is not {}", shape.wanted())));
            }
        }
        Ok(())
    }

    fn message(
        &self,
        shape: &Shape,
        message: &DynamicMessage,
        out: &mut Vec<u8>,
    ) -> Result<(), Unwritable> {
        match shape {
            Shape::Message(place) => {
                out.push(b'{');
                encode_members(self.schema, *place, message, out)?;
                out.push(b'}');
            }
            Shape::Timestamp { epoch_millis, .. } => return timestamp(message, *epoch_millis, out),
            Shape::Duration(_) => duration(message, out),
            Shape::FieldMask(_) => self.field_mask(message, out),
            Shape::Struct => {
                // Its members may be in any order, since it is not a field here.
                let object = Struct::decode(message.encode_to_vec().as_slice())
                    .map_err(|error| Unwritable(error.to_string()))?;
                out.extend_from_slice(object.to_text().as_bytes());
            }
            Shape::Value => write_value(&message.encode_to_vec(), out),
            Shape::ListValue => write_list(&message.encode_to_vec(), out),
            Shape::Wrapper(_, inner) => return self.value(inner, field(message, 1)?.as_ref(), out),
            Shape::Any(_) => return self.packed(message, out),
            shape => return Err(Unwritable(format!("a value that is not {}", shape.wanted()))),
        }
        Ok(())
    }

    /// A `google.protobuf.Any`: the members of its content, after its type; content that is not an object becomes `value`.
    fn packed(&self, message: &DynamicMessage, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let (url, bytes) = (field(message, 1)?, field(message, 2)?);
        let (url, bytes) = (
            url.as_str().unwrap_or_default(),
            bytes.as_bytes().map(AsRef::as_ref).unwrap_or_default(),
        );
        if url.is_empty() && bytes.is_empty() {
            out.extend_from_slice(b"{}");
            return Ok(());
        }
        let content = self
            .schema
            .content(url)
            .ok_or_else(|| Unwritable(format!("a message of the unknown type `{url}`")))?;
        let inner = DynamicMessage::decode(content.descriptor.clone(), bytes)
            .map_err(|error| Unwritable(error.to_string()))?;
        out.extend_from_slice(b"{\"@type\":");
        json(url, out);
        match &content.shape {
            Shape::Message(place) => encode_members(self.schema, *place, &inner, out)?,
            shape => {
                out.extend_from_slice(b",\"value\":");
                self.message(shape, &inner, out)?;
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn list<'v>(
        &self,
        elements: &'v [Value],
        out: &mut Vec<u8>,
        write: impl Fn(&'v Value, &mut Vec<u8>) -> Result<(), Unwritable>,
    ) -> Result<(), Unwritable> {
        out.push(b'[');
        for (count, element) in elements.iter().enumerate() {
            if count > 0 {
                out.push(b',');
            }
            write(element, out)?;
        }
        out.push(b']');
        Ok(())
    }

    fn object<'v>(
        &self,
        entries: Vec<(&'v MapKey, &'v Value)>,
        out: &mut Vec<u8>,
        write: impl Fn(&'v Value, &mut Vec<u8>) -> Result<(), Unwritable>,
    ) -> Result<(), Unwritable> {
        out.push(b'{');
        for (count, (key, value)) in entries.into_iter().enumerate() {
            if count > 0 {
                out.push(b',');
            }
            match key {
                MapKey::String(key) => json(key, out),
                MapKey::Bool(key) => json(&key.to_string(), out),
                MapKey::I32(key) => json(&key.to_string(), out),
                MapKey::I64(key) => json(&key.to_string(), out),
                MapKey::U32(key) => json(&key.to_string(), out),
                MapKey::U64(key) => json(&key.to_string(), out),
            }
            out.push(b':');
            write(value, out)?;
        }
        out.push(b'}');
        Ok(())
    }

    /// The paths of a mask are written in the spelling of the schema.
    fn field_mask(&self, message: &DynamicMessage, out: &mut Vec<u8>) {
        let paths = message.get_field_by_number(1);
        let paths = paths.as_deref().and_then(Value::as_list).unwrap_or_default().iter();
        let paths: Vec<String> = paths
            .filter_map(Value::as_str)
            .map(|path| self.schema.style.spell_path(path))
            .collect();
        json(&paths.join(","), out);
    }
}

fn field(message: &DynamicMessage, number: u32) -> Result<std::borrow::Cow<'_, Value>, Unwritable> {
    message
        .get_field_by_number(number)
        .ok_or_else(|| Unwritable("a well-known type without its field".to_owned()))
}

/// Writes what serde knows how to write.
fn json(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("text and numbers can always be written to memory");
}

fn special(number: f64) -> &'static str {
    if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// `seconds` and `nanos` of a timestamp or duration.
fn instant(message: &DynamicMessage) -> (i64, i32) {
    let seconds =
        message.get_field_by_number(1).and_then(|value| value.as_i64()).unwrap_or_default();
    let nanos = message.get_field_by_number(2).and_then(|value| value.as_i32()).unwrap_or_default();
    (seconds, nanos)
}

fn timestamp(
    message: &DynamicMessage,
    epoch_millis: bool,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    let (seconds, nanos) = instant(message);
    let time = u32::try_from(nanos).ok().and_then(|nanos| DateTime::from_timestamp(seconds, nanos));
    let time = time.filter(|time| (1..=9999).contains(&chrono::Datelike::year(time)));
    let time = time.ok_or_else(|| Unwritable(format!("the time {seconds}.{nanos}")))?;
    if epoch_millis {
        json(&time.timestamp_millis(), out);
    } else {
        json(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true), out);
    }
    Ok(())
}

fn duration(message: &DynamicMessage, out: &mut Vec<u8>) {
    let (seconds, nanos) = instant(message);
    write!(out, "\"{}\"", duration_text(seconds, nanos)).expect("memory can always be written to");
}
