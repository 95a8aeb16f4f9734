//! Numbers of the types of protocol buffers: read without losing a digit, or refused. Those of free-form JSON have no such type and are all taken.

/// Reads a JSON number as the double that writes it again, or nothing: neither `9007199254740993` nor `1e400` has one.
pub fn exact_double(text: &str) -> Option<f64> {
    let double: f64 = text.parse().ok()?;
    if !double.is_finite() {
        return None;
    }
    // Every decimal of up to 15 digits comes back from a double of the normal range (IEEE 754).
    let digits = text.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).filter(u8::is_ascii_digit).count();
    if digits <= 15 && (double.is_normal() || digits == 1 && double == 0.0 && !text.contains(['e', 'E'])) {
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
        let exponent: i64 = exponent.parse().ok()?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0').trim_end_matches('0');
        let cut = all.len() - all.trim_end_matches('0').len();
        let exponent = if significant.is_empty() { 0 } else { exponent.checked_sub(fraction.len() as i64)?.checked_add(cut as i64)? };
        Some(Decimal { negative, digits: significant.to_owned(), exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_that_come_back_are_taken() {
        for text in
            ["0", "-0", "0.0", "1", "0.1", "-2.50", "1e20", "1E+2", "100000000000000000000", "9007199254740992", "5e-324", "0e99999"]
        {
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
        assert_eq!((whole("-3.0"), whole("1.5e1"), whole("0.000"), whole("12e2")), (Some(-3), Some(15), Some(0), Some(1200)));
        assert_eq!(
            (whole("1.5"), whole("1e30"), whole("x"), whole(""), whole("1e-1"), whole("1e999999999999")),
            (None, None, None, None, None, None)
        );
    }
}
