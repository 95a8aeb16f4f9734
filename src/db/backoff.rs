//! How long to wait before another try, and the wait itself on a thread of its own.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// The wait after a failure: so long after the first, twice as long after each of those `before` it, up to a bound.
pub fn backoff(first: Duration, before: u32, at_most: Duration) -> Duration {
    first.saturating_mul(1 << before.min(16)).min(at_most)
}

/// The same for what was tried so often, from one second on.
pub fn backoff_of(attempts: i32, at_most: Duration) -> Duration {
    backoff(Duration::from_secs(1), attempts.saturating_sub(1).max(0).unsigned_abs(), at_most)
}

/// Waits for this long, or until `stop`.
#[expect(clippy::disallowed_methods, reason = "on a thread of its own, not on the runtime's")]
pub(super) fn pause(duration: Duration, stop: &CancellationToken) {
    let until = Instant::now() + duration;
    while !stop.is_cancelled() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        let waits = |at_most: u64| {
            [-1, 1, 2, 5, 10, 11, i32::MAX]
                .map(|n| backoff_of(n, Duration::from_secs(at_most)).as_secs())
        };
        assert_eq!(waits(900), [1, 1, 2, 16, 512, 900, 900]);
        assert_eq!(waits(300), [1, 1, 2, 16, 300, 300, 300]);
    }
}
