//! Token buckets by key, of which a bounded number is kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::DefaultClock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::Limit;

/// The least time between two looks for buckets that are full, as those are that nobody has used for long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A bucket for each key, or for all of those together for which there is no room.
pub type Buckets<K> = RateLimiter<K, Kept<K>, DefaultClock, StateInformationMiddleware>;

/// Buckets of this quota, for at most so many keys at a time, which `limit` counts.
pub fn buckets<K: Clone + Eq + Hash>(
    quota: Quota,
    at_most: usize,
    limit: &'static Limit,
) -> Buckets<K> {
    let kept = Kept {
        at_most,
        limit,
        full_after: quota.burst_size_replenished_in(),
        by_key: Mutex::new(HashMap::new()),
        looked: Mutex::new(Instant::now()),
        others: InMemoryState::default(),
    };
    RateLimiter::new(quota, kept, DefaultClock::default())
}

/// The states of buckets.
#[derive(Debug)]
pub struct Kept<K> {
    at_most: usize,
    limit: &'static Limit,
    /// A bucket that was not used for this long is full, as one is that is not there.
    full_after: Duration,
    by_key: Mutex<HashMap<K, (InMemoryState, Instant)>>,
    /// When it was last looked for full ones.
    looked: Mutex<Instant>,
    /// That of the keys for which there is no room.
    others: InMemoryState,
}

impl<K: Eq + Hash> Kept<K> {
    /// Forgets full buckets where there is no room for one more; returns whether there is then. It is not looked at every call.
    fn has_room(&self, by_key: &mut HashMap<K, (InMemoryState, Instant)>, now: Instant) -> bool {
        if by_key.len() < self.at_most {
            return true;
        }
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(*looked) >= LOOK_EVERY {
            *looked = now;
            by_key.retain(|_, (_, used)| now.duration_since(*used) < self.full_after);
        }
        by_key.len() < self.at_most
    }
}

impl<K: Clone + Eq + Hash> StateStore for Kept<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let now = Instant::now();
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if !by_key.contains_key(key) {
            if !self.has_room(&mut by_key, now) {
                drop(by_key);
                self.limit.reached();
                return self.others.measure_and_replace(&NotKeyed::NonKey, measure);
            }
            by_key.insert(key.clone(), (InMemoryState::default(), now));
        }
        let (state, used) = by_key.get_mut(key).expect("it was inserted if it was not there");
        *used = now;
        state.measure_and_replace(&NotKeyed::NonKey, measure)
    }
}

impl<K: Clone + Eq + Hash> ShrinkableKeyedStateStore<K> for Kept<K> {
    fn retain_recent(&self, _: Nanos) {
        let now = Instant::now();
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.retain(|_, (_, used)| now.duration_since(*used) < self.full_after);
    }

    fn shrink_to_fit(&self) {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner).shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::limits::rates::CALL_RATE;

    fn of(per_second: u32, at_most: usize) -> Buckets<u32> {
        buckets(Quota::per_second(NonZeroU32::new(per_second).unwrap()), at_most, &CALL_RATE)
    }

    #[tokio::test(start_paused = true)]
    async fn each_key_has_its_own_and_those_too_many_have_one_together() {
        let buckets = of(2, 3);
        for key in 0..3 {
            assert!(buckets.check_key(&key).is_ok() && buckets.check_key(&key).is_ok());
            assert!(buckets.check_key(&key).is_err());
        }
        let others = (10..20).filter(|key| buckets.check_key(key).is_ok()).count();
        assert_eq!((others, buckets.len()), (2, 3));
        assert!(buckets.check_key(&10_000).is_err(), "nor is there room for any other");
        // Those that nobody uses give way, and those that are in use stay.
        tokio::time::advance(Duration::from_millis(900)).await;
        let _ = buckets.check_key(&0);
        tokio::time::advance(Duration::from_millis(200)).await;
        let _ = buckets.check_key(&10);
        assert_eq!(buckets.len(), 2);
        tokio::time::advance(Duration::from_secs(2)).await;
        buckets.retain_recent();
        assert!(buckets.is_empty());
    }
}
