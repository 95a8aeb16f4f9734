//! Wakes those who wait for events.
//!
//! Not by `NOTIFY`, which makes all commits of a database stand in one line: one task a process asks every so often whose events are new.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::db::{Db, Realm};
use crate::error::Result;
use crate::events::cursor::Cursor;
use crate::events::queries;

/// How often it asks. An event is told within about this time of its commit.
const EVERY: Duration = Duration::from_millis(100);
/// The wait after a failure, such as a database that is away.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Those who wait, by realm; those who wait for events of any realm are under none.
type Waiting = HashMap<Option<i32>, watch::Sender<()>>;

/// Wakes those who wait for events. One a process; cheap to clone. It costs nothing while nobody waits.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    db: Db,
    waiting: Mutex<Waiting>,
    wanted: Notify,
}

/// A place among those who wait. What commits after it was taken wakes it; a wake-up may also come for nothing.
#[derive(Debug)]
pub struct WakeUp(watch::Receiver<()>);

impl WakeUp {
    /// Waits for the next wake-up; one that came since the last wait counts.
    pub async fn wait(&mut self) {
        // The hub keeps the other end for as long as there is a place.
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Hub {
    /// A hub on this database. It wakes nobody unless [`Hub::run`] runs.
    pub fn new(db: Db) -> Self {
        Hub(Arc::new(Inner { db, waiting: Mutex::default(), wanted: Notify::new() }))
    }

    /// Takes a place among those who wait for events of a realm, or of any. To be taken before one reads for the last time.
    pub fn subscribe(&self, realm: Option<&Realm>) -> WakeUp {
        let receiver = self.waiting().entry(realm.map(Realm::id)).or_insert_with(|| watch::Sender::new(())).subscribe();
        self.0.wanted.notify_one();
        WakeUp(receiver)
    }

    /// Asks and wakes until it is dropped.
    pub async fn run(self) {
        let mut seen: Option<Cursor> = None;
        loop {
            if self.is_idle() {
                seen = None;
                self.0.wanted.notified().await;
            }
            let pause = match self.look(seen.clone()).await {
                Ok(cursor) => {
                    seen = Some(cursor);
                    EVERY
                }
                Err(error) => {
                    tracing::warn!(%error, cause = error.cause_chain(), "cannot ask for new events");
                    seen = None;
                    AFTER_FAILURE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn look(&self, seen: Option<Cursor>) -> Result<Cursor> {
        let Some(seen) = seen else {
            // What came before the first look is unknown, so everyone is to read.
            let cursor = self.0.db.run(queries::now).await?;
            self.waiting().values().for_each(|waiting| waiting.send_replace(()));
            return Ok(cursor);
        };
        let (realms, cursor) = self.0.db.run(move |connection| queries::realms_with_news(connection, &seen)).await?;
        if !realms.is_empty() {
            let waiting = self.waiting();
            let concerned = realms.into_iter().map(Some).chain([None]).filter_map(|realm| waiting.get(&realm));
            concerned.for_each(|waiting| waiting.send_replace(()));
        }
        Ok(cursor)
    }

    /// Whether nobody waits; forgets those who went.
    fn is_idle(&self) -> bool {
        let mut waiting = self.waiting();
        waiting.retain(|_, waiting| waiting.receiver_count() > 0);
        waiting.is_empty()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
