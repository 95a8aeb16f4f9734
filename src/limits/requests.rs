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

/// How long a start of a task looks for the attributes of its filter, in milliseconds, and a list.
pub const ATTRIBUTE_LOOK_MILLIS: (u64, u64) = (5_000, 50);

/// The look for the attributes of a filter.
pub static ATTRIBUTE_LOOK: Limit = Limit {
    name: "attribute_look",
    bounds: "Time for which the start of a bulk delete looks whether entities have the attributes of its filter; a list looks for 50 milliseconds",
    value: Value::Fixed(ATTRIBUTE_LOOK_MILLIS.0, "milliseconds"),
    past: "The worker finds out before anything is deleted; a dry run has the warning `unchecked_attribute`, and a list has no warning",
};

/// How many entities at most are looked at for the values that a filter names.
pub const VALUE_LOOK_ENTITIES: u64 = 14_600;

/// The look for the values that a filter names.
pub static VALUE_LOOK: Limit = Limit {
    name: "value_look",
    bounds: "Entities that are looked at to find out whether any has a type or the value of an attribute that a filter names, where no index tells",
    value: Value::Fixed(VALUE_LOOK_ENTITIES, "entities"),
    past: "There is no warning `unknown_value`, but of a type that is spelt much like one that was met",
};

/// All of them.
pub const ALL: &[&Limit] = &[&CALLS, &CALL_RATE, &MESSAGE_BYTES, &CALL_TIME, &ATTRIBUTE_LOOK, &VALUE_LOOK];
