//! From a presented secret to a caller.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::access::key::{Caller, Key, Secret, invalid_credentials};
use crate::access::queries;
use crate::db::listen::WakeUps;
use crate::db::{Db, clock};
use crate::error::Result;

/// The topic that wakes when a key is revoked.
pub const KEYS_TOPIC: &str = "keys";

/// A key is looked up again after this time even if nobody tells of its end.
const REMEMBER: Duration = Duration::from_secs(5);
const REMEMBER_AT_MOST: usize = 10_000;

/// Keys by the hash of their secret, and when each was found.
type Known = HashMap<[u8; 32], (Instant, Arc<Key>)>;

/// Authenticates callers by their keys. Cheap to clone.
///
/// A key that was found is remembered for a few seconds, so that a busy caller costs no query a call; a revocation is told to every replica
/// by `NOTIFY` and forgets them all. Keys that open nothing are not remembered, so guesses cannot fill the memory.
#[derive(Clone)]
pub struct Authenticator {
    db: Db,
    known: Arc<Mutex<Known>>,
}

impl Authenticator {
    /// An authenticator on this database.
    pub fn new(db: Db) -> Self {
        Authenticator { db, known: Arc::default() }
    }

    /// The caller who presents this secret from this address.
    pub async fn authenticate(&self, secret: &str, address: Option<IpAddr>) -> Result<Caller> {
        let secret = Secret::parse(secret).ok_or_else(invalid_credentials)?;
        self.key(secret.sha256()).await?.admit(address, clock::now())
    }

    async fn key(&self, sha256: [u8; 32]) -> Result<Arc<Key>> {
        if let Some((found, key)) = self.known().get(&sha256)
            && found.elapsed() < REMEMBER
        {
            return Ok(key.clone());
        }
        let found = Instant::now();
        let key = self.db.run(move |connection| queries::find_key(connection, &sha256)).await?;
        let key = Arc::new(key.ok_or_else(invalid_credentials)?);
        let mut known = self.known();
        if known.len() >= REMEMBER_AT_MOST {
            known.retain(|_, (found, _)| found.elapsed() < REMEMBER);
        }
        if known.len() < REMEMBER_AT_MOST {
            known.insert(sha256, (found, key.clone()));
        }
        Ok(key)
    }

    /// Whether a caller who was admitted earlier still would be: fails once the key has expired or was revoked. For calls that last.
    pub async fn check(&self, caller: &Caller) -> Result<()> {
        let (realm, key_id) = (caller.realm.clone(), caller.key_id);
        let key = self.db.run(move |connection| queries::get_key(connection, &realm, key_id)).await?;
        key.ok_or_else(invalid_credentials)?.check(clock::now())
    }

    /// Forgets every key whenever one was revoked, which wakes it. Runs until it is dropped.
    pub async fn watch_revocations(&self, mut wake_ups: WakeUps) {
        loop {
            wake_ups.next().await;
            self.known().clear();
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
