//! Settings of connections, and of callers without a key.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::parse::{seconds, some_seconds, whole};

/// The limits of connections, and of callers without a key.
#[derive(Args, Clone, Debug)]
pub struct Listeners {
    /// Connections at once at the gRPC listener, and as many at the HTTP listener. Where there are as many, a further one is let in by closing another, first one on which nobody has shown a key
    #[arg(long, env = "OFFBOARD_MAX_CONNECTIONS", default_value_t = 2048, value_parser = whole(1..=1_000_000_u32))]
    pub max_connections: u32,

    /// Connections at once from one address, at each listener. A proxy that all callers come through is one address
    #[arg(long, env = "OFFBOARD_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 1024, value_parser = whole(1..=1_000_000_u32))]
    pub max_connections_per_address: u32,

    /// Connections at once on which the keys of one realm call, at each listener [default: half of --max-connections]
    #[arg(long, env = "OFFBOARD_MAX_CONNECTIONS_PER_REALM", value_parser = whole(1..=1_000_000_u32), value_name = "CONNECTIONS")]
    pub max_connections_per_realm: Option<u32>,

    /// Calls at once on one HTTP/2 connection
    #[arg(long, env = "OFFBOARD_MAX_STREAMS_PER_CONNECTION", default_value_t = 200, value_parser = whole(1..=1000_u32))]
    pub max_streams_per_connection: u32,

    /// Seconds that the headers of a request may take to arrive
    #[arg(long, env = "OFFBOARD_HEAD_TIMEOUT", default_value = "10", value_parser = some_seconds, value_name = "SECONDS")]
    pub head_timeout: Duration,

    /// Seconds after which a connection without a call is closed; more than what load balancers on the way wait before they close one. 0 is never
    #[arg(long, env = "OFFBOARD_IDLE_TIMEOUT", default_value = "120", value_parser = seconds, value_name = "SECONDS")]
    pub idle_timeout: Duration,

    /// The same where no call on the connection had a valid key. Behind load balancers that keep connections, give it as much as `--idle-timeout`. 0 is as much as that
    #[arg(long, env = "OFFBOARD_IDLE_TIMEOUT_WITHOUT_KEY", default_value = "20", value_parser = seconds, value_name = "SECONDS")]
    pub idle_timeout_without_key: Duration,

    /// Callers that may use gRPC reflection
    #[arg(long, env = "OFFBOARD_REFLECTION", value_enum, default_value = "open")]
    pub reflection: Reflection,

    /// Streams of reflection at once
    #[arg(long, env = "OFFBOARD_MAX_REFLECTION_STREAMS", default_value_t = 32, value_parser = whole(1..=1000_u32))]
    pub max_reflection_streams: u32,
}

/// Callers that may use reflection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reflection {
    /// Everybody
    Open,
    /// Callers with a key, whatever its scopes
    Key,
    /// Nobody
    Off,
}
