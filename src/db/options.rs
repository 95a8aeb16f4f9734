//! How the service uses its database.

use std::time::Duration;

/// How the service uses its database.
#[derive(Clone, Debug)]
pub struct Options {
    /// A libpq URL or connection string.
    pub database_url: String,
    /// How many connections this process may have.
    pub pool_size: u32,
    /// How many calls may wait for a connection before further ones are refused with `unavailable`.
    pub queue_limit: usize,
    /// How long a call may wait for a connection.
    pub acquire_timeout: Duration,
    /// The longest that a statement may run.
    pub statement_timeout: Duration,
    /// The longest that a statement may wait for a lock.
    pub lock_timeout: Duration,
    /// How connections are shared out among realms.
    pub shares: Shares,
}

impl Options {
    /// The defaults, for a database.
    pub fn new(database_url: impl Into<String>) -> Self {
        Options {
            database_url: database_url.into(),
            pool_size: 10,
            queue_limit: 1000,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(60),
            lock_timeout: Duration::from_secs(5),
            shares: Shares::default(),
        }
    }
}

/// How connections are shared out among realms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// The most that the calls of one realm have, unless it is to follow from the size of the pool.
    pub realm: Option<usize>,
    /// The most that calls of one method by one realm have while they take long, unless it is to follow from the size of the pool.
    pub slow: Option<usize>,
}
