//! Cuts text of callers, so that no response grows with the request: gRPC clients give up a call whose trailers are longer than 8 KiB.

use std::borrow::Cow;

use crate::limits::answers::{ECHO, ECHO_CHARACTERS, FAILURE_MESSAGE, MESSAGE_BYTES};

/// Text of a caller as a response may repeat it: whole if it has at most 128 characters, else its start and `…`.
pub fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(ECHO_CHARACTERS) {
        Some((end, _)) => {
            ECHO.reached();
            Cow::Owned(format!("{}…", &text[..end]))
        }
        None => Cow::Borrowed(text),
    }
}

/// The message of a failure within its limit, for those that contain a text which nobody has cut.
pub(super) fn cut_message(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES {
        FAILURE_MESSAGE.reached();
        let end =
            (0..=MESSAGE_BYTES).rfind(|end| message.is_char_boundary(*end)).unwrap_or_default();
        message.truncate(end);
        message.push('…');
    }
    message
}

/// A text with at most so many characters; a longer one ends with `…`.
pub fn cut_at(mut text: String, max: usize) -> String {
    // No text has more characters than bytes.
    if text.len() > max
        && let Some((end, _)) = text.char_indices().nth(max)
    {
        text.truncate(end);
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_than_an_id_stays_whole() {
        let longest = "ä".repeat(ECHO_CHARACTERS);
        assert!(matches!(cut(&longest), Cow::Borrowed(whole) if whole == longest));
        assert_eq!(cut(&format!("{longest}b")), format!("{longest}…"));
        assert_eq!(cut(""), "");
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        let message = cut_message(format!("x{}", "ä".repeat(MESSAGE_BYTES)));
        assert!(message.len() <= MESSAGE_BYTES + '…'.len_utf8() && message.ends_with("ä…"));
        assert_eq!(cut_message("short".to_owned()), "short");
    }
}
