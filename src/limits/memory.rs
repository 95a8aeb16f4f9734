//! The memory that bodies may cost while they are read and decoded: one budget for all calls of the process.
//!
//! A caller pays for its body once more of it arrives than is free, and for what decoding will cost before it is decoded. Both wait until the budget
//! has room, for a bounded time that a message has once. A body is paid for as a whole, as large as it says or may be: if each had some of what it needs
//! and waited for the rest, all would wait for each other. So what becomes larger than was thought pays for that without waiting, or is refused; and a
//! stream that has to wait while it has messages that are not dealt with says so ([`Account::is_short`]), and these are dealt with first.
//! Received and decoded messages have a part each, so that bodies that arrive slowly keep nobody from decoding; a realm
//! may have half of each, so that none keeps out the others. The first bytes of each call are free: small calls pass whatever others have.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::bodies::{BODY_MEMORY, BODY_TIME, FREE_BODY_BYTES};
use super::part::{Part, Reservation};
use crate::error::{Code, Error, Result};
use crate::telemetry;

/// For as long a message may wait for the one before it, which is being decoded, without its call being short of memory.
const BRIEF: Duration = Duration::from_millis(250);

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

impl BodyMemory {
    /// So much memory. A call that waits for it gives up after `patience`; a body or a message of a stream that has begun to arrive must be
    /// there after `body_time`.
    pub fn new(bytes: usize, patience: Duration, body_time: Duration) -> Self {
        let (received, part) = (bytes / 4, |bytes| Part::new(bytes, telemetry::body_memory));
        BodyMemory(Arc::new(Shared {
            received: part(received),
            decoded: part(bytes - received),
            patience,
            body_time,
        }))
    }

    /// The account of a call of nobody yet.
    pub fn open(&self) -> Account {
        Account { budget: self.clone(), state: Arc::default(), short: Arc::default() }
    }
}

/// The memory of one call. Clones share it; it is given back with the last of them, if not before.
#[derive(Clone, Debug)]
pub struct Account {
    budget: BodyMemory,
    state: Arc<Mutex<State>>,
    short: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    realm: i32,
    /// The reservations for the message that is being received.
    received: Vec<Reservation>,
    /// The bytes of it that have arrived.
    received_bytes: usize,
    /// The reservations for messages that are decoded, the oldest first.
    decoded: VecDeque<Option<Reservation>>,
    /// The bytes that are kept of the last of them.
    kept: usize,
    /// The reservations for what the call keeps to decode.
    window: Vec<Reservation>,
    /// How long it was waited for the message that is being received.
    waited: Duration,
}

impl Account {
    /// The realm of the call, to which its memory counts.
    pub fn charge_to(&self, realm: i32) {
        self.lock().realm = realm;
    }

    /// Bytes have arrived of a message that will be as large as `whole`, which is paid for before more is read. One that becomes larger pays for as much
    /// again, and fails where there is no room for that: whoever has some of what it needs never waits for the rest.
    pub async fn receive(&self, bytes: usize, whole: usize) -> Result<()> {
        let part = &self.budget.0.received;
        let (realm, paid, due) = {
            let mut state = self.lock();
            state.received_bytes += bytes;
            let arrived = state.received_bytes.saturating_sub(FREE_BODY_BYTES);
            let paid: usize = state.received.iter().map(|part| part.bytes()).sum();
            let whole = arrived.max(whole.saturating_sub(FREE_BODY_BYTES)).min(part.share());
            (state.realm, paid, if arrived > paid { whole.saturating_sub(paid) } else { 0 })
        };
        if due > 0 {
            let reservation = match paid {
                0 => self.wait(part.reserve(realm, due, part.share())).await?,
                paid => {
                    let more = due.max(paid).min(part.share().saturating_sub(paid));
                    part.try_reserve(realm, more, part.share()).ok_or_else(too_much)?
                }
            };
            self.lock().received.push(reservation);
        }
        Ok(())
    }

    /// The call keeps so many bytes until its end to decode what arrives: pays for them once they are more.
    pub async fn keep(&self, bytes: usize) -> Result<()> {
        let part = &self.budget.0.decoded;
        let (realm, paid) = {
            let state = self.lock();
            (state.realm, state.window.iter().map(Reservation::bytes).sum::<usize>())
        };
        if bytes <= paid {
            return Ok(());
        }
        let more = match paid {
            0 => self.wait(part.reserve(realm, bytes, part.share() / 2)).await?,
            _ => part.try_reserve(realm, bytes - paid, part.share() / 2).ok_or_else(too_much)?,
        };
        self.lock().window.push(more);
        Ok(())
    }

    /// The message has arrived: pays for what decoding it costs, unless it is the only one of its call and costs little. What was paid for its
    /// bytes is given back with [`Account::decoded`]. Once another message of the call arrives it counts with what is `kept` of it; then a message
    /// never needs more than half of a share, so that those that wait to be dealt with together always leave room for one more.
    pub async fn decode(&self, cost: usize, kept: usize) -> Result<()> {
        let part = &self.budget.0.decoded;
        let (realm, most) = {
            let mut state = self.lock();
            let before = std::mem::replace(&mut state.kept, kept);
            match state.decoded.back_mut() {
                Some(Some(reservation)) => reservation.shrink(before),
                Some(None) => {}
                None if cost <= FREE_BODY_BYTES => {
                    state.decoded.push_back(None);
                    return Ok(());
                }
                None => {}
            }
            (
                state.realm,
                if state.decoded.is_empty() && state.window.is_empty() {
                    part.share()
                } else {
                    part.share() / 2
                },
            )
        };
        let reservation = self.wait(part.reserve(realm, cost, most)).await?;
        self.lock().decoded.push_back(Some(reservation));
        Ok(())
    }

    /// The bytes of the message that was received are released.
    pub fn decoded(&self) {
        let mut state = self.lock();
        state.received.clear();
        state.received_bytes = 0;
        state.waited = Duration::ZERO;
    }

    /// The oldest messages that were decoded are done with.
    pub fn release(&self, messages: usize) {
        let mut state = self.lock();
        let count = messages.min(state.decoded.len());
        state.decoded.drain(..count);
    }

    /// Reads the next part of a message that has begun to arrive. Fails where the whole takes longer than it may; `begun` is when it began.
    pub async fn in_time<T>(
        &self,
        begun: tokio::time::Instant,
        next: impl Future<Output = T>,
    ) -> Result<T> {
        let late = |_| {
            BODY_TIME.reached();
            Error::new(Code::DeadlineExceeded, "The body arrives too slowly.")
        };
        tokio::time::timeout_at(begun + self.budget.0.body_time, next).await.map_err(late)
    }

    /// Comes when the call has to wait for memory, which it may be keeping from itself by messages that are not done with.
    pub async fn is_short(&self) {
        self.short.notified().await;
    }

    async fn wait(&self, reservation: impl Future<Output = Reservation>) -> Result<Reservation> {
        let mut reservation = std::pin::pin!(reservation);
        if let Some(reservation) = reservation.as_mut().now_or_never() {
            return Ok(reservation);
        }
        let begun = Instant::now();
        let patience = self.budget.0.patience.saturating_sub(self.lock().waited);
        let brief = patience.min(BRIEF);
        let mut outcome = tokio::time::timeout(brief, reservation.as_mut()).await;
        if outcome.is_err() {
            self.short.notify_one();
            outcome = tokio::time::timeout(patience - brief, reservation).await;
        }
        self.lock().waited += begun.elapsed();
        outcome.map_err(|_| too_much())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_much() -> Error {
    BODY_MEMORY.reached();
    Error::unavailable("Too much is being read and decoded at once; try again in a moment.")
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

        // A call that is refused is over: it comes back as another.
        let third = account(&budget, 1);
        let waiting = tokio::spawn(async move { third.decode(200 << 10, 0).await });
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
        assert_eq!(budget.0.received.free(), 100 << 10);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_become_larger_than_they_said_do_not_wait_for_each_other() {
        // A realm may have 100 KiB: room for each as it says to be, and for two as they become.
        let budget = budget(800);
        let grow = || {
            let account = account(&budget, 1);
            async move {
                for _ in 0..60 {
                    account.receive(1 << 10, FREE_BODY_BYTES + (2 << 10)).await?;
                    tokio::task::yield_now().await;
                }
                account.decoded();
                Ok::<_, Error>(())
            }
        };
        let begun = Instant::now();
        let ended = futures::future::join_all((0..40).map(|_| grow())).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waited");
        let through = ended.iter().filter(|ended| ended.is_ok()).count();
        assert!((1..40).contains(&through), "{through}");
        grow().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_once() {
        let budget = budget(800);
        let (first, second) = (account(&budget, 1), account(&budget, 1));
        first.receive(FREE_BODY_BYTES + (100 << 10), 0).await.unwrap();
        first.decode(300 << 10, 0).await.unwrap();
        let begun = Instant::now();
        let release = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            first.decoded();
        };
        let refused = async {
            second.receive(FREE_BODY_BYTES + (50 << 10), 0).await.unwrap();
            second.decode(300 << 10, 0).await.unwrap_err()
        };
        let ((), refused) = tokio::join!(release, refused);
        assert_eq!((refused.code(), begun.elapsed().as_secs()), (Code::Unavailable, 5));
        assert!(second.is_short().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_call_held_goes_back_with_it_and_its_realm_is_forgotten() {
        let budget = budget(800);
        for realm in 0..1_000 {
            let account = account(&budget, realm);
            account.receive(150 << 10, 0).await.unwrap();
            account.decode(10 << 20, 0).await.unwrap();
        }
        assert_eq!(budget.0.decoded.free(), 600 << 10);
        assert_eq!(budget.0.received.free(), 200 << 10);
        assert!(budget.0.decoded.realms() <= 2);
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
        assert_eq!(account.budget.0.decoded.free(), (600 - 150) << 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_call_keeps_to_decode_is_paid_for_until_its_end() {
        let budget = budget(800);
        let account = account(&budget, 1);
        for bytes in [0, 50 << 10, 50 << 10, 80 << 10, 20 << 10] {
            account.keep(bytes).await.unwrap();
        }
        account.decode(10 << 10, 0).await.unwrap();
        account.release(1);
        assert_eq!(budget.0.decoded.free(), (600 - 80) << 10);
        drop(account);
        assert_eq!(budget.0.decoded.free(), 600 << 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_end_is_given_up() {
        let account = account(&budget(800), 1);
        let begun = tokio::time::Instant::now();
        let error = account.in_time(begun, std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
    }
}
