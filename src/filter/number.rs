//! Numbers as plain decimals, exactly and without going through a float.

use std::cmp::Ordering;

use crate::proto::object::number::written_out;

/// The largest exponent that is taken for a number: beyond every double, and within the range of Postgres' `numeric`.
pub(super) const MAX_EXPONENT: i64 = 1_000;

/// The plain decimal of a JSON number: no exponent, no zeros that do not count, no sign at zero. Two numbers are equal if and only if their
/// plain decimals are; it is what `trim_scale(…::numeric)::text` gives in Postgres. None if the text is not a JSON number (`007`, `+1`,
/// `.5` are not), or its exponent is over 1,000.
pub(super) fn plain(text: &str) -> Option<String> {
    if let Some((_, exponent)) = text.split_once(['e', 'E']) {
        parse_exponent(exponent)?;
    }
    // As many digits as a text has, and as the exponent moves them by.
    let plain = written_out(text, text.len() + MAX_EXPONENT as usize).ok()?.into_owned();
    Some(if plain.contains('.') {
        plain.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        plain
    })
}

/// Returns whether the text is a JSON number but for its exponent, which is too large.
pub(super) fn is_beyond(text: &str) -> bool {
    text.split_once(['e', 'E']).is_some_and(|(mantissa, exponent)| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        all_digits(digits) && parse_exponent(exponent).is_none() && plain(mantissa).is_some()
    })
}

/// The most characters that a text may have which is taken for a number where numbers are put in order.
pub(super) const MAX_TEXT: usize = 64;
/// The texts that are taken for numbers where numbers are compared, if they are no longer than [`MAX_TEXT`], as an expression of Postgres.
/// None that passes is out of the range of its `numeric`.
pub(super) const TEXT: &str = "^-?(?:0|[1-9][0-9]*)(?:[.][0-9]+)?(?:[eE][+-]?[0-9]{1,3})?$";

/// The plain decimal of a text of an entity that is taken for a number.
pub(super) fn of_text(text: &str) -> Option<String> {
    let exponent_digits = text
        .split_once(['e', 'E'])
        .map_or(0, |(_, exponent)| exponent.trim_start_matches(['+', '-']).len());
    if text.len() > MAX_TEXT || exponent_digits > 3 { None } else { plain(text) }
}

/// The order of two plain decimals.
pub(super) fn compare(one: &str, other: &str) -> Ordering {
    match (one.strip_prefix('-'), other.strip_prefix('-')) {
        (None, None) => compare_unsigned(one, other),
        (Some(one), Some(other)) => compare_unsigned(other, one),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
    }
}

fn compare_unsigned(one: &str, other: &str) -> Ordering {
    // Without zeros in front a longer whole part is a larger one; with as many digits the order is that of the texts.
    let whole_digits = |decimal: &str| decimal.find('.').unwrap_or(decimal.len());
    whole_digits(one).cmp(&whole_digits(other)).then_with(|| one.cmp(other))
}

fn parse_exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !all_digits(digits) {
        return None;
    }
    text.parse().ok().filter(|exponent: &i64| exponent.abs() <= MAX_EXPONENT)
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_have_one_plain_decimal() {
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0e5", "0"),
            ("0e-7", "0"),
            ("1.0", "1"),
            ("1e2", "100"),
            ("1.50E+1", "15"),
            ("12.345e1", "123.45"),
            ("-120e-4", "-0.012"),
            ("5e-3", "0.005"),
            ("123456789012345678901234567890.10", "123456789012345678901234567890.1"),
            ("1e-1", "0.1"),
            ("100", "100"),
        ] {
            assert_eq!(plain(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn plain_decimals_are_in_the_order_of_their_numbers() {
        let ascending = [
            "-100", "-20.5", "-20", "-0.5", "-0.05", "0", "0.05", "0.5", "0.51", "1", "1.5", "9",
            "9.99", "10", "100.1",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("-1.5", "-1.5"), Ordering::Equal);
    }

    #[test]
    fn a_text_is_a_number_if_it_is_a_short_one() {
        assert_eq!(of_text("1.50").as_deref(), Some("1.5"));
        assert_eq!(of_text("1e-999").map(|plain| plain.len()), Some(1_001));
        assert_eq!(of_text("1e1000"), None);
        assert_eq!(of_text("1e0001"), None);
        assert_eq!(of_text(&"1".repeat(64)), Some("1".repeat(64)));
        assert_eq!(of_text(&"1".repeat(65)), None);
    }

    #[test]
    fn a_number_with_a_large_exponent_is_beyond() {
        for text in ["1e1001", "-0.5E+2000", "1e-1001", "10e99999999999999999999"] {
            assert!(is_beyond(text), "{text}");
        }
        for text in [
            "1e1000", "1e-1000", "1", "01e2000", "1.e2000", "1e2000x", "1e", "e2000", "1e2e2000",
            "",
        ] {
            assert!(!is_beyond(text), "{text}");
        }
    }

    #[test]
    fn what_json_does_not_call_a_number_is_none() {
        for text in [
            "",
            "-",
            "+1",
            "007",
            ".5",
            "5.",
            "1e",
            "1e+",
            "1e1.5",
            "1_000",
            "0x1",
            "NaN",
            "٣",
            " 1",
            "--1",
            "1e1001",
            "1e99999999999999999999",
        ] {
            assert_eq!(plain(text), None, "{text}");
        }
    }
}
