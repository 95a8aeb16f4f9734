//! What a broker has that the database does not record as published.
//!
//! A database that was restored has the publisher's position of an earlier moment, and a broker drops what it is sent again for some minutes
//! only. So the broker is asked, once, before the first event of an earlier history is published.

use std::sync::Arc;

use chrono::TimeDelta;

use crate::events::model::{Event, Row};
use crate::events::publisher::{Failure, Publisher};
use crate::events::taken::Taken;

/// How much earlier than an event happened, by our clock, the broker may have taken it, by its own.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::minutes(5);
/// How often the broker is asked, at most. Rather again than never: consumers know events by their ids.
const ATTEMPTS: u32 = 3;

/// The events of earlier histories that the broker has.
#[derive(Clone, Debug)]
pub(super) struct ReadBack {
    /// The last position of an earlier history, as long as there is anything to find out up to there.
    earlier: Option<i64>,
    /// What the broker has, once it was asked.
    taken: Option<Arc<Taken>>,
    attempts: u32,
}

impl ReadBack {
    /// Of a publisher with this last position of an earlier history before it, if there is one.
    pub fn new(earlier: Option<i64>) -> Self {
        ReadBack { earlier, taken: None, attempts: 0 }
    }

    /// The same before this row is published: asks the broker where that has not been done, and forgets what it had once the row is past the earlier histories.
    pub async fn before(
        mut self,
        first: &Row,
        publisher: &impl Publisher,
    ) -> Result<Self, Failure> {
        if self.earlier.is_some_and(|earlier| first.position() > earlier) {
            return Ok(ReadBack::new(None));
        }
        if self.earlier.is_none() || self.taken.is_some() || self.attempts == ATTEMPTS {
            return Ok(self);
        }
        let taken = publisher.taken_since(first.occurred_at - CLOCKS_DIFFER).await?;
        tracing::info!(
            publisher = publisher.name(),
            messages = taken.count(),
            "events from before a restore are not published again where they were"
        );
        self.taken = Some(Arc::new(taken));
        Ok(self)
    }

    /// The broker did not answer.
    pub fn failed(&mut self) {
        self.attempts += 1;
    }

    /// Returns whether the broker has this event of the row.
    pub fn has(&self, row: &Row, event: &Event) -> bool {
        self.earlier.is_some_and(|earlier| row.position() <= earlier)
            && self.taken.as_ref().is_some_and(|taken| taken.has(&event.id))
    }
}
