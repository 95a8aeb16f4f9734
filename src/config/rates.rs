//! Settings of rates: how often somebody may call.

use std::num::NonZeroU32;

use clap::Args;

/// How many calls of each class one key and one realm may make a second.
#[derive(Args, Clone, Debug)]
pub struct Rates {
    /// Calls that a key may make a second at each replica, and at once; 0 is not a limit
    #[arg(long, env = "OFFBOARD_RATE_LIMIT", default_value_t = 5000, value_name = "CALLS")]
    pub rate_limit: u32,

    /// Of these, calls that change something and are of no other class; 0 is not a limit of their own
    #[arg(long, env = "OFFBOARD_WRITE_RATE_LIMIT", default_value_t = 0, value_name = "CALLS")]
    pub write_rate_limit: u32,

    /// Of these, calls that start a task: a bulk delete, a consistency check, the building of an index; 0 is not a limit of their own
    #[arg(long, env = "OFFBOARD_TASK_RATE_LIMIT", default_value_t = 100, value_name = "CALLS")]
    pub task_rate_limit: u32,

    /// Of these, calls that begin a stream: a watch, an import, an export; 0 is not a limit of their own
    #[arg(long, env = "OFFBOARD_STREAM_RATE_LIMIT", default_value_t = 1000, value_name = "CALLS")]
    pub stream_rate_limit: u32,

    /// Calls that the keys of one realm may make together a second at each replica, and at once; 0 is not a limit [default: four times --rate-limit]
    #[arg(long, env = "OFFBOARD_REALM_RATE_LIMIT", value_name = "CALLS")]
    pub realm_rate_limit: Option<u32>,

    /// Of these, calls that change something and are of no other class; 0 is not a limit of their own [default: four times --write-rate-limit]
    #[arg(long, env = "OFFBOARD_REALM_WRITE_RATE_LIMIT", value_name = "CALLS")]
    pub realm_write_rate_limit: Option<u32>,

    /// Of these, calls that start a task; 0 is not a limit of their own [default: four times --task-rate-limit]
    #[arg(long, env = "OFFBOARD_REALM_TASK_RATE_LIMIT", value_name = "CALLS")]
    pub realm_task_rate_limit: Option<u32>,

    /// Of these, calls that begin a stream; 0 is not a limit of their own [default: four times --stream-rate-limit]
    #[arg(long, env = "OFFBOARD_REALM_STREAM_RATE_LIMIT", value_name = "CALLS")]
    pub realm_stream_rate_limit: Option<u32>,

    /// Calls without a valid key that one address may make a second at each replica, and at once; further ones are refused before their key is looked at, but for keys that are in use. 0 is not a limit
    #[arg(long, env = "OFFBOARD_ADDRESS_RATE_LIMIT", default_value_t = 1000, value_name = "CALLS")]
    pub address_rate_limit: u32,
}

/// The rates of a key or of a realm; none is not a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassRates {
    /// Calls of all classes.
    pub all: Option<NonZeroU32>,
    /// Changes.
    pub write: Option<NonZeroU32>,
    /// Starts of tasks.
    pub task: Option<NonZeroU32>,
    /// Beginnings of streams.
    pub stream: Option<NonZeroU32>,
}

impl Rates {
    /// Those of one key.
    pub fn of_key(&self) -> ClassRates {
        ClassRates {
            all: NonZeroU32::new(self.rate_limit),
            write: NonZeroU32::new(self.write_rate_limit),
            task: NonZeroU32::new(self.task_rate_limit),
            stream: NonZeroU32::new(self.stream_rate_limit),
        }
    }

    /// Those of one realm.
    pub fn of_realm(&self) -> ClassRates {
        const KEYS: u32 = 4;
        let rate = |given: Option<u32>, key: u32| {
            NonZeroU32::new(given.unwrap_or(key.saturating_mul(KEYS)))
        };
        ClassRates {
            all: rate(self.realm_rate_limit, self.rate_limit),
            write: rate(self.realm_write_rate_limit, self.write_rate_limit),
            task: rate(self.realm_task_rate_limit, self.task_rate_limit),
            stream: rate(self.realm_stream_rate_limit, self.stream_rate_limit),
        }
    }
}
