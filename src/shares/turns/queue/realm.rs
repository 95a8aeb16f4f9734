//! The turns that one realm has and those that it waits for, by key and kind of work.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::shares::Party;

/// After this time half of what a realm had is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(2);

/// The requester of a turn: a realm, key and kind, or the service itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Requester {
    pub(super) realm: Option<i32>,
    pub(super) key: Uuid,
    pub(super) kind: Arc<str>,
    pub(super) heavy: bool,
}

impl From<Option<Party>> for Requester {
    fn from(party: Option<Party>) -> Self {
        match party {
            Some(party) => Requester {
                realm: Some(party.realm),
                key: party.key,
                kind: party.kind,
                heavy: party.heavy,
            },
            None => Requester { realm: None, key: Uuid::nil(), kind: Arc::default(), heavy: false },
        }
    }
}

#[derive(Debug)]
pub(super) struct Realm<W> {
    pub(super) in_use: usize,
    /// How many of them are for work that computes for long.
    pub(super) heavy: usize,
    pub(super) waiting: usize,
    /// Seconds of turns that it had of late.
    pub(super) used: f64,
    pub(super) used_at: Instant,
    pub(super) keys: HashMap<Uuid, usize>,
    pub(super) kinds: HashMap<Arc<str>, WorkKind>,
    pub(super) queues: Vec<Queue<W>>,
}

/// The facts about a kind of work of a realm.
#[derive(Debug)]
pub(super) struct WorkKind {
    /// The turns that it has, and since when.
    pub(super) granted: Vec<(u64, Instant)>,
    /// How many it may have.
    pub(super) width: f64,
    /// True if it took long when it was done last.
    pub(super) slow: bool,
}

/// Those that wait for the same.
#[derive(Debug)]
pub(super) struct Queue<W> {
    pub(super) requester: Requester,
    pub(super) waiters: VecDeque<(u64, W)>,
    /// When one of them was served last.
    pub(super) served: u64,
}

impl<W> Realm<W> {
    pub(super) fn new(now: Instant) -> Self {
        Realm {
            in_use: 0,
            heavy: 0,
            waiting: 0,
            used: 0.0,
            used_at: now,
            keys: HashMap::new(),
            kinds: HashMap::new(),
            queues: Vec::new(),
        }
    }

    pub(super) fn used(&self, now: Instant) -> f64 {
        let half_lives =
            now.saturating_duration_since(self.used_at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.used * 0.5_f64.powf(half_lives)
    }
}

impl WorkKind {
    /// Returns whether it takes long: it did when it was done last, or does now.
    pub(super) fn is_slow(&self, now: Instant, long: Duration) -> bool {
        self.slow
            || self.granted.iter().any(|(_, since)| now.saturating_duration_since(*since) > long)
    }
}
