//! Logs a frequent event now and then, with how often it has happened.

use std::time::{Duration, Instant};

/// How often the log reports one and the same thing.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Lets something be reported now and then.
#[derive(Debug, Default)]
pub struct Seldom {
    reported: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// How often it has happened since it was last logged, if it is to be logged now.
    pub fn report(&mut self) -> Option<u64> {
        self.times += 1;
        if self.reported.is_some_and(|reported| reported.elapsed() < REPORT_EVERY) {
            return None;
        }
        self.reported = Some(Instant::now());
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
        seldom.reported = Instant::now().checked_sub(REPORT_EVERY);
        assert_eq!(seldom.report(), Some(3));
    }
}
