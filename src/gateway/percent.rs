//! Percent-encoding (RFC 3986, section 2.1), read strictly: malformed text, or text that is not UTF-8, is a fault of the caller, and never
//! guessed at.

use std::borrow::Cow;

/// Text that is not percent-encoded UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// How the places that carry percent-encoded text differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UriPart {
    /// One segment of a path.
    Segment,
    /// Several segments of a path: a `%2F` stays as it is.
    Segments,
    /// A name or value of a query: `+` is a space.
    Query,
}

/// Decodes; borrows where there is nothing to decode.
pub fn decode(text: &str, part: UriPart) -> Result<Cow<'_, str>, Malformed> {
    let plus_is_space = part == UriPart::Query;
    if !text.bytes().any(|byte| byte == b'%' || (plus_is_space && byte == b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (bytes.next().ok_or(Malformed)?, bytes.next().ok_or(Malformed)?);
                let value = hex(high)? << 4 | hex(low)?;
                if value == b'/' && part == UriPart::Segments {
                    decoded.extend([b'%', high, low]);
                } else {
                    decoded.push(value);
                }
            }
            b'+' if plus_is_space => decoded.push(b' '),
            other => decoded.push(other),
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Malformed)
}

fn hex(digit: u8) -> Result<u8, Malformed> {
    char::from(digit).to_digit(16).map(|value| value as u8).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_rule() {
        assert_eq!(decode("a%2Fb+c%C3%A9", UriPart::Segment).unwrap(), "a/b+cé");
        assert_eq!(decode("a%2fb/%41", UriPart::Segments).unwrap(), "a%2fb/A");
        assert_eq!(decode("a+b%2B", UriPart::Query).unwrap(), "a b+");
        assert!(matches!(decode("plain", UriPart::Query), Ok(Cow::Borrowed("plain"))));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in ["%", "%4", "%zz", "%+1", "%ff"] {
            assert_eq!(decode(text, UriPart::Segment), Err(Malformed), "{text}");
        }
    }
}
