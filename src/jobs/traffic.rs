//! How much this process is called: work that only uses idle capacity depends on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Up to so many calls a second, and a few more at once, hardly anyone calls.
const FEW: f64 = 5.0;
const AT_ONCE: f64 = 10.0;
/// For how long hardly anyone must have called before it is quiet again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Counts calls, and says whether there were few lately. Clones share one count.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Mutex<Level>>);

impl Traffic {
    /// A call has come.
    pub fn note(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rise(Instant::now());
    }

    /// Returns whether hardly anyone calls.
    pub fn is_quiet(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_quiet(Instant::now())
    }
}

/// Rises by one with each call, just above [`AT_ONCE`] at most, and falls by [`FEW`] a second.
#[derive(Debug, Default)]
struct Level {
    height: f64,
    risen: Option<Instant>,
    /// When it was above [`AT_ONCE`] last.
    high: Option<Instant>,
}

impl Level {
    fn rise(&mut self, now: Instant) {
        let fallen = self
            .risen
            .map_or(0.0, |risen| now.saturating_duration_since(risen).as_secs_f64() * FEW);
        self.height = (self.height - fallen).clamp(0.0, AT_ONCE) + 1.0;
        self.risen = Some(now);
        if self.height > AT_ONCE {
            self.high = Some(now);
        }
    }

    fn is_quiet(&self, now: Instant) -> bool {
        self.high.is_none_or(|high| now.saturating_duration_since(high) >= PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A level after so many seconds of calls at this rate, and when they ended.
    fn after(calls_a_second: u32, seconds: u32) -> (Level, Instant) {
        let (mut level, start) = (Level::default(), Instant::now());
        let gap = Duration::from_secs(1) / calls_a_second;
        let calls = calls_a_second * seconds;
        (0..calls).for_each(|call| level.rise(start + gap * call));
        (level, start + gap * calls)
    }

    #[test]
    fn few_calls_leave_it_quiet_and_many_do_not() {
        for (rate, quiet) in [(1, true), (4, true), (20, false), (200, false), (5_000, false)] {
            let (level, now) = after(rate, 10);
            assert_eq!(level.is_quiet(now), quiet, "{rate} a second");
        }
    }

    #[test]
    fn many_calls_are_noticed_soon_and_for_a_while() {
        let (mut level, start) = (Level::default(), Instant::now());
        assert!(level.is_quiet(start));
        let busy = (0..).find(|call| {
            let now = start + Duration::from_millis(5) * *call;
            level.rise(now);
            !level.is_quiet(now)
        });
        assert!(
            busy.is_some_and(|calls| calls < 20),
            "200 calls a second are noticed within a tenth of a second, not after {busy:?} calls"
        );

        let (mut level, end) = after(200, 10);
        assert!(!level.is_quiet(end + PATIENCE / 2));
        assert!(level.is_quiet(end + PATIENCE));
        (0..20).for_each(|call| level.rise(end + PATIENCE + Duration::from_millis(500) * call));
        assert!(
            level.is_quiet(end + 6 * PATIENCE),
            "two calls a second do not prolong it, however many there were before"
        );
    }
}
