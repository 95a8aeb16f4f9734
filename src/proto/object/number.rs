//! Numbers as they are kept: to the last digit, though `google.protobuf.Value` has a double for them.
//!
//! A double represents the shortest decimal that is nearest to it. Where that differs from the number, its text follows the double, in a
//! field of the value that readers skip if they do not know it (`proto/offboard/v1/exact.proto`). So readers of doubles alone see the
//! nearest one.

use std::borrow::Cow;
use std::io::Write as _;

use crate::limits::bodies::MAX_NUMBER_DIGITS;

/// The number of the field with the text, and its tag on the wire.
pub const EXACT: u32 = 1_000;
pub(super) const EXACT_TAG: [u8; 2] = [0xc2, 0x3e];
/// Every decimal of up to so many digits comes back from a double of the normal range (IEEE 754).
const SURE_DIGITS: usize = 15;
/// Doubles represent every whole number up to here.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;
/// As many zeros that say nothing but how large or small a number is are written out. More of them are an exponent.
const MAX_ZEROS: usize = 20;

/// Why a text is not taken for a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not a number in JSON.
    NoNumber,
    /// It has too many digits once it is written without an exponent.
    TooLong,
}

/// The number as `numeric` writes it: without an exponent, with the digits behind the point that were given, and one zero.
pub fn plain(text: &str) -> Result<Cow<'_, str>, Refused> {
    written_out(text, MAX_NUMBER_DIGITS)
}

/// The same, with at most so many digits before and after the point.
pub fn written_out(text: &str, most: usize) -> Result<Cow<'_, str>, Refused> {
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(read_exponent(exponent)?)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) if all_digits(fraction) => (whole, fraction),
        Some(_) => return Err(Refused::NoNumber),
        None => (mantissa, ""),
    };
    if !all_digits(whole) || (whole.len() > 1 && whole.starts_with('0')) {
        return Err(Refused::NoNumber);
    }
    if exponent.is_none() && whole.len() <= most && fraction.len() <= most && !negative {
        return Ok(Cow::Borrowed(text));
    }
    let exponent = exponent.unwrap_or_default();
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    let most = most as i64;
    let behind = (fraction.len() as i64 - exponent).max(0);
    let before = if significant.is_empty() {
        1
    } else {
        significant.len() as i64 - fraction.len() as i64 + exponent
    };
    if behind > most && significant.is_empty() {
        // Zero is zero, whatever its exponent.
        return Ok(Cow::Borrowed("0"));
    }
    if behind > most || before > most {
        return Err(Refused::TooLong);
    }
    let zeros =
        if significant.is_empty() { 0 } else { (exponent - fraction.len() as i64).max(0) as usize };
    let behind = behind as usize;
    // At least one digit is before the point.
    let digits = format!("{significant}{:0<zeros$}", "");
    let digits = format!("{digits:0>width$}", width = behind + 1);
    let (whole, fraction) = digits.split_at(digits.len() - behind);
    let sign = if negative && !significant.is_empty() { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    Ok(Cow::Owned(format!("{sign}{whole}{point}{fraction}")))
}

/// An exponent. One beyond every bound is only marked as that.
fn read_exponent(text: &str) -> Result<i64, Refused> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !all_digits(digits) {
        return Err(Refused::NoNumber);
    }
    let beyond = if text.starts_with('-') { -1 } else { 1 } * (1 << 40);
    Ok(text.parse().unwrap_or(beyond).clamp(-(1 << 40), 1 << 40))
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The same number, with an exponent in place of many zeros that say nothing else.
pub(super) fn compact(plain: &str) -> Cow<'_, str> {
    let (sign, unsigned) = plain.strip_prefix('-').map_or(("", plain), |rest| ("-", rest));
    if unsigned.len() <= MAX_ZEROS {
        return Cow::Borrowed(plain);
    }
    match unsigned.split_once('.') {
        None => {
            let digits = unsigned.trim_end_matches('0');
            let zeros = unsigned.len() - digits.len();
            if digits.is_empty() || zeros <= MAX_ZEROS {
                Cow::Borrowed(plain)
            } else {
                Cow::Owned(format!("{sign}{digits}e{zeros}"))
            }
        }
        Some(("0", fraction)) => {
            let digits = fraction.trim_start_matches('0');
            if fraction.len() - digits.len() <= MAX_ZEROS {
                return Cow::Borrowed(plain);
            }
            let digits = if digits.is_empty() { "0" } else { digits };
            Cow::Owned(format!("{sign}{digits}e-{}", fraction.len()))
        }
        Some(_) => Cow::Borrowed(plain),
    }
}

/// How long a number is as `numeric` writes it, which is [`compact`] now.
pub(super) fn plain_length(compact: &str) -> usize {
    let Some((digits, exponent)) = compact.split_once('e') else { return compact.len() };
    let sign = usize::from(digits.starts_with('-'));
    match exponent.strip_prefix('-').map(str::parse::<usize>) {
        Some(behind) => sign + 2 + behind.unwrap_or_default(),
        None => digits.len() + exponent.parse::<usize>().unwrap_or_default(),
    }
}

/// The double that is nearest. There is always one: infinities are not numbers.
pub(super) fn nearest(number: &str) -> f64 {
    number.parse().unwrap_or(0.0_f64).clamp(f64::MIN, f64::MAX) + 0.0
}

/// Returns whether a double's shortest decimal is the number.
pub(super) fn is_meant_by(double: f64, plain: &str) -> bool {
    let has_few_digits = plain.len() <= SURE_DIGITS
        || plain.bytes().filter(u8::is_ascii_digit).count() <= SURE_DIGITS;
    let is_short = has_few_digits && (double.is_normal() || plain == "0");
    if is_short && !(plain.ends_with('0') && plain.contains('.')) {
        return true;
    }
    let mut text = Vec::with_capacity(32);
    print(double, &mut text);
    text == plain.as_bytes()
}

/// Writes the number of a finite double as `numeric` does. Always the same printer for a double: of two shortest decimals that are equally
/// near, printers choose differently.
fn print(double: f64, out: &mut Vec<u8>) {
    const IN_MEMORY: &str = "memory can always be written to";
    if double.fract() == 0.0 && double.abs() <= MAX_WHOLE {
        serde_json::to_writer(out, &(double as i64)).expect(IN_MEMORY);
    } else if double.fract() != 0.0 && (1e-5..=MAX_WHOLE).contains(&double.abs()) {
        // Without an exponent.
        serde_json::to_writer(out, &double).expect(IN_MEMORY);
    } else {
        write!(out, "{double}").expect(IN_MEMORY);
    }
}

/// The length of the number of a double, as `numeric` writes it.
pub(super) fn length_of(double: f64) -> usize {
    if double.fract() == 0.0 && double.abs() < MAX_WHOLE {
        let digits = (double.abs() as u64).checked_ilog10().unwrap_or(0) as usize + 1;
        return digits + usize::from(double < 0.0);
    }
    let mut text = Vec::with_capacity(32);
    print(double, &mut text);
    text.len()
}

/// Writes the number of a double. Those that JSON does not have, which only other services could send, are `null`.
pub(super) fn write(double: f64, out: &mut Vec<u8>) {
    if !double.is_finite() {
        return out.extend_from_slice(b"null");
    }
    let start = out.len();
    print(double, out);
    if out.len() - start > MAX_ZEROS {
        let plain = String::from_utf8(out.split_off(start)).expect("a number is ASCII");
        out.extend_from_slice(compact(&plain).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_plain_as_numeric_has_it() {
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("0e999999999999999999999", "0"),
            ("-0e-99999999999999999999", "0"),
            ("0e-1001", "0"),
            ("0.0e3", "0"),
            ("0e-3", "0.000"),
            ("1.0", "1.0"),
            ("1e2", "100"),
            ("1.50e1", "15.0"),
            ("1.5E+3", "1500"),
            ("-120e-4", "-0.0120"),
            ("9007199254740993", "9007199254740993"),
            ("-1234567890.123456789", "-1234567890.123456789"),
        ] {
            assert_eq!(plain(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(plain("1e999").map(|plain| plain.len()), Ok(1_000));
        assert_eq!(plain("-1e-1000").map(|plain| plain.len()), Ok(1_003));
        for text in
            ["1e1000", "1e400000", "1e-1001", "-12e99999999999999999999", "1e-99999999999999999999"]
        {
            assert_eq!(plain(text), Err(Refused::TooLong), "{text}");
        }
        assert_eq!(plain(&"9".repeat(1_001)), Err(Refused::TooLong));
        assert_eq!(plain(&format!("0.{}", "9".repeat(1_001))), Err(Refused::TooLong));
        for text in [
            "", "-", "+1", "01", ".5", "5.", "1e", "1e+", "NaN", "inf", " 1", "1 ", "0x1", "--1",
            "1e1e1",
        ] {
            assert_eq!(plain(text), Err(Refused::NoNumber), "{text}");
        }
    }

    #[test]
    fn many_zeros_are_an_exponent_and_back() {
        for (text, short) in [
            ("1e20", "100000000000000000000"),
            ("1e21", "1e21"),
            ("-12e40", "-12e40"),
            ("0.00000000000000000001", "0.00000000000000000001"),
            ("15e-23", "15e-23"),
            ("-150e-30", "-150e-30"),
            ("0e-30", "0e-30"),
            ("1.000000000000000000000000000000", "1.000000000000000000000000000000"),
        ] {
            let long = plain(text).unwrap();
            assert_eq!(compact(&long), short, "{text}");
            assert_eq!(
                (plain(short).unwrap(), plain_length(short)),
                (long.clone(), long.len()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_double_stands_for_its_shortest_decimal() {
        for text in [
            "0",
            "1",
            "-1.5",
            "0.1",
            "1234567890.12345",
            "9007199254740992",
            "100000000000000000000",
            "0.000001",
        ] {
            assert!(is_meant_by(nearest(text), text), "{text}");
        }
        for text in [
            "0.0",
            "1.0",
            "2.50",
            "9007199254740993",
            "1234567890.123456789",
            "0.1000000000000000055511151231257827",
        ] {
            assert!(!is_meant_by(nearest(text), text), "{text}");
        }
        assert_eq!(
            (nearest("1e400"), nearest("-1e400"), nearest("1e-400")),
            (f64::MAX, f64::MIN, 0.0)
        );
        assert!(!is_meant_by(f64::MAX, &plain("1e400").unwrap()));
        assert!(is_meant_by(5e-324, &plain("5e-324").unwrap()));
    }

    #[test]
    fn what_a_double_stands_for_is_written_with_its_length() {
        for (double, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (-17.0, "-17"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (9_007_199_254_740_994.0, "9007199254740994"),
            (2.5, "2.5"),
            // Some printers make it end in 3.
            (7_653_370_700_720_901.0 / 4.0, "1913342675180225.2"),
            (1e-5, "0.00001"),
            (1e-7, "0.0000001"),
            (1e300, "1e300"),
            (-5e-324, "-5e-324"),
            (f64::NAN, "null"),
        ] {
            let mut out = Vec::new();
            write(double, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
            if double.is_finite() && (double != 0.0 || double.is_sign_positive()) {
                assert_eq!(length_of(double), plain(text).unwrap().len(), "{text}");
            }
        }
    }
}
