//! The database's clock, by which everything is decided that has a time: when a key ends, whether a token is too old. Replicas may disagree about
//! the time; they have one database.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use crate::telemetry;

/// An answer that took longer gives the time too inexactly.
const EXACT: Duration = Duration::from_secs(1);
/// A difference between the clocks that operators should know of.
const WARN_ABOVE: TimeDelta = TimeDelta::seconds(5);
const WARN_EVERY: Duration = Duration::from_secs(60);

struct ClockReading {
    time: DateTime<Utc>,
    at: Instant,
    warned: Option<Instant>,
}

static KNOWN: RwLock<Option<ClockReading>> = RwLock::new(None);

/// The time by the database's clock: the last one read, and the time since. Before the first one is read, the time by our own clock.
pub fn now() -> DateTime<Utc> {
    match &*KNOWN.read().unwrap_or_else(PoisonError::into_inner) {
        Some(known) => known.time + known.at.elapsed(),
        None => Utc::now(),
    }
}

/// The database gave its time when it was asked at `asked`.
pub(super) fn set(time: DateTime<Utc>, asked: Instant) {
    let took = asked.elapsed();
    if took > EXACT {
        return;
    }
    // On the way for half of it.
    let at = asked + took / 2;
    let ahead = Utc::now() - (time + at.elapsed());
    telemetry::clock_ahead(ahead.as_seconds_f64());
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    let mut warned = known.as_ref().and_then(|known| known.warned);
    if ahead.abs() > WARN_ABOVE && warned.is_none_or(|warned| warned.elapsed() > WARN_EVERY) {
        tracing::warn!(
            seconds_ahead = ahead.as_seconds_f64(),
            "the clock of this machine differs from that of the database, which is the one that counts"
        );
        warned = Some(Instant::now());
    }
    *known = Some(ClockReading { time, at, warned });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_database_and_goes_on() {
        let theirs = Utc::now() - TimeDelta::days(40);
        set(theirs, Instant::now());
        let (first, second) = (now(), now());
        assert!(first >= theirs && first <= second && second - theirs < TimeDelta::days(1));
        *KNOWN.write().unwrap() = None;
    }
}
