//! One caller's stream of events: reads, sends, waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::db::Db;
use crate::error::Result;
use crate::events::cursor::Cursor;
use crate::events::hub::WakeUp;
use crate::events::model::{Event, Row};
use crate::events::queries::{self, Scope};
use crate::events::{Admission, Hub};
use crate::limits::events::SHARED;

/// About how many events are read at once, and so kept in memory for a slow caller.
const BATCH: i64 = 500;
/// After this time without a word there is a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// The next message.
#[derive(Debug)]
pub enum News {
    /// Something happened.
    Event(Box<Event>),
    /// Nothing did; this is where to continue.
    Nothing(Cursor),
}

/// One caller's stream.
pub struct Watch {
    /// The database.
    pub db: Db,
    /// Has read the new events.
    pub hub: Hub,
    /// The caller's admission.
    pub admission: Admission,
    /// The events that the caller wants.
    pub scope: Scope,
    /// Wakes when there may be something new.
    pub wake_up: WakeUp,
    /// How far was read.
    pub cursor: Cursor,
    /// Events that were read and not sent yet.
    pub unsent: Unsent,
}

/// Events that were read and not sent yet, and when the last message was sent.
pub struct Unsent {
    rows: VecDeque<Arc<Row>>,
    /// How many subjects of the first of the rows were sent.
    subjects: usize,
    caught_up: bool,
    /// True if this caller was once sent all that there was.
    abreast: bool,
    greeted: bool,
    last_word: Instant,
}

impl Default for Unsent {
    fn default() -> Self {
        Unsent {
            rows: VecDeque::new(),
            subjects: 0,
            caught_up: false,
            abreast: false,
            greeted: false,
            last_word: Instant::now(),
        }
    }
}

impl Watch {
    /// The next message, once there is one. A failure is the last.
    pub async fn next(&mut self) -> Result<News> {
        if !self.unsent.greeted {
            self.unsent.greeted = true;
            return Ok(News::Nothing(self.cursor.clone()));
        }
        loop {
            self.admission.check().await?;
            if !self.unsent.rows.is_empty() {
                let _turn = self.hub.turn().await;
                if let Some(event) = self.unfolded() {
                    self.unsent.last_word = Instant::now();
                    return Ok(News::Event(Box::new(event)));
                }
            }
            let silent_since = self.unsent.last_word;
            if silent_since.elapsed() >= SIGN_OF_LIFE {
                self.unsent.last_word = Instant::now();
                // Read on first, so that the cursor of callers without news moves on too.
                self.read().await?;
                if self.unsent.rows.is_empty() {
                    return Ok(News::Nothing(self.cursor.clone()));
                }
            } else if self.unsent.caught_up {
                let woken =
                    self.admission.wait(self.wake_up.wait(), silent_since + SIGN_OF_LIFE).await?;
                self.unsent.caught_up = !woken;
            } else {
                self.read().await?;
            }
        }
    }

    /// The next event of the rows that were read. One at a time, for a row may have thousands.
    fn unfolded(&mut self) -> Option<Event> {
        loop {
            let row = self.unsent.rows.front()?;
            let start = self.unsent.subjects.max(row.delivered);
            let index =
                (start..row.subjects.len()).find(|index| self.scope.has(&row.subjects[*index]));
            if let Some(event) = index.and_then(|index| row.event(index)) {
                self.unsent.subjects = index.unwrap_or_default() + 1;
                return Some(event);
            }
            self.unsent.rows.pop_front();
            self.unsent.subjects = 0;
        }
    }

    /// Reads on: from the rows that were read for all watches of the realm, and otherwise from the database.
    async fn read(&mut self) -> Result<()> {
        if let Some((rows, cursor)) = self.hub.shared(&self.admission.caller().realm, &self.cursor)
        {
            self.unsent.rows.extend(rows.into_iter().filter(|row| self.scope.wants(row)));
            (self.unsent.caught_up, self.unsent.abreast) = (true, true);
            self.cursor = cursor;
            return Ok(());
        }
        if self.unsent.abreast {
            SHARED.reached();
            self.unsent.abreast = false;
        }
        let (scope, cursor) = (self.scope.clone(), self.cursor.clone());
        let batch = self
            .db
            .run(move |connection| queries::read(connection, &scope, &cursor, BATCH))
            .await?;
        self.unsent.rows.extend(batch.rows.into_iter().map(Arc::new));
        self.unsent.caught_up = batch.caught_up;
        self.cursor = batch.cursor;
        Ok(())
    }
}
