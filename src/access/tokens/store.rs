//! The tokens that are taken at a moment: the issuers as the file has them, and what is remembered of tokens that were checked.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::access::ApiVersion;
use crate::access::refusal::invalid_credentials;
use crate::access::scope::Scope;
use crate::access::secret::SecretHash;
use crate::access::tokens::check::check;
use crate::access::tokens::file::{self, Seen};
use crate::access::tokens::issuer::Issuer;
use crate::access::tokens::keys::{Ages, Waited};
use crate::access::tokens::report::{Reason, Report};
use crate::db::{Mode, clock};
use crate::error::{Error, Result};
use crate::limits::tokens::{CACHED_TOKENS, CACHED_TOKENS_AT_MOST};
use crate::telemetry;

/// Where the issuers are, and the limits of their tokens.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file.
    pub file: PathBuf,
    /// The most bytes of a token.
    pub token_bytes: usize,
    /// How often the keys of issuers are fetched.
    pub refresh: Duration,
    /// The least time between two fetches because of a token.
    pub refetch: Duration,
    /// For how long they are used that were fetched last.
    pub outage: Duration,
}

impl Options {
    pub(super) fn ages(&self) -> Ages {
        Ages { refresh: self.refresh, refetch: self.refetch, outage: self.outage }
    }

    /// Fails with all that is wrong with the file and those that it names.
    pub fn check(&self) -> Result<()> {
        file::load(&self.file, self.ages(), &[]).1.map(drop).map_err(Error::validation)
    }
}

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Shared>);

struct Shared {
    options: Options,
    issuers: RwLock<Arc<Vec<Arc<Issuer>>>>,
    /// Steps whenever an issuer or its keys change: what was checked before that is checked again.
    generation: AtomicU64,
    checked: Mutex<Remembered>,
}

/// Tokens that were checked, by their hashes.
#[derive(Default)]
struct Remembered {
    tokens: HashMap<SecretHash, Checked>,
    /// When those that are worth nothing any more were forgotten.
    swept: Option<Instant>,
}

/// The least time between two such sweeps, which go through all of them.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

struct Checked {
    generation: u64,
    granted: Arc<Granted>,
}

/// What a genuine token gives its caller.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The issuer.
    pub issuer: Arc<Issuer>,
    /// The organisation.
    pub org: String,
    /// Its mode.
    pub mode: Mode,
    /// The principal.
    pub principal_id: Uuid,
    /// By what its calls are counted.
    pub party_id: Uuid,
    /// The scopes.
    pub scopes: Vec<Scope>,
    /// The version of the API.
    pub api_version: ApiVersion,
    /// From when it is valid, and until when, with the leeway of the issuer.
    valid: (Option<DateTime<Utc>>, DateTime<Utc>),
}

impl Granted {
    /// What a report says whose token has no fault.
    fn of(report: Report, issuer: Arc<Issuer>) -> Option<Granted> {
        let (org, mode, subject) = (report.org?, report.mode?, report.subject?);
        Some(Granted {
            principal_id: report.principal_id?,
            party_id: issuer.party_id(&subject, &org, mode),
            org,
            mode,
            scopes: report.scopes,
            api_version: issuer.api_version,
            valid: (
                report.not_before.map(|begin| begin - issuer.leeway),
                report.expires_at? + issuer.leeway,
            ),
            issuer,
        })
    }

    fn holds(&self, now: DateTime<Utc>) -> bool {
        let (begins, ends) = self.valid;
        begins.is_none_or(|begins| begins <= now) && now < ends && self.issuer.keys.are_known()
    }
}

/// A token that is not taken, and the issuer that it names, if there is one.
type Refused = Box<(Report, Option<Arc<Issuer>>)>;

impl Tokens {
    /// By the issuers in a file. Fails with all that is wrong with it.
    pub fn load(options: Options) -> Result<(Tokens, Seen)> {
        let (seen, issuers) = file::load(&options.file, options.ages(), &[]);
        let issuers = issuers.map_err(Error::validation)?;
        let shared = Shared {
            options,
            issuers: RwLock::new(Arc::new(issuers)),
            generation: AtomicU64::new(0),
            checked: Mutex::default(),
        };
        Ok((Tokens(Arc::new(shared)), seen))
    }

    pub(super) fn options(&self) -> &Options {
        &self.0.options
    }

    /// The issuers as they are now.
    pub(super) fn issuers(&self) -> Arc<Vec<Arc<Issuer>>> {
        self.0.issuers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has other issuers from now on.
    pub(super) fn replace(&self, issuers: Vec<Arc<Issuer>>) {
        *self.0.issuers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(issuers);
        self.has_changed();
    }

    /// An issuer or its keys are others than before.
    pub(super) fn has_changed(&self) {
        self.0.generation.fetch_add(1, Ordering::Release);
    }

    /// What a token gives now, if it is genuine. Where its issuer's keys are not known, or not the one that it names, and nothing else is wrong with
    /// it, other keys are waited for: as long as a fetch may take, and by few calls at once.
    pub(in crate::access) async fn authenticate(&self, token: &str) -> Result<Arc<Granted>> {
        let refused = match self.granted(token) {
            Ok(granted) => return Ok(granted),
            Err(refused) => refused,
        };
        let lacks_keys = refused.0.is_only(&[Reason::UnknownKey, Reason::NoKeys]);
        let Some(issuer) = refused.1.as_ref().filter(|_| lacks_keys) else {
            return Err(refusal(&refused, Waited::Fetched));
        };
        let waited = issuer.keys.newer().await;
        self.granted(token).map_err(|refused| refusal(&refused, waited))
    }

    /// What a token gives now by what is known.
    pub(in crate::access) fn granted(&self, token: &str) -> Result<Arc<Granted>, Refused> {
        let now = clock::now();
        // Before what it guards is read: a result of older issuers or keys is never taken for one of newer.
        let generation = self.0.generation.load(Ordering::Acquire);
        let hash = (token.len() <= self.0.options.token_bytes).then(|| SecretHash::of(token));
        if let Some(checked) = hash.and_then(|hash| self.remembered(hash, generation))
            && checked.holds(now)
        {
            return Ok(checked);
        }
        let (report, issuer) = check(token, &self.issuers(), self.0.options.token_bytes, now);
        if !report.faults.is_empty() {
            return Err(Box::new((report, issuer)));
        }
        let granted = issuer.clone().and_then(|issuer| Granted::of(report, issuer));
        let Some(granted) = granted.map(Arc::new) else {
            return Err(Box::new((Report::default(), issuer)));
        };
        if let Some(hash) = hash {
            self.remember(hash, Checked { generation, granted: granted.clone() }, now);
        }
        Ok(granted)
    }

    /// What a token gives now, if it was checked before and is remembered.
    pub(in crate::access) fn granted_before(&self, token: &str) -> Option<Arc<Granted>> {
        let generation = self.0.generation.load(Ordering::Acquire);
        let hash = (token.len() <= self.0.options.token_bytes).then(|| SecretHash::of(token))?;
        self.remembered(hash, generation).filter(|granted| granted.holds(clock::now()))
    }

    fn remembered(&self, hash: SecretHash, generation: u64) -> Option<Arc<Granted>> {
        let remembered = self.checked();
        let found =
            remembered.tokens.get(&hash).filter(|checked| checked.generation == generation)?;
        Some(found.granted.clone())
    }

    fn remember(&self, hash: SecretHash, token: Checked, now: DateTime<Utc>) {
        let mut remembered = self.checked();
        let Remembered { tokens, swept } = &mut *remembered;
        let is_full = tokens.len() >= CACHED_TOKENS_AT_MOST && !tokens.contains_key(&hash);
        if is_full && swept.is_none_or(|swept| swept.elapsed() >= SWEEP_PAUSE) {
            *swept = Some(Instant::now());
            tokens.retain(|_, other| {
                other.generation == token.generation && other.granted.holds(now)
            });
        }
        if tokens.len() < CACHED_TOKENS_AT_MOST || tokens.contains_key(&hash) {
            tokens.insert(hash, token);
        } else {
            CACHED_TOKENS.reached();
        }
    }

    fn checked(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.0.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn remembers(&self) -> usize {
        self.checked().tokens.len()
    }
}

/// The response to a token that is not taken. Why is in the log alone.
fn refusal(refused: &Refused, waited: Waited) -> Error {
    let (report, issuer) = &**refused;
    let reasons: Vec<&str> = report.faults.iter().map(|fault| fault.reason.as_str()).collect();
    note_refusal(issuer.as_ref(), &reasons);
    let lacks_keys = report.is_only(&[Reason::NoKeys])
        || waited == Waited::Failed && report.is_only(&[Reason::UnknownKey]);
    if lacks_keys { out_of_reach() } else { invalid_credentials() }
}

fn out_of_reach() -> Error {
    Error::unavailable("The keys of the token's issuer cannot be fetched; try again in a moment.")
}

/// Adds why a token is refused to the span of the call and to the metrics. Nothing of the token itself is among it.
pub(super) fn note_refusal(issuer: Option<&Arc<Issuer>>, reasons: &[&'static str]) {
    let span = tracing::Span::current();
    if let Some(issuer) = issuer {
        span.record("issuer", issuer.name.as_str());
    }
    let mut named: Vec<&str> = reasons.to_vec();
    named.dedup();
    span.record("token_faults", named.join(","));
    named.into_iter().for_each(telemetry::token_refused);
}

/// A token that a caller was admitted by, for those of its calls that last.
#[derive(Clone)]
pub struct Token {
    tokens: Tokens,
    text: Arc<str>,
}

impl Token {
    /// This token.
    pub fn new(tokens: &Tokens, text: &str) -> Self {
        Token { tokens: tokens.clone(), text: text.into() }
    }

    /// What it gives now.
    pub fn granted(&self) -> Result<Arc<Granted>> {
        self.tokens.granted(&self.text).map_err(|refused| refusal(&refused, Waited::Fetched))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
