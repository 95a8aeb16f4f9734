//! Which statements only read.

use std::fmt::{self, Write};

use diesel::connection::DebugQuery;

/// The text that diesel writes between a query and its values.
const BEFORE_BINDS: &str = " -- binds: ";
/// The longest text of a statement that is read to learn whether it only reads.
const TEXT_BYTES: usize = 64 << 10;

/// Returns whether a statement reads and does nothing else, by its text. Where that is not plain it is taken to write.
pub(super) fn only_reads(query: &dyn DebugQuery) -> bool {
    struct Text(String);

    impl Write for Text {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let (text, more) =
                text.find(BEFORE_BINDS).map_or((text, true), |end| (&text[..end], false));
            self.0.push_str(text);
            // An error ends the formatting, before it comes to the values.
            if more && self.0.len() <= TEXT_BYTES { Ok(()) } else { Err(fmt::Error) }
        }
    }

    let mut text = Text(String::new());
    let _ = write!(text, "{query}");
    text.0.len() <= TEXT_BYTES && is_read(&text.0)
}

fn is_read(text: &str) -> bool {
    let mut words = text
        .split(|character: char| !character.is_alphanumeric() && character != '_')
        .filter(|word| !word.is_empty());
    let writes = |word: &str| {
        ["INSERT", "UPDATE", "DELETE", "MERGE", "INTO", "SHARE"]
            .iter()
            .any(|verb| word.eq_ignore_ascii_case(verb))
    };
    words.next().is_some_and(|first| {
        first.eq_ignore_ascii_case("SELECT") || first.eq_ignore_ascii_case("WITH")
    }) && !words.any(writes)
}

#[cfg(test)]
mod tests {
    use super::is_read;

    #[test]
    fn a_statement_that_only_reads_is_recognised_by_its_words() {
        for read in [
            "SELECT 1",
            "  select updated_at from x",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "SELECT \"deleted\" FROM a",
        ] {
            assert!(is_read(read), "{read}");
        }
        for write in [
            "INSERT INTO a VALUES (1)",
            "WITH a AS (DELETE FROM b RETURNING *) SELECT * FROM a",
            "SELECT * FROM a FOR UPDATE",
            "SELECT 1 INTO a",
            "SET x = 1",
            "",
        ] {
            assert!(!is_read(write), "{write}");
        }
    }
}
