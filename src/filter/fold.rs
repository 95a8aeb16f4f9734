//! Ignoring case, in the same way here and on every Postgres.
//!
//! `lower()` in Postgres depends on the database's locale provider and its Unicode version. So Postgres is only asked for the fold of ASCII
//! letters (`lower(x COLLATE "C")`, the same everywhere). The other letters are folded by `translate()` with a table made here of the few
//! characters that fold to one in the searched value: no other character can make a difference to the comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// No character from here on has a case; a test checks it.
const END_OF_CASED: u32 = 0x2_0000;

/// Folds the case: each character becomes one character, and texts that differ in case alone become equal.
///
/// This is Unicode's simple case folding (`Σ`, `σ` and `ς` become one), with one rule of ours: a character outside ASCII never becomes
/// one inside, so the Kelvin sign is not `k` and the long s is not `s`. As in simple folding, `ß` is not `ss`, and the dotted and the
/// dotless i of Turkish equal only themselves.
pub fn fold(text: &str) -> String {
    text.chars().map(fold_character).collect()
}

pub(super) fn fold_character(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    let upper = only(c.to_uppercase()).unwrap_or(c);
    let folded = only(upper.to_lowercase()).unwrap_or(upper);
    if folded.is_ascii() { c } else { folded }
}

fn only(mut characters: impl Iterator<Item = char>) -> Option<char> {
    characters.next().filter(|_| characters.next().is_none())
}

/// For each folded character outside ASCII, the others that fold to it.
static VARIANTS: LazyLock<BTreeMap<char, Vec<char>>> = LazyLock::new(|| {
    let mut variants = BTreeMap::<char, Vec<char>>::new();
    for c in (0x80..END_OF_CASED).filter_map(char::from_u32) {
        let folded = fold_character(c);
        if folded != c {
            variants.entry(folded).or_default().push(c);
        }
    }
    variants
});

/// The arguments of SQL's `translate(text, from, to)` that, after the fold of ASCII letters, makes `text` comparable with the folded texts.
/// None if the fold of ASCII letters is enough.
pub(super) fn translation<'a>(
    folded: impl IntoIterator<Item = &'a str>,
) -> Option<(String, String)> {
    let characters: BTreeSet<char> =
        folded.into_iter().flat_map(str::chars).filter(|c| !c.is_ascii()).collect();
    let pairs = characters
        .iter()
        .flat_map(|to| VARIANTS.get(to).into_iter().flatten().map(move |from| (*from, *to)));
    let (from, to): (String, String) = pairs.unzip();
    if from.is_empty() { None } else { Some((from, to)) }
}

/// The same for every text: all characters that fold to another one outside ASCII.
pub(super) static EVERY_TRANSLATION: LazyLock<(String, String)> = LazyLock::new(|| {
    VARIANTS.iter().flat_map(|(to, variants)| variants.iter().map(move |from| (*from, *to))).unzip()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_twice_changes_nothing_more() {
        for c in '\0'..=char::MAX {
            let folded = fold_character(c);
            assert_eq!(fold_character(folded), folded, "{c:?}");
            assert_eq!(c.is_ascii(), folded.is_ascii(), "{c:?}");
            assert!(folded == c || u32::from(c) < END_OF_CASED, "{c:?}");
        }
    }

    #[test]
    fn letters_that_differ_in_case_alone_become_equal() {
        for (one, other) in [
            ("ÉCOLE", "école"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("ЖУК", "жук"),
            ("Å", "å"),
            ("ẞ", "ß"),
            ("Ǆ", "ǅ"),
            ("µ", "μ"),
        ] {
            assert_eq!(fold(one), fold(other));
        }
        for (one, other) in [
            ("ß", "ss"),
            ("İ", "i"),
            ("ı", "i"),
            ("\u{212A}", "k"),
            ("ſ", "s"),
            ("é", "e"),
            ("é", "e\u{301}"),
        ] {
            assert_ne!(fold(one), fold(other));
        }
    }

    #[test]
    fn the_translation_holds_only_what_the_value_needs() {
        assert_eq!(translation(["plain ascii", "日本"]), None);
        assert_eq!(translation(["é", "aé"]), Some(("É".to_owned(), "é".to_owned())));
        assert_eq!(translation(["σ"]), Some(("Σς".to_owned(), "σσ".to_owned())));
    }
}
