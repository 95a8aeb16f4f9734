//! Limits of requests while they are read and decoded.

use super::limits;

/// How many elements of a list of a request are decoded, unless its field may have more. The services refuse lists that are too long for them, with all
/// other faults; this one is for lists that nobody should decode.
pub const DEFAULT_MAX_ITEMS: usize = 10_000;
/// How many bytes the metadata of a portfolio may have.
pub const MAX_METADATA_BYTES: usize = 64 << 10;
/// How many messages the lists of one request may have in all.
pub const MAX_LISTED_MESSAGES: usize = 50_000;
/// How deep an object may nest: the object itself, and objects and lists within it.
pub const MAX_OBJECT_DEPTH: usize = 32;
/// How many digits a number may have before and after its point.
pub const MAX_NUMBER_DIGITS: usize = 1_000;
/// How many bytes of a body that is being received are not counted, nor of the cost of decoding the first message of a call.
pub const FREE_BODY_BYTES: usize = 16 << 10;

/// How many bytes of a compressed body may become nothing.
pub const EMPTY_BYTES_AT_MOST: usize = 512 << 10;

/// How many bytes the blank lines of a body may have.
pub const BLANK_BYTES_AT_MOST: usize = 1 << 20;

limits! {
    BODY_MEMORY "body_memory" {
        bounds: "Bytes that all bodies may cost while they are received (a quarter of it) and decoded (the rest), at one replica; a realm has half of each. The default and the chart's memory limit of 256 MiB are made for each other",
        value: Setting("body-memory-bytes"),
        past: "Waits for `--body-memory-wait`, then `unavailable` (503); a compressed body that becomes more than 32 times as large does not wait, and an import writes what it has received before it waits",
    }
    BODY_MEMORY_WAIT "body_memory_wait" {
        bounds: "Time that a call, or a message or line of a stream, may wait for memory in all",
        value: Setting("body-memory-wait"),
        past: "`unavailable` (503)",
    }
    BODY_TIME "body_time" {
        bounds: "Time that a body, or a message or line of a stream, may take to arrive once it has begun",
        value: Setting("body-timeout"),
        past: "`deadline_exceeded` (504)",
    }
    FREE_BODY "free_body" {
        bounds: "Bytes of a body, and of what decoding it costs, that do not count, so that small calls need not wait for large ones",
        value: Fixed(FREE_BODY_BYTES as u64, "bytes"),
        past: "Further bytes count",
    }
    EMPTY_BYTES "empty_bytes" {
        bounds: "Bytes by which what has come of a compressed body by REST exceeds what became of it",
        value: Fixed(EMPTY_BYTES_AT_MOST as u64, "bytes"),
        past: "`validation_failed` (400), `empty`",
    }
    BLANK_BYTES "blank_bytes" {
        bounds: "Bytes of the blank lines of a body of lines together",
        value: Fixed(BLANK_BYTES_AT_MOST as u64, "bytes"),
        past: "`validation_failed` (400), `too_long`, and the import ends; what was written before stays",
    }
    OBJECT_BYTES "object_bytes" {
        bounds: "Bytes of `attributes`, of a crosswalk and of the `data` of a dependent: of their JSON without blanks and with numbers written out, by whichever protocol they come",
        value: Fixed(1 << 20, "bytes"),
        past: "`validation_failed` (400), `too_long`; the rest of the object is not decoded",
    }
    METADATA_BYTES "metadata_bytes" {
        bounds: "Bytes of the `metadata` of a portfolio, measured in the same way",
        value: Fixed(MAX_METADATA_BYTES as u64, "bytes"),
        past: "`validation_failed` (400), `too_long`",
    }
    OBJECT_DEPTH "object_depth" {
        bounds: "Nesting of a free-form object (`attributes`, a crosswalk, the `data` of a dependent, `metadata`): itself, and the objects and lists within it",
        value: Fixed(MAX_OBJECT_DEPTH as u64, "levels"),
        past: "`validation_failed` (400), `too_deep`; what is nested deeper is not decoded",
    }
    NUMBER_DIGITS "number_digits" {
        bounds: "Digits of a number in a free-form object before its point, and as many behind it, once it is written without an exponent: from `1e-1000` to below `1e1000`",
        value: Fixed(MAX_NUMBER_DIGITS as u64, "digits"),
        past: "`validation_failed` (400), `out_of_range`",
    }
    MESSAGE_ITEMS "message_items" {
        bounds: "Elements of a list in a request that are decoded, unless its field may have more",
        value: Fixed(DEFAULT_MAX_ITEMS as u64, "elements"),
        past: "`validation_failed` (400), `too_many`; the rest of the list is not decoded",
    }
    MESSAGE_LISTED "message_listed" {
        bounds: "Objects in all lists of one request together",
        value: Fixed(MAX_LISTED_MESSAGES as u64, "objects"),
        past: "`validation_failed` (400), `too_many`; the rest of the list is not decoded",
    }
}

/// The usual size of so many compressed bytes, which is paid for before they are decompressed: objects are seldom packed better. A body
/// that becomes larger pays as it grows.
pub fn unpacked(bytes: usize) -> usize {
    bytes.saturating_mul(32)
}

/// The memory for decoding a message of this size, in bytes: its copies as a message and as JSON, and the elements of its lists, of which
/// the smallest have two bytes on the wire.
pub fn cost_of_message(bytes: usize) -> usize {
    8 * bytes + 75 * bytes.min(2 * MAX_LISTED_MESSAGES)
}

/// The memory for decoding this JSON, in bytes: a value of two characters is eleven bytes as a message, of which there are three copies for
/// a moment, and an object that is not free-form is a map.
pub fn cost_of_json(text: &[u8]) -> usize {
    let count = |wanted: u8| text.iter().filter(|byte| **byte == wanted).count();
    4 * text.len() + 32 * count(b',') + 1024 * count(b'{').min(MAX_LISTED_MESSAGES)
}

/// The memory of a message of this size that waits to be processed.
pub fn kept_of_message(bytes: usize) -> usize {
    2 * bytes + 256
}

/// The memory of a message that was read from this JSON.
pub fn kept_of_json(text: &[u8]) -> usize {
    2 * text.len() + 12 * text.iter().filter(|byte| **byte == b',').count() + 256
}
