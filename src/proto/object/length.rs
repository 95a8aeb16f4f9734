//! How long JSON is without being written.

/// How many bytes a text has in JSON.
pub(super) fn json_length(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0c | b'\r' => 1,
        0..0x20 => 5,
        _ => 0,
    };
    let has_escapes = text
        .bytes()
        .fold(false, |found, byte| found | (byte < 0x20) | (byte == b'"') | (byte == b'\\'));
    let more: usize = if has_escapes { text.bytes().map(escaped).sum() } else { 0 };
    text.len() + 2 + more
}
