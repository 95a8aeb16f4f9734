//! Limits of what answers repeat of a request, and of the request lines and headers that are read.

use super::{Limit, Value};

/// The longest text of a caller that an answer repeats, in characters: an id may be as long.
pub const ECHO_CHARACTERS: usize = 128;
/// The longest message of a failure, in bytes.
pub const MESSAGE_BYTES: usize = 1024;

/// Text of a caller that an answer repeats.
pub static ECHO: Limit = Limit {
    name: "echo",
    bounds: "Text of a request that an answer repeats, such as an id that was not found",
    value: Value::Fixed(ECHO_CHARACTERS as u64, "characters"),
    past: "The text is cut and ends in `…`",
};

/// The message of a failure.
pub static FAILURE_MESSAGE: Limit = Limit {
    name: "failure_message",
    bounds: "The message of a failure",
    value: Value::Fixed(MESSAGE_BYTES as u64, "bytes"),
    past: "The message is cut and ends in `…`",
};

/// The longest path with its query, in bytes. The HTTP library has a limit of its own at 65,534.
pub const MAX_URI_BYTES: usize = 32 << 10;
/// The most headers of a request.
pub const MAX_HEADERS: usize = 100;
/// The most bytes of the names and values of all headers of a request.
pub const MAX_HEADER_BYTES: usize = 32 << 10;

/// The target of a request.
pub static URI_BYTES: Limit = Limit {
    name: "uri_bytes",
    bounds: "The path and the query of a request",
    value: Value::Fixed(MAX_URI_BYTES as u64, "bytes"),
    past: "`uri_too_long` (414)",
};

/// The headers of a request.
pub static HEADERS: Limit = Limit {
    name: "headers",
    bounds: "The headers of a request, by number",
    value: Value::Fixed(MAX_HEADERS as u64, "headers"),
    past: "`headers_too_large` (431)",
};

/// The size of the headers of a request.
pub static HEADER_BYTES: Limit = Limit {
    name: "header_bytes",
    bounds: "The headers of a request, names and values together",
    value: Value::Fixed(MAX_HEADER_BYTES as u64, "bytes"),
    past: "`headers_too_large` (431)",
};

/// The longest name of a header that is compared with those that protect a change.
pub const MAX_COMPARED_NAME: usize = 64;

/// The name of a header that may be a slip.
pub static COMPARED_NAME: Limit = Limit {
    name: "compared_header_name",
    bounds: "The name of a header that is compared with those that protect a change, such as `Idempotency-Key`",
    value: Value::Fixed(MAX_COMPARED_NAME as u64, "characters"),
    past: "It is taken for another header, and not looked at",
};

/// How many headers whose names end in `-version` a page of another origin may be allowed to send.
pub const MAX_VERSION_HEADERS: usize = 8;

/// Headers of other versions.
pub static VERSION_HEADERS: Limit = Limit {
    name: "version_headers",
    bounds: "Headers named `…-Version` that we do not know and that a page of an allowed origin may send, each with a name of at most 64 characters",
    value: Value::Fixed(MAX_VERSION_HEADERS as u64, "headers"),
    past: "The preflight does not allow further ones, and the browser does not call",
};

/// How long a response waits for room, in seconds.
pub const RESPONSE_WAIT_SECONDS: u64 = 2;
/// How many bytes at once of a response are not counted.
pub const FREE_RESPONSE_BYTES: usize = 16 << 10;
/// How many bytes of a response must be read in the time in which something must be.
pub const LEAST_READ_BYTES: usize = 256 << 10;
/// What compressing one response costs, in bytes, until it is written: a window of 64 KiB and what belongs to it.
pub const COMPRESSION_BYTES: usize = 384 << 10;

/// Memory for responses.
pub static RESPONSE_MEMORY: Limit = Limit {
    name: "response_memory",
    bounds: "Bytes of responses from when they are built until they are written (three quarters of it), and of those that are built and wait for room (the rest), at one replica; a realm has half of each. The default and the chart's memory limit of 256 MiB are made for each other",
    value: Value::Setting("response-memory-bytes"),
    past: "Waits for `response_memory_wait`, then `unavailable` (503); of a call that has taken effect, `deadline_exceeded` (504)",
};

/// The wait for it.
pub static RESPONSE_MEMORY_WAIT: Limit = Limit {
    name: "response_memory_wait",
    bounds: "Time that a response may wait for memory",
    value: Value::Fixed(RESPONSE_WAIT_SECONDS, "seconds"),
    past: "As for `response_memory`",
};

/// Responses that are not counted.
pub static FREE_RESPONSE: Limit = Limit {
    name: "free_response",
    bounds: "Bytes of a response, or of a message of a stream, that do not count, so that small calls need not wait for large ones",
    value: Value::Fixed(FREE_RESPONSE_BYTES as u64, "bytes"),
    past: "The whole response, or message, counts",
};

/// How fast a response must be read.
pub static LEAST_READ: Limit = Limit {
    name: "least_read",
    bounds: "Bytes of a response, or of a message of a stream, that counts which must be read in each `unread_time`, unless fewer are left",
    value: Value::Fixed(LEAST_READ_BYTES as u64, "bytes"),
    past: "What is left is dropped, and the response breaks off; where in another `unread_time` nothing is read, the connection is closed",
};

/// Memory of what compresses.
pub static COMPRESSION: Limit = Limit {
    name: "compression",
    bounds: "Bytes of the memory for responses that a response counts for besides itself while it is compressed",
    value: Value::Fixed(COMPRESSION_BYTES as u64, "bytes"),
    past: "Where there is no room, the response is not compressed",
};

/// All of them.
pub const ALL: &[&Limit] = &[
    &ECHO,
    &FAILURE_MESSAGE,
    &URI_BYTES,
    &HEADERS,
    &HEADER_BYTES,
    &COMPARED_NAME,
    &VERSION_HEADERS,
    &RESPONSE_MEMORY,
    &RESPONSE_MEMORY_WAIT,
    &FREE_RESPONSE,
    &LEAST_READ,
    &COMPRESSION,
];
