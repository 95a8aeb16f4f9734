//! Between the types of messages and those of the rest of the project.

use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::{DateTime, Utc};
use prost_types::Timestamp;

use crate::error::Violations;

/// A moment as a message.
pub fn timestamp(moment: DateTime<Utc>) -> Timestamp {
    Timestamp { seconds: moment.timestamp(), nanos: moment.timestamp_subsec_nanos() as i32 }
}

/// The seconds of a `google.protobuf.Timestamp`: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z.
const TIMESTAMP_SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// A moment from a message, or `out_of_range` if the type cannot express it: gRPC passes on any numbers, of which JSON would refuse some.
pub fn check_moment(
    message: Timestamp,
    field: &str,
    faults: &mut Violations,
) -> Option<DateTime<Utc>> {
    let nanos = u32::try_from(message.nanos).ok().filter(|_| message.nanos < NANOS_PER_SECOND);
    let moment = nanos.filter(|_| TIMESTAMP_SECONDS.contains(&message.seconds));
    let moment = moment.and_then(|nanos| DateTime::from_timestamp(message.seconds, nanos));
    if moment.is_none() {
        faults.add(
            field,
            "out_of_range",
            "must be a time of the years 1 to 9999, with `nanos` from 0 to 999,999,999",
        );
    }
    moment
}

/// A duration from a message: `invalid` if its parts do not fit together, such as with different signs, and `out_of_range` with the
/// `wanted` bounds if it is outside of them, or of the type.
pub fn check_duration(
    message: prost_types::Duration,
    bounds: RangeInclusive<Duration>,
    wanted: &str,
    field: &str,
    faults: &mut Violations,
) -> Option<Duration> {
    let prost_types::Duration { seconds, nanos } = message;
    let is_one = (-NANOS_PER_SECOND + 1..NANOS_PER_SECOND).contains(&nanos);
    if !is_one || seconds.signum() * i64::from(nanos.signum()) < 0 {
        faults.add(
            field,
            "invalid",
            "must have `seconds` and `nanos` of one sign, and less than a second of `nanos`",
        );
        return None;
    }
    let duration = u64::try_from(seconds)
        .ok()
        .zip(u32::try_from(nanos).ok())
        .map(|(seconds, nanos)| Duration::new(seconds, nanos));
    let duration = duration.filter(|duration| bounds.contains(duration));
    if duration.is_none() {
        faults.add(field, "out_of_range", wanted);
    }
    duration
}

/// A duration as JSON has it (the mapping of `google.protobuf.Duration`): seconds with none, three, six or nine digits behind the point, and an `s`.
pub fn duration_text(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let fraction = match nanos.unsigned_abs() {
        0 => String::new(),
        nanos if nanos % 1_000_000 == 0 => format!(".{:03}", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!(".{:06}", nanos / 1_000),
        nanos => format!(".{nanos:09}"),
    };
    format!("{sign}{}{fraction}s", seconds.unsigned_abs())
}

/// The same of a duration that is not below zero.
pub fn std_duration_text(duration: Duration) -> String {
    duration_text(
        i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of the fault of a duration from 1 s to 1 h, if it has one.
    fn fault_of(seconds: i64, nanos: i32) -> Option<String> {
        let (mut faults, bounds) =
            (Violations::new(), Duration::from_secs(1)..=Duration::from_secs(3600));
        let read = check_duration(
            prost_types::Duration { seconds, nanos },
            bounds,
            "must be from 1s to 3600s",
            "f",
            &mut faults,
        );
        assert_eq!(read.is_none(), !faults.as_slice().is_empty());
        faults.as_slice().first().map(|fault| fault.code.to_string())
    }

    #[test]
    fn a_duration_is_one_that_json_could_say() {
        assert_eq!(
            [fault_of(1, 0), fault_of(2, 999_999_999), fault_of(3600, 0)],
            [None, None, None]
        );
        for (seconds, nanos) in [
            (10, -1),
            (-10, 1),
            (1, 1_000_000_000),
            (1, -1_000_000_000),
            (i64::MAX, -1),
            (1, i32::MIN),
        ] {
            assert_eq!(fault_of(seconds, nanos).as_deref(), Some("invalid"), "{seconds} {nanos}");
        }
        for (seconds, nanos) in [
            (0, 0),
            (0, 1),
            (-1, -1),
            (-1, 0),
            (0, -5),
            (3600, 1),
            (315_576_000_000, 0),
            (315_576_000_001, 0),
            (i64::MAX, 0),
            (i64::MIN, 0),
        ] {
            assert_eq!(
                fault_of(seconds, nanos).as_deref(),
                Some("out_of_range"),
                "{seconds} {nanos}"
            );
        }
    }

    #[test]
    fn a_moment_is_one_that_json_could_say() {
        let is_one = |seconds, nanos| {
            check_moment(Timestamp { seconds, nanos }, "f", &mut Violations::new()).is_some()
        };
        assert!(is_one(0, 0) && is_one(-62_135_596_800, 0) && is_one(253_402_300_799, 999_999_999));
        // chrono takes a leap second for what has a second of nanos and more.
        for (seconds, nanos) in [
            (59, 1_500_000_000),
            (0, -1),
            (-62_135_596_801, 0),
            (253_402_300_800, 0),
            (i64::MIN, 0),
        ] {
            assert!(!is_one(seconds, nanos), "{seconds} {nanos}");
        }
    }
}
