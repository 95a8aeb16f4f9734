//! The shares that one realm and one key have of what all use together.

use std::time::Duration;

use clap::Args;

use super::parse::{MANY, some_seconds, whole};

/// The settings of shares.
#[derive(Args, Clone, Debug)]
pub struct Shares {
    /// Calls of one realm at once, without streams [default: half of --max-concurrent-calls]
    #[arg(long, env = "OFFBOARD_REALM_CONCURRENT_CALLS", value_parser = whole(1..=MANY), value_name = "CALLS")]
    pub realm_concurrent_calls: Option<usize>,

    /// Calls of one key at once, without streams [default: three quarters of the share of its realm]
    #[arg(long, env = "OFFBOARD_KEY_CONCURRENT_CALLS", value_parser = whole(1..=MANY), value_name = "CALLS")]
    pub key_concurrent_calls: Option<usize>,

    /// Watches, imports, exports and other streams at once
    #[arg(long, env = "OFFBOARD_MAX_CONCURRENT_STREAMS", default_value_t = 2048, value_parser = whole(1..=MANY), value_name = "STREAMS")]
    pub max_concurrent_streams: usize,

    /// Streams of one realm at once [default: half of --max-concurrent-streams]
    #[arg(long, env = "OFFBOARD_REALM_CONCURRENT_STREAMS", value_parser = whole(1..=MANY), value_name = "STREAMS")]
    pub realm_concurrent_streams: Option<usize>,

    /// Streams of one key at once [default: three quarters of what its realm may have]
    #[arg(long, env = "OFFBOARD_KEY_CONCURRENT_STREAMS", value_parser = whole(1..=MANY), value_name = "STREAMS")]
    pub key_concurrent_streams: Option<usize>,

    /// Seconds for which the caller of an import or another stream of requests may send nothing
    #[arg(long, env = "OFFBOARD_STREAM_SILENCE_TIMEOUT", default_value = "60", value_parser = some_seconds, value_name = "SECONDS")]
    pub stream_silence_timeout: Duration,

    /// Connections of the pool that the calls of one realm may have [default: 70 % of --db-pool-size]
    #[arg(long, env = "OFFBOARD_REALM_DB_CONNECTIONS", value_parser = whole(1..=MANY), value_name = "CONNECTIONS")]
    pub realm_db_connections: Option<usize>,

    /// Connections that calls of one method by one realm may have while they take long [default: 30 % of --db-pool-size]
    #[arg(long, env = "OFFBOARD_SLOW_DB_CONNECTIONS", value_parser = whole(1..=MANY), value_name = "CONNECTIONS")]
    pub slow_db_connections: Option<usize>,
}

impl Shares {
    /// The most calls of a realm and of a key at once, where there may be so many in all.
    pub fn calls(&self, total: usize) -> (usize, usize) {
        parts(total, self.realm_concurrent_calls, self.key_concurrent_calls)
    }

    /// The most streams of a realm and of a key at once.
    pub fn streams(&self) -> (usize, usize) {
        parts(
            self.max_concurrent_streams,
            self.realm_concurrent_streams,
            self.key_concurrent_streams,
        )
    }
}

fn parts(total: usize, realm: Option<usize>, key: Option<usize>) -> (usize, usize) {
    let realm = realm.unwrap_or(total.div_ceil(2)).min(total);
    (realm, key.unwrap_or((realm * 3).div_ceil(4)).min(realm))
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn a_realm_has_half_and_a_key_three_quarters_of_it_unless_set_otherwise() {
        assert_eq!(parts(1024, None, None), (512, 384));
        assert_eq!(parts(1, None, None), (1, 1));
        assert_eq!(parts(100, Some(10), None), (10, 8));
        assert_eq!(parts(100, Some(1000), Some(2000)), (100, 100));
    }
}
