//! The realms of callers with tokens. One is looked up once: it never changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel::pg::PgConnection;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::access::queries;
use crate::access::refusal::invalid_credentials;
use crate::access::tokens::report::Reason;
use crate::access::tokens::store::{Granted, note_refusal};
use crate::db::{Db, Mode, Realm};
use crate::error::{Error, Result};
use crate::limits::listeners::KEY_LOOKUPS;
use crate::limits::tokens::{CACHED_REALMS, CACHED_REALMS_AT_MOST};

/// For how long a realm is believed not to be there.
const ABSENT: Duration = Duration::from_secs(1);

/// Finds realms, and makes those that an issuer may.
#[derive(Clone)]
pub struct Realms(Arc<Shared>);

struct Shared {
    db: Db,
    known: Mutex<HashMap<(String, Mode), Known>>,
    /// For lookups at once.
    turns: Semaphore,
    patience: Duration,
}

enum Known {
    There(Realm),
    Absent(Instant),
}

impl Realms {
    /// Those of this database, a quarter of whose connections look them up.
    pub fn new(db: Db) -> Self {
        let turns = Semaphore::new((db.options().pool_size as usize / 4).max(1));
        let patience = db.options().acquire_timeout;
        Realms(Arc::new(Shared { db, known: Mutex::default(), turns, patience }))
    }

    /// The realm that a token gives, if it is remembered.
    pub fn remembered(&self, granted: &Granted) -> Option<Realm> {
        match self.known().get(&(granted.org.clone(), granted.mode)) {
            Some(Known::There(realm)) => Some(realm.clone()),
            _ => None,
        }
    }

    /// The realm that a genuine token gives. It is made where there is none and its issuer makes realms, and else the token is refused.
    pub async fn find(&self, granted: &Granted) -> Result<Realm> {
        if let Some(known) = self.look(granted) {
            return known.ok_or_else(|| refused(granted));
        }
        let turn = timeout(self.0.patience, self.0.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            KEY_LOOKUPS.reached();
            return Err(Error::unavailable(
                "Too many callers are being authenticated at once; try again in a moment.",
            ));
        };
        // Another call may have found it meanwhile.
        if let Some(known) = self.look(granted) {
            return known.ok_or_else(|| refused(granted));
        }
        let (org, mode, makes) = (granted.org.clone(), granted.mode, granted.issuer.makes_realms);
        let find =
            move |connection: &mut PgConnection| match queries::find_realm(connection, &org, mode)?
            {
                None if makes => queries::make_realm(connection, &org, mode).map(Some),
                found => Ok(found),
            };
        let found = self.0.db.run(find).await?;
        self.keep(granted, found.clone());
        found.ok_or_else(|| refused(granted))
    }

    /// What is remembered of a realm: itself, or that there is none.
    fn look(&self, granted: &Granted) -> Option<Option<Realm>> {
        match self.known().get(&(granted.org.clone(), granted.mode))? {
            Known::There(realm) => Some(Some(realm.clone())),
            Known::Absent(since) => {
                (since.elapsed() < ABSENT && !granted.issuer.makes_realms).then_some(None)
            }
        }
    }

    fn keep(&self, granted: &Granted, found: Option<Realm>) {
        let mut known = self.known();
        if known.len() >= CACHED_REALMS_AT_MOST {
            known.retain(|_, known| matches!(known, Known::There(_)));
        }
        if known.len() >= CACHED_REALMS_AT_MOST {
            return CACHED_REALMS.reached();
        }
        let found = found.map_or(Known::Absent(Instant::now()), Known::There);
        known.insert((granted.org.clone(), granted.mode), found);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<(String, Mode), Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(granted: &Granted) -> Error {
    note_refusal(Some(&granted.issuer), &[Reason::Realm.as_str()]);
    invalid_credentials()
}
