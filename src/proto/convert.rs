//! Between the types of messages and those of the rest of the house.

use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::{DateTime, Utc};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp, Value};
use serde_json::{Map, Number, Value as Json};

use crate::error::Violations;

/// The largest magnitude below which every integer is a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A moment as a message.
pub fn timestamp(moment: DateTime<Utc>) -> Timestamp {
    Timestamp { seconds: moment.timestamp(), nanos: moment.timestamp_subsec_nanos() as i32 }
}

/// The seconds of a `google.protobuf.Timestamp`: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z.
const TIMESTAMP_SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// The seconds of a `google.protobuf.Duration`.
const DURATION_SECONDS: RangeInclusive<i64> = -315_576_000_000..=315_576_000_000;
const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// A moment from a message, or `out_of_range` where it is none that the type can say: gRPC hands on any numbers, of which JSON would refuse some.
pub fn check_moment(message: Timestamp, field: &str, faults: &mut Violations) -> Option<DateTime<Utc>> {
    let nanos = u32::try_from(message.nanos).ok().filter(|_| message.nanos < NANOS_PER_SECOND);
    let moment = nanos.filter(|_| TIMESTAMP_SECONDS.contains(&message.seconds));
    let moment = moment.and_then(|nanos| DateTime::from_timestamp(message.seconds, nanos));
    if moment.is_none() {
        faults.add(field, "out_of_range", "must be a time of the years 1 to 9999, with `nanos` from 0 to 999,999,999");
    }
    moment
}

/// A duration from a message: `invalid` where it is none that the type can say, such as one whose signs differ, and `out_of_range` with what is
/// `wanted` where it is not within the bounds.
pub fn check_duration(
    message: prost_types::Duration,
    bounds: RangeInclusive<Duration>,
    wanted: &str,
    field: &str,
    faults: &mut Violations,
) -> Option<Duration> {
    let prost_types::Duration { seconds, nanos } = message;
    let is_one = DURATION_SECONDS.contains(&seconds) && (-NANOS_PER_SECOND + 1..NANOS_PER_SECOND).contains(&nanos);
    if !is_one || seconds.signum() * i64::from(nanos.signum()) < 0 {
        faults.add(field, "invalid", "must have `seconds` and `nanos` of one sign, and less than a second of `nanos`");
        return None;
    }
    let duration = u64::try_from(seconds).ok().zip(u32::try_from(nanos).ok()).map(|(seconds, nanos)| Duration::new(seconds, nanos));
    let duration = duration.filter(|duration| bounds.contains(duration));
    if duration.is_none() {
        faults.add(field, "out_of_range", wanted);
    }
    duration
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

    /// The code of the fault of a duration from 1 s to 1 h, if it has one.
    fn fault_of(seconds: i64, nanos: i32) -> Option<&'static str> {
        let (mut faults, bounds) = (Violations::new(), Duration::from_secs(1)..=Duration::from_secs(3600));
        let read = check_duration(prost_types::Duration { seconds, nanos }, bounds, "must be from 1s to 3600s", "f", &mut faults);
        assert_eq!(read.is_none(), !faults.as_slice().is_empty());
        faults.as_slice().first().map(|fault| fault.code)
    }

    #[test]
    fn a_duration_is_one_that_json_could_say() {
        assert_eq!([fault_of(1, 0), fault_of(2, 999_999_999), fault_of(3600, 0)], [None; 3]);
        for (seconds, nanos) in [(10, -1), (-10, 1), (1, 1_000_000_000), (1, -1_000_000_000), (i64::MAX, 0), (1, i32::MIN)] {
            assert_eq!(fault_of(seconds, nanos), Some("invalid"), "{seconds} {nanos}");
        }
        for (seconds, nanos) in [(0, 0), (0, 1), (-1, -1), (-1, 0), (0, -5), (3600, 1), (315_576_000_000, 0)] {
            assert_eq!(fault_of(seconds, nanos), Some("out_of_range"), "{seconds} {nanos}");
        }
    }

    #[test]
    fn a_moment_is_one_that_json_could_say() {
        let is_one = |seconds, nanos| check_moment(Timestamp { seconds, nanos }, "f", &mut Violations::new()).is_some();
        assert!(is_one(0, 0) && is_one(-62_135_596_800, 0) && is_one(253_402_300_799, 999_999_999));
        // chrono takes a leap second for what has a second of nanos and more.
        for (seconds, nanos) in [(59, 1_500_000_000), (0, -1), (-62_135_596_801, 0), (253_402_300_800, 0), (i64::MIN, 0)] {
            assert!(!is_one(seconds, nanos), "{seconds} {nanos}");
        }
    }

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
