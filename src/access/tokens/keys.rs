//! The keys of an issuer as they are known at a moment, and who waits for others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::access::tokens::fetch::Address;
use crate::access::tokens::jwks::KeySet;
use crate::limits::tokens::{
    CALLS_FOR_JWKS, CALLS_FOR_JWKS_AT_MOST, JWKS_FETCH_SECONDS, JWKS_REFETCH,
};

/// How long a call waits for a fetch: a little longer than one may take.
const PATIENCE: Duration = Duration::from_secs(JWKS_FETCH_SECONDS + 1);

/// How often keys are fetched, and for how long those are used that were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ages {
    /// From one fetch to the next.
    pub refresh: Duration,
    /// The least time from the start of a fetch to that of another one that a token asks for.
    pub refetch: Duration,
    /// The oldest that keys may be.
    pub outage: Duration,
}

/// The keys of an issuer: of a file, or of an address from which they are fetched again and again.
#[derive(Debug)]
pub struct IssuerKeys {
    /// Where they come from, if not from a file.
    pub(super) address: Option<Address>,
    ages: Ages,
    state: Mutex<State>,
    /// A token names a key that is not known.
    wanted: Notify,
    /// Changes with the end of each fetch.
    fetched: watch::Sender<()>,
    /// For calls that wait: those for one issuer take no place of those for another.
    waiting: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    keys: Arc<KeySet>,
    /// The start of the fetch that they are of; of a file's there is none.
    read: Option<Instant>,
    /// The start of the last fetch.
    tried: Option<Instant>,
    is_fetching: bool,
    has_failed: bool,
}

/// The keys of an issuer at a moment.
#[derive(Debug)]
pub enum Known {
    /// These.
    Keys(Arc<KeySet>),
    /// None were fetched so far.
    NotYet,
    /// Those that were fetched last are too old.
    TooOld,
}

/// What became of a wait for other keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Keys were fetched since, or a moment ago.
    Fetched,
    /// They cannot be fetched.
    Failed,
}

impl IssuerKeys {
    /// Those of a file.
    pub fn of_file(keys: KeySet) -> Self {
        let state = State { keys: Arc::new(keys), ..State::default() };
        IssuerKeys::new(None, Ages::default(), state)
    }

    /// Those at this address, of which none are known yet.
    pub fn at(address: Address, ages: Ages) -> Self {
        IssuerKeys::new(Some(address), ages, State::default())
    }

    fn new(address: Option<Address>, ages: Ages, state: State) -> Self {
        IssuerKeys {
            address,
            ages,
            state: Mutex::new(state),
            wanted: Notify::new(),
            fetched: watch::Sender::new(()),
            waiting: Semaphore::new(CALLS_FOR_JWKS_AT_MOST),
        }
    }

    /// Those that are known.
    pub fn known(&self) -> Known {
        let state = self.state();
        match (&self.address, state.read) {
            (None, _) => Known::Keys(state.keys.clone()),
            (Some(_), None) => Known::NotYet,
            (Some(_), Some(read)) if read.elapsed() >= self.ages.outage => Known::TooOld,
            (Some(_), Some(_)) => Known::Keys(state.keys.clone()),
        }
    }

    /// Returns whether there are keys that may be used.
    pub fn are_known(&self) -> bool {
        matches!(self.known(), Known::Keys(_))
    }

    /// How long ago the keys were fetched, if they are fetched at all and were.
    pub fn age(&self) -> Option<Duration> {
        self.state().read.map(|read| read.elapsed())
    }

    /// Waits for the fetch that is under way, or for another one, which this call starts if the last one began long enough ago. So it costs as many
    /// fetches as time allows, however many ask.
    pub async fn newer(&self) -> Waited {
        let Ok(_permit) = self.waiting.try_acquire() else {
            CALLS_FOR_JWKS.reached();
            return Waited::Failed;
        };
        let mut fetched = self.fetched.subscribe();
        let asks = {
            let state = self.state();
            let is_early = state.tried.is_some_and(|tried| tried.elapsed() < self.ages.refetch);
            match (self.address.is_some(), state.is_fetching) {
                (false, _) => return Waited::Fetched,
                (true, true) => false,
                (true, false) if is_early => {
                    JWKS_REFETCH.reached();
                    return if state.has_failed { Waited::Failed } else { Waited::Fetched };
                }
                (true, false) => true,
            }
        };
        if asks {
            self.wanted.notify_one();
        }
        let ended = timeout(PATIENCE, fetched.changed()).await;
        match ended {
            Ok(Ok(())) if !self.state().has_failed => Waited::Fetched,
            _ => Waited::Failed,
        }
    }

    /// Comes when it is time for another fetch: after this pause, or because a token asks for it and may.
    pub(super) async fn is_due(&self, pause: Duration) {
        let asked = async {
            loop {
                self.wanted.notified().await;
                if self.state().tried.is_none_or(|tried| tried.elapsed() >= self.ages.refetch) {
                    return;
                }
            }
        };
        let _ = timeout(pause, asked).await;
    }

    /// A fetch begins.
    pub(super) fn begin(&self) -> Instant {
        let now = Instant::now();
        let mut state = self.state();
        (state.tried, state.is_fetching) = (Some(now), true);
        now
    }

    /// The fetch that began then has ended, with these keys if it went well. Returns whether they are others than before.
    pub(super) fn end(&self, began: Instant, keys: Option<KeySet>) -> bool {
        let is_other = {
            let mut state = self.state();
            state.is_fetching = false;
            state.has_failed = keys.is_none();
            match keys {
                None => false,
                Some(keys) => {
                    state.read = Some(began);
                    let is_other = *state.keys != keys;
                    if is_other {
                        state.keys = Arc::new(keys);
                    }
                    is_other
                }
            }
        };
        self.fetched.send_replace(());
        is_other
    }

    pub(super) fn ages(&self) -> Ages {
        self.ages
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Arc<IssuerKeys> {
        let ages = Ages {
            refresh: Duration::from_secs(300),
            refetch: Duration::from_secs(10),
            outage: Duration::from_secs(3_600),
        };
        Arc::new(IssuerKeys::at(Address::example(), ages))
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_used_for_as_long_as_an_outage_may_last_and_no_longer() {
        let keys = keys();
        assert!(matches!(keys.known(), Known::NotYet));
        keys.end(keys.begin(), Some(KeySet::default()));
        tokio::time::advance(Duration::from_secs(3_599)).await;
        keys.end(keys.begin(), None);
        assert!(matches!(keys.known(), Known::Keys(_)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(keys.known(), Known::TooOld));
        keys.end(keys.begin(), Some(KeySet::default()));
        assert!(keys.are_known());
        let of_file = IssuerKeys::of_file(KeySet::default());
        tokio::time::advance(Duration::from_secs(86_400)).await;
        assert!(of_file.are_known() && of_file.age().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_cause_a_fetch_every_ten_seconds_at_most() {
        let keys = keys();
        let fetches = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let fetching = tokio::spawn({
            let (keys, fetches) = (keys.clone(), fetches.clone());
            async move {
                loop {
                    let began = keys.begin();
                    fetches.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    keys.end(began, Some(KeySet::default()));
                    keys.is_due(Duration::from_secs(300)).await;
                }
            }
        });
        let count = || fetches.load(std::sync::atomic::Ordering::Relaxed);
        // 300 ask within 30 seconds.
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(keys.newer().await, Waited::Fetched);
        }
        assert!((3..=4).contains(&count()), "{}", count());
        // And none asks, until it is time.
        let before = count();
        tokio::time::sleep(Duration::from_secs(290)).await;
        assert_eq!(count(), before);
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(count(), before + 1);
        fetching.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_after_a_fetch_that_failed_is_told_so_at_once_and_who_waits_for_one_that_hangs_in_a_while()
     {
        let keys = keys();
        keys.end(keys.begin(), None);
        let began = Instant::now();
        assert_eq!(keys.newer().await, Waited::Failed);
        assert_eq!(began.elapsed(), Duration::ZERO);
        let _hangs = keys.begin();
        assert_eq!(keys.newer().await, Waited::Failed);
        assert_eq!(began.elapsed(), PATIENCE);
    }
}
