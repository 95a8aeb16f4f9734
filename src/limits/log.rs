//! Limits of the log.

use super::limits;
use crate::telemetry::LOG_QUEUE_BYTES;

limits! {
    LOG_QUEUE "log_queue" {
        bounds: "Bytes of lines of the log that wait until whoever reads standard error has read those before",
        value: Fixed(LOG_QUEUE_BYTES as u64, "bytes"),
        past: "Further lines are dropped; a line says how many, once the reader goes on",
    }
}
