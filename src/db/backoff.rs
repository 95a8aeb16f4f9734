//! The wait before another try.

use std::time::Duration;

/// The wait after a failure: so long after the first, twice as long after each of those `before` it, up to a bound.
pub fn backoff(first: Duration, before: u32, at_most: Duration) -> Duration {
    first.saturating_mul(1 << before.min(16)).min(at_most)
}

/// The same for what was tried so often, from one second on.
pub fn backoff_of(attempts: i32, at_most: Duration) -> Duration {
    backoff(Duration::from_secs(1), attempts.saturating_sub(1).max(0).unsigned_abs(), at_most)
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
