//! Between the types of messages and those of the rest of the house.

use chrono::{DateTime, Utc};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp, Value};
use serde_json::{Map, Number, Value as Json};

/// The largest magnitude below which every integer is a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A moment as a message.
pub fn timestamp(moment: DateTime<Utc>) -> Timestamp {
    Timestamp { seconds: moment.timestamp(), nanos: moment.timestamp_subsec_nanos() as i32 }
}

/// A JSON object as a `Struct`. Anything but an object is an empty one; the database's CHECKs admit objects alone.
pub fn to_struct(value: Json) -> Struct {
    match value {
        Json::Object(members) => Struct { fields: members.into_iter().map(|(name, value)| (name, to_value(value))).collect() },
        _ => Struct::default(),
    }
}

fn to_value(value: Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        Json::String(value) => Kind::StringValue(value),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(to_value).collect() }),
        object @ Json::Object(_) => Kind::StructValue(to_struct(object)),
    };
    Value { kind: Some(kind) }
}

/// A `Struct` as a JSON object, or why it cannot be one. `depth` bounds its nesting.
pub fn from_struct(message: Struct, depth: usize) -> Result<Json, &'static str> {
    let depth = depth.checked_sub(1).ok_or("is nested too deeply")?;
    let mut members = Map::with_capacity(message.fields.len());
    for (name, value) in message.fields {
        if name.contains('\0') {
            return Err("must not hold the character U+0000");
        }
        members.insert(name, from_value(value, depth)?);
    }
    Ok(Json::Object(members))
}

fn from_value(message: Value, depth: usize) -> Result<Json, &'static str> {
    Ok(match message.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        Some(Kind::NumberValue(value)) => Json::Number(number(value)?),
        Some(Kind::StringValue(value)) if value.contains('\0') => return Err("must not hold the character U+0000"),
        Some(Kind::StringValue(value)) => Json::String(value),
        Some(Kind::ListValue(list)) => {
            let depth = depth.checked_sub(1).ok_or("is nested too deeply")?;
            Json::Array(list.values.into_iter().map(|value| from_value(value, depth)).collect::<Result<_, _>>()?)
        }
        Some(Kind::StructValue(value)) => from_struct(value, depth)?,
    })
}

fn number(value: f64) -> Result<Number, &'static str> {
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return Ok(Number::from(value as i64));
    }
    Number::from_f64(value).ok_or("must not hold NaN or an infinity")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_survives_the_way_through_a_struct() {
        let value = json!({"a": [1, 2.5, null, true, "x", {"b": []}], "big": 9007199254740992i64});
        assert_eq!(from_struct(to_struct(value.clone()), 32), Ok(value));
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        let nan = Struct { fields: [("n".to_owned(), Value { kind: Some(Kind::NumberValue(f64::NAN)) })].into() };
        assert!(from_struct(nan, 32).is_err());
        assert!(from_struct(to_struct(json!({"a": "\u{0}"})), 32).is_err());
        assert!(from_struct(to_struct(json!({"a": {"b": {}}})), 2).is_err());
        assert!(from_struct(to_struct(json!({"a": {"b": {}}})), 3).is_ok());
    }
}
