//! Heads of HTTP/1.1 that declare the end of their body twice, by its length and by chunks, or by an invalid length.
//!
//! The HTTP library uses the chunks and removes the length, so no code behind it can see the conflict; but a proxy before it may have used
//! the length, and then the two disagree on where the next request begins (RFC 9112, section 6.3). Heads and bodies cannot be distinguished from
//! each other here, so this searches for a block of lines that has both headers. A body with such a block costs its connection a further
//! request by chunks, at most.

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Uri};

/// How much is kept of a line: enough to report which contract a request is of, and which responses its caller takes.
const KEPT_BYTES: usize = 512;

const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";
const ACCEPTS: &[u8] = b"accept:";

/// The faults of a `Content-Length`, which the HTTP library refuses by a status alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthFault {
    /// It is more than any body may have.
    TooLarge,
    /// The length is invalid, or there are two that differ.
    NoLength,
}

/// Looks through what a connection receives.
#[derive(Debug, Default)]
pub struct Heads {
    /// The beginning of the line that has not ended yet.
    line: Vec<u8>,
    has_length: bool,
    has_coding: bool,
    /// The length of the block.
    length: Option<u64>,
    fault: Option<LengthFault>,
    /// Lines have ended since the last blank one.
    has_lines: bool,
    /// The beginning of the first line of the last block.
    first: Vec<u8>,
    /// The values of `Accept` in it.
    accept: HeaderMap,
}

/// The received part of a head that cannot be read, as far as its refusal depends on it.
#[derive(Clone, Debug, Default)]
pub struct Begun {
    /// The path, still percent-encoded; empty if none has arrived.
    pub path: String,
    /// The header `Accept`, if it has come.
    pub headers: HeaderMap,
}

impl Heads {
    /// Returns whether a block of lines that has both was among these bytes.
    pub fn say_twice(&mut self, mut bytes: &[u8]) -> bool {
        let mut twice = false;
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            let room = KEPT_BYTES - self.line.len();
            self.line.extend_from_slice(&line[..line.len().min(room)]);
            if end.is_some() {
                twice |= self.end_of_line();
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
        twice
    }

    /// Returns whether what came in last belongs to the first line of a block, such as that of a request.
    pub fn are_at_first_line(&self) -> bool {
        !self.has_lines && !self.line.is_empty()
    }

    /// The fault of a length since [`Heads::forget`] was called last.
    pub fn length_fault(&self) -> Option<LengthFault> {
        self.fault
    }

    /// The bytes so far were accepted as a request, so no length in it was wrong: an apparent one was in a body.
    pub fn forget(&mut self) {
        self.fault = None;
    }

    fn note_length(&mut self) {
        let value = self.line.get(LENGTH.len()..).unwrap_or_default().trim_ascii();
        if !value.iter().all(u8::is_ascii_digit) || value.is_empty() {
            self.fault = Some(LengthFault::NoLength);
            return;
        }
        // The HTTP library has a use of its own for the largest ones. Digits that were not kept are of one that is larger by far.
        let length = std::str::from_utf8(value)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(u64::MAX);
        if self.length.is_some_and(|other| other != length) {
            self.fault = Some(LengthFault::NoLength);
        } else if length > u64::MAX - 2 {
            self.fault = Some(LengthFault::TooLarge);
        }
        self.length = Some(length);
    }

    /// The received part of the head of the last request.
    pub fn begun(&self) -> Begun {
        let first = if self.are_at_first_line() { &self.line } else { &self.first };
        let target =
            first.split(|byte| *byte == b' ').nth(1).and_then(|target| Uri::try_from(target).ok());
        Begun {
            path: target.map_or_else(String::new, |target| target.path().to_owned()),
            headers: self.accept.clone(),
        }
    }

    fn end_of_line(&mut self) -> bool {
        if self.are_at_first_line() {
            self.first = self.line.as_slice().into();
            self.accept.clear();
        } else if let Some((name, value)) = self.line.split_at_checked(ACCEPTS.len())
            && name.eq_ignore_ascii_case(ACCEPTS)
            && self.accept.is_empty()
            && let Ok(value) = HeaderValue::from_bytes(value.trim_ascii())
        {
            self.accept.insert(ACCEPT, value);
        }
        self.has_lines = !matches!(self.line.as_slice(), b"" | b"\r");
        if !self.has_lines {
            (self.has_length, self.has_coding, self.length) = (false, false, None);
        }
        let is = |name: &[u8]| {
            self.line.get(..name.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(name))
        };
        let is_length = is(LENGTH);
        self.has_coding |= is(CODING);
        if is_length {
            self.has_length = true;
            self.note_length();
        }
        self.line.clear();
        self.has_length && self.has_coding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWICE: &str = "POST / HTTP/1.1\r\nhost: x\r\nContent-Length: 4\r\nx: y\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

    fn say_twice(text: &str, size: usize) -> bool {
        let mut heads = Heads::default();
        text.as_bytes().chunks(size).any(|chunk| heads.say_twice(chunk))
    }

    #[test]
    fn a_head_with_both_is_seen_however_it_comes_and_in_either_order() {
        let lines: Vec<&str> = TWICE.split_inclusive("\r\n").collect();
        let other = [&lines[..2], &[lines[4], lines[3], lines[2]], &lines[5..]].concat().concat();
        for size in 1..TWICE.len() {
            for text in [
                TWICE,
                &other,
                &TWICE.replace("\r\n", "\n"),
                &format!("GET / HTTP/1.1\r\nhost: x\r\n\r\n{TWICE}"),
            ] {
                assert!(say_twice(text, size), "{size}: {text}");
            }
        }
    }

    #[test]
    fn the_first_line_is_distinguished_from_those_behind_it() {
        let mut heads = Heads::default();
        for (bytes, is_first) in [
            ("GET /", true),
            ("x HTTP/1.1\r\n", false),
            ("host: x\r\n", false),
            ("\r\n", false),
            ("GET", true),
        ] {
            heads.say_twice(bytes.as_bytes());
            assert_eq!(heads.are_at_first_line(), is_first, "{bytes}");
        }
    }

    #[test]
    fn a_length_that_is_none_or_too_large_is_known() {
        for (lines, fault) in [
            ("Content-Length: 18446744073709551613", None),
            ("Content-Length: 18446744073709551615", Some(LengthFault::TooLarge)),
            (
                "content-length:99999999999999999999999999999999999999999999999999999999999999999999999",
                Some(LengthFault::TooLarge),
            ),
            ("content-length: +5", Some(LengthFault::NoLength)),
            ("content-length:", Some(LengthFault::NoLength)),
            ("content-length: 5, 5", Some(LengthFault::NoLength)),
            ("content-length: 5\r\ncontent-length: 5", None),
            ("content-length: 5\r\ncontent-length: 6", Some(LengthFault::NoLength)),
            ("content-length: 5\r\n\r\nhello\r\nPOST / HTTP/1.1\r\ncontent-length: 6", None),
        ] {
            let mut heads = Heads::default();
            heads.say_twice(format!("POST / HTTP/1.1\r\n{lines}\r\n\r\nhello").as_bytes());
            assert_eq!(heads.length_fault(), fault, "{lines}");
            heads.forget();
            assert_eq!(heads.length_fault(), None);
        }
    }

    #[test]
    fn what_says_it_once_is_fine() {
        let one = "POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nabcdPOST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        let longer = TWICE.replace("Content-Length:", "Content-Length-X:");
        let within = TWICE.replace("Content-Length:", "X: Content-Length:");
        for text in [one, &longer, &within, "", "\r\n\r\n"] {
            assert!(!say_twice(text, 7), "{text}");
        }
    }

    #[test]
    fn the_received_part_of_a_head_shows_the_address_and_the_media_types() {
        for size in [1, 7, 1000] {
            let begun = |text: &str| {
                let mut heads = Heads::default();
                for chunk in text.as_bytes().chunks(size) {
                    heads.say_twice(chunk);
                }
                let begun = heads.begun();
                (
                    begun.path,
                    begun.headers.get(ACCEPT).map(|value| value.to_str().unwrap().to_owned()),
                )
            };
            let plain = Some("text/plain".to_owned());
            assert_eq!(
                begun("GET /a/b?c=d HTTP/1.1\r\nhost: x\r\nAccept:  text/plain \r\nx: y"),
                ("/a/b".to_owned(), plain)
            );
            assert_eq!(
                begun("POST /a HTTP/1.1\r\nAccept: text/plain\r\n\r\nGET /b HTTP/1.1\r\n"),
                ("/b".to_owned(), None)
            );
            assert_eq!(
                begun(&format!("GET /a?{}", "x".repeat(KEPT_BYTES))),
                ("/a".to_owned(), None),
                "the rest of a line is not kept"
            );
            for nothing in ["", "\r\n", "\u{16}\u{3}\u{1}", "GET", "GET http:// HTTP/1.1\r\n"] {
                assert_eq!(begun(nothing), (String::new(), None), "{nothing:?}");
            }
        }
    }
}
