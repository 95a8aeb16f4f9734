//! Logs a frequent event now and then, with how often it has happened.

use std::time::{Duration, Instant};

/// How often the log has one and the same thing.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Lets something be logged now and then.
#[derive(Debug, Default)]
pub struct Seldom {
    logged: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// How often it has happened since it was last logged, if it is to be logged now.
    pub fn report(&mut self) -> Option<u64> {
        self.times += 1;
        if self.logged.is_some_and(|logged| logged.elapsed() < LOG_EVERY) {
            return None;
        }
        self.logged = Some(Instant::now());
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_reported_once_with_how_often() {
        let mut seldom = Seldom::default();
        assert_eq!(seldom.report(), Some(1));
        assert_eq!((seldom.report(), seldom.report()), (None, None));
        seldom.logged = Instant::now().checked_sub(LOG_EVERY);
        assert_eq!(seldom.report(), Some(3));
    }
}
