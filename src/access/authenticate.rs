//! From a presented secret to a caller.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::pg::PgConnection;
use futures::stream::{self, BoxStream, StreamExt};
use tonic::Status;
use uuid::Uuid;

use crate::access::key::{Caller, Key, Secret, invalid_credentials};
use crate::access::lookups::Lookups;
use crate::access::queries;
use crate::db::listen::WakeUps;
use crate::db::{Db, Work, clock};
use crate::error::{Code, Error, Result};

/// A key is looked up again after this time even if nobody reports its end.
const REMEMBER: Duration = Duration::from_secs(5);
const REMEMBER_AT_MOST: usize = 10_000;
/// How often the key of a long call is checked again.
pub const CHECK_KEY: Duration = Duration::from_secs(3);

/// For how long a key that was found good for one call that lasts is taken to be so for others: those of one key may be many.
const GOOD: Duration = Duration::from_secs(1);

/// Keys by the hash of their secret.
#[derive(Default)]
struct KeyCache {
    keys: HashMap<[u8; 32], (Instant, Arc<Key>)>,
    /// Keys by their ids, and when they were last found good.
    good: HashMap<Uuid, Instant>,
    /// Keys found before this are looked up again.
    forgotten: Option<Instant>,
}

impl KeyCache {
    fn is_fresh(&self, found: Instant) -> bool {
        self.is_younger(found, REMEMBER)
    }

    fn is_good(&self, key: Uuid) -> bool {
        self.good.get(&key).is_some_and(|found| self.is_younger(*found, GOOD))
    }

    fn note_good(&mut self, key: Uuid, found: Instant) {
        if self.good.len() >= REMEMBER_AT_MOST {
            self.good.retain(|_, found| found.elapsed() < GOOD);
        }
        if self.good.len() < REMEMBER_AT_MOST {
            self.good.insert(key, found);
        }
    }

    fn is_younger(&self, found: Instant, time: Duration) -> bool {
        found.elapsed() < time && self.forgotten.is_none_or(|forgotten| found > forgotten)
    }
}

/// The messages of a call that lasts.
type Messages<T> = BoxStream<'static, Result<T, Status>>;

/// Fails, in the transaction of what a caller is about to do, once the caller would not be admitted any more.
pub fn check(connection: &mut PgConnection, caller: &Caller) -> Work<()> {
    let key = queries::get_key(connection, &caller.realm, caller.key_id)?;
    Ok(key.ok_or_else(invalid_credentials)?.check(clock::now())?)
}

/// Authenticates callers by their keys. Cheap to clone.
///
/// A key that was found is remembered for a few seconds, so that a busy caller costs no query a call; a revocation is announced to every
/// replica by `NOTIFY` and makes all keys be looked up again. Invalid keys are not remembered, so guesses cannot fill the memory, and their
/// lookups have few connections of the pool ([`Lookups`]). A remembered key is looked up again beside them.
#[derive(Clone)]
pub struct Authenticator {
    db: Db,
    known: Arc<Mutex<KeyCache>>,
    lookups: Lookups,
}

impl Authenticator {
    /// An authenticator on this database.
    pub fn new(db: Db) -> Self {
        let lookups =
            Lookups::new(db.options().pool_size as usize / 4, db.options().acquire_timeout);
        Authenticator { db, known: Arc::default(), lookups }
    }

    /// The caller with this secret, from this address.
    pub async fn authenticate(&self, secret: &str, address: Option<IpAddr>) -> Result<Caller> {
        let secret = Secret::parse(secret).ok_or_else(invalid_credentials)?;
        let key = self.key(secret.sha256()).await?;
        note(&key);
        key.admit(address, clock::now())
    }

    /// The caller with this secret, if its key is remembered: the database is not asked.
    pub fn remembered(&self, secret: &str, address: Option<IpAddr>) -> Option<Caller> {
        let sha256 = Secret::parse(secret)?.sha256();
        let key = {
            let known = self.known();
            let (found, key) = known.keys.get(&sha256)?;
            known.is_fresh(*found).then(|| key.clone())?
        };
        key.admit(address, clock::now()).ok()
    }

    async fn key(&self, sha256: [u8; 32]) -> Result<Arc<Key>> {
        let is_known = {
            let known = self.known();
            match known.keys.get(&sha256) {
                Some((found, key)) if known.is_fresh(*found) => return Ok(key.clone()),
                found => found.is_some(),
            }
        };
        self.lookups
            .find(sha256, is_known, || self.look_up(sha256))
            .await?
            .ok_or_else(invalid_credentials)
    }

    /// The database's entry for a secret; remembered, if it is a key.
    async fn look_up(&self, sha256: [u8; 32]) -> Result<Option<Arc<Key>>> {
        let found = Instant::now();
        let key = self
            .db
            .run(move |connection| queries::find_key(connection, &sha256))
            .await?
            .map(Arc::new);
        let mut known = self.known();
        match &key {
            Some(key) => {
                if known.keys.len() >= REMEMBER_AT_MOST {
                    known.keys.retain(|_, (found, _)| found.elapsed() < REMEMBER);
                }
                if known.keys.len() < REMEMBER_AT_MOST {
                    known.keys.insert(sha256, (found, key.clone()));
                }
            }
            None => drop(known.keys.remove(&sha256)),
        }
        Ok(key)
    }

    /// Returns whether a caller that was admitted earlier still would be: fails once the key has expired or was revoked. For long calls, of
    /// which all of one key share each result.
    pub async fn check(&self, caller: &Caller) -> Result<()> {
        let (caller, key, found) = (caller.clone(), caller.key_id, Instant::now());
        if self.known().is_good(key) {
            return Ok(());
        }
        self.db.run(move |connection| check(connection, &caller)).await?;
        self.known().note_good(key, found);
        Ok(())
    }

    /// Returns once a caller that was admitted earlier would not be any more, with the error for them. An unreachable database expels
    /// nobody.
    pub async fn expelled(self, caller: Caller) -> Error {
        loop {
            tokio::time::sleep(CHECK_KEY).await;
            match self.check(&caller).await {
                Err(error) if error.code() == Code::InvalidCredentials => return error,
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// The messages of a stream until its caller would not be admitted any more, which is then its last word.
    pub fn while_admitted<T: Send + 'static>(
        &self,
        caller: Caller,
        messages: Messages<T>,
    ) -> Messages<T> {
        let expelled = Box::pin(self.clone().expelled(caller));
        let admitted = stream::unfold(Some((messages, expelled)), |state| async {
            let (mut messages, mut expelled) = state?;
            tokio::select! {
                biased;
                error = &mut expelled => Some((Err(error.into()), None)),
                message = messages.next() => message.map(|message| (message, Some((messages, expelled)))),
            }
        });
        admitted.boxed()
    }

    /// Has every key looked up again whenever one was revoked, which wakes it. Runs until it is dropped.
    pub async fn watch_revocations(&self, mut wake_ups: WakeUps) {
        loop {
            wake_ups.next().await;
            self.known().forgotten = Some(Instant::now());
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, KeyCache> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the caller to the span of the call, also if it is refused: the lines of the log carry it.
fn note(key: &Key) {
    let span = tracing::Span::current();
    span.record("key_id", tracing::field::display(key.id));
    span.record("principal_id", tracing::field::display(key.principal_id));
    span.record("org", key.realm.org());
    span.record("mode", tracing::field::display(key.realm.mode()));
}
