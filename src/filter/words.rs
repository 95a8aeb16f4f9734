//! Texts as words.

/// Separators of words: white space of any script, and these marks.
pub(super) const SEPARATORS: &str = "\t\n\u{b}\u{c}\r \u{85}\u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}\u{2006}\u{2007}\
     \u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}',@#$;:&%<>()[]*|/\\!?";

/// The words of a text.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| SEPARATORS.contains(c)).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lie_between_white_space_and_marks() {
        assert_eq!(
            words("  O'Neill & Sons,\u{3000}Ltd.(est-1901)\\").collect::<Vec<_>>(),
            ["O", "Neill", "Sons", "Ltd.", "est-1901"]
        );
        assert_eq!(words(" ,;!").count(), 0);
        assert!(
            ('\0'..=char::MAX).filter(|c| c.is_whitespace()).all(|c| SEPARATORS.contains(c)),
            "all white space stands between words"
        );
    }
}
