//! The loop behind a publisher: one replica at a time reads from the publisher's position on and gives the events to the publisher.
//!
//! The position moves when events are acknowledged, and only with the lease: a replica that was thought dead and wakes up moves nothing
//! back. Events that were sent but not saved are sent again with the same id, so each event is delivered at least once.

mod read_back;
mod tenure;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::tenure::Tenure;
use crate::db::Db;
use crate::db::outage::warn_of;
use crate::error::Result;
use crate::events::Sequencer;
use crate::events::publisher::Publisher;
use crate::events::publisher_queries;
use crate::telemetry::{self, PublisherLag};

/// How a replica takes part.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names this process among the replicas.
    pub owner: String,
    /// For how long a lease is valid before another replica may take over.
    pub lease: Duration,
    /// How often a replica that does not publish checks whether it may.
    pub poll: Duration,
}

/// Makes the publisher's position, unless it has one: everything that is committed from now on will be published.
pub async fn register(db: &Db, publisher: &impl Publisher) -> Result<()> {
    let name = publisher.name();
    Sequencer::new(db.clone()).catch_up().await?;
    db.run(move |connection| publisher_queries::register(connection, name)).await
}

/// Publishes until `stop`, whenever this replica has the lease.
pub async fn run(db: Db, publisher: impl Publisher, options: Options, stop: CancellationToken) {
    let name = publisher.name();
    let lag = Arc::new(Mutex::new(Behind::default()));
    let measured = lag.clone();
    telemetry::observe_publisher(name, move || {
        measured.lock().unwrap_or_else(PoisonError::into_inner).now()
    });
    let publisher = Arc::new(publisher);
    let sequencer = Sequencer::new(db.clone());
    let mut failures = 0;
    while !stop.is_cancelled() {
        let mut pause = options.poll;
        let asked = Instant::now();
        let (owner, lease) = (options.owner.clone(), options.lease);
        match db
            .run(move |connection| publisher_queries::claim(connection, name, &owner, lease))
            .await
        {
            Ok(Some(claimed)) => {
                tracing::info!(publisher = name, "this replica publishes");
                let mut tenure = Tenure::new(
                    (db.clone(), sequencer.clone()),
                    (publisher.clone(), lag.clone()),
                    &options,
                    claimed,
                    asked,
                );
                tenure.failures = failures;
                match tenure.work(&stop).await {
                    Ok(delay) => pause = pause.max(delay),
                    Err(error) => {
                        warn_of!(error, publisher = name, "this replica publishes no more")
                    }
                }
                failures = tenure.failures;
                tenure.release().await;
            }
            Ok(None) => {
                match db.run(move |connection| publisher_queries::backlog(connection, name)).await {
                    Ok(backlog) => set(&lag, backlog.map_or_else(Behind::default, Behind::from)),
                    Err(error) => {
                        warn_of!(error, publisher = name, "cannot see how far the publisher is")
                    }
                }
            }
            Err(error) => warn_of!(error, publisher = name, "cannot see whether to publish"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(pause) => {}
        }
    }
}

/// How far the publisher is behind: how many events, and since when the oldest of them waits.
#[derive(Clone, Copy, Debug, Default)]
struct Behind {
    events: u64,
    since: Option<DateTime<Utc>>,
}

impl From<(i64, Option<DateTime<Utc>>)> for Behind {
    fn from((events, since): (i64, Option<DateTime<Utc>>)) -> Self {
        Behind { events: events.unsigned_abs(), since }
    }
}

fn set(lag: &Mutex<Behind>, behind: Behind) {
    *lag.lock().unwrap_or_else(PoisonError::into_inner) = behind;
}

impl Behind {
    fn now(&self) -> PublisherLag {
        let waited = self.since.map(|since| (Utc::now() - since).as_seconds_f64().max(0.0));
        PublisherLag { events: self.events, seconds: waited.unwrap_or_default() }
    }
}
