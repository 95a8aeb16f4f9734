//! Trying again where the database cannot be reached.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::db::outage::{self, Opener};
use crate::db::refused::Refused;

/// Pauses between attempts to connect, the first and the longest.
pub const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));

/// How long a pooler that has had a session wait in vain is left alone, where there are other sessions to make do with: each try waits as long again.
const QUEUED_AGAIN: Duration = Duration::from_secs(15);

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
    /// Whether it had a session wait, rather than refuse it.
    queued: bool,
}

impl Reconnecting {
    /// Lets one try now, or returns how long to wait before one asks again. `has_some` says that there are connections that come back.
    pub fn try_now(&self, has_some: bool) -> Result<(), Duration> {
        let retry = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Retry { at, pause, queued }) = retry else { return Ok(()) };
        let now = Instant::now();
        if *at > now && (has_some || !*queued) {
            return Err((*at - now).min(AGAIN.1));
        }
        let next = if *queued { QUEUED_AGAIN } else { *pause };
        *retry = Some(Retry { at: now + next, pause: (*pause * 2).min(AGAIN.1), queued: *queued });
        Ok(())
    }

    /// The database can be reached.
    pub fn succeeded(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        outage::succeeded(Opener::Pool);
    }

    /// It cannot.
    pub fn failed(&self, refused: &Refused) {
        {
            let queued = matches!(refused, Refused::Queued);
            let mut retry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let retry = retry.get_or_insert_with(|| Retry {
                at: Instant::now() + AGAIN.0,
                pause: AGAIN.0 * 2,
                queued,
            });
            retry.queued = queued;
            if queued {
                retry.at = Instant::now() + QUEUED_AGAIN;
            }
        }
        outage::failed(Opener::Pool, refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_who_wait_try_no_more_often_than_one() {
        let reconnecting = Reconnecting::default();
        assert!((0..100).all(|_| reconnecting.try_now(true).is_ok()), "nothing is wrong");
        reconnecting.failed(&Refused::Denied("no"));
        assert!((0..100).all(|_| reconnecting.try_now(true).is_err()), "each waits");
        let later = |retry: &mut Retry| retry.at = Instant::now();
        for _ in 0..5 {
            reconnecting.0.lock().unwrap().as_mut().map(later);
            let tried = (0..100).filter(|_| reconnecting.try_now(true).is_ok()).count();
            assert_eq!(tried, 1);
        }
        assert!(reconnecting.try_now(true).unwrap_err() <= AGAIN.1);
        reconnecting.failed(&Refused::Queued);
        assert!(
            reconnecting.try_now(true).is_err() && reconnecting.try_now(false).is_ok(),
            "who has none waits in the queue"
        );
        reconnecting.succeeded();
        assert!((0..100).all(|_| reconnecting.try_now(true).is_ok()));
    }
}
