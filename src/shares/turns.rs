//! Turns that are waited for, in a fair order among realms.

mod queue;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Party, Rules};
pub use queue::Hindrance;
use queue::{Entry, Grant, State};

/// A number of turns, such as connections, that realms share by some [`Rules`]. Clones share the turns.
///
/// - The realm that has the fewest comes first; of two with the same number, the one that had less of late.
/// - Within a realm, so does the key that has the fewest.
/// - While processors do not keep up and others call too, a realm has no more at once than they would keep up with.
/// - While others call too, a realm has hardly more than one at once for work that computes for long.
/// - A kind of work begins with a few turns, gets more as it shows that it is quick, and falls back when one takes long. So a realm that
///   asks for much quick work uses most of the idle capacity, and one that asks for much slow work does not block others.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Mutex<State<oneshot::Sender<Turn>>>>);

/// Why there was no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many wait.
    Queue,
    /// Too many of the realm wait.
    RealmQueue,
    /// None came in time.
    TooLate,
}

impl Turns {
    /// Turns by these rules.
    pub fn new(rules: Rules) -> Self {
        Turns(Arc::new(Mutex::new(State::new(rules))))
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.state().waiting()
    }

    /// Takes a turn for a party, or for the service itself, within this time. If there is none at once, `waits` gets the reason.
    pub async fn acquire(
        &self,
        party: Option<Party>,
        patience: Duration,
        waits: impl FnOnce(Hindrance),
    ) -> Result<Turn, Refused> {
        let (sender, receiver) = oneshot::channel();
        let entry = self.state().enter(party, sender, Instant::now())?;
        let (ticket, hindrance) = match entry {
            Entry::Granted(grant) => return Ok(self.turn(grant)),
            Entry::Waits(ticket, hindrance) => (ticket, hindrance),
        };
        let _waiting = Waiting { turns: self, ticket };
        waits(hindrance);
        match timeout(patience, receiver).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Refused::TooLate),
        }
    }

    fn turn(&self, grant: Grant) -> Turn {
        Turn { turns: self.clone(), grant: Some(grant) }
    }

    fn give_back(&self, grant: Grant) {
        let mut state = self.state();
        state.release(grant, Instant::now());
        self.hand_out(&mut state);
    }

    /// Gives free turns to those that wait for them.
    fn hand_out(&self, state: &mut State<oneshot::Sender<Turn>>) {
        while let Some((sender, grant)) = state.next(Instant::now()) {
            if let Err(mut turn) = sender.send(self.turn(grant))
                && let Some(grant) = turn.grant.take()
            {
                state.undo(grant);
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State<oneshot::Sender<Turn>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry in the queue, which is also removed when its caller leaves.
struct Waiting<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.turns.state().leave(self.ticket);
    }
}

/// A turn, which ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    grant: Option<Grant>,
}

impl Turn {
    /// The work begins now. How long after it was given its turn shows how crowded the processors are.
    pub fn begin(&mut self) {
        if let Some(grant) = &mut self.grant {
            grant.begin(Instant::now());
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            self.turns.give_back(grant);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn party(realm: i32) -> Option<Party> {
        Some(Party {
            realm,
            key: Uuid::from_u128(realm as u128),
            kind: "/a.B/C".into(),
            streams: false,
            heavy: false,
        })
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_realm_at_its_share_waits_while_another_goes_by() {
        let turns = Turns::new(Rules::of_pool(2, None, None, 10));
        let first = turns.acquire(party(1), LONG, drop).await.unwrap();
        let late = turns.acquire(party(1), Duration::from_millis(5), drop).await;
        assert_eq!(late.unwrap_err(), Refused::TooLate);
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { turns.acquire(party(1), LONG, drop).await.unwrap() }
        });
        while turns.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let other = turns.acquire(party(2), LONG, drop).await.unwrap();
        assert!(!waiting.is_finished());
        drop(first);
        let second = waiting.await.unwrap();
        drop((second, other));
        assert_eq!(turns.waiting(), 0);
    }

    #[tokio::test]
    async fn one_who_goes_away_leaves_the_queue_and_takes_no_turn_along() {
        let turns = Turns::new(Rules::of_pool(1, None, None, 2));
        let first = turns.acquire(party(1), LONG, drop).await.unwrap();
        let canceled = tokio::spawn({
            let turns = turns.clone();
            async move { turns.acquire(party(1), LONG, drop).await.map(drop) }
        });
        while turns.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(turns.acquire(party(1), LONG, drop).await.unwrap_err(), Refused::RealmQueue);
        canceled.abort();
        assert!(canceled.await.unwrap_err().is_cancelled());
        assert_eq!(turns.waiting(), 0);
        drop(first);
        assert!(turns.acquire(party(2), LONG, drop).await.is_ok());
    }
}
