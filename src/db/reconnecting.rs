//! Trying again where the database cannot be reached.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::db::outage::{self, Opener};
use crate::db::session::Refused;

/// Pauses between attempts to connect, the first and the longest.
pub const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));

/// How the database is tried again that cannot be reached: once in a while, by whoever comes first, so that many who wait for it try no more often
/// than one would.
#[derive(Debug, Default)]
pub struct Reconnecting(Mutex<Option<Retry>>);

#[derive(Clone, Copy, Debug)]
struct Retry {
    /// Nobody tries before.
    at: Instant,
    /// How long after the next attempt.
    pause: Duration,
}

impl Reconnecting {
    /// Lets one try now, or reports how long to wait before one asks again.
    pub fn try_now(&self) -> Result<(), Duration> {
        let retry = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Retry { at, pause }) = retry else { return Ok(()) };
        let now = Instant::now();
        if *at > now {
            return Err(*at - now);
        }
        *retry = Some(Retry { at: now + *pause, pause: (*pause * 2).min(AGAIN.1) });
        Ok(())
    }

    /// The database can be reached.
    pub fn succeeded(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        outage::succeeded(Opener::Pool);
    }

    /// It cannot.
    pub fn failed(&self, refused: &Refused) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(|| Retry { at: Instant::now() + AGAIN.0, pause: AGAIN.0 * 2 });
        outage::failed(Opener::Pool, refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_who_wait_try_no_more_often_than_one() {
        let reconnecting = Reconnecting::default();
        assert!((0..100).all(|_| reconnecting.try_now().is_ok()), "nothing is wrong");
        reconnecting.failed(&Refused::Denied("no"));
        assert!((0..100).all(|_| reconnecting.try_now().is_err()), "each waits");
        let later = |retry: &mut Retry| retry.at = Instant::now();
        for _ in 0..5 {
            reconnecting.0.lock().unwrap().as_mut().map(later);
            let tried = (0..100).filter(|_| reconnecting.try_now().is_ok()).count();
            assert_eq!(tried, 1);
        }
        assert!(reconnecting.try_now().unwrap_err() <= AGAIN.1);
        reconnecting.succeeded();
        assert!((0..100).all(|_| reconnecting.try_now().is_ok()));
    }
}
