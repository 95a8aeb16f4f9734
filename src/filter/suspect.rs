//! Operands of functions of order that look like a number or a date and are written as neither. They are compared as texts then, which is
//! seldom meant: `lt(attributes.Closed, '2015/01/01')` is true for every number that begins with 1.

use chrono::{NaiveDate, Weekday};

use super::Filter;
use super::named::visit;
use super::number;
use super::plain_marks::plain_marks;
use super::shape::{is_month, is_version};
use super::syntax::{Call, Value};

/// A value that is not compared as it looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuspectValue {
    /// The path that it is compared with, as it is written in a filter.
    pub path: String,
    /// The value.
    pub value: String,
    /// The probable meaning.
    pub meant: Meant,
    /// Whether it is a year and a month, which is right where the attribute has such values.
    pub is_month: bool,
}

/// The apparent kind of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant {
    /// A number, which would be written so.
    Number(String),
    /// A date, which would be written so if it is known, or a time that is counted from one.
    Date(Option<String>),
    /// The texts that programs write where they have no number.
    NoNumber,
    /// One end of a range, of which the other is of another kind.
    OtherEnd,
    /// A version: texts are compared by character, so `10.0.0` lies before `2.0.0`.
    Version,
    /// A variable that was not replaced by its value.
    Variable,
}

impl Filter {
    /// The values of all of its functions that are names of variables, each once.
    pub fn variables(&self) -> Vec<SuspectValue> {
        let mut suspect: Vec<SuspectValue> = Vec::new();
        visit(self.root(), false, &mut |call, _| {
            for value in call.values.iter().filter(|value| is_variable(&value.text)) {
                let reported = SuspectValue {
                    path: call.path.to_string(),
                    value: value.text.clone(),
                    meant: Meant::Variable,
                    is_month: false,
                };
                if !suspect.contains(&reported) {
                    suspect.push(reported);
                }
            }
        });
        suspect
    }
}

/// The values of a function of order over an attribute that are compared as texts and look like something else, each once.
pub(super) fn by_form(call: &Call) -> Vec<SuspectValue> {
    let mut suspect: Vec<SuspectValue> = Vec::new();
    let ends: Vec<_> = call.values.iter().map(End::of).collect();
    let is_mixed = matches!(ends.as_slice(), [Some(low), Some(high)] if low != high);
    for value in &call.values {
        let is_read = value.number.is_some() || value.moment.is_some();
        let meant = match () {
            () if is_mixed => Some(Meant::OtherEnd),
            // It is reported of all functions.
            () if is_read || is_variable(&value.text) => None,
            () => meant_by(&value.text),
        };
        let is_month = !is_mixed && is_month(&value.text);
        let reported = meant.map(|meant| SuspectValue {
            path: call.path.to_string(),
            value: value.text.clone(),
            meant,
            is_month,
        });
        suspect.extend(reported.filter(|reported| !suspect.contains(reported)));
    }
    suspect
}

/// The kind of one end of a range, by its looks, as far as it is more than a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Number,
    Date,
    Month,
}

impl End {
    fn of(value: &Value) -> Option<End> {
        if value.number.is_some() {
            return Some(End::Number);
        }
        if value.moment.is_some() {
            return Some(End::Date);
        }
        let text = plain_marks(&value.text);
        let is_of = |part: &str, counts: std::ops::RangeInclusive<usize>| {
            counts.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if text
            .split_once('-')
            .is_some_and(|(year, month)| is_of(year, 4..=4) && is_of(month, 1..=2))
        {
            return Some(End::Month);
        }
        match meant_by(&value.text)? {
            Meant::Number(_) => Some(End::Number),
            Meant::Date(_) => Some(End::Date),
            _ => None,
        }
    }
}

/// The kind of a text, by its looks, that reads neither as a number nor as a date.
fn meant_by(text: &str) -> Option<Meant> {
    let text = plain_marks(text);
    let (text, lower) = (text.trim(), text.trim().to_lowercase());
    if let Some(number) = number_meant(text) {
        return Some(Meant::Number(number));
    }
    if NO_NUMBER.contains(&lower.trim_start_matches(['-', '+'])) {
        return Some(Meant::NoNumber);
    }
    if is_like_a_date(&lower) {
        return Some(Meant::Date(date_meant(&lower)));
    }
    is_version(text).then_some(Meant::Version)
}

/// Whether a text is, or has in it, the name of a variable as shells and templates write it.
fn is_variable(text: &str) -> bool {
    let is_name = |name: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(is_plain)
    };
    let between = |before: &str, after: &str| {
        text.match_indices(before).any(|(at, _)| {
            let rest = &text[at + before.len()..];
            rest.split_once(after)
                .is_some_and(|(name, _)| is_name(name.trim().trim_start_matches('.')))
        })
    };
    let whole = text.trim();
    let whole = whole.strip_prefix("entities/").unwrap_or(whole);
    let within = |before: char, after: char| {
        whole
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|name| is_name(name.trim()))
    };
    let is_of_shell = whole.strip_prefix('$').is_some_and(is_name);
    between("${", "}") || between("{{", "}}") || is_of_shell || within('%', '%') || within('<', '>')
}

/// The date that is written here otherwise, in lower case; none where several may be meant, or it depends on the day.
fn date_meant(text: &str) -> Option<String> {
    if text.contains("-w") {
        let (year, week) = text.split_once("-w")?;
        let (week, day) = week.split_once('-').unwrap_or((week, "1"));
        let day = Weekday::try_from(day.parse::<u8>().ok()?.checked_sub(1)?).ok()?;
        return NaiveDate::from_isoywd_opt(year.parse().ok()?, week.parse().ok()?, day)
            .map(|date| date.to_string());
    }
    if has_a_month(text) {
        return date_with_a_month(text);
    }
    let day = text.split(|c: char| c == 't' || c.is_whitespace()).next()?;
    let mark = day.chars().find(|c| !c.is_ascii_digit())?;
    let parts: Vec<&str> = day.split(mark).collect();
    let number = |part: &str| part.parse::<u32>().ok();
    let (year, month, day) = match parts.as_slice() {
        [year, month, day] if year.len() == 4 => (*year, number(month)?, number(day)?),
        [year, month] if year.len() == 4 => (*year, number(month)?, 1),
        [month, year] if year.len() == 4 => (*year, number(month)?, 1),
        [first, second, year] if year.len() == 4 => match (number(first)?, number(second)?) {
            // With points between them the day comes first.
            (day, month) if mark == '.' || day > 12 || day == month => (*year, month, day),
            (month, day) if day > 12 => (*year, month, day),
            _ => return None,
        },
        _ => return None,
    };
    NaiveDate::from_ymd_opt(year.parse().ok()?, month, day).map(|date| date.to_string())
}

/// The date of a text with the name of a month, one year and one day at most.
fn date_with_a_month(text: &str) -> Option<String> {
    let (mut year, mut month, mut day) = (None, None, None);
    for word in text
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | '-' | '/' | '.'))
        .filter(|word| !word.contains(':'))
    {
        let digits = word.trim_end_matches(|c: char| c.is_alphabetic());
        let name = MONTHS.iter().position(|name| word.len() >= 3 && name.starts_with(word));
        let known = match (digits.len(), name) {
            (0, Some(at)) => month.replace(u32::try_from(at).ok()? + 1),
            (1..=2, _) => day.replace(digits.parse().ok()?),
            (4, _) => year.replace(digits.parse().ok()?).map(|_: i32| 0),
            _ => None,
        };
        if known.is_some() {
            return None;
        }
    }
    NaiveDate::from_ymd_opt(year?, month?, day.unwrap_or(1)).map(|date| date.to_string())
}

/// Texts that programs write instead of a number.
const NO_NUMBER: [&str; 5] = ["nan", "inf", "infinity", "null", "undefined"];
/// Marks of amounts of money.
const CURRENCIES: [&str; 20] = [
    "AUD", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EUR", "GBP", "HKD", "INR", "JPY", "KRW",
    "MXN", "NOK", "PLN", "SEK", "SGD", "USD", "ZAR",
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
        (end.eq_ignore_ascii_case(unit) && number.ends_with(|c: char| c.is_ascii_digit()))
            .then_some((number, *zeros))
    };
    ZEROS.iter().find_map(shortened).unwrap_or((text, 0))
}

/// The number that is written here with a sign, a currency, leading zeros, a suffix for trailing ones, or marks between its digits.
fn number_meant(text: &str) -> Option<String> {
    let (text, zeros) = without_zeros(without_currency(text));
    let bare =
        text.trim_matches(|c: char| matches!(c, '$' | '€' | '£' | '¥' | '%') || c.is_whitespace());
    let (sign, bare) = match bare.strip_prefix('-') {
        Some(bare) => ("-", bare),
        None => ("", bare.strip_prefix('+').unwrap_or(bare)),
    };
    let bare =
        bare.trim_start_matches(|c: char| matches!(c, '$' | '€' | '£' | '¥') || c.is_whitespace());
    let digits = bare.replace(|c: char| matches!(c, '_' | '\'') || c.is_whitespace(), "");
    let decimal_comma = match (digits.rsplit_once(','), digits.rfind('.')) {
        (Some((before, after)), None) => !before.contains(',') && after.len() != 3,
        (Some((before, _)), Some(point)) => !before.contains(',') && point < before.len(),
        (None, _) => false,
    };
    let plain = if decimal_comma {
        digits.replace('.', "").replace(',', ".")
    } else {
        digits.replace(',', "")
    };
    let whole = plain.trim_end_matches('.').trim_start_matches('0');
    let zero = if whole.starts_with(|c: char| c.is_ascii_digit()) { "" } else { "0" };
    let begins = bare.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && plain.contains(|c: char| c.is_ascii_digit());
    if begins {
        number::plain(&if zeros == 0 {
            format!("{sign}{zero}{whole}")
        } else {
            format!("{sign}{zero}{whole}e{zeros}")
        })
    } else {
        None
    }
}

/// Words that stand for a day counted from the one on which they are read.
const RELATIVE: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
/// Words that stand beside a day and its month.
const BESIDE: [&str; 8] = ["st", "nd", "rd", "th", "of", "am", "pm", "utc"];
const WEEKDAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

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
    let all_digits = |part: &str, count: usize| {
        part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit())
    };
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
            && part.split_inclusive(|c: char| units.contains(c)).all(|one| {
                one.len() > 1
                    && one[..one.len() - 1]
                        .bytes()
                        .all(|byte| byte.is_ascii_digit() || byte == b'.')
            })
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
    let is_unit = UNITS.contains(&word.strip_suffix('s').unwrap_or(word))
        || has_sign && SHORT_UNITS.contains(&unit);
    unit.len() < unsigned.len() && is_unit
}

/// Returns whether it is the name of a month, and numbers: `Jan 1, 2015`.
fn has_a_month(text: &str) -> bool {
    let is_short = |word: &str, name: &&str| word.len() >= 3 && name.starts_with(word);
    let mut words = text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let is_month = |word: &str| MONTHS.iter().any(|name| is_short(word, name));
    let is_known = |word: &str| {
        is_month(word) || BESIDE.contains(&word) || WEEKDAYS.iter().any(|name| is_short(word, name))
    };
    text.contains(|c: char| c.is_ascii_digit())
        && text.split(|c: char| !c.is_alphabetic()).any(is_month)
        && words.all(is_known)
}

/// Returns whether it begins with numbers that make a day or a month: `2015/01/01`, `1.2.2015`, `2015-01`.
fn is_numeric_date(text: &str) -> bool {
    let day = text.split(|c: char| c == 't' || c.is_whitespace()).next().unwrap_or_default();
    ['-', '/', '.'].into_iter().any(|mark| {
        let parts: Vec<&str> = day.split(mark).collect();
        let is_of = |part: &&str, most: usize| {
            (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        let is_year = |part: &&str| part.len() == 4 && is_of(part, 4);
        let is_month = |part: &&str| {
            is_of(part, 2) && part.parse().is_ok_and(|month: u8| (1..=12).contains(&month))
        };
        match parts.as_slice() {
            [year, month, day] if is_year(year) => is_of(month, 2) && is_of(day, 2),
            [first, second, third] if mark != '/' && parts.iter().all(|part| part.len() == 2) => {
                is_short_date(first, second, third)
            }
            [first, second, year] => {
                is_of(first, 2)
                    && is_of(second, 2)
                    && (is_year(year) || mark == '/' && is_of(year, 2))
            }
            [first, second] if mark != '.' => {
                is_year(first) && is_month(second) || is_month(first) && is_year(second)
            }
            _ => false,
        }
    })
}

/// Returns whether two of these numbers of two digits are a day and a month, beside a year in short, in one of the orders that are in use.
fn is_short_date(first: &str, second: &str, third: &str) -> bool {
    let is_within = |part: &str, most: u8| {
        part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse().is_ok_and(|number: u8| (1..=most).contains(&number))
    };
    let is_year = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_day_first = is_within(first, 31) && is_within(second, 12);
    let is_month_first = is_within(first, 12) && is_within(second, 31);
    (is_day_first || is_month_first) && is_year(third)
        || is_year(first) && is_within(second, 12) && is_within(third, 31)
}

#[cfg(test)]
mod tests;
