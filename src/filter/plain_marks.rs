//! Digits and marks of other scripts and typefaces as ASCII has them. They look the same, or mean the same to those who write them.

/// The zeros of decimal digits that people write numbers with; the nine others follow each.
const ZEROS: [char; 14] = ['٠', '۰', '߀', '०', '০', '੦', '૦', '௦', '౦', '೦', '൦', '๐', '໐', '０'];

/// The text with plain digits, signs and marks, and without what cannot be seen.
pub(super) fn plain_marks(text: &str) -> String {
    let is_seen = |c: &char| !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{ad}');
    text.chars().filter(is_seen).map(plain_mark).collect()
}

fn plain_mark(c: char) -> char {
    if c.is_ascii() {
        return c;
    }
    let digit = ZEROS
        .iter()
        .find_map(|zero| u32::from(c).checked_sub(u32::from(*zero)).filter(|value| *value < 10));
    if let Some(digit) = digit.and_then(|value| char::from_digit(value, 10)) {
        return digit;
    }
    match c {
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' => '-',
        '\u{66b}' => '.',
        '\u{66c}' => ',',
        '\u{2019}' => '\'',
        // The wide forms of ASCII stand in its order.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_marks_of_others_are_those_of_ascii() {
        for (text, plain) in [
            ("１０００．５", "1000.5"),
            ("＋７", "+7"),
            ("−٥٫٥", "-5.5"),
            ("९९", "99"),
            ("２０１５／０１", "2015/01"),
            ("\u{feff}1\u{200b}0", "10"),
            ("Zürich – 8", "Zürich - 8"),
            ("²½", "²½"),
        ] {
            assert_eq!(plain_marks(text), plain, "{text}");
        }
    }
}
