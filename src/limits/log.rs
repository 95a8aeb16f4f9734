//! Limits of the log.

use super::limits;

limits! {
    LOG_QUEUE "log_queue" {
        bounds: "Bytes of lines of the log that wait until whoever reads standard error has read those before",
        value: Setting("log-queue-bytes"),
        past: "Further lines are dropped; a line says how many, once the reader continues",
    }
}
