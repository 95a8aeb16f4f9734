//! One outage of the database is logged as one: the log has a line at its beginning, one a minute while it lasts, and one at its end.
//! Failures that it causes meanwhile are logged at debug.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Code, Error};

/// The least time between two lines about an outage.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// A failure of who has not failed again for so long says nothing of now, where readiness finds nothing wrong: who opens a connection when it needs one
/// does not say that it could.
const STALE: Duration = Duration::from_secs(2);

/// Who finds out that the database cannot be used, each by itself: as long as one of them does, the outage lasts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opener {
    /// The pool, where it opens a connection.
    Pool,
    /// The judgement of readiness. As it turns, the log says so, and where it turns back the outage is over.
    Probe,
    /// The listener for wake-ups.
    Listener,
}

/// The outage of the one database that a process has.
static OUTAGE: Mutex<Outage> = Mutex::new(Outage::NONE);

#[derive(Debug)]
struct Outage {
    /// When each failed last, by [`Opener`], if that is not over.
    failing: [Option<Instant>; 3],
    since: Option<Instant>,
    /// When one was last logged.
    logged: Option<Instant>,
    /// True if this one was logged.
    is_logged: bool,
    failures: u64,
}

impl Outage {
    const NONE: Outage =
        Outage { failing: [None; 3], since: None, logged: None, is_logged: false, failures: 0 };

    /// One fails. Returns how often that has happened in this outage, if it is to be logged now.
    fn failed(&mut self, opener: Opener, now: Instant) -> Option<u64> {
        let turns = matches!(opener, Opener::Probe) && self.failing[opener as usize].is_none();
        self.failing[opener as usize] = Some(now);
        self.failures += 1;
        let is_new = turns && !self.is_logged;
        if is_new {
            self.since = Some(now);
        }
        self.since.get_or_insert(now);
        if !is_new && self.logged.is_some_and(|logged| now.duration_since(logged) < LOG_EVERY) {
            return None;
        }
        (self.logged, self.is_logged) = (Some(now), true);
        Some(self.failures)
    }

    /// One does not fail. Returns for how long the outage lasted, and how often one failed, if it is over and was logged.
    fn succeeded(&mut self, opener: Opener, now: Instant) -> Option<(Duration, u64)> {
        let turns = matches!(opener, Opener::Probe) && self.failing[opener as usize].is_some();
        self.failing[opener as usize] = None;
        if matches!(opener, Opener::Probe) {
            self.failing = self.failing.map(|failed| {
                failed.filter(|failed| !turns && now.duration_since(*failed) < STALE)
            });
        }
        if self.failing.iter().any(Option::is_some) {
            return None;
        }
        let (lasted, failures) =
            (now.duration_since(self.since.take()?), std::mem::take(&mut self.failures));
        std::mem::take(&mut self.is_logged).then_some((lasted, failures))
    }
}

fn outage() -> MutexGuard<'static, Outage> {
    OUTAGE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One could not open a connection, or use it.
pub(super) fn failed(opener: Opener, cause: impl Display) {
    if let Some(failures) = outage().failed(opener, Instant::now()) {
        tracing::warn!(%cause, failures, "the database is not ready");
    }
}

/// One could.
pub(super) fn succeeded(opener: Opener) {
    if let Some((lasted, failures)) = outage().succeeded(opener, Instant::now()) {
        tracing::warn!(seconds = lasted.as_secs_f64(), failures, "the database is ready again");
    }
}

/// Returns whether there is an outage.
pub(super) fn lasts() -> bool {
    outage().since.is_some()
}

/// Returns whether a failure is that of an outage, which is logged by itself.
pub fn covers(error: &Error) -> bool {
    error.code() == Code::Unavailable && lasts()
}

/// Warns of a failure of what is done in the background, unless it is that of an outage.
macro_rules! warn_of {
    ($error:expr, $($logged:tt)+) => {{
        let error = &$error;
        if $crate::db::outage::covers(error) {
            tracing::debug!(%error, cause = error.cause_chain(), $($logged)+);
        } else {
            tracing::warn!(%error, cause = error.cause_chain(), $($logged)+);
        }
    }};
}
pub(crate) use warn_of;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_reported_at_its_beginning_once_a_minute_and_at_its_end() {
        let mut outage = Outage::NONE;
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut logged = Vec::new();
        for second in 0..150 {
            for opener in [Opener::Pool, Opener::Probe, Opener::Listener] {
                logged.extend(outage.failed(opener, at(second)).map(|_| second));
            }
        }
        assert_eq!(logged, [0, 60, 120]);
        assert_eq!(outage.succeeded(Opener::Pool, at(150)), None, "the others fail");
        assert_eq!(outage.succeeded(Opener::Listener, at(151)), None);
        assert_eq!(outage.succeeded(Opener::Probe, at(152)), Some((Duration::from_secs(152), 450)));
        assert_eq!(outage.succeeded(Opener::Probe, at(153)), None);
    }

    #[test]
    fn outages_that_follow_one_another_are_reported_once_a_minute_too() {
        let mut outage = Outage::NONE;
        let began = Instant::now();
        let mut logged = 0;
        for second in 0..120 {
            logged +=
                outage.failed(Opener::Pool, began + Duration::from_secs(second)).map_or(0, |_| 1);
            logged += outage
                .succeeded(Opener::Pool, began + Duration::from_secs(second))
                .map_or(0, |_| 1);
        }
        assert_eq!(logged, 4, "the beginning and the end of two of them");
    }

    #[test]
    fn readiness_that_turns_is_reported_whenever_it_does_and_its_length_from_there() {
        let mut outage = Outage::NONE;
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(outage.failed(Opener::Pool, at(0)).is_some());
        assert!(outage.succeeded(Opener::Pool, at(1)).is_some());
        assert_eq!(outage.failed(Opener::Pool, at(5)), None, "it was logged a moment ago");
        assert_eq!(outage.failed(Opener::Probe, at(10)), Some(2));
        assert_eq!(outage.failed(Opener::Probe, at(11)), None);
        assert_eq!(
            outage.succeeded(Opener::Probe, at(27)),
            Some((Duration::from_secs(17), 3)),
            "though the pool has opened none since"
        );
        assert!(outage.since.is_none());
    }

    #[test]
    fn a_failure_that_nobody_has_met_again_is_over_where_readiness_finds_nothing_wrong() {
        let mut outage = Outage::NONE;
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(outage.failed(Opener::Pool, at(0)).is_some());
        assert_eq!(outage.succeeded(Opener::Probe, at(1)), None);
        assert_eq!(outage.succeeded(Opener::Probe, at(3)), Some((Duration::from_secs(3), 1)));
    }
}
