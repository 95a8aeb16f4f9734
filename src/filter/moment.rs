//! Dates and times as texts.

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeDelta, Utc};

/// The meaning of a time that a caller wrote: the moments from `start` on, before `end`. A day is all of its moments (in UTC), a
/// millisecond all of its microseconds, and a time written to the microsecond is that one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The first moment.
    pub start: DateTime<Utc>,
    /// The first moment after it.
    pub end: DateTime<Utc>,
}

/// The texts that are dates, as an expression of Postgres: `YYYY-MM-DD`, or that with a time and an offset as RFC 3339 writes them, with at most
/// nine digits of a second. Nothing that passes makes Postgres' cast fail, hence the days of each month, and offsets below 16 hours.
pub(super) const DATE: &str = "^(?!0000)(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)\
     |02-(?:0[1-9]|1[0-9]|2[0-8]))|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)\
     (?:[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:[Zz]|[+-](?:0[0-9]|1[0-5]):[0-5][0-9]))?$";

const LARGEST_OFFSET_HOUR: i64 = 15;
/// Fewer milliseconds than this lie within some three years of the beginning of 1970, where nothing is; so many seconds reach to the year 5138.
const LEAST_MILLISECONDS: u64 = 100_000_000_000;

impl Moment {
    /// Reads a date, or a date with a time. It says no more than the first microsecond of each.
    pub fn of_text(text: &str) -> Option<Moment> {
        let start = instant(text)?;
        let length = if text.len() == "YYYY-MM-DD".len() {
            TimeDelta::days(1)
        } else {
            TimeDelta::microseconds(1)
        };
        Some(Moment { start, end: start + length })
    }

    /// The millisecond that is so many behind the beginning of 1970, in the years 1 to 9999. None of a number that is meant as something else:
    /// a year, or seconds, which as milliseconds lie around the beginning of 1970. That beginning itself, 0, is one.
    pub fn of_milliseconds(milliseconds: i64) -> Option<Moment> {
        if milliseconds != 0 && milliseconds.unsigned_abs() < LEAST_MILLISECONDS {
            return None;
        }
        let start = DateTime::from_timestamp_millis(milliseconds)
            .filter(|start| (1..=9999).contains(&start.year()))?;
        Some(Moment { start, end: start + TimeDelta::milliseconds(1) })
    }

    /// Recognises numbers that are not milliseconds: a year, seconds, or a fraction of a millisecond.
    pub fn meant_by(number: i64) -> Option<Meant> {
        let (unit, start) = match number {
            1000..=9999 => (
                "a year",
                NaiveDate::from_ymd_opt(number.try_into().ok()?, 1, 1)?
                    .and_hms_opt(0, 0, 0)
                    .map(|start| start.and_utc()),
            ),
            1.. if number.unsigned_abs() < LEAST_MILLISECONDS => {
                ("seconds", DateTime::from_timestamp(number, 0))
            }
            100_000_000_000_000.. if number < 100_000_000_000_000_000 => {
                ("microseconds", DateTime::from_timestamp_micros(number))
            }
            100_000_000_000_000_000.. => {
                ("nanoseconds", Some(DateTime::from_timestamp_nanos(number)))
            }
            _ => return None,
        };
        start.filter(|start| (1..=9999).contains(&start.year())).map(|start| Meant { unit, start })
    }

    /// Returns whether a moment is in it.
    pub fn contains(&self, moment: DateTime<Utc>) -> bool {
        (self.start..self.end).contains(&moment)
    }
}

/// The probable meaning of a number that is not milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meant {
    unit: &'static str,
    start: DateTime<Utc>,
}

impl Meant {
    /// As an advice where a time is a date or a number of milliseconds.
    pub fn as_time(&self) -> String {
        let Meant { unit, start } = self;
        if *unit == "a year" {
            return format!("the year is written as `{}`", start.format("%Y-%m-%d"));
        }
        let or = self.milliseconds().map(|number| format!(" or `{number}`")).unwrap_or_default();
        format!("as {unit} it would be `{}`{or}", start.format("%Y-%m-%dT%H:%M:%SZ"))
    }

    /// As an advice where a time is a number of milliseconds alone; none where such a number would not be taken either.
    pub fn as_milliseconds(&self) -> Option<String> {
        self.milliseconds().map(|number| format!("as {} it would be `{number}`", self.unit))
    }

    fn milliseconds(&self) -> Option<i64> {
        let number = self.start.timestamp_millis();
        Moment::of_milliseconds(number).map(|_| number)
    }
}

/// The first microsecond of a text that is a date. [`DATE`] says which are.
pub(super) fn instant(text: &str) -> Option<DateTime<Utc>> {
    if !text.is_ascii() || text.len() < 10 {
        return None;
    }
    let (date, time) = text.split_at(10);
    let date = day(date)?;
    let midnight = date.and_hms_opt(0, 0, 0)?.and_utc();
    if time.is_empty() {
        return Some(midnight);
    }
    let time = time.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = time.split_at_checked(8)?;
    let fields: Vec<i64> = clock.split(':').map(|field| number(field, 2)).collect::<Option<_>>()?;
    let &[hour @ 0..=23, minute @ 0..=59, second @ 0..=59] = fields.as_slice() else { return None };
    let (microseconds, offset) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (fraction, offset) = rest.split_at(digits);
            let fraction = Some(fraction).filter(|fraction| (1..=9).contains(&fraction.len()))?;
            (format!("{:0<6.6}", fraction).parse().ok()?, offset)
        }
    };
    let ahead = seconds_ahead(offset)?;
    let seconds = TimeDelta::seconds(hour * 3600 + minute * 60 + second - ahead);
    midnight.checked_add_signed(seconds + TimeDelta::microseconds(microseconds))
}

fn day(text: &str) -> Option<NaiveDate> {
    let fields: Vec<&str> = text.split('-').collect();
    let &[year, month, day] = fields.as_slice() else { return None };
    let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
    let first = NaiveDate::from_ymd_opt(
        i32::try_from(year).ok().filter(|year| *year > 0)?,
        u32::try_from(month).ok()?,
        1,
    )?;
    let date = first.checked_add_days(Days::new(u64::try_from(day - 1).ok()?))?;
    (date.month() == first.month() && date.year() == first.year()).then_some(date)
}

/// The seconds by which an offset is ahead of UTC.
fn seconds_ahead(offset: &str) -> Option<i64> {
    if matches!(offset, "Z" | "z") {
        return Some(0);
    }
    let sign = match offset.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = offset[1..].split_once(':')?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    (hours <= LARGEST_OFFSET_HOUR && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

/// A number of exactly so many digits.
fn number(digits: &str, count: usize) -> Option<i64> {
    let all_digits = digits.len() == count && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use chrono::Timelike;

    use super::*;

    #[test]
    fn spellings_of_one_moment_are_that_moment() {
        for text in [
            "2024-02-29T10:00:00Z",
            "2024-02-29t10:00:00z",
            "2024-02-29 10:00:00.000Z",
            "2024-02-29T11:30:00+01:30",
            "2024-02-28T18:01:00-15:59",
            "2024-02-29T10:00:00.000000999Z",
        ] {
            assert_eq!(
                instant(text).map(|moment| moment.timestamp_micros()),
                Some(1_709_200_800_000_000),
                "{text}"
            );
        }
        assert_eq!(instant("2024-02-29T10:00:00.5Z"), instant("2024-02-29T10:00:00.500000Z"));
        assert!(instant("2024-02-29T10:00:00.5Z") > instant("2024-02-29T10:00:00Z"));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "2023-02-29",
            "1900-02-29",
            "2024-04-31",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "0000-01-01",
            "24-01-01",
            "2024-1-01",
            "20240101",
            "2024-01-01T10:00:00",
            "2024-01-01T24:00:00Z",
            "2024-01-01T10:00:60Z",
            "2024-01-01T10:00Z",
            "2024-01-01T10:00:00.Z",
            "2024-01-01T10:00:00.1234567890Z",
            "2024-01-01T10:00:00+16:00",
            "2024-01-01T10:00:00+0100",
            "2024-01-01T10:00:00Z ",
            "+024-01-01",
            "２024-01-01",
        ] {
            assert_eq!(instant(text), None, "{text}");
        }
        assert!(instant("2000-02-29").is_some() && instant("0004-02-29").is_some());
    }

    #[test]
    fn a_day_is_all_of_its_moments_and_a_millisecond_all_of_its_microseconds() {
        let day = Moment::of_text("2024-02-29").unwrap();
        assert!(
            day.contains(instant("2024-02-29T23:59:59.999999Z").unwrap())
                && !day.contains(instant("2024-03-01").unwrap())
        );
        let millisecond = Moment::of_milliseconds(1_709_200_800_123).unwrap();
        assert!(millisecond.contains(instant("2024-02-29T10:00:00.123999Z").unwrap()));
        assert!(!millisecond.contains(instant("2024-02-29T10:00:00.124Z").unwrap()));
        assert_eq!(Moment::of_milliseconds(i64::MAX), None);
        assert_eq!(Moment::of_milliseconds(-99_999_999_999_999), None);
    }

    #[test]
    fn what_counts_no_milliseconds_is_no_time_and_is_reported_as_what_it_counts() {
        for (number, reported, alone) in [
            (
                2026,
                "the year is written as `2026-01-01`",
                Some("as a year it would be `1767225600000`"),
            ),
            (1971, "the year is written as `1971-01-01`", None),
            (
                1_767_225_600,
                "as seconds it would be `2026-01-01T00:00:00Z` or `1767225600000`",
                Some("as seconds it would be `1767225600000`"),
            ),
            (
                1_767_225_600_000_000,
                "as microseconds it would be `2026-01-01T00:00:00Z` or `1767225600000`",
                Some("as microseconds it would be `1767225600000`"),
            ),
            (
                1_767_225_600_000_000_000,
                "as nanoseconds it would be `2026-01-01T00:00:00Z` or `1767225600000`",
                Some("as nanoseconds it would be `1767225600000`"),
            ),
            (1, "as seconds it would be `1970-01-01T00:00:01Z`", None),
            (20_260_101, "as seconds it would be `1970-08-23T11:48:21Z`", None),
        ] {
            let meant = Moment::meant_by(number).unwrap();
            assert_eq!(
                (Moment::of_milliseconds(number), meant.as_time().as_str()),
                (None, reported),
                "{number}"
            );
            assert_eq!(meant.as_milliseconds().as_deref(), alone, "{number}");
        }
        assert_eq!(Moment::meant_by(-1), None);
        for number in [0, 1_767_225_600_000, 100_000_000_000, -100_000_000_000] {
            assert!(Moment::of_milliseconds(number).is_some(), "{number}");
        }
    }

    #[test]
    fn whoever_follows_an_advice_is_understood() {
        let numbers = (0..63).flat_map(|bits| [1_i64 << bits, (1 << bits) + 7]).chain(1000..=9999);
        for meant in numbers
            .filter(|number| Moment::of_milliseconds(*number).is_none())
            .filter_map(Moment::meant_by)
        {
            let advice = meant.as_time();
            assert_eq!(
                Moment::of_text(advice.split('`').nth(1).unwrap()).map(|moment| moment.start),
                Some(meant.start.with_nanosecond(0).unwrap()),
                "{advice}"
            );
            let in_time = advice.split('`').nth(3).map(str::to_owned);
            let alone = meant
                .as_milliseconds()
                .and_then(|advice| advice.split('`').nth(1).map(str::to_owned));
            assert_eq!(
                in_time.is_some() && !advice.contains("year"),
                alone.is_some() && !advice.contains("year"),
                "{advice}"
            );
            for number in in_time.into_iter().chain(alone) {
                let moment = Moment::of_milliseconds(number.parse().unwrap());
                assert!(moment.is_some_and(|moment| moment.contains(meant.start)), "{advice}");
            }
        }
    }
}
