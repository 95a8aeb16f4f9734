//! What happens again and again is in the log now and then, with how often it has happened.

use std::time::{Duration, Instant};

/// How often the log tells of one and the same thing.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Lets something be told now and then.
#[derive(Debug, Default)]
pub struct Seldom {
    told: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// How often it has happened since it was told last, if it is to be told now.
    pub fn tell(&mut self) -> Option<u64> {
        self.times += 1;
        if self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return None;
        }
        self.told = Some(Instant::now());
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_told_once_with_how_often() {
        let mut seldom = Seldom::default();
        assert_eq!(seldom.tell(), Some(1));
        assert_eq!((seldom.tell(), seldom.tell()), (None, None));
        seldom.told = Instant::now().checked_sub(TELL_EVERY);
        assert_eq!(seldom.tell(), Some(3));
    }
}
