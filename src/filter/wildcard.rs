//! Wildcards: `*` for any run of characters, `?` for one. A backslash before either, or before itself, takes the meaning from it.

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Character(char),
    One,
    Run,
}

/// The words that `contains` searches for in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wildcards(Vec<Part>);

impl Wildcards {
    /// Reads the text of a pattern. None if a backslash is before something else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            parts.push(match c {
                '*' => Part::Run,
                '?' => Part::One,
                '\\' => {
                    Part::Character(characters.next().filter(|c| matches!(c, '*' | '?' | '\\'))?)
                }
                _ => Part::Character(c),
            });
        }
        Some(Wildcards(parts))
    }

    /// Returns whether every text has it, also the empty one.
    pub fn is_everywhere(&self) -> bool {
        self.0.iter().all(|part| *part == Part::Run)
    }

    /// Returns whether it is somewhere in a text.
    pub fn is_in(&self, text: &str) -> bool {
        let parts: Vec<Part> =
            [Part::Run].into_iter().chain(self.0.iter().copied()).chain([Part::Run]).collect();
        let text: Vec<char> = text.chars().collect();
        let (mut part, mut at) = (0, 0);
        // Where to continue if what follows the last run does not fit: only that run can be longer.
        let mut back = None;
        while at < text.len() {
            match parts.get(part) {
                Some(Part::Run) => {
                    back = Some((part + 1, at));
                    part += 1;
                }
                Some(Part::One) => (part, at) = (part + 1, at + 1),
                Some(Part::Character(c)) if *c == text[at] => (part, at) = (part + 1, at + 1),
                _ => {
                    let Some((after_run, from)) = back else { return false };
                    back = Some((after_run, from + 1));
                    (part, at) = (after_run, from + 1);
                }
            }
        }
        parts[part..].iter().all(|part| *part == Part::Run)
    }

    /// The pattern of SQL's `LIKE`, with a backslash as its escape.
    pub fn like(&self) -> String {
        let mut like = String::from("%");
        for part in &self.0 {
            match part {
                Part::Run => like.push('%'),
                Part::One => like.push('_'),
                Part::Character(c) => {
                    if matches!(c, '%' | '_' | '\\') {
                        like.push('\\');
                    }
                    like.push(*c);
                }
            }
        }
        like.push('%');
        like
    }

    /// The characters that are looked for.
    pub fn characters(&self) -> String {
        self.0
            .iter()
            .filter_map(|part| if let Part::Character(c) = part { Some(*c) } else { None })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_lie_anywhere() {
        let is_in = |pattern: &str, text: &str| Wildcards::parse(pattern).unwrap().is_in(text);
        for (pattern, text) in [
            ("b", "abc"),
            ("a*c", "xabcx"),
            ("a?c", "abc"),
            ("a*b*c", "aabbc"),
            ("?", "é"),
            ("\\*", "a*"),
            ("", ""),
            ("ab*", "cab"),
        ] {
            assert!(is_in(pattern, text), "{pattern} in {text}");
        }
        for (pattern, text) in
            [("ac", "abc"), ("a?c", "ac"), ("c*a", "abc"), ("?", ""), ("\\*", "a"), ("b?", "ab")]
        {
            assert!(!is_in(pattern, text), "{pattern} in {text}");
        }
    }

    #[test]
    fn a_backslash_stands_before_what_it_takes_the_meaning_from() {
        assert_eq!(Wildcards::parse("a\\b"), None);
        assert_eq!(Wildcards::parse("a\\"), None);
        assert_eq!(Wildcards::parse("50%_\\\\*?").unwrap().like(), "%50\\%\\_\\\\%_%");
        assert!(
            Wildcards::parse("**").unwrap().is_everywhere()
                && !Wildcards::parse("?").unwrap().is_everywhere()
        );
    }
}
