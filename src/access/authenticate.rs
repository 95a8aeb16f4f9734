//! From a presented secret to a caller.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::pg::PgConnection;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::access::cache::KeyCache;
use crate::access::key::{Caller, Key, Presented, invalid_credentials};
use crate::access::lookups::Lookups;
use crate::access::queries;
use crate::access::secret::{Secret, SecretHash};
use crate::access::tokens::{Granted, Realms, Token, Tokens};
use crate::access::uses::Uses;
use crate::db::listen::WakeUps;
use crate::db::outage::warn_of;
use crate::db::{Db, Work, clock};
use crate::error::{Code, Error, Result};

/// How often the keys in use are read again although nobody reports a change.
const READ_EVERY: Duration = Duration::from_secs(1);
/// The least time between two such reads: changes may be reported as fast as somebody can make them.
const READ_PAUSE: Duration = Duration::from_millis(100);
/// How often the key of a long call is checked again.
pub const CHECK_KEY: Duration = Duration::from_secs(1);
/// How often the uses of keys are written.
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// How long the last write may take, at the end of the process.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// How many uses one transaction writes.
const WRITE_AT_ONCE: usize = 1_000;

/// The messages of a call that lasts.
type Messages<T> = BoxStream<'static, Result<T, Status>>;

/// Fails, in the transaction of what a caller is about to do, once the caller would not be admitted any more.
pub fn check(connection: &mut PgConnection, caller: &Caller) -> Work<()> {
    if let Some(again) = caller.by_token_again() {
        again?;
        return queries::check_realm_admits(connection, caller);
    }
    let key = queries::get_key(connection, &caller.realm, caller.key_id)?;
    key.ok_or_else(invalid_credentials)?.readmit(caller, clock::now())?;
    Ok(())
}

/// Authenticates callers by their keys, or by tokens. Cheap to clone.
///
/// A key that was read is believed for 2 seconds, so that a busy caller costs no query a call. Keys in use are read again together, once a
/// second and whenever a change is announced by `NOTIFY`, so that they are believed all along: a change takes effect as soon as it is announced,
/// and in 2 seconds if no announcement arrives. Secrets of no key are not remembered, so guesses cannot fill the memory, and their lookups have
/// few connections of the pool ([`Lookups`]). A key that is remembered is looked up beside them.
#[derive(Clone)]
pub struct Authenticator {
    db: Db,
    cache: Arc<Mutex<KeyCache>>,
    uses: Arc<Mutex<Uses>>,
    lookups: Lookups,
    realms: Realms,
    tokens: Option<Tokens>,
}

impl Authenticator {
    /// An authenticator on this database, which also takes tokens if there are issuers of them.
    pub fn new(db: Db, tokens: Option<Tokens>) -> Self {
        let lookups =
            Lookups::new(db.options().pool_size as usize / 4, db.options().acquire_timeout);
        let realms = Realms::new(db.clone());
        Authenticator { db, cache: Arc::default(), uses: Arc::default(), lookups, realms, tokens }
    }

    /// The caller with this secret or this token, from this address.
    pub async fn authenticate(&self, secret: &str, address: Option<IpAddr>) -> Result<Caller> {
        if let Some(tokens) = self.tokens.as_ref().filter(|_| is_token(secret)) {
            let granted = tokens.authenticate(secret).await?;
            note_token(&granted);
            let realm = self.realms.find(&granted, address).await?;
            let presented = Presented { secret: SecretHash::of(secret), address };
            return Ok(Caller::by_token(&granted, realm, presented, Token::new(tokens, secret)));
        }
        let secret = Secret::parse(secret).ok_or_else(invalid_credentials)?.hash();
        let key = self.key(secret).await?;
        note(&key);
        let now = clock::now();
        let caller = key
            .admit(Presented { secret, address }, now)
            .inspect_err(|refusal| log_exclusion(refusal, &key, address))?;
        self.uses.lock().unwrap_or_else(PoisonError::into_inner).note(&caller, now);
        Ok(caller)
    }

    /// The caller with this secret or token, if it is remembered: the database is not asked.
    pub fn remembered(&self, secret: &str, address: Option<IpAddr>) -> Option<Caller> {
        if let Some(tokens) = self.tokens.as_ref().filter(|_| is_token(secret)) {
            let granted = tokens.granted_before(secret)?;
            let realm = self.realms.remembered(&granted, address)?;
            let presented = Presented { secret: SecretHash::of(secret), address };
            return Some(Caller::by_token(&granted, realm, presented, Token::new(tokens, secret)));
        }
        let secret = Secret::parse(secret)?.hash();
        let key = self.cache().get(secret, Instant::now())?;
        key.admit(Presented { secret, address }, clock::now()).ok()
    }

    async fn key(&self, secret: SecretHash) -> Result<Arc<Key>> {
        let is_remembered = {
            let mut cache = self.cache();
            if let Some(key) = cache.get(secret, Instant::now()) {
                return Ok(key);
            }
            cache.has(secret)
        };
        self.lookups
            .find(secret, is_remembered, || self.look_up(secret))
            .await?
            .ok_or_else(invalid_credentials)
    }

    /// The database's entry for a secret; remembered, if it is a key.
    async fn look_up(&self, secret: SecretHash) -> Result<Option<Arc<Key>>> {
        let read = Instant::now();
        let find = move |connection: &mut PgConnection| queries::find_key(connection, secret);
        let key = self.db.run(find).await?.map(Arc::new);
        let mut cache = self.cache();
        match &key {
            Some(key) => cache.put(secret, key.clone(), read),
            None => cache.forget(secret),
        }
        Ok(key)
    }

    /// Fails once a caller that was admitted earlier would not be any more, or could do less: its key has expired, was revoked or was changed,
    /// or its secret has ended. For long calls.
    pub async fn check(&self, caller: &Caller) -> Result<()> {
        if let Some(again) = caller.by_token_again() {
            again?;
            return self.realms.check(&caller.realm, caller.presented.address).await;
        }
        let key = self.key(caller.presented.secret).await?;
        key.readmit(caller, clock::now()).map(drop)
    }

    /// Returns once a caller that was admitted earlier would not be any more, with the error for them. An unreachable database expels
    /// nobody.
    pub async fn expelled(self, caller: Caller) -> Error {
        loop {
            sleep(CHECK_KEY).await;
            if let Err(error) = self.check(&caller).await
                && matches!(
                    error.code(),
                    Code::InvalidCredentials | Code::AddressNotAllowed | Code::PermissionDenied
                )
            {
                return error;
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

    /// Reads the keys in use again, every second and whenever a change wakes it. Runs until it is dropped.
    pub async fn keep_keys(self, mut wake_ups: WakeUps) {
        loop {
            // Whether it was woken or not makes no difference.
            let _ = timeout(READ_EVERY, wake_ups.next()).await;
            self.read_again().await;
            self.realms.read_again().await;
            sleep(READ_PAUSE).await;
        }
    }

    async fn read_again(&self) {
        let read = Instant::now();
        let asked = self.cache().in_use(read);
        if asked.is_empty() {
            return;
        }
        let ids: Vec<_> = asked.iter().copied().collect();
        match self.db.run(move |connection| queries::find_keys(connection, &ids)).await {
            Ok(found) => self.cache().renew(&asked, found, read),
            // Calls report it: they look their keys up.
            Err(error) => tracing::debug!(%error, "cannot read the keys in use again"),
        }
    }

    /// Writes when keys were last used, every few seconds until `stop`, and once more then.
    pub async fn keep_uses(self, stop: CancellationToken) {
        loop {
            if timeout(WRITE_EVERY, stop.cancelled()).await.is_ok() {
                let _ = timeout(LAST_WRITE, self.write_uses()).await;
                return;
            }
            if let Err(error) = self.write_uses().await {
                warn_of!(error, "cannot write when keys were last used");
            }
        }
    }

    async fn write_uses(&self) -> Result<()> {
        let uses = || self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let due = uses().due(clock::now());
        for chunk in due.chunks(WRITE_AT_ONCE) {
            let part = chunk.to_vec();
            let write = move |connection: &mut PgConnection| queries::note_uses(connection, &part);
            let written = self.db.run(write).await?;
            uses().written(chunk, &written);
        }
        Ok(())
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, KeyCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says in the log which list excludes the caller's address, where that is why it is refused.
fn log_exclusion(refusal: &Error, key: &Key, address: Option<IpAddr>) {
    if refusal.code() == Code::AddressNotAllowed
        && let Some(list) = key.excludes(address)
    {
        tracing::info!(list, "the key may not be used from the caller's address");
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

/// The same of a caller with a token, which has no key.
fn note_token(granted: &Granted) {
    let span = tracing::Span::current();
    span.record("issuer", granted.issuer.name.as_str());
    span.record("principal_id", tracing::field::display(granted.principal_id));
    span.record("org", granted.org.as_str());
    span.record("mode", tracing::field::display(granted.mode));
}

/// Returns whether a credential is a token, genuine or not, rather than the secret of a key: those have no points.
fn is_token(credential: &str) -> bool {
    credential.contains('.')
}
