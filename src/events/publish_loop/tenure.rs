//! The time in which a replica has the lease of a publisher: it reads batches, has them sent, and writes down how far it is.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::read_back::ReadBack;
use super::{Behind, Options, set};
use crate::db::outage::warn_of;
use crate::db::{Db, backoff};
use crate::error::{Error, Result};
use crate::events::Sequencer;
use crate::events::cursor::Cursor;
use crate::events::model::{Batch, Event, Row};
use crate::events::publisher::{Failure, Message, Publisher, runs};
use crate::events::publisher_queries::{self, ClaimedPublisher, Owed, PublisherProgress};
use crate::events::queries::{self, Scope};
use crate::proto::object::View;
use crate::telemetry;

/// About how many events are read at once.
const READ: i64 = 2_000;
/// After how many events progress is written down, which bounds memory too: a row may be of far more.
const SLICE: usize = 1_000;
/// How often a publisher that has caught up reads on.
const READ_EVERY: Duration = Duration::from_millis(150);
/// How often the events behind are counted, while there are any.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// The wait after a first failure; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// After how many failures in a row a replica lets others try: it may be the only one that does not reach the other side.
const LET_OTHERS_TRY_AFTER: u32 = 4;
/// The longest wait after a failure.
const RETRY_AT_MOST: Duration = Duration::from_secs(30);

/// The time in which this replica has the lease.
pub(super) struct Tenure<P> {
    db: Db,
    sequencer: Sequencer,
    publisher: Arc<P>,
    lag: Arc<Mutex<Behind>>,
    lease: Duration,
    /// Counted from before the lease was asked for, so that we never believe in it longer than the database does.
    ends: Instant,
    renew: Instant,
    token: i64,
    cursor: Cursor,
    owes: bool,
    read_back: ReadBack,
    pub(super) failures: u32,
    counted: Option<Instant>,
}

impl<P: Publisher> Tenure<P> {
    pub(super) fn new(
        (db, sequencer): (Db, Sequencer),
        (publisher, lag): (Arc<P>, Arc<Mutex<Behind>>),
        options: &Options,
        claimed: ClaimedPublisher,
        asked: Instant,
    ) -> Self {
        let ClaimedPublisher { token, cursor, owes, earlier } = claimed;
        let (ends, renew) = (asked + options.lease, asked + options.lease / 3);
        Tenure {
            db,
            sequencer,
            publisher,
            lag,
            lease: options.lease,
            ends,
            renew,
            token,
            cursor,
            owes,
            read_back: ReadBack::new(earlier),
            failures: 0,
            counted: None,
        }
    }

    /// Publishes until `stop`, until the lease is lost, or until others may try; returns how long to wait then.
    pub(super) async fn work(&mut self, stop: &CancellationToken) -> Result<Duration> {
        while !stop.is_cancelled() {
            let before = self.failures;
            let delay = match self.next().await? {
                Some(batch) => self.deliver(batch, stop).await?,
                None => Some(READ_EVERY),
            };
            if self.failures > before && self.failures.is_multiple_of(LET_OTHERS_TRY_AFTER) {
                return Ok(delay.unwrap_or_default());
            }
            if let Some(delay) = delay {
                let pause = async {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = sleep(delay) => {}
                    }
                };
                self.while_leased(pause).await?;
            }
        }
        Ok(Duration::ZERO)
    }

    /// The next batch, if there is one.
    async fn next(&mut self) -> Result<Option<Batch>> {
        let (db, sequencer, cursor) =
            (self.db.clone(), self.sequencer.clone(), self.cursor.clone());
        let read = async move {
            sequencer.catch_up().await?;
            db.run(move |connection| queries::read(connection, &Scope::all(), &cursor, READ)).await
        };
        let batch = self.while_leased(read).await??;
        if let Some(first) = batch.rows.first() {
            self.measure(first).await;
            return Ok(Some(batch));
        }
        self.cursor = batch.cursor;
        if batch.caught_up {
            self.caught_up().await?;
            return Ok(None);
        }
        Ok(Some(Batch { rows: Vec::new(), cursor: self.cursor.clone(), caught_up: false }))
    }

    async fn caught_up(&mut self) -> Result<()> {
        set(&self.lag, Behind::default());
        self.counted = None;
        if self.owes {
            let (name, token) = (self.publisher.name(), self.token);
            self.db
                .run(move |connection| publisher_queries::settle(connection, name, token))
                .await?;
            self.owes = false;
        }
        Ok(())
    }

    /// Measures how far the publisher is behind the first row that it has not delivered. A failure to do so is not worth a stop.
    async fn measure(&mut self, first: &Row) {
        let since = Some(first.occurred_at);
        let mut events = self.lag.lock().unwrap_or_else(PoisonError::into_inner).events.max(1);
        if self.counted.is_none_or(|counted| counted.elapsed() >= COUNT_EVERY) {
            let cursor = first.start();
            match self
                .db
                .run(move |connection| publisher_queries::behind(connection, &cursor))
                .await
            {
                Ok((behind, _)) => events = behind.unsigned_abs(),
                Err(error) => warn_of!(error, "cannot count the events behind a publisher"),
            }
            self.counted = Some(Instant::now());
        }
        set(&self.lag, Behind { events, since });
    }

    /// Counts events that were delivered.
    fn count(&self, sent: usize) {
        telemetry::events_published(self.publisher.name(), sent as u64);
        let mut behind = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        behind.events = behind.events.saturating_sub(sent as u64);
    }

    /// Publishes a batch up to its end or to the first failure, and returns how long to wait then.
    async fn deliver(
        &mut self,
        batch: Batch,
        stop: &CancellationToken,
    ) -> Result<Option<Duration>> {
        if let Some(first) = batch.rows.first() {
            self.cursor = first.start();
            let (publisher, read_back) = (self.publisher.clone(), self.read_back.clone());
            match self.while_leased(read_back.before(first, &*publisher)).await? {
                Ok(read_back) => self.read_back = read_back,
                Err(failure) => {
                    self.read_back.failed();
                    return self.failed(failure, &batch.rows).await.map(Some);
                }
            }
        }
        let read_back = self.read_back.clone();
        let mut events = batch
            .rows
            .iter()
            .flat_map(|row| row.events().map(move |event| (row, event)))
            .filter(|(row, event)| !read_back.has(row, event));
        loop {
            let slice: Vec<(&Row, Event)> = events.by_ref().take(SLICE).collect();
            let Some((_, last)) = slice.last() else { break };
            let full = last.cursor.clone();
            let cursors: Vec<Cursor> =
                slice.iter().map(|(_, event)| event.cursor.clone()).collect();
            let messages: Vec<Message> =
                slice.into_iter().map(|(row, event)| Message::new(row, event)).collect();
            let (sent, failure) = self.send(&messages).await?;
            self.count(sent);
            if let Some(failure) = failure {
                if let Some(reached) =
                    sent.checked_sub(1).and_then(|last| cursors.into_iter().nth(last))
                {
                    self.save(reached, &batch.rows).await?;
                }
                return self.failed(failure, &batch.rows).await.map(Some);
            }
            self.save(full, &batch.rows).await?;
            self.failures = 0;
            if stop.is_cancelled() {
                return Ok(None);
            }
        }
        if let Some(last) = batch.rows.last() {
            self.sequencer.remember_sent(last);
        }
        // It may be farther than behind the last row.
        self.cursor = batch.cursor.clone();
        Ok(None)
    }

    /// Sends messages; returns how many of them were acknowledged, and why not all.
    async fn send(&mut self, messages: &[Message]) -> Result<(usize, Option<Failure>)> {
        let publisher = self.publisher.clone();
        let mut sent = 0;
        for run in runs(messages) {
            let published = self.while_leased(publisher.publish(run)).await?;
            sent += published.acknowledged;
            if published.failure.is_some() {
                return Ok((sent, published.failure));
            }
        }
        Ok((sent, None))
    }

    /// Records what could not be delivered, and returns how long to wait.
    async fn failed(&mut self, failure: Failure, rows: &[Row]) -> Result<Duration> {
        let (name, token, code) = (self.publisher.name(), self.token, failure.code);
        telemetry::publish_failed(name, code);
        let delay = wait(self.failures, rand::random());
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(
            publisher = name,
            code,
            cause = failure.cause,
            failures = self.failures,
            ?delay,
            "cannot publish"
        );
        let owed: Vec<Owed> = rows.iter().filter_map(|row| owed(row, &self.cursor)).collect();
        if !owed.is_empty() {
            self.owes = true;
            self.db
                .run(move |connection| {
                    publisher_queries::record(connection, name, token, code, &owed)
                })
                .await?;
        }
        Ok(delay)
    }

    /// Writes down how far the publisher is.
    async fn save(&mut self, cursor: Cursor, rows: &[Row]) -> Result<()> {
        let (mut delivered, mut part) = (Vec::new(), None);
        if self.owes {
            for row in rows {
                match left(row, &cursor) {
                    0 => delivered.push(row.id),
                    left if left < row.subjects.len() => {
                        part = Some((row.id, i32::try_from(left).unwrap_or(i32::MAX)))
                    }
                    _ => {}
                }
            }
        }
        self.cursor = cursor.clone();
        if self.write(PublisherProgress { cursor, delivered, part }).await? {
            Ok(())
        } else {
            Err(lease_lost(self.publisher.name()))
        }
    }

    /// Writes progress down and renews the lease. False if the lease is lost.
    async fn write(&mut self, progress: PublisherProgress) -> Result<bool> {
        let (name, token, lease, asked) =
            (self.publisher.name(), self.token, self.lease, Instant::now());
        let is_ours = self
            .db
            .run(move |connection| {
                publisher_queries::save(connection, name, token, lease, &progress)
            })
            .await?;
        if is_ours {
            (self.ends, self.renew) = (asked + lease, asked + lease / 3);
        }
        Ok(is_ours)
    }

    /// Does something that may take long, and renews the lease meanwhile.
    async fn while_leased<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = sleep_until(self.renew.min(self.ends)) => {}
            }
            let progress = PublisherProgress {
                cursor: self.cursor.clone(),
                delivered: Vec::new(),
                part: None,
            };
            match tokio::time::timeout_at(self.ends, self.write(progress)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) | Err(_) => return Err(lease_lost(self.publisher.name())),
                // A database that is unreachable for a moment is no reason to stop before the lease ends.
                Ok(Err(_)) if Instant::now() < self.ends => {
                    self.renew = Instant::now() + self.lease / 10
                }
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    /// Gives the lease back, so that another replica need not wait for its end.
    pub(super) async fn release(self) {
        let (name, token) = (self.publisher.name(), self.token);
        if let Err(error) =
            self.db.run(move |connection| publisher_queries::release(connection, name, token)).await
        {
            warn_of!(error, publisher = name, "cannot give the lease back");
        }
    }
}

/// How many events of a row stand behind a cursor.
fn left(row: &Row, cursor: &Cursor) -> usize {
    cursor.left(row.position(), row.subjects.len())
}

/// The part of a row that is owed to its bulk delete, if it records one and comes after the cursor.
fn owed(row: &Row, cursor: &Cursor) -> Option<Owed> {
    let left = left(row, cursor);
    let of_chunk = row.data.view().get("bulk_delete_id").and_then(View::as_str);
    let of_task = row.subjects.first().filter(|_| row.event_type.starts_with("bulk_delete."));
    let bulk_delete_id = uuid::Uuid::try_parse(of_chunk.or(of_task.map(String::as_str))?).ok()?;
    let events = i32::try_from(left).unwrap_or(i32::MAX);
    (left > 0).then_some(Owed { realm_id: row.realm_id, bulk_delete_id, event_id: row.id, events })
}

/// The wait after a failure: longer with each before it, and reduced at random by up to half, so that replicas and publishers do not come all at once.
fn wait(before: u32, chance: f64) -> Duration {
    backoff(RETRY_FIRST, before, RETRY_AT_MOST).mul_f64(0.5 + chance / 2.0)
}

fn lease_lost(name: &'static str) -> Error {
    telemetry::lease_lost(name);
    Error::unavailable("The lease was lost to another replica.")
}

#[cfg(test)]
mod tests;
