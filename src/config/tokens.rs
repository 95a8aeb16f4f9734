//! Settings of tokens.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::parse::{seconds_from, whole};

/// The issuers whose tokens are taken, and the limits of these.
#[derive(Args, Clone, Debug)]
pub struct Tokens {
    /// File in TOML with the issuers whose tokens (JWT) are taken beside keys; it is read again when it changes. Without it only keys are taken
    #[arg(long, env = "OFFBOARD_AUTH_FILE", value_name = "FILE")]
    pub auth_file: Option<PathBuf>,

    /// Bytes that a token may have
    #[arg(long, env = "OFFBOARD_MAX_TOKEN_BYTES", default_value_t = 8192, value_parser = whole(512..=32_768_usize), value_name = "BYTES")]
    pub max_token_bytes: usize,

    /// Seconds from one fetch of an issuer's keys to the next
    #[arg(long, env = "OFFBOARD_JWKS_REFRESH", default_value = "300", value_parser = seconds_from(1000), value_name = "SECONDS")]
    pub jwks_refresh: Duration,

    /// Seconds at least from one fetch of an issuer's keys to another one because a token names a key that is not among them
    #[arg(long, env = "OFFBOARD_JWKS_REFETCH", default_value = "10", value_parser = seconds_from(100), value_name = "SECONDS")]
    pub jwks_refetch: Duration,

    /// Seconds for which the keys of an issuer that were fetched last are used; where none could be fetched for that long, its tokens are refused
    #[arg(long, env = "OFFBOARD_JWKS_OUTAGE", default_value = "3600", value_parser = seconds_from(1000), value_name = "SECONDS")]
    pub jwks_outage: Duration,
}
