//! Values from text: path variables, query parameters, and the strings of a JSON document.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chrono::DateTime;
use prost_reflect::{Kind, MapKey, MessageDescriptor, Value};

use super::enumeration::Enum;
use super::fault::Fault;
use super::number::{exact_double, whole};
use super::schema::{Shape, well_known};
use crate::proto::duration;

/// 9999-12-31T23:59:59Z and 0001-01-01T00:00:00Z, the bounds of `google.protobuf.Timestamp`.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// The bounds of `google.protobuf.Duration`.
const DURATION_SECONDS: std::ops::RangeInclusive<i64> = -315_576_000_000..=315_576_000_000;

const PADDING_OPTIONAL: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING_OPTIONAL);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING_OPTIONAL);

/// Reads a value from text. Objects and arrays have no such form.
pub fn from_text(shape: &Shape, text: &str) -> Result<Value, Fault> {
    match shape {
        Shape::Bool => text.parse().map(Value::Bool).map_err(|_| Fault::kind(shape)),
        Shape::Number(kind) => number(kind, text),
        Shape::String => Ok(Value::String(text.to_owned())),
        Shape::Bytes => {
            let engine = if text.contains(['-', '_']) { &BASE64_URL } else { &BASE64 };
            let bytes = engine.decode(text).map_err(|_| Fault::new("invalid", "must be base64"))?;
            Ok(Value::Bytes(bytes.into()))
        }
        Shape::Enum(values) => enum_value(values, text),
        Shape::Timestamp { descriptor, epoch_millis: false } => timestamp(descriptor, text),
        Shape::Timestamp { descriptor, epoch_millis: true } => {
            let invalid = || Fault::new("invalid", "must be a time in milliseconds since 1970, such as `1767225600000`");
            millis(descriptor, whole(text)).ok_or_else(invalid)
        }
        Shape::Duration(descriptor) => duration(descriptor, text).ok_or_else(|| {
            Fault::new("invalid", "must be a number of seconds with an `s`, such as `3600s` or `1.5s`; also `1h`, `30m` or `P1D`")
        }),
        Shape::FieldMask(descriptor) => {
            // In the spelling of the caller; code that knows the message of the paths spells them as its proto does.
            let paths = text.split(',').filter(|path| !path.is_empty()).map(|path| Value::String(path.to_owned()));
            Ok(well_known(descriptor, [(1, Value::List(paths.collect()))]))
        }
        Shape::Wrapper(descriptor, inner) => Ok(well_known(descriptor, [(1, from_text(inner, text)?)])),
        Shape::Message(_) | Shape::Struct | Shape::Value | Shape::ListValue | Shape::Any(_) => Err(Fault::kind(shape)),
    }
}

/// Reads a number from its decimal text.
pub(super) fn number(kind: &Kind, text: &str) -> Result<Value, Fault> {
    let out_of_range =
        |_| Fault::new("out_of_range", format!("must be within the range of {}", kind_name(kind)));
    let wanted = || Fault::kind(&Shape::Number(kind.clone()));
    let special = match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    };
    let is_decimal = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    match kind {
        Kind::Double => match special {
            Some(special) => Ok(Value::F64(special)),
            None if !is_decimal || text.parse::<f64>().is_err() => Err(wanted()),
            None => exact_double(text).map(Value::F64).ok_or_else(inexact),
        },
        Kind::Float => match special {
            Some(special) => Ok(Value::F32(special as f32)),
            None if !is_decimal => Err(wanted()),
            None => match text.parse::<f32>() {
                Ok(float) if float.is_finite() => Ok(Value::F32(float)),
                Ok(_) => Err(Fault::new(
                    "out_of_range",
                    "must be within the range of a 32-bit floating-point number",
                )),
                Err(_) => Err(wanted()),
            },
        },
        _ => {
            let is_long = || {
                text.len() > 38
                    && text
                        .strip_prefix('-')
                        .unwrap_or(text)
                        .bytes()
                        .all(|byte| byte.is_ascii_digit())
            };
            let value =
                whole(text).or_else(|| is_long().then_some(i128::MAX)).ok_or_else(wanted)?;
            match kind {
                Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                    value.try_into().map(Value::I32).map_err(out_of_range)
                }
                Kind::Uint32 | Kind::Fixed32 => {
                    value.try_into().map(Value::U32).map_err(out_of_range)
                }
                Kind::Uint64 | Kind::Fixed64 => {
                    value.try_into().map(Value::U64).map_err(out_of_range)
                }
                _ => value.try_into().map(Value::I64).map_err(out_of_range),
            }
        }
    }
}

/// A number that no double represents exactly.
pub(super) fn inexact() -> Fault {
    Fault::new("inexact_number", "cannot be represented exactly by a double")
}

/// Milliseconds since the Unix epoch as a timestamp.
pub(super) fn millis(descriptor: &MessageDescriptor, millis: Option<i128>) -> Option<Value> {
    let millis = i64::try_from(millis?).ok()?;
    let seconds = millis.div_euclid(1000);
    let nanos = millis.rem_euclid(1000) as i32 * 1_000_000;
    TIMESTAMP_SECONDS
        .contains(&seconds)
        .then(|| well_known(descriptor, [(1, Value::I64(seconds)), (2, Value::I32(nanos))]))
}

/// The key of a map from the name of a member.
pub(super) fn map_key(kind: &Kind, text: &str) -> Result<MapKey, Fault> {
    let value = match kind {
        Kind::String => return Ok(MapKey::String(text.to_owned())),
        Kind::Bool => from_text(&Shape::Bool, text)?,
        number_kind => number(number_kind, text)?,
    };
    value.into_map_key().ok_or_else(|| Fault::new("invalid_type", "cannot be the key of a map"))
}

fn enum_value(values: &Enum, text: &str) -> Result<Value, Fault> {
    let found = values
        .values
        .iter()
        .find(|value| value.spelling.as_deref() == Some(text) || value.proto_name == text);
    found.map(|value| Value::EnumNumber(value.number)).ok_or_else(|| {
        let taken = values.values.iter().filter(|value| value.is_taken);
        let mut allowed: Vec<String> = taken
            .filter_map(|value| value.spelling.as_ref())
            .map(|spelling| format!("`{spelling}`"))
            .collect();
        allowed.dedup();
        Fault::new("invalid_value", format!("must be one of {}", allowed.join(", ")))
    })
}

fn timestamp(descriptor: &MessageDescriptor, text: &str) -> Result<Value, Fault> {
    let invalid = || {
        Fault::new("invalid", "must be a time as RFC 3339 has it, such as `2026-04-25T00:00:00Z`")
    };
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| invalid())?;
    let (seconds, nanos) = (time.timestamp(), time.timestamp_subsec_nanos());
    if !TIMESTAMP_SECONDS.contains(&seconds) || nanos >= 1_000_000_000 {
        return Err(invalid());
    }
    Ok(well_known(descriptor, [(1, Value::I64(seconds)), (2, Value::I32(nanos as i32))]))
}

fn duration(descriptor: &MessageDescriptor, text: &str) -> Option<Value> {
    let (seconds, nanos) = duration::read(text)?;
    DURATION_SECONDS
        .contains(&seconds)
        .then(|| well_known(descriptor, [(1, Value::I64(seconds)), (2, Value::I32(nanos))]))
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "a 32-bit integer",
        Kind::Uint32 | Kind::Fixed32 => "an unsigned 32-bit integer",
        Kind::Uint64 | Kind::Fixed64 => "an unsigned 64-bit integer",
        _ => "a 64-bit integer",
    }
}

impl Fault {
    /// The value is of another kind than is wanted.
    pub(super) fn kind(shape: &Shape) -> Self {
        Fault::new("invalid_type", format!("must be {}", shape.wanted()))
    }
}

impl Shape {
    /// The rule for the value, for people.
    pub fn wanted(&self) -> &'static str {
        match self {
            Shape::Bool => "`true` or `false`",
            Shape::Number(Kind::Double | Kind::Float) => "a number",
            Shape::Number(_) => "a whole number",
            Shape::String => "a string",
            Shape::Bytes => "a string in base64",
            Shape::Enum(_) => "a string, one of the values listed for it",
            Shape::Timestamp { epoch_millis: false, .. } => "a string, a time as RFC 3339 has it",
            Shape::Timestamp { epoch_millis: true, .. } => "a number of milliseconds since 1970",
            Shape::Duration(_) => "a string, a number of seconds with an `s`",
            Shape::FieldMask(_) => "a string, names with commas between them",
            Shape::Message(_) | Shape::Struct | Shape::Any(_) => "an object",
            Shape::Value => "a value",
            Shape::ListValue => "an array",
            Shape::Wrapper(_, inner) => inner.wanted(),
        }
    }
}
