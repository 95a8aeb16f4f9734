//! Connections that come before those of the pool: the one that listens for wake-ups, and that of the probes.
//!
//! A server, a database or a role may let in fewer sessions than the replicas would have together. Calls make do with fewer connections; probes and
//! wake-ups have one each and cannot. So the pool opens none while one of these waits for its own, and gives one of its up where the server lets no
//! more in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::db::listen::pause;
use crate::db::options::Options;
use crate::db::pool::Db;
use crate::db::session::{self, Refused, Session};
use crate::db::vitals::Vitals;

/// For how long the pool opens none after a connection was last requested: if that cannot be opened, the pool may have more success.
const GOES_FIRST: Duration = Duration::from_secs(2);
/// How soon to try again after the pool has given one up, and how often.
const AGAIN: Duration = Duration::from_millis(100);
const TIMES: usize = 8;
/// A server that takes longer than this to refuse us does not respond.
const AT_ONCE: Duration = Duration::from_secs(1);

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
    /// Returns whether the pool is to open none for its sake. Where many connections end at once, the pool finds out first: so it looks.
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

    fn add(&self) -> usize {
        let mut state = self.state();
        state.connections.push(ReservedState {
            wanted: Some(Instant::now() + GOES_FIRST),
            ..ReservedState::default()
        });
        state.connections.len() - 1
    }

    fn want(&self, number: usize, is_wanted: bool) {
        let mut state = self.state();
        state.connections[number].wanted = is_wanted.then(|| Instant::now() + GOES_FIRST);
        if state.connections.iter().all(|connection| connection.wanted.is_none()) {
            state.owed = 0;
        }
    }

    fn take(&self, number: usize, vitals: &Arc<Vitals>) {
        self.state().connections[number].vitals = Arc::downgrade(vitals);
        self.want(number, false);
    }
}

/// The reservation of one such connection, which is wanted from the start.
pub struct ReservedConnection {
    db: Db,
    number: usize,
    shut_out: Arc<ShutOut>,
}

impl ReservedConnection {
    /// A reservation before those of this pool.
    pub fn before(db: &Db) -> Self {
        ReservedConnection { db: db.clone(), number: db.reserve().add(), shut_out: Arc::default() }
    }

    /// How the database is used.
    pub(super) fn options(&self) -> &Options {
        self.db.options()
    }

    /// Whether something has shown that a pooler shares backends since this was last asked.
    pub(super) fn is_suspect(&self) -> bool {
        self.db.take_suspicion()
    }

    /// Says whether the database can be used as it is. Where it cannot, the pool opens no connection and uses none.
    pub(super) fn finds_it_fit(&self, fit: bool) {
        self.db.set_fit(fit);
    }

    /// Opens the connection. Where the server has no room, the pool gives one of its own up, and this is tried again for a while.
    pub(super) fn open(
        &self,
        options: &Options,
        stop: &CancellationToken,
    ) -> Result<Session, Refused> {
        let want = |is_wanted| self.db.reserve().want(self.number, is_wanted);
        want(true);
        for attempt in 0..TIMES {
            let asked = Instant::now();
            match session::open(options) {
                Ok(session) => {
                    self.db.reserve().take(self.number, &session.vitals);
                    return Ok(session);
                }
                Err(Refused::Unreachable(error)) => {
                    // A server that refuses does so at once.
                    let refusal =
                        if asked.elapsed() > AT_ONCE { None } else { session::refusal(options) };
                    let refusal = refusal.unwrap_or(Refused::Unreachable(error));
                    if !matches!(refusal, Refused::Crowded) {
                        want(false);
                        return Err(refusal);
                    }
                    want(true);
                    // One for each look: others may be quicker to take what is given up.
                    if attempt == 0 {
                        self.db.give_one_up();
                    }
                }
                // It has waited for long.
                Err(Refused::Queued) if attempt == 0 => {
                    want(true);
                    self.db.give_one_up();
                }
                Err(refused) => {
                    want(false);
                    return Err(refused);
                }
            }
            pause(AGAIN, stop);
            if stop.is_cancelled() {
                break;
            }
        }
        Err(Refused::Crowded)
    }

    /// Whether the pool has no connection and the server has no room for one, as far as was found out: by opening one, where nobody who comes first is
    /// at it, on a thread of its own, since a pooler may keep it waiting.
    pub(super) fn shuts_out_the_pool(&self, options: &Options) -> bool {
        if !self.db.has_no_connection() {
            self.shut_out.found.store(false, Ordering::Release);
            return false;
        }
        if !self.db.reserve().goes_first() && !self.shut_out.asking.swap(true, Ordering::AcqRel) {
            let (shut_out, options) = (self.shut_out.clone(), options.clone());
            let asked = std::thread::Builder::new().name("crowd".to_owned()).spawn(move || {
                shut_out.found.store(is_crowded(&options), Ordering::Release);
                shut_out.asking.store(false, Ordering::Release);
            });
            if asked.is_err() {
                self.shut_out.asking.store(false, Ordering::Release);
            }
        }
        self.shut_out.found.load(Ordering::Acquire) && self.db.has_no_connection()
    }
}

/// Whether there is no room for another session.
fn is_crowded(options: &Options) -> bool {
    match session::open(options) {
        Err(Refused::Queued) => true,
        Err(Refused::Unreachable(_)) => matches!(session::refusal(options), Some(Refused::Crowded)),
        _ => false,
    }
}

/// Whether the pool is shut out, and whether that is being found out.
#[derive(Debug, Default)]
struct ShutOut {
    asking: AtomicBool,
    found: AtomicBool,
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
