//! Numbers of the types of protocol buffers: read without losing a digit, or refused. Those of free-form JSON have no such type and are all taken.

use std::borrow::Cow;

/// Reads a JSON number as the double that writes it again, or nothing: neither `9007199254740993` nor `1e400` has one.
pub fn exact_double(text: &str) -> Option<f64> {
    let double: f64 = text.parse().ok()?;
    if !double.is_finite() {
        return None;
    }
    // Every decimal of up to 15 digits comes back from a double of the normal range (IEEE 754).
    let digits = text
        .bytes()
        .take_while(|byte| !matches!(byte, b'e' | b'E'))
        .filter(u8::is_ascii_digit)
        .count();
    if digits <= 15
        && (double.is_normal() || digits == 1 && double == 0.0 && !text.contains(['e', 'E']))
    {
        return Some(double);
    }
    // As it will be written: of two shortest decimals that are equally near, printers choose differently.
    let written = serde_json::Number::from_f64(double)?.to_string();
    (Decimal::read(text) == Decimal::read(&written)).then_some(double)
}

/// Reads a whole number, also when it is written as `3.0` or `3e2`.
pub fn whole(text: &str) -> Option<i128> {
    if let Ok(value) = text.parse() {
        return Some(value);
    }
    if !text.contains(['.', 'e', 'E']) {
        return None;
    }
    let Decimal { negative, digits, exponent } = Decimal::read(text)?;
    if digits.is_empty() {
        return Some(0);
    }
    if !(0..=20).contains(&exponent) {
        return None;
    }
    let value: i128 = format!("{digits}{}", "0".repeat(exponent as usize)).parse().ok()?;
    Some(if negative { -value } else { value })
}

/// A decimal number in its one shortest form: `digits`, without zeros at either end, times ten to the power of `exponent`.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn read(text: &str) -> Option<Decimal> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0').trim_end_matches('0');
        let cut = all.len() - all.trim_end_matches('0').len();
        // Zero is zero, whatever its exponent.
        let exponent = match exponent.parse::<i64>() {
            _ if significant.is_empty() && is_exponent(exponent) => 0,
            read => read.ok()?.checked_sub(fraction.len() as i64)?.checked_add(cut as i64)?,
        };
        Some(Decimal { negative, digits: significant.to_owned(), exponent })
    }
}

fn is_exponent(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The most digits of a whole number that the JSON library reads; a longer one it takes for no JSON.
const MOST_DIGITS: usize = 4_300;

/// The text, in which of whole numbers with too many digits to be read those are blank that are too many: a number that is cut so is too long for every
/// place all the same, and all other faults are where they were.
pub fn with_readable_numbers(text: &[u8]) -> Cow<'_, [u8]> {
    // A run of so many digits has one at one of these places.
    let is_long = |at: &usize| {
        let is_digit = |byte: &&u8| byte.is_ascii_digit();
        let before = text[..*at].iter().rev().take_while(is_digit).count();
        before + text[*at..].iter().take_while(is_digit).count() > MOST_DIGITS
    };
    if !(MOST_DIGITS..text.len())
        .step_by(MOST_DIGITS)
        .any(|at| text[at].is_ascii_digit() && is_long(&at))
    {
        return Cow::Borrowed(text);
    }
    let (mut cut, mut at) = (text.to_vec(), 0);
    while let Some(byte) = text.get(at) {
        let begins = at;
        match byte {
            b'"' => {
                at += 1;
                while text.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'0'..=b'9' => {
                let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                let rest = text[at + digits..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte))
                    .count();
                at += digits + rest;
                if digits > MOST_DIGITS {
                    cut[begins + MOST_DIGITS..at].fill(b' ');
                }
            }
            _ => at += 1,
        }
    }
    Cow::Owned(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_that_come_back_are_taken() {
        for text in [
            "0",
            "-0",
            "0.0",
            "1",
            "0.1",
            "-2.50",
            "1e20",
            "1E+2",
            "100000000000000000000",
            "9007199254740992",
            "5e-324",
            "0e99999",
            "-0e-99999999999999999999",
        ] {
            assert!(exact_double(text).is_some(), "{text}");
        }
    }

    #[test]
    fn doubles_that_would_differ_are_refused() {
        let lost = [
            "9007199254740993",
            "123456789012345678901",
            "0.1234567890123456789",
            "1e400",
            "-1e400",
            "1e-400",
            "3e-324",
            "1e99999999999999999999",
        ];
        for text in lost {
            assert_eq!(exact_double(text), None, "{text}");
        }
    }

    #[test]
    fn whole_numbers_may_be_written_as_decimals() {
        assert_eq!(whole("18446744073709551615"), Some(u64::MAX.into()));
        assert_eq!(
            (whole("-3.0"), whole("1.5e1"), whole("0.000"), whole("12e2")),
            (Some(-3), Some(15), Some(0), Some(1200))
        );
        assert_eq!(
            (
                whole("1.5"),
                whole("1e30"),
                whole("x"),
                whole(""),
                whole("1e-1"),
                whole("1e999999999999")
            ),
            (None, None, None, None, None, None)
        );
        assert_eq!(
            (whole("0e99999999999999999999"), whole("-0.0e-99999999999999999999"), whole("0e")),
            (Some(0), Some(0), None)
        );
    }

    #[test]
    fn a_number_that_is_too_long_is_cut_where_it_stands() {
        let long = "7".repeat(4_301);
        let longer =
            format!(r#"{{"a":"{long}","b":-{long}.5e-3 ,"c":[{}],"d":1}}"#, "7".repeat(4_300));
        let cut = with_readable_numbers(longer.as_bytes());
        let expected =
            longer.replace(&format!("-{long}.5e-3"), &format!("-{}      ", "7".repeat(4_300)));
        assert_eq!(String::from_utf8_lossy(&cut), expected);
        for fine in [
            format!(r#""\"{long}""#),
            format!("[{}]", "7".repeat(4_300)),
            format!("{long}x").replace('7', "a"),
            String::new(),
        ] {
            assert_eq!(with_readable_numbers(fine.as_bytes()), fine.as_bytes());
        }
    }
}
