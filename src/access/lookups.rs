//! How keys are looked up that may be none.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

use crate::access::key::Key;
use crate::access::secret::SecretHash;
use crate::error::{Code, Error, Result};
use crate::limits::listeners::{
    CALLS_BEFORE_AUTHENTICATION, CALLS_BEFORE_AUTHENTICATION_AT_MOST, KEY_LOOKUPS,
    KEY_LOOKUPS_AT_MOST,
};

/// The result of a lookup: nothing, if there is no such key, and the failure, if the database is unreachable for all that wait.
type Found = Arc<OnceCell<Result<Option<Arc<Key>>, String>>>;

/// Looks keys up: each once for all calls that wait for it, and few at a time that were not in the cache before, in the order of the calls.
/// Callers who invent keys use a part of the connections and of the patience of others who invent keys, or come for the first time.
#[derive(Clone)]
pub struct Lookups(Arc<Shared>);

struct Shared {
    /// Those that run or wait.
    open: Mutex<HashMap<SecretHash, Found>>,
    at_once: Semaphore,
    calls: Arc<Semaphore>,
    patience: Duration,
}

impl Lookups {
    /// So many at once of keys that are not known, one at least; each waits for its turn so long at most.
    pub fn new(at_once: usize, patience: Duration) -> Self {
        Lookups(Arc::new(Shared {
            open: Mutex::default(),
            at_once: Semaphore::new(at_once.max(1)),
            calls: Arc::new(Semaphore::new(CALLS_BEFORE_AUTHENTICATION_AT_MOST)),
            patience,
        }))
    }

    /// The key of this hash by `look_up`, or by another call's lookup that is under way. While the database is unreachable one lookup fails
    /// for all that wait for it: one after the other they would wait ever longer.
    pub async fn find<F>(
        &self,
        hash: SecretHash,
        is_known: bool,
        look_up: impl FnOnce() -> F,
    ) -> Result<Option<Arc<Key>>>
    where
        F: Future<Output = Result<Option<Arc<Key>>>>,
    {
        if is_known {
            let open = self.join(hash, usize::MAX)?;
            return open.await_found(look_up).await;
        }
        let Ok(_permit) = self.0.calls.try_acquire() else {
            CALLS_BEFORE_AUTHENTICATION.reached();
            return Err(busy());
        };
        let open = self.join(hash, KEY_LOOKUPS_AT_MOST)?;
        let in_turn = async || {
            let turn = timeout(self.0.patience, self.0.at_once.acquire()).await;
            let Ok(Ok(_turn)) = turn else {
                KEY_LOOKUPS.reached();
                return Err(busy());
            };
            look_up().await
        };
        open.await_found(in_turn).await
    }

    /// The lookup of a hash, which may be another call's; there may be so many.
    fn join(&self, hash: SecretHash, at_most: usize) -> Result<Open<'_>> {
        let mut open = self.open();
        let there = open.len();
        let found = match open.entry(hash) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.get().clone(),
            std::collections::hash_map::Entry::Vacant(_) if there >= at_most => {
                KEY_LOOKUPS.reached();
                return Err(busy());
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Found::default()).clone()
            }
        };
        Ok(Open { lookups: self, hash, found })
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<SecretHash, Found>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn busy() -> Error {
    Error::unavailable("Too many callers are being authenticated at once; try again in a moment.")
}

/// A call that waits for a lookup. The last one removes the lookup.
struct Open<'a> {
    lookups: &'a Lookups,
    hash: SecretHash,
    found: Found,
}

impl Open<'_> {
    async fn await_found<F>(&self, look_up: impl FnOnce() -> F) -> Result<Option<Arc<Key>>>
    where
        F: Future<Output = Result<Option<Arc<Key>>>>,
    {
        // The call that looked it up has the cause as well, for the log.
        let mut own = None;
        let look_up = async || match look_up().await {
            Err(error) if error.code() == Code::Unavailable => {
                let message = error.message().to_owned();
                own = Some(error);
                Ok(Err(message))
            }
            found => found.map(Ok),
        };
        let found = self.found.get_or_try_init(look_up).await?.clone();
        found.map_err(|message| own.unwrap_or_else(|| Error::unavailable(message)))
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let mut open = self.lookups.open();
        // The call's own, and that of the map. Nobody joins while the map is locked. The result is not for later calls.
        let is_last = Arc::strong_count(&self.found) == 2;
        if (is_last || self.found.initialized())
            && open.get(&self.hash).is_some_and(|there| Arc::ptr_eq(there, &self.found))
        {
            open.remove(&self.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    fn hash(n: usize) -> SecretHash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_le_bytes());
        SecretHash::of_bytes(&hash).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_lookup_serves_all_who_wait_for_it() {
        let (lookups, asked) = (Lookups::new(2, Duration::from_secs(5)), AtomicUsize::new(0));
        let look_up = async || {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(None)
        };
        let calls = (0..500).map(|call| lookups.find(hash(0), call % 2 == 0, look_up));
        assert!(join_all(calls).await.iter().all(|found| matches!(found, Ok(None))));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(lookups.open().is_empty());
        lookups.find(hash(0), false, look_up).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2, "what is not there is looked for again");
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_do_not_delay_known_ones() {
        let lookups = Lookups::new(2, Duration::from_secs(5));
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let hangs = async || {
            most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(60)).await;
            running.fetch_sub(1, Ordering::Relaxed);
            Ok(None)
        };
        let guesses = join_all(
            (0..KEY_LOOKUPS_AT_MOST + 10).map(|guess| lookups.find(hash(guess), false, hangs)),
        );
        let known = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::time::timeout(
                Duration::from_secs(1),
                lookups.find(hash(usize::MAX), true, async || Ok(None)),
            )
            .await
        };
        let (guesses, known) = tokio::join!(guesses, known);
        assert!(known.is_ok(), "a known key waits for nobody");
        assert_eq!(most.into_inner(), 2);
        let refused = guesses
            .iter()
            .filter(|found| found.as_ref().is_err_and(|error| error.code() == Code::Unavailable))
            .count();
        assert_eq!(
            refused,
            guesses.len() - 2,
            "who waits too long, or finds too many waiting, is refused with that"
        );
        assert!(lookups.open().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_database_fails_all_waiting_calls_and_is_tried_again_by_later_ones() {
        let (lookups, asked) = (Lookups::new(1, Duration::from_secs(60)), AtomicUsize::new(0));
        let look_up = async || {
            tokio::time::sleep(Duration::from_secs(5)).await;
            match asked.fetch_add(1, Ordering::Relaxed) {
                0 => Err(Error::unavailable("The database is unreachable.")),
                _ => Ok(None),
            }
        };
        let begun = tokio::time::Instant::now();
        let calls =
            join_all((0..6).map(|call| lookups.find(hash(0), call % 2 == 0, look_up))).await;
        assert!(calls.iter().all(|found| {
            found.as_ref().is_err_and(|error| error.message() == "The database is unreachable.")
        }));
        assert_eq!((begun.elapsed().as_secs(), asked.load(Ordering::Relaxed)), (5, 1));
        assert!(lookups.find(hash(0), false, look_up).await.is_ok());
    }

    #[tokio::test]
    async fn a_lookup_that_fails_for_its_caller_alone_is_tried_by_the_next() {
        let (lookups, asked) = (Lookups::new(1, Duration::from_secs(5)), AtomicUsize::new(0));
        let look_up = async || match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Err(Error::new(Code::DeadlineExceeded, "The caller was in a hurry.")),
            _ => Ok(None),
        };
        let (first, second) = tokio::join!(
            lookups.find(hash(0), false, look_up),
            lookups.find(hash(0), false, look_up)
        );
        assert!(first.is_err() && second.is_ok());
    }
}
