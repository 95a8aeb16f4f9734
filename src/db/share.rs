//! The users of the connections: a call waits for its realm's share of them, not only for a free one.

use std::time::Duration;

use crate::db::options::{Options, Shares};
use crate::error::{Error, Result};
use crate::limits::database::{QUEUE, QUEUE_TIME};
use crate::limits::shares::{HEAVY_CONNECTIONS, REALM_CONNECTIONS, SLOW_CONNECTIONS};
use crate::shares::{self, Hindrance, Refused, Rules, Turn, Turns};

/// How many times longer than a call a stream waits for a connection: its caller waits for what comes next, not for its end.
const STREAM_PATIENCE: u32 = 12;

/// A permit for each connection.
#[derive(Debug)]
pub(super) struct Permits {
    turns: Turns,
    patience: Duration,
}

impl Permits {
    pub(super) fn new(options: &Options) -> Self {
        let Shares { realm, slow } = options.shares;
        let rules = Rules::of_pool(options.pool_size as usize, realm, slow, options.queue_limit);
        Permits { turns: Turns::new(rules), patience: options.acquire_timeout }
    }

    /// How many wait for one.
    pub(super) fn waiting(&self) -> usize {
        self.turns.waiting()
    }

    /// Waits for a permit for the work at hand.
    pub(super) async fn take(&self) -> Result<Turn> {
        let party = shares::current();
        let streams = party.as_ref().is_some_and(|party| party.streams);
        let patience = if streams { self.patience * STREAM_PATIENCE } else { self.patience };
        let waits = |hindrance| match hindrance {
            Hindrance::Busy => {}
            Hindrance::Realm => REALM_CONNECTIONS.reached(),
            Hindrance::Heavy => HEAVY_CONNECTIONS.reached(),
            Hindrance::Slow => SLOW_CONNECTIONS.reached(),
        };
        self.turns.acquire(party, patience, waits).await.map_err(|refused| {
            match refused {
                Refused::Queue | Refused::RealmQueue => QUEUE.reached(),
                Refused::TooLate => QUEUE_TIME.reached(),
            }
            busy()
        })
    }
}

/// The error of a call for which there is no connection in time.
pub(super) fn busy() -> Error {
    Error::unavailable("The service is busy; try again.")
}
