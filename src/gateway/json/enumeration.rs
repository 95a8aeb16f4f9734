//! How the values of enums are spelled.

use prost_reflect::{EnumDescriptor, Value};

use super::style::Style;

/// The spelling of an enum.
#[derive(Clone, Debug)]
pub struct Enum {
    /// Each value: number, spelling, name in the proto file. One that says "not set" is spelled `null`.
    pub values: Vec<EnumValue>,
}

/// The spelling of a value of an enum.
#[derive(Clone, Debug)]
pub struct EnumValue {
    /// Its number.
    pub number: i32,
    /// Its spelling; none for the one that says "not set".
    pub spelling: Option<String>,
    /// Its name in the proto file, that is understood too.
    pub proto_name: String,
    /// True if requests may have it.
    pub is_taken: bool,
}

impl Enum {
    /// The spelling of an enum in a style.
    pub(super) fn new(descriptor: &EnumDescriptor, style: Style) -> Self {
        let prefix = format!("{}_", upper_snake_case(descriptor.name()));
        let json_value = descriptor.parent_pool().get_extension_by_name("offboard.v1.json_value");
        let values = descriptor.values().map(|value| {
            let bare = value.name().strip_prefix(&prefix).unwrap_or(value.name());
            let declared = json_value
                .as_ref()
                .map(|extension| value.options().get_extension(extension).into_owned());
            let spelling = match (style, declared) {
                _ if value.number() == 0 && matches!(bare, "UNSPECIFIED" | "NULL_VALUE") => None,
                (Style::SnakeCase, _) => Some(bare.to_ascii_lowercase()),
                (Style::CamelCase, Some(Value::String(declared))) if !declared.is_empty() => {
                    Some(declared)
                }
                (Style::CamelCase, _) => Some(bare.to_owned()),
            };
            EnumValue {
                number: value.number(),
                spelling,
                proto_name: value.name().to_owned(),
                is_taken: true,
            }
        });
        Enum { values: values.collect() }
    }

    /// The same for a field for which these values, by their names in the proto file, are not allowed in requests.
    pub(super) fn without(&self, not_taken: &[String]) -> Self {
        let values = self.values.iter().cloned();
        Enum {
            values: values
                .map(|value| EnumValue {
                    is_taken: !not_taken.contains(&value.proto_name),
                    ..value
                })
                .collect(),
        }
    }
}

/// `DeleteMode` as `DELETE_MODE`.
fn upper_snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut previous_is_lower = false;
    for character in name.chars() {
        if character.is_ascii_uppercase() && previous_is_lower {
            snake.push('_');
        }
        previous_is_lower = character.is_ascii_lowercase() || character.is_ascii_digit();
        snake.push(character.to_ascii_uppercase());
    }
    snake
}
