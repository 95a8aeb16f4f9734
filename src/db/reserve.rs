//! Connections that come before those of the pool: the one that listens for wake-ups, and that of the probes.
//!
//! A server, a database or a role may let in fewer sessions than the replicas would have together. Calls make do with fewer connections; probes and
//! wake-ups have one each and cannot. So the pool opens none while one of these waits for its own, and gives one of its up where the server lets no
//! more in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::db::vitals::Vitals;

/// For how long the pool opens none after a connection was last requested: if that cannot be opened, the pool may have more success.
const GOES_FIRST: Duration = Duration::from_secs(2);

/// Which of these connections are wanted.
#[derive(Debug, Default)]
pub(super) struct Reserve(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    connections: Vec<ReservedState>,
    /// How many connections the pool is to close that were all in use.
    owed: usize,
}

/// The facts about one of these connections.
#[derive(Debug, Default)]
struct ReservedState {
    /// Until when the pool opens none for its sake.
    wanted: Option<Instant>,
    /// The connection, until it is known to have ended.
    vitals: Weak<Vitals>,
}

impl ReservedState {
    /// Returns whether the pool is to open none for its sake. Where many connections end at once, the pool finds out first: so it checks.
    fn goes_first(&mut self, now: Instant) -> bool {
        if self.vitals.upgrade().is_some_and(|vitals| vitals.has_ended()) {
            *self = ReservedState { wanted: Some(now + GOES_FIRST), vitals: Weak::new() };
        }
        self.wanted.is_some_and(|until| until > now)
    }
}

impl Reserve {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the pool is to open none now.
    pub(super) fn goes_first(&self) -> bool {
        let now = Instant::now();
        self.state().connections.iter_mut().any(|connection| connection.goes_first(now))
    }

    /// Returns whether a connection that comes back to the pool is to be closed instead.
    pub(super) fn take_owed(&self) -> bool {
        let mut state = self.state();
        let is_owed = state.owed > 0;
        state.owed = state.owed.saturating_sub(1);
        is_owed
    }

    /// The pool has none to close: the next one that comes back is.
    pub(super) fn owe(&self) {
        let mut state = self.state();
        state.owed = (state.owed + 1).min(state.connections.len());
    }

    pub(super) fn add(&self) -> usize {
        let mut state = self.state();
        state.connections.push(ReservedState {
            wanted: Some(Instant::now() + GOES_FIRST),
            ..ReservedState::default()
        });
        state.connections.len() - 1
    }

    pub(super) fn want(&self, number: usize, is_wanted: bool) {
        let mut state = self.state();
        state.connections[number].wanted = is_wanted.then(|| Instant::now() + GOES_FIRST);
        if state.connections.iter().all(|connection| connection.wanted.is_none()) {
            state.owed = 0;
        }
    }

    pub(super) fn take(&self, number: usize, vitals: &Arc<Vitals>) {
        self.state().connections[number].vitals = Arc::downgrade(vitals);
        self.want(number, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_opens_none_while_one_is_wanted() {
        let reserve = Reserve::default();
        assert!(!reserve.goes_first());
        let (first, second) = (reserve.add(), reserve.add());
        reserve.want(first, false);
        assert!(reserve.goes_first(), "the second has none yet");
        reserve.want(second, false);
        assert!(!reserve.goes_first());
    }

    #[test]
    fn the_pool_owes_no_more_than_is_wanted() {
        let reserve = Reserve::default();
        let number = reserve.add();
        (0..5).for_each(|_| reserve.owe());
        assert!(reserve.take_owed() && !reserve.take_owed());
        reserve.owe();
        reserve.want(number, false);
        assert!(!reserve.take_owed(), "it has one from elsewhere");
    }
}
