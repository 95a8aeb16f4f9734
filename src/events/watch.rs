//! One caller's stream of events: reads, tells, waits.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::Utc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::{Authenticator, Caller};
use crate::db::Db;
use crate::db::partitions::KEEP_EVENTS;
use crate::error::{Error, Result};
use crate::events::cursor::Cursor;
use crate::events::hub::WakeUp;
use crate::events::model::{Event, Row};
use crate::events::queries::{self, Scope};

/// About how many events are read at once, and so held for a caller who is slow to take them.
const BATCH: i64 = 500;
/// After this time without a word there is a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// How often it is seen to that the caller's key is still good.
const CHECK_KEY: Duration = Duration::from_secs(3);

/// What is told next.
#[derive(Debug)]
pub enum News {
    /// Something happened.
    Event(Box<Event>),
    /// Nothing did; this is where to go on.
    Nothing(Cursor),
}

/// One caller's stream.
pub struct Watch {
    /// The database.
    pub db: Db,
    /// Knows when the caller's key ends.
    pub authenticator: Authenticator,
    /// Cancelled when the process takes no more calls.
    pub closing: CancellationToken,
    /// The caller.
    pub caller: Caller,
    /// What the caller wants to hear of.
    pub scope: Scope,
    /// Tells when there may be something new.
    pub wake_up: WakeUp,
    /// How far was read.
    pub cursor: Cursor,
    /// What was read and not told yet.
    pub told: Told,
}

/// What was read and not told yet, and when something was told last.
pub struct Told {
    rows: VecDeque<Row>,
    events: VecDeque<Event>,
    caught_up: bool,
    greeted: bool,
    last_word: Instant,
    key_checked: Instant,
}

impl Default for Told {
    fn default() -> Self {
        let now = Instant::now();
        Told { rows: VecDeque::new(), events: VecDeque::new(), caught_up: false, greeted: false, last_word: now, key_checked: now }
    }
}

impl Watch {
    /// What is to be told next, once there is something. A failure is the last word.
    pub async fn next(&mut self) -> Result<News> {
        if !self.told.greeted {
            self.told.greeted = true;
            return Ok(News::Nothing(self.cursor.clone()));
        }
        loop {
            self.check().await?;
            if let Some(event) = self.unfolded() {
                self.told.last_word = Instant::now();
                return Ok(News::Event(Box::new(event)));
            }
            let silent_since = self.told.last_word;
            if silent_since.elapsed() >= SIGN_OF_LIFE {
                self.told.last_word = Instant::now();
                // Read on first, so that the cursor of those to whom nothing happens moves on too.
                self.read().await?;
                if self.told.rows.is_empty() {
                    return Ok(News::Nothing(self.cursor.clone()));
                }
            } else if self.told.caught_up {
                self.wait(silent_since + SIGN_OF_LIFE).await;
            } else {
                self.read().await?;
            }
        }
    }

    /// Fails when the stream is to end.
    async fn check(&mut self) -> Result<()> {
        if self.closing.is_cancelled() {
            return Err(Error::unavailable("This replica is shutting down; go on from the last cursor and another one will answer."));
        }
        if self.told.key_checked.elapsed() >= CHECK_KEY {
            self.authenticator.check(&self.caller).await?;
            self.told.key_checked = Instant::now();
        }
        Ok(())
    }

    /// The next event of what was read.
    fn unfolded(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.told.events.pop_front() {
                return Some(event);
            }
            let row = self.told.rows.pop_front()?;
            self.told.events = row.events().filter(|event| self.scope.has(&event.subject)).collect();
        }
    }

    async fn read(&mut self) -> Result<()> {
        let (scope, cursor) = (self.scope.clone(), self.cursor.clone());
        let batch = self.db.run(move |connection| queries::read(connection, &scope, &cursor, BATCH)).await?;
        self.told.rows.extend(batch.rows);
        self.told.caught_up = batch.caught_up;
        self.cursor = batch.cursor;
        Ok(())
    }

    /// Waits until there may be something new, or something else is due.
    async fn wait(&mut self, sign_of_life: Instant) {
        let woken = tokio::select! {
            () = self.wake_up.wait() => true,
            () = self.closing.cancelled() => false,
            () = tokio::time::sleep_until(sign_of_life.min(self.told.key_checked + CHECK_KEY)) => false,
        };
        self.told.caught_up = !woken;
    }
}

/// Adds a fault if events behind a cursor may have been dropped.
pub fn check_age(cursor: &Cursor, field: &str, faults: &mut crate::error::Violations) {
    if cursor.is_expired(Utc::now(), KEEP_EVENTS) {
        faults.add(field, "expired", "is older than the events that are kept; start from the beginning of what is");
    }
}
