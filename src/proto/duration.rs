//! Durations from text: `3600s` as protobuf writes them, and as people do: `1h30m`, `P1D`.

/// Seconds and nanoseconds, of one sign.
type Parts = (i64, i32);

/// The units of a clock and how many seconds each has, the longest first.
const CLOCK: [(char, i128); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
/// ISO 8601: before the `T` and after it. Years and months differ in length, and are not read.
const DATE: [(char, i128); 2] = [('W', 604_800), ('D', 86_400)];
const TIME: [(char, i128); 3] = [('H', 3_600), ('M', 60), ('S', 1)];

const NANOS: i128 = 1_000_000_000;

/// Reads a duration, within what protobuf can say or not.
pub fn read(text: &str) -> Option<Parts> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let nanos = sign
        * match text.strip_prefix('P') {
            Some(iso) => {
                let (date, time) =
                    iso.split_once('T').map_or((iso, None), |(date, time)| (date, Some(time)));
                // One of the two is not empty, and so is the part after a `T`.
                match time {
                    Some(time) if date.is_empty() => sum(time, &TIME)?,
                    Some(time) => sum(date, &DATE)?.checked_add(sum(time, &TIME)?)?,
                    None => sum(date, &DATE)?,
                }
            }
            None => sum(text, &CLOCK)?,
        };
    let seconds = i64::try_from(nanos / NANOS).ok()?;
    Some((seconds, (nanos % NANOS) as i32))
}

/// The nanoseconds of numbers with units, each of which appears at most once and the longer before the shorter. The seconds may have a
/// fraction.
fn sum(text: &str, units: &[(char, i128)]) -> Option<i128> {
    let (mut rest, mut units) = (text, units);
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let unit = rest[end..].chars().next()?;
        let place = units.iter().position(|(known, _)| *known == unit)?;
        let (number, seconds) = (&rest[..end], units[place].1);
        let (whole, fraction) = match number.split_once('.') {
            Some((whole, fraction)) if seconds == 1 => (whole, fraction),
            Some(_) => return None,
            None => (number, "0"),
        };
        let is_digits =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) || fraction.len() > 9 {
            return None;
        }
        let fraction: i128 = format!("{fraction:0<9}").parse().ok()?;
        let whole: i128 = whole.parse().ok()?;
        nanos = nanos
            .checked_add(whole.checked_mul(seconds)?.checked_mul(NANOS)?)?
            .checked_add(fraction)?;
        units = &units[place + 1..];
        rest = &rest[end + unit.len_utf8()..];
    }
    (!text.is_empty()).then_some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_protobuf_and_as_people_write_them() {
        for (text, parts) in [
            ("3600s", (3600, 0)),
            ("1.5s", (1, 500_000_000)),
            ("-1.500s", (-1, -500_000_000)),
            ("1h", (3600, 0)),
            ("30m", (1800, 0)),
            ("1h30m", (5400, 0)),
            ("2d12h", (216_000, 0)),
            ("1m0.25s", (60, 250_000_000)),
            ("P1D", (86_400, 0)),
            ("P2W", (1_209_600, 0)),
            ("PT1H30M", (5400, 0)),
            ("P1DT0.5S", (86_400, 500_000_000)),
            ("-PT1M", (-60, 0)),
            ("0s", (0, 0)),
        ] {
            assert_eq!(read(text), Some(parts), "{text}");
        }
    }

    #[test]
    fn what_is_ambiguous_or_none_is_refused() {
        for text in [
            "",
            "-",
            "s",
            "1",
            "1.s",
            ".5s",
            "1.5h",
            "30m1h",
            "1h1h",
            "1 h",
            "1H",
            "h",
            "P",
            "PT",
            "P1DT",
            "P1Y",
            "P1M",
            "PT1D",
            "P1H",
            "p1d",
            "+1s",
            "--1s",
            "1.0000000001s",
            "1e3s",
            "99999999999999999999999999999999999999999s",
            "9223372036854775808s",
            "1hé",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
