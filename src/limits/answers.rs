//! Limits of the parts of a request that responses repeat, and of the request lines and headers.

use super::limits;

/// The longest text of a caller that a response repeats, in characters: an id may be as long.
pub const ECHO_CHARACTERS: usize = 128;
/// The longest message of a failure, in bytes.
pub const MESSAGE_BYTES: usize = 1024;

/// The longest path with its query, in bytes. The HTTP library has a limit of its own at 65,534.
pub const MAX_URI_BYTES: usize = 32 << 10;
/// The most headers of a request.
pub const MAX_HEADERS: usize = 100;
/// The most bytes of the names and values of all headers of a request.
pub const MAX_HEADER_BYTES: usize = 32 << 10;

/// The longest name of a header that is compared with those that protect a change.
pub const MAX_COMPARED_NAME: usize = 64;

/// How many headers whose names end in `-version` a page of another origin may be allowed to send.
pub const MAX_VERSION_HEADERS: usize = 8;

/// How long a response waits for room, in seconds.
pub const RESPONSE_WAIT_SECONDS: u64 = 2;
/// How many bytes at once of a response are not counted.
pub const FREE_RESPONSE_BYTES: usize = 16 << 10;
/// How many bytes of a response must be read in the time in which something must be.
pub const LEAST_READ_BYTES: usize = 256 << 10;
/// The cost of compressing one response, in bytes, until it is written: a window of 64 KiB and what belongs to it.
pub const COMPRESSION_BYTES: usize = 384 << 10;

limits! {
    ECHO "echo" {
        bounds: "Text of a request that a response repeats, such as an id that was not found",
        value: Fixed(ECHO_CHARACTERS as u64, "characters"),
        past: "The text is cut and ends in `…`",
    }
    FAILURE_MESSAGE "failure_message" {
        bounds: "The message of a failure",
        value: Fixed(MESSAGE_BYTES as u64, "bytes"),
        past: "The message is cut and ends in `…`",
    }
    URI_BYTES "uri_bytes" {
        bounds: "The path and the query of a request",
        value: Fixed(MAX_URI_BYTES as u64, "bytes"),
        past: "`uri_too_long` (414)",
    }
    HEADERS "headers" {
        bounds: "The headers of a request, by number",
        value: Fixed(MAX_HEADERS as u64, "headers"),
        past: "`headers_too_large` (431)",
    }
    HEADER_BYTES "header_bytes" {
        bounds: "The headers of a request, names and values together",
        value: Fixed(MAX_HEADER_BYTES as u64, "bytes"),
        past: "`headers_too_large` (431)",
    }
    COMPARED_NAME "compared_header_name" {
        bounds: "The name of a header that is compared with those that protect a change, such as `Idempotency-Key`",
        value: Fixed(MAX_COMPARED_NAME as u64, "characters"),
        past: "It is taken for another header, and ignored",
    }
    VERSION_HEADERS "version_headers" {
        bounds: "Headers named `…-Version` that we do not know and that a page of an allowed origin may send, each with a name of at most 64 characters",
        value: Fixed(MAX_VERSION_HEADERS as u64, "headers"),
        past: "The preflight does not allow further ones, and the browser does not call",
    }
    RESPONSE_MEMORY "response_memory" {
        bounds: "Bytes of responses from when they are built until they are written (three quarters of it), and of those that are built and wait for room (the rest), at one replica; a realm has half of each. The default and the chart's memory limit of 256 MiB are made for each other",
        value: Setting("response-memory-bytes"),
        past: "Waits for `response_memory_wait`, then `unavailable` (503); of a call that has taken effect, `deadline_exceeded` (504)",
    }
    RESPONSE_MEMORY_WAIT "response_memory_wait" {
        bounds: "Time that a response may wait for memory",
        value: Fixed(RESPONSE_WAIT_SECONDS, "seconds"),
        past: "As for `response_memory`",
    }
    FREE_RESPONSE "free_response" {
        bounds: "Bytes of a response, or of a message of a stream, that do not count, so that small calls need not wait for large ones",
        value: Fixed(FREE_RESPONSE_BYTES as u64, "bytes"),
        past: "The whole response, or message, counts",
    }
    LEAST_READ "least_read" {
        bounds: "Bytes of a response, or of a message of a stream, that counts which must be read in each `unread_time`, unless fewer are left",
        value: Fixed(LEAST_READ_BYTES as u64, "bytes"),
        past: "What is left is dropped, and the response breaks off; where in another `unread_time` nothing is read, the connection is closed",
    }
    COMPRESSION "compression" {
        bounds: "Bytes of the memory for responses that a response counts for besides itself while it is compressed",
        value: Fixed(COMPRESSION_BYTES as u64, "bytes"),
        past: "Where there is no room, the response is not compressed",
    }
}
