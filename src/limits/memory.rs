//! The memory that bodies may cost while they are read and decoded: one budget for all calls of the process.
//!
//! A caller pays for its body once more of it arrives than is free, and for the cost of decoding before it is decoded. Both wait, a bounded
//! time, until the budget has room. A body is paid for as a whole, by its declared or its largest size: if each had some of what it needs
//! and waited for the rest, all would wait for each other. Receiving and decoding have a part each, so that bodies that arrive slowly keep
//! nobody from decoding; a realm may have half of each, so that none keeps out the others. The first bytes of each call are free: small
//! calls always pass.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bodies::{BODY_MEMORY, BODY_TIME, FREE_BODY_BYTES};
use crate::error::{Code, Error, Result};
use crate::telemetry;

/// The bytes of one permit of the semaphores: a semaphore counts no further than `u32` in one step.
const UNIT: usize = 1024;

/// Memory for bodies. Clones share it.
#[derive(Clone, Debug)]
pub struct BodyMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    received: Part,
    decoded: Part,
    patience: Duration,
    body_time: Duration,
}

/// A part of the memory, shared out by realm.
#[derive(Debug)]
struct Part {
    free: Arc<Semaphore>,
    /// The most that one realm may have.
    share: usize,
    realms: Mutex<HashMap<i32, Weak<Semaphore>>>,
}

/// Memory that is taken until it is dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    all: OwnedSemaphorePermit,
    share: OwnedSemaphorePermit,
    bytes: usize,
}

impl MemoryPermit {
    /// Gives back the surplus.
    fn shrink(&mut self, bytes: usize) {
        let surplus = (self.bytes / UNIT).saturating_sub(bytes.div_ceil(UNIT));
        drop((self.all.split(surplus), self.share.split(surplus)));
        self.bytes -= surplus * UNIT;
        telemetry::body_memory(-((surplus * UNIT) as i64));
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        telemetry::body_memory(-(self.bytes as i64));
    }
}

impl Part {
    fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).max(2);
        Part { free: Arc::new(Semaphore::new(units)), share: units / 2, realms: Mutex::default() }
    }

    /// The memory that a realm may have.
    fn share_of(&self, realm: i32) -> Arc<Semaphore> {
        let mut realms = self.realms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = realms.get(&realm).and_then(Weak::upgrade) {
            return share;
        }
        // Memory in use keeps its share, so only unused shares are forgotten.
        realms.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.share));
        realms.insert(realm, Arc::downgrade(&share));
        share
    }

    /// Takes so many bytes, but never more than `most` units: more could never be taken, and the limits of bodies keep it near.
    async fn hold(&self, realm: i32, bytes: usize, most: usize) -> MemoryPermit {
        let units = bytes.div_ceil(UNIT).clamp(1, most);
        let count = u32::try_from(units).unwrap_or(u32::MAX);
        let share = acquire(self.share_of(realm), count).await;
        let all = acquire(Arc::clone(&self.free), count).await;
        telemetry::body_memory((units * UNIT) as i64);
        MemoryPermit { all, share, bytes: units * UNIT }
    }
}

async fn acquire(semaphore: Arc<Semaphore>, count: u32) -> OwnedSemaphorePermit {
    semaphore.acquire_many_owned(count).await.expect("the semaphores are never closed")
}

impl BodyMemory {
    /// So much memory. A call that waits for it gives up after `patience`; a body or a message of a stream that has begun to arrive must be
    /// there after `body_time`.
    pub fn new(bytes: usize, patience: Duration, body_time: Duration) -> Self {
        let received = bytes / 4;
        BodyMemory(Arc::new(Shared { received: Part::new(received), decoded: Part::new(bytes - received), patience, body_time }))
    }

    /// The account of a call of nobody yet.
    pub fn open(&self) -> Account {
        Account { budget: self.clone(), state: Arc::default() }
    }
}

/// The memory of one call. Clones share it; it is given back with the last of them, if not before.
#[derive(Clone, Debug)]
pub struct Account {
    budget: BodyMemory,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    realm: i32,
    /// The paid size of the message that is being received.
    received: Vec<MemoryPermit>,
    /// The received part of it.
    received_bytes: usize,
    /// The costs of decoded messages, the oldest first.
    decoded: VecDeque<Option<MemoryPermit>>,
    /// The kept size of the last of them.
    kept: usize,
}

impl Account {
    /// The realm of the call, to which its memory counts.
    pub fn charge_to(&self, realm: i32) {
        self.lock().realm = realm;
    }

    /// Bytes have arrived of a message that will be as large as `whole`, which is paid for before more is read.
    pub async fn receive(&self, bytes: usize, whole: usize) -> Result<()> {
        let part = &self.budget.0.received;
        let (realm, due) = {
            let mut state = self.lock();
            state.received_bytes += bytes;
            let arrived = state.received_bytes.saturating_sub(FREE_BODY_BYTES);
            let paid: usize = state.received.iter().map(|held| held.bytes).sum();
            let whole = arrived.max(whole.saturating_sub(FREE_BODY_BYTES)).min(part.share * UNIT);
            (state.realm, if arrived > paid { whole.saturating_sub(paid) } else { 0 })
        };
        if due > 0 {
            let held = self.wait(part.hold(realm, due, part.share)).await?;
            self.lock().received.push(held);
        }
        Ok(())
    }

    /// The message has arrived: pays for its decoding, unless it is the only one of its call and small. The payment for its bytes goes back
    /// with [`Account::decoded`]. Once another message of the call arrives it counts with its `kept` size; then a message never needs more
    /// than half of a share, so that those that wait to be processed together always leave room for one more.
    pub async fn decode(&self, cost: usize, kept: usize) -> Result<()> {
        let part = &self.budget.0.decoded;
        let (realm, most) = {
            let mut state = self.lock();
            let before = std::mem::replace(&mut state.kept, kept);
            match state.decoded.back_mut() {
                Some(Some(held)) => held.shrink(before),
                Some(None) => {}
                None if cost <= FREE_BODY_BYTES => {
                    state.decoded.push_back(None);
                    return Ok(());
                }
                None => {}
            }
            (state.realm, if state.decoded.is_empty() { part.share } else { (part.share / 2).max(1) })
        };
        let held = self.wait(part.hold(realm, cost, most)).await?;
        self.lock().decoded.push_back(Some(held));
        Ok(())
    }

    /// The bytes of the message that was received are not held any more.
    pub fn decoded(&self) {
        let mut state = self.lock();
        state.received.clear();
        state.received_bytes = 0;
    }

    /// The oldest messages that were decoded are done with.
    pub fn release(&self, messages: usize) {
        let mut state = self.lock();
        let count = messages.min(state.decoded.len());
        state.decoded.drain(..count);
    }

    /// Reads the next part of a message that has begun to arrive. Fails where the whole takes longer than it may; `begun` is when it began.
    pub async fn in_time<T>(&self, begun: tokio::time::Instant, next: impl Future<Output = T>) -> Result<T> {
        let late = |_| {
            BODY_TIME.reached();
            Error::new(Code::DeadlineExceeded, "The body arrives too slowly.")
        };
        tokio::time::timeout_at(begun + self.budget.0.body_time, next).await.map_err(late)
    }

    async fn wait(&self, held: impl Future<Output = MemoryPermit>) -> Result<MemoryPermit> {
        tokio::time::timeout(self.budget.0.patience, held).await.map_err(|_| {
            BODY_MEMORY.reached();
            Error::unavailable("Too much is being read and decoded at once; try again in a moment.")
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(kibibytes: usize) -> BodyMemory {
        BodyMemory::new(kibibytes << 10, Duration::from_secs(5), Duration::from_secs(30))
    }

    fn account(budget: &BodyMemory, realm: i32) -> Account {
        let account = budget.open();
        account.charge_to(realm);
        account
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_finds_no_room_waits_and_is_then_asked_to_come_back() {
        let budget = budget(800);
        let first = account(&budget, 1);
        first.decode(300 << 10, 0).await.unwrap();
        let second = account(&budget, 1);
        let error = second.decode(32 << 10, 0).await.unwrap_err();
        assert_eq!((error.code(), error.member("retry_after")), (Code::Unavailable, Some("1")));
        // Another realm has a share of its own.
        account(&budget, 2).decode(300 << 10, 0).await.unwrap();

        let waiting = tokio::spawn(async move { second.decode(200 << 10, 0).await });
        tokio::task::yield_now().await;
        first.release(1);
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn slow_bodies_keep_nobody_from_decoding_and_small_ones_pass() {
        let budget = budget(800);
        let slow: Vec<_> = (0..2).map(|realm| account(&budget, realm)).collect();
        for account in &slow {
            account.receive(FREE_BODY_BYTES + (100 << 10), 0).await.unwrap();
        }
        let other = account(&budget, 3);
        other.receive(FREE_BODY_BYTES, 0).await.unwrap();
        assert_eq!(other.receive(1, 0).await.unwrap_err().code(), Code::Unavailable);
        other.decode(300 << 10, 0).await.unwrap();
        drop(slow);
        other.receive(1, 0).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_arrive_together_do_not_wait_for_each_other() {
        // A realm may have 100 KiB, in which three bodies of 60 KiB have no room at once.
        let budget = budget(800);
        let bodies = (0..3).map(|_| {
            let account = account(&budget, 1);
            async move {
                account.receive(FREE_BODY_BYTES, FREE_BODY_BYTES + (60 << 10)).await.unwrap();
                for _ in 0..60 {
                    account.receive(1 << 10, FREE_BODY_BYTES + (60 << 10)).await.unwrap();
                    tokio::task::yield_now().await;
                }
                account.decoded();
            }
        });
        futures::future::join_all(bodies).await;
        // A body that grows beyond the share of a realm pays for that, and no more.
        let endless = account(&budget, 1);
        for _ in 0..300 {
            endless.receive(1 << 10, 0).await.unwrap();
        }
        assert_eq!(budget.0.received.free.available_permits(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_call_held_goes_back_with_it_and_its_realm_is_forgotten() {
        let budget = budget(800);
        for realm in 0..1_000 {
            let account = account(&budget, realm);
            account.receive(150 << 10, 0).await.unwrap();
            account.decode(10 << 20, 0).await.unwrap();
        }
        assert_eq!(budget.0.decoded.free.available_permits(), 600);
        assert_eq!(budget.0.received.free.available_permits(), 200);
        assert!(budget.0.decoded.realms.lock().unwrap().len() <= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn messages_that_wait_together_leave_room_for_one_more() {
        let account = account(&budget(800), 1);
        for _ in 0..4 {
            account.decode(10 << 20, 30 << 10).await.unwrap();
        }
        // 120 KiB are kept of four, and the last may be half of 300 KiB; it would not fit if it were whole.
        account.decode(10 << 20, 30 << 10).await.unwrap();
        account.release(4);
        assert_eq!(account.budget.0.decoded.free.available_permits(), 600 - 150);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_end_is_given_up() {
        let account = account(&budget(800), 1);
        let begun = tokio::time::Instant::now();
        let error = account.in_time(begun, std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
    }
}
