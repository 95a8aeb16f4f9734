//! Operands of functions of order that look like a number or a date and are written as neither. They are compared as texts then, which is
//! seldom meant: `lt(attributes.Closed, '2015/01/01')` is true for every number that begins with 1.

use super::Filter;
use super::named::visit;
use super::number;
use super::plain_marks::plain_marks;
use super::syntax::{Bounds, Scale};
use super::vocabulary::PropertyKind;

/// A value that is compared as a text, and looks as if something else was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuspectValue {
    /// The path of the attribute that it is compared with, as it is written in a filter.
    pub path: String,
    /// The value.
    pub value: String,
    /// The probable meaning.
    pub meant: Meant,
}

/// The apparent kind of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant {
    /// A number, which would be written so.
    Number(String),
    /// A date, or a time that is counted from one.
    Date,
    /// Texts that programs write instead of a number.
    NoNumber,
    /// One end of a range, of which the other is of another kind.
    OtherEnd,
}

impl Filter {
    /// The values of its functions of order over attributes that are compared as texts and look like something else, each once.
    pub fn suspect_values(&self) -> Vec<SuspectValue> {
        let mut suspect: Vec<SuspectValue> = Vec::new();
        visit(self.root(), false, &mut |call, _| {
            let (test, path) = (call.function.test, &call.path);
            let is_order = path.property.kind == PropertyKind::Json && !path.counted && test.is_order();
            if !is_order || Bounds::of(test, &call.values).scale() != Scale::Text {
                return;
            }
            let is_mixed = call.values.iter().all(|value| value.number.is_some() || value.moment.is_some());
            for value in &call.values {
                let is_read = value.number.is_some() || value.moment.is_some();
                let meant = if is_read { is_mixed.then_some(Meant::OtherEnd) } else { meant_by(&value.text) };
                let reported = meant.map(|meant| SuspectValue { path: path.to_string(), value: value.text.clone(), meant });
                suspect.extend(reported.filter(|reported| !suspect.contains(reported)));
            }
        });
        suspect
    }
}

/// The apparent kind of a text that reads neither as a number nor as a date.
fn meant_by(text: &str) -> Option<Meant> {
    let text = plain_marks(text);
    let (text, lower) = (text.trim(), text.trim().to_lowercase());
    let is_none = NO_NUMBER.contains(&lower.trim_start_matches(['-', '+']));
    let other = || if is_none { Some(Meant::NoNumber) } else { is_like_a_date(&lower).then_some(Meant::Date) };
    number_meant(text).map(Meant::Number).or_else(other)
}

/// Texts that programs write instead of a number.
const NO_NUMBER: [&str; 5] = ["nan", "inf", "infinity", "null", "undefined"];
/// Marks of amounts of money.
const CURRENCIES: [&str; 20] = [
    "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "INR", "JPY", "KRW", "MXN", "NOK", "PLN", "SEK", "SGD", "USD",
    "ZAR",
];
/// Suffixes that stand for zeros, with how many those are.
const ZEROS: [(&str, u8); 5] = [("k", 3), ("mio", 6), ("mn", 6), ("m", 6), ("bn", 9)];

/// The text without a currency beside it.
fn without_currency(text: &str) -> &str {
    let beside = |code: &&str| text.strip_suffix(*code).or_else(|| text.strip_prefix(*code));
    CURRENCIES.iter().find_map(beside).unwrap_or(text).trim()
}

/// The text without the suffix for zeros after a digit, and how many zeros that stands for.
fn without_zeros(text: &str) -> (&str, u8) {
    let shortened = |(unit, zeros): &(&str, u8)| {
        let (number, end) = text.split_at_checked(text.len().checked_sub(unit.len())?)?;
        let number = number.trim_end();
        (end.eq_ignore_ascii_case(unit) && number.ends_with(|c: char| c.is_ascii_digit())).then_some((number, *zeros))
    };
    ZEROS.iter().find_map(shortened).unwrap_or((text, 0))
}

/// The number that is written here with a sign, a currency, leading zeros, a suffix for trailing ones, or marks between its digits.
fn number_meant(text: &str) -> Option<String> {
    let (text, zeros) = without_zeros(without_currency(text));
    let bare = text.trim_matches(|c: char| matches!(c, '$' | '€' | '£' | '¥' | '%') || c.is_whitespace());
    let (sign, bare) = match bare.strip_prefix('-') {
        Some(bare) => ("-", bare),
        None => ("", bare.strip_prefix('+').unwrap_or(bare)),
    };
    let bare = bare.trim_start_matches(|c: char| matches!(c, '$' | '€' | '£' | '¥') || c.is_whitespace());
    let digits = bare.replace(|c: char| matches!(c, '_' | '\'') || c.is_whitespace(), "");
    let decimal_comma = match (digits.rsplit_once(','), digits.rfind('.')) {
        (Some((before, after)), None) => !before.contains(',') && after.len() != 3,
        (Some((before, _)), Some(point)) => !before.contains(',') && point < before.len(),
        (None, _) => false,
    };
    let plain = if decimal_comma { digits.replace('.', "").replace(',', ".") } else { digits.replace(',', "") };
    let whole = plain.trim_end_matches('.').trim_start_matches('0');
    let zero = if whole.starts_with(|c: char| c.is_ascii_digit()) { "" } else { "0" };
    let begins = bare.starts_with(|c: char| c.is_ascii_digit() || c == '.') && plain.contains(|c: char| c.is_ascii_digit());
    if begins {
        number::plain(&if zeros == 0 { format!("{sign}{zero}{whole}") } else { format!("{sign}{zero}{whole}e{zeros}") })
    } else {
        None
    }
}

/// Words that stand for a day counted from the one on which they are read.
const RELATIVE: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];
const MONTHS: [&str; 12] =
    ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"];
/// Words that stand beside a day and its month.
const BESIDE: [&str; 8] = ["st", "nd", "rd", "th", "of", "am", "pm", "utc"];
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Returns whether this, in lower case, is how people and programs write dates elsewhere.
fn is_like_a_date(text: &str) -> bool {
    let after = RELATIVE.iter().find_map(|word| text.strip_prefix(word));
    after.is_some_and(|after| after.is_empty() || after.starts_with(['-', '+', '/', '(']))
        || has_a_month(text)
        || is_numeric_date(text)
        || is_week(text)
        || is_duration(text)
        || is_time_span(text)
}

/// Returns whether it is a week of ISO 8601, or a day of one: `2015-w01-1`.
fn is_week(text: &str) -> bool {
    let all_digits = |part: &str, count: usize| part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once("-w").is_some_and(|(year, week)| {
        let (week, day) = week.split_once('-').unwrap_or((week, "1"));
        all_digits(year, 4) && all_digits(week, 2) && all_digits(day, 1)
    })
}

/// Returns whether it is a duration of ISO 8601: `p1y2m`, `-pt12h`.
fn is_duration(text: &str) -> bool {
    let Some(rest) = text.trim_start_matches(['-', '+']).strip_prefix('p') else { return false };
    let (days, time) = rest.split_once('t').unwrap_or((rest, ""));
    let is_made_of = |part: &str, units: &str| {
        let ends_well = part.is_empty() || part.ends_with(|c: char| units.contains(c));
        ends_well
            && part
                .split_inclusive(|c: char| units.contains(c))
                .all(|one| one.len() > 1 && one[..one.len() - 1].bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
    };
    !(days.is_empty() && time.is_empty()) && is_made_of(days, "ymwd") && is_made_of(time, "hms")
}

/// Units of time, and how they are written in short behind a number with a sign.
const UNITS: [&str; 7] = ["second", "minute", "hour", "day", "week", "month", "year"];
const SHORT_UNITS: [&str; 6] = ["s", "h", "d", "w", "m", "y"];

/// Returns whether it is a number and a unit of time: `-30d`, `7 days ago`.
fn is_time_span(text: &str) -> bool {
    let unsigned = text.trim_start_matches(['-', '+']);
    let unit = unsigned.trim_start_matches(|c: char| c.is_ascii_digit());
    let has_sign = unsigned.len() < text.len();
    let word = unit.trim_start().trim_end_matches("ago").trim_end();
    let is_unit = UNITS.contains(&word.strip_suffix('s').unwrap_or(word)) || has_sign && SHORT_UNITS.contains(&unit);
    unit.len() < unsigned.len() && is_unit
}

/// Returns whether it is the name of a month, and numbers: `Jan 1, 2015`.
fn has_a_month(text: &str) -> bool {
    let is_short = |word: &str, name: &&str| word.len() >= 3 && name.starts_with(word);
    let mut words = text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let is_month = |word: &str| MONTHS.iter().any(|name| is_short(word, name));
    let is_known = |word: &str| is_month(word) || BESIDE.contains(&word) || WEEKDAYS.iter().any(|name| is_short(word, name));
    text.contains(|c: char| c.is_ascii_digit()) && text.split(|c: char| !c.is_alphabetic()).any(is_month) && words.all(is_known)
}

/// Returns whether it begins with numbers that make a day or a month: `2015/01/01`, `1.2.2015`, `2015-01`.
fn is_numeric_date(text: &str) -> bool {
    let day = text.split(|c: char| c == 't' || c.is_whitespace()).next().unwrap_or_default();
    ['-', '/', '.'].into_iter().any(|mark| {
        let parts: Vec<&str> = day.split(mark).collect();
        let is_of = |part: &&str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        let is_year = |part: &&str| part.len() == 4 && is_of(part, 4);
        let is_month = |part: &&str| is_of(part, 2) && part.parse().is_ok_and(|month: u8| (1..=12).contains(&month));
        match parts.as_slice() {
            [year, month, day] if is_year(year) => is_of(month, 2) && is_of(day, 2),
            [first, second, third] if mark != '/' && parts.iter().all(|part| part.len() == 2) => is_short_date(first, second, third),
            [first, second, year] => is_of(first, 2) && is_of(second, 2) && (is_year(year) || mark == '/' && is_of(year, 2)),
            [first, second] if mark != '.' => is_year(first) && is_month(second) || is_month(first) && is_year(second),
            _ => false,
        }
    })
}

/// Returns whether two of these numbers of two digits are a day and a month, beside a year in short, in one of the orders that are in use.
fn is_short_date(first: &str, second: &str, third: &str) -> bool {
    let is_within = |part: &str, most: u8| {
        part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse().is_ok_and(|number: u8| (1..=most).contains(&number))
    };
    let is_year = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_day_first = is_within(first, 31) && is_within(second, 12);
    let is_month_first = is_within(first, 12) && is_within(second, 31);
    (is_day_first || is_month_first) && is_year(third) || is_year(first) && is_within(second, 12) && is_within(third, 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(filter: &str) -> Vec<String> {
        let shown = |SuspectValue { path, value, meant }| match meant {
            Meant::Number(number) => format!("{path} {value}: {number}"),
            Meant::Date => format!("{path} {value}: date"),
            Meant::OtherEnd => format!("{path} {value}: other end"),
            Meant::NoNumber => format!("{path} {value}: no number"),
        };
        Filter::parse(filter).unwrap().suspect_values().into_iter().map(shown).collect()
    }

    #[test]
    fn what_looks_like_a_number_and_is_written_as_none_is_suspect() {
        for (value, number) in [
            ("1,000", "1000"),
            ("1,234,567.50", "1234567.5"),
            ("1.000,50", "1000.5"),
            ("1,5", "1.5"),
            ("1 000", "1000"),
            ("1_000", "1000"),
            ("+1000", "1000"),
            ("01000", "1000"),
            ("$1000", "1000"),
            ("-$1,000", "-1000"),
            ("1000 €", "1000"),
            ("50%", "50"),
            (".5", "0.5"),
            ("5.", "5"),
            ("00", "0"),
            (" 7 ", "7"),
            ("１０００", "1000"),
            ("−5", "-5"),
            ("–1,000", "-1000"),
            ("٥", "5"),
            ("١٬٢٣٤٫٥", "1234.5"),
            ("५०", "50"),
            ("\u{200b}1000\u{feff}", "1000"),
            ("1k", "1000"),
            ("-2.5 M", "-2500000"),
            ("3bn", "3000000000"),
            ("1000 EUR", "1000"),
            ("USD 1,000", "1000"),
            ("-$5k", "-5000"),
        ] {
            assert_eq!(reported(&format!("gt(attributes.A, '{value}')")), [format!("attributes.A {value}: {number}")], "{value}");
        }
        assert_eq!(reported(r#"gt(attributes.A, "1'000")"#), ["attributes.A 1'000: 1000"]);
    }

    #[test]
    fn what_programs_write_where_they_have_no_number_is_suspect() {
        for value in ["NaN", "-nan", "Infinity", "-Inf", "null", "undefined"] {
            assert_eq!(reported(&format!("gt(attributes.A, '{value}')")), [format!("attributes.A {value}: no number")], "{value}");
        }
    }

    #[test]
    fn what_looks_like_a_date_and_is_written_as_none_is_suspect() {
        for value in [
            "2015/01/01",
            "2015-1-1",
            "2015-02-30",
            "2015-01-01T10:00",
            "2015.01.01",
            "1.2.2015",
            "1/1/2015",
            "1/1/15",
            "2015-01",
            "01/2015",
            "Jan 1 2015",
            "1 January, 2015",
            "Thu, 1st Jan 2015 10:00 UTC",
            "today",
            "NOW",
            "now-1y",
            "now()",
            "15-01-01",
            "31-12-15",
            "31.12.15",
            "２０１５-01-01",
            "2015–01–01",
            "2015-W01",
            "2015-W01-1",
            "-P1D",
            "P1Y2M",
            "PT12H",
            "-30d",
            "7 days",
            "30 days ago",
            "1 year",
        ] {
            assert_eq!(reported(&format!("lt(attributes.A, '{value}')")), [format!("attributes.A {value}: date")], "{value}");
        }
    }

    #[test]
    fn other_texts_and_what_is_compared_as_it_is_written_are_not() {
        for value in [
            "1000",
            "1e3",
            "-0.5",
            "2015-01-01",
            "2015-01-01T10:00:00Z",
            "a",
            "Bonn",
            "nowhere",
            "May",
            "Mayer 5",
            "1.2.3",
            "10.0.0.1",
            "A-12",
            "12-34",
            "v2",
            "-",
            "$",
            ".",
            "today Inc",
            "3rd",
            "2015-13",
            "12-34-56",
            "Pt",
            "P1",
            "P1DX",
            "12 Main Street",
            "5d",
            "k",
            "EUR",
            "Nancy",
            "infinite",
            "K2",
        ] {
            assert!(reported(&format!("gte(attributes.A, '{value}')")).is_empty(), "{value}");
        }
        assert!(reported("equals(attributes.A, '1,000') and startsWith(attributes.A, '01000') and gt(type, '1,000')").is_empty());
    }

    #[test]
    fn it_is_reported_once_wherever_it_stands() {
        let filter = "not gt(attributes.A, '1,000') or inSameAttributeValue(lt(attributes.B.C, today)) or lte(attributes.A, '1,000')";
        assert_eq!(reported(filter), ["attributes.A 1,000: 1000", "attributes.B.C today: date"]);
        assert_eq!(reported("range(attributes.A, '1,000', 2000)"), ["attributes.A 1,000: 1000"]);
        let mixed = ["attributes.A 1000: other end", "attributes.A 2015-01-01: other end"];
        assert_eq!(reported("range(attributes.A, 1000, '2015-01-01')"), mixed);
        assert!(reported("range(attributes.A, 1, b)").is_empty() && reported("range(attributes.A, 1, 2)").is_empty());
    }
}
