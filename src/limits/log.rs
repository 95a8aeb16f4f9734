//! Limits of the log.

use super::{Limit, Value};
use crate::telemetry::{LOG_QUEUE as NAME, LOG_QUEUE_BYTES};

/// Lines that wait to be written.
pub static LOG_QUEUE: Limit = Limit {
    name: NAME,
    bounds: "Bytes of lines of the log that wait until whoever reads standard error has read those before",
    value: Value::Fixed(LOG_QUEUE_BYTES as u64, "bytes"),
    past: "Further lines are dropped; a line says how many, once the reader goes on",
};

/// All of them.
pub const ALL: &[&Limit] = &[&LOG_QUEUE];
