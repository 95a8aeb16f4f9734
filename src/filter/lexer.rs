//! Reads words and quoted texts out of a filter, and tracks the position.

use super::error::ParseError;

/// An item of the filter at its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    characters: Vec<char>,
    position: usize,
}

/// Returns whether the character may stand in a word: a name, an element of a path or a value without quotes.
pub(super) fn is_word_character(c: char) -> bool {
    (c.is_alphanumeric() && !is_typographic_quote(c))
        || matches!(c, '_' | '-' | '.' | ':' | '/' | '$' | '+' | '~')
}

/// Returns whether the character looks like a quote, but only `'` and `"` are.
fn is_typographic_quote(c: char) -> bool {
    matches!(
        c,
        '\u{2018}'..='\u{201F}' | '\u{2039}' | '\u{203A}' | '«' | '»' | '`' | '´' | '\u{2032}'..='\u{2037}' | '＂' | '＇'
            | '\u{02B9}'..='\u{02BC}' | '\u{02EE}' | '\u{275B}'..='\u{275E}' | '\u{301D}'..='\u{301F}'
    )
}

impl Cursor {
    pub fn new(text: &str) -> Self {
        Cursor { characters: text.chars().collect(), position: 0 }
    }

    /// Its position, in characters from 0.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next character; none at the end.
    pub fn peek(&self) -> Option<char> {
        self.characters.get(self.position).copied()
    }

    /// Steps over the next character, if it is this one.
    pub fn eat(&mut self, c: char) -> bool {
        let here = self.peek() == Some(c);
        self.position += usize::from(here);
        here
    }

    /// Steps over white space.
    pub fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.position += 1;
        }
    }

    /// Returns whether a quoted text begins here.
    pub fn at_quote(&self) -> bool {
        matches!(self.peek(), Some('\'' | '"'))
    }

    /// The word that begins here, without stepping over it; empty if none does.
    pub fn peek_word(&self) -> String {
        self.characters[self.position..].iter().take_while(|c| is_word_character(**c)).collect()
    }

    /// Steps over the word that begins here.
    pub fn word(&mut self) -> String {
        self.take_while(is_word_character)
    }

    /// Steps over the word that begins here, up to a point.
    pub fn word_to_point(&mut self) -> String {
        self.take_while(|c| c != '.' && is_word_character(c))
    }

    /// Steps over the word that begins here, if it is this one in any case.
    pub fn eat_keyword(&mut self, keyword: &str) -> bool {
        let word = &self.characters[self.position..];
        let length = keyword.len();
        let same = word.len() >= length
            && word.iter().zip(keyword.chars()).all(|(c, k)| c.eq_ignore_ascii_case(&k));
        let here = same && !word.get(length).is_some_and(|c| is_word_character(*c));
        self.position += if here { length } else { 0 };
        here
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let start = self.position;
        while self.peek().is_some_and(&wanted) {
            self.position += 1;
        }
        self.characters[start..self.position].iter().collect()
    }

    /// The text in quotes that begins here. A backslash takes the meaning from the quote and from itself, and makes `\n`, `\r` and `\t`; the
    /// quote doubled stands for itself.
    pub fn quoted(&mut self) -> Result<String, ParseError> {
        let opened = self.position;
        let Some(quote) = self.peek().filter(|_| self.at_quote()) else {
            return Err(self.unexpected(["`'`", "`\"`"]));
        };
        self.position += 1;
        let mut text = String::new();
        loop {
            let position = self.position;
            let Some(c) = self.peek() else {
                return Err(ParseError::new(
                    opened,
                    format!("the quote {quote} that is opened here is not closed"),
                )
                .expecting([format!("`{quote}`")]));
            };
            self.position += 1;
            match c {
                '\0' => {
                    return Err(ParseError::new(
                        position,
                        "a value cannot contain the character U+0000",
                    ));
                }
                '\\' => text.push(self.escaped()?),
                _ if c != quote => text.push(c),
                _ if self.eat(quote) => text.push(quote),
                _ => return Ok(text),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, ParseError> {
        let escaped = match self.peek() {
            Some(c @ ('\\' | '\'' | '"')) => c,
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            _ => {
                return Err(ParseError::new(
                    self.position - 1,
                    "unknown escape; a backslash itself is written `\\\\`",
                )
                .expecting(["`\\\\`", "`\\'`", "`\\\"`", "`\\n`", "`\\r`", "`\\t`"]));
            }
        };
        self.position += 1;
        Ok(escaped)
    }

    /// The fault of an unexpected token.
    pub fn unexpected<I: IntoIterator<Item: Into<String>>>(&self, expected: I) -> ParseError {
        let message = match self.peek() {
            None => "the filter ends too early".to_owned(),
            Some(c) if is_typographic_quote(c) => {
                format!("`{c}` is not a quote here; texts are written in straight quotes, ' or \"")
            }
            Some(c) if is_word_character(c) => {
                format!("unexpected `{}`", shorten(&self.peek_word()))
            }
            Some(c) if c.is_control() || (!c.is_ascii() && !c.is_alphanumeric()) => {
                format!("unexpected character U+{:04X}", u32::from(c))
            }
            Some(c) => format!("unexpected `{c}`"),
        };
        ParseError::new(self.position, message).expecting(expected)
    }
}

/// A word as messages show it: its first characters.
pub(super) fn shorten(word: &str) -> String {
    const SHOWN: usize = 40;
    match word.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &word[..end]),
        None => word.to_owned(),
    }
}
