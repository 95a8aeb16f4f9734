//! One spelling for both protocols: members in snake case, enum values in lower snake case without prefix, times in milliseconds since the
//! Unix epoch, and every member always there. What the protos say decides, so that an answer in a spelling of neither contract fails the
//! test.

use std::sync::LazyLock;

use prost_reflect::{
    DescriptorPool, EnumDescriptor, EnumValueDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor,
};
use serde_json::{Map, Value, json};

/// The descriptors of every service.
pub static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(offboard::proto::DESCRIPTOR_SET).unwrap());

/// The method of a name such as `PortfolioService/DetachEntity`, with or without `offboard.v1.` before it.
pub fn method(name: &str) -> MethodDescriptor {
    let (service, method) = name
        .trim_start_matches("offboard.v1.")
        .split_once('/')
        .unwrap_or_else(|| panic!("no method: {name}"));
    let service = POOL
        .get_service_by_name(&format!("offboard.v1.{service}"))
        .unwrap_or_else(|| panic!("no service {service}"));
    service
        .methods()
        .find(|candidate| candidate.name() == method)
        .unwrap_or_else(|| panic!("{} has no method {method}", service.name()))
}

/// A message in the one spelling, from the JSON of either protocol.
pub fn from_protocol(value: &Value, message: &MessageDescriptor) -> Value {
    let members =
        value.as_object().unwrap_or_else(|| panic!("{} is an object, not {value}", message.name()));
    for name in members.keys() {
        let known = message.get_field_by_name(name).is_some()
            || message.get_field_by_json_name(name).is_some();
        assert!(known, "`{name}` is no member of {}: {value}", message.name());
    }
    let member = |field: &FieldDescriptor| {
        members
            .get(field.name())
            .or_else(|| members.get(field.json_name()))
            .filter(|it| !it.is_null())
    };
    let fields =
        message.fields().map(|field| (field.name().to_owned(), from_field(member(&field), &field)));
    Value::Object(fields.collect())
}

fn from_field(value: Option<&Value>, field: &FieldDescriptor) -> Value {
    let kind = field.kind();
    match value {
        None if field.is_map() => json!({}),
        None if field.is_list() => json!([]),
        None => from_absent(field),
        Some(Value::Array(items)) if field.is_list() => {
            items.iter().map(|item| from_single(item, &kind)).collect()
        }
        Some(Value::Object(entries)) if field.is_map() => {
            let values = kind
                .as_message()
                .expect("a map's entry is a message")
                .map_entry_value_field()
                .kind();
            Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), from_single(value, &values)))
                    .collect(),
            )
        }
        Some(value) => from_single(value, &kind),
    }
}

fn from_absent(field: &FieldDescriptor) -> Value {
    match field.kind() {
        _ if field.supports_presence() => Value::Null,
        Kind::Enum(_) => Value::Null,
        Kind::String | Kind::Bytes => json!(""),
        Kind::Bool => json!(false),
        Kind::Double | Kind::Float => json!(0.0),
        _ => json!(0),
    }
}

fn from_single(value: &Value, kind: &Kind) -> Value {
    match kind {
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => milliseconds(value),
            name if name.starts_with("google.protobuf.") => from_data(value),
            _ => from_protocol(value, message),
        },
        Kind::Enum(kind) => from_enum(value, kind),
        // The two listeners may differ in how they write a whole number.
        Kind::Double | Kind::Float => {
            json!(value.as_f64().unwrap_or_else(|| panic!("{value} is no number")))
        }
        _ => value.clone(),
    }
}

/// Free data. A `google.protobuf.Struct` knows doubles alone, so the two listeners may differ in how they write a whole number.
fn from_data(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(from_data).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), from_data(value))).collect()
        }
        Value::Number(number) => {
            let double = number.as_f64().unwrap();
            // Below 2^53 every integer is a double.
            if double.fract() == 0.0 && double.abs() < 9_007_199_254_740_992.0 {
                json!(double as i64)
            } else {
                json!(double)
            }
        }
        other => other.clone(),
    }
}

/// `OFFBOARDING_STATUS_PENDING` and `Pending` alike are `pending`; the unset value is null.
fn from_enum(value: &Value, kind: &EnumDescriptor) -> Value {
    let name = value.as_str().unwrap_or_else(|| panic!("{value} is no name of {}", kind.name()));
    let plain = name.strip_prefix(&prefix(kind)).unwrap_or(name).to_ascii_lowercase();
    assert!(number_of(kind, &plain).is_some(), "`{name}` is no value of {}", kind.name());
    if plain == "unspecified" { Value::Null } else { json!(plain) }
}

/// The prefix of every value of an enum: `OFFBOARDING_STATUS_`.
fn prefix(kind: &EnumDescriptor) -> String {
    let zero = kind.get_value(0).expect("an enum of proto3 has a value 0");
    zero.name().strip_suffix("UNSPECIFIED").unwrap_or_default().to_owned()
}

fn number_of(kind: &EnumDescriptor, plain: &str) -> Option<i32> {
    let name = format!("{}{}", prefix(kind), plain.to_ascii_uppercase());
    kind.get_value_by_name(&name).map(|value| value.number())
}

/// A time, as RFC 3339 text or as a number of milliseconds, in milliseconds.
fn milliseconds(value: &Value) -> Value {
    match value {
        Value::Number(_) => value.clone(),
        Value::String(text) => {
            let time = chrono::DateTime::parse_from_rfc3339(text)
                .unwrap_or_else(|error| panic!("{text} is no time: {error}"));
            json!(time.timestamp_millis())
        }
        _ => panic!("{value} is no time"),
    }
}

/// A time in milliseconds as RFC 3339 text, where the field holds a time.
fn to_time(field: &FieldDescriptor, value: Value) -> Value {
    let is_time = field
        .kind()
        .as_message()
        .is_some_and(|message| message.full_name() == "google.protobuf.Timestamp");
    let time = value.as_i64().filter(|_| is_time).and_then(chrono::DateTime::from_timestamp_millis);
    time.map_or(value, |time| json!(time.to_rfc3339()))
}

/// A request in the JSON of gRPC, from the one spelling: enum values get their full names, and times are text. What is unknown stays as it is.
pub fn to_grpc(value: &Value, message: &MessageDescriptor) -> Value {
    translate(
        value,
        message,
        &|field, value| (field.name().to_owned(), to_time(field, value)),
        &|value, kind| {
            let plain = value.as_str().unwrap_or_default();
            if number_of(kind, plain).is_some() {
                json!(format!("{}{}", prefix(kind), plain.to_ascii_uppercase()))
            } else {
                value.clone()
            }
        },
    )
}

/// A request in the JSON of a camelCase contract, from the one spelling.
pub fn to_camel_case(value: &Value, message: &MessageDescriptor) -> Value {
    translate(
        value,
        message,
        &|field, value| (field.json_name().to_owned(), value),
        &|value, kind| {
            let name = format!(
                "{}{}",
                prefix(kind),
                value.as_str().unwrap_or_default().to_ascii_uppercase()
            );
            kind.get_value_by_name(&name)
                .and_then(|found| json_value(&found))
                .map_or_else(|| value.clone(), Value::String)
        },
    )
}

/// How a camelCase contract spells an enum value, where the proto says so.
fn json_value(value: &EnumValueDescriptor) -> Option<String> {
    let option = POOL.get_extension_by_name("offboard.v1.json_value")?;
    value
        .options()
        .get_extension(&option)
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

type Rename<'a> = &'a dyn Fn(&FieldDescriptor, Value) -> (String, Value);
type Enum<'a> = &'a dyn Fn(&Value, &EnumDescriptor) -> Value;

fn translate(
    value: &Value,
    message: &MessageDescriptor,
    rename: Rename<'_>,
    of_enum: Enum<'_>,
) -> Value {
    let Some(members) =
        value.as_object().filter(|_| !message.full_name().starts_with("google.protobuf."))
    else {
        return value.clone();
    };
    let single = |value: &Value, kind: &Kind| match kind {
        Kind::Message(message) => translate(value, message, rename, of_enum),
        Kind::Enum(kind) => of_enum(value, kind),
        _ => value.clone(),
    };
    let mut translated = Map::new();
    for (name, value) in members {
        let Some(field) = message.get_field_by_name(name) else {
            translated.insert(name.clone(), value.clone());
            continue;
        };
        let value = match value {
            _ if field.is_map() => value.clone(),
            Value::Array(items) if field.is_list() => {
                items.iter().map(|item| single(item, &field.kind())).collect()
            }
            _ => single(value, &field.kind()),
        };
        let (name, value) = rename(&field, value);
        translated.insert(name, value);
    }
    Value::Object(translated)
}

/// A path of members, such as `entity.dependents[2].kind`, in snake case.
pub fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

/// A name in lower camel case, as a field mask spells it in JSON.
pub fn lower_camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |camel, word| camel + &word[..1].to_ascii_uppercase() + &word[1..])
}
