//! Limits of calls and messages.

use super::{Limit, Value};

/// Calls at once.
pub static CALLS: Limit = Limit {
    name: "calls",
    bounds: "Calls with a key at once, at one replica",
    value: Value::Setting("max-concurrent-calls"),
    past: "`unavailable` (503), at once",
};

/// Calls of a key a second.
pub static CALL_RATE: Limit = Limit {
    name: "call_rate",
    bounds: "Calls of one key a second, at one replica",
    value: Value::Setting("rate-limit"),
    past: "`rate_limit_exceeded` (429) with `Retry-After`",
};

/// The size of a message.
pub static MESSAGE_BYTES: Limit = Limit {
    name: "message_bytes",
    bounds: "Bytes of one message or one body, after decompression",
    value: Value::Setting("max-body-bytes"),
    past: "`payload_too_large` (413) with `limit_bytes`",
};

/// How long a call may take.
pub static CALL_TIME: Limit = Limit {
    name: "call_time",
    bounds: "Time of a call that is no stream",
    value: Value::Setting("request-timeout"),
    past: "`deadline_exceeded` (504)",
};

/// All of them.
pub const ALL: &[&Limit] = &[&CALLS, &CALL_RATE, &MESSAGE_BYTES, &CALL_TIME];
