//! How much of calls is kept.

use clap::Args;

use super::parse::whole;

/// How much is kept of the calls of a realm, and how many keys.
#[derive(Args, Clone, Debug)]
pub struct Kept {
    /// Idempotency records that a realm may have, each for 24 hours: calls with an Idempotency-Key; further ones are refused
    #[arg(long, env = "OFFBOARD_IDEMPOTENCY_RECORDS", default_value_t = 2_000_000, value_parser = whole(1..=1_000_000_000_u64), value_name = "RECORDS")]
    pub idempotency_records: u64,

    /// Bytes that the responses in the idempotency records of a realm may have together
    #[arg(long, env = "OFFBOARD_IDEMPOTENCY_BYTES", default_value_t = 1 << 30, value_parser = whole(65_536..=1_u64 << 40), value_name = "BYTES")]
    pub idempotency_bytes: u64,

    /// Keys that a realm may have that are neither expired nor revoked; further ones are refused
    #[arg(long, env = "OFFBOARD_KEYS_PER_REALM", default_value_t = 1_000, value_parser = whole(1..=10_000_u32), value_name = "KEYS")]
    pub keys_per_realm: u32,
}
