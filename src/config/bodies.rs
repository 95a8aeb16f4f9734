//! The settings of bodies and responses: how much memory they may cost, and how long they may take.

use std::time::Duration;

use clap::Args;

use super::parse::{seconds, some_seconds, whole};

/// The bounds of bodies and responses.
#[derive(Args, Clone, Debug)]
pub struct Bodies {
    /// Memory that all bodies together may cost while they are received and decoded, in bytes. The default suits a memory limit of 256 MiB
    #[arg(long, env = "OFFBOARD_BODY_MEMORY_BYTES", default_value_t = 96 << 20, value_parser = whole(1 << 20..=1_u64 << 40), value_name = "BYTES")]
    pub body_memory_bytes: u64,

    /// Seconds that a call may wait for memory for its body; 0 is not at all
    #[arg(long, env = "OFFBOARD_BODY_MEMORY_WAIT", default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    pub body_memory_wait: Duration,

    /// Seconds that a body, or a message or line of a stream, may take to arrive once it has begun
    #[arg(long, env = "OFFBOARD_BODY_TIMEOUT", default_value = "30", value_parser = some_seconds, value_name = "SECONDS")]
    pub body_timeout: Duration,

    /// Memory that all responses together may take from when they are built until they are written, in bytes. The default suits a memory limit of 256 MiB
    #[arg(long, env = "OFFBOARD_RESPONSE_MEMORY_BYTES", default_value_t = 48 << 20, value_parser = whole(1 << 20..=1_u64 << 40), value_name = "BYTES")]
    pub response_memory_bytes: u64,
}
