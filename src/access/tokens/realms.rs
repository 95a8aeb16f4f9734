//! The realms of callers with tokens, with the networks that these may come from. A realm never changes. Its list is believed for as long as a
//! key is, and read again once a second and whenever a change is announced while its callers call.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel::pg::PgConnection;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::access::addresses::AllowList;
use crate::access::cache::{BELIEVED, IN_USE};
use crate::access::queries;
use crate::access::refusal::{address_not_allowed, invalid_credentials};
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

#[derive(Clone)]
enum Known {
    There(There),
    Absent(Instant),
}

#[derive(Clone)]
struct There {
    realm: Realm,
    allowed: AllowList,
    /// The moment before its list was read.
    read: Instant,
    used: Instant,
}

impl Realms {
    /// Those of this database, a quarter of whose connections look them up.
    pub fn new(db: Db) -> Self {
        let turns = Semaphore::new((db.options().pool_size as usize / 4).max(1));
        let patience = db.options().acquire_timeout;
        Realms(Arc::new(Shared { db, known: Mutex::default(), turns, patience }))
    }

    /// The realm that a token gives to a caller from this address, if it is remembered and admits the caller.
    pub fn remembered(&self, granted: &Granted, address: Option<IpAddr>) -> Option<Realm> {
        let (realm, allowed) = self.recall_for(granted)??;
        allowed.admits(address).then_some(realm)
    }

    /// The realm that a genuine token gives to a caller from this address. It is made where there is none and its issuer makes realms, and else the
    /// token is refused, as it is where the realm does not admit the caller.
    pub async fn find(&self, granted: &Granted, address: Option<IpAddr>) -> Result<Realm> {
        let (realm, allowed) = self.find_any(granted).await?;
        if allowed.admits(address) {
            return Ok(realm);
        }
        tracing::info!(list = "realm", "the token may not be used from the caller's address");
        Err(address_not_allowed())
    }

    /// Fails unless the list of a realm has this address. For long calls: it counts as a use, so that the list is read again for as long as they last.
    pub async fn check(&self, realm: &Realm, address: Option<IpAddr>) -> Result<()> {
        let allowed = match self.recall((realm.org(), realm.mode())) {
            Some(Known::There(there)) => there.allowed,
            // There was no room to remember it, or it was not read again in time.
            _ => {
                let id = realm.id();
                let read = move |connection: &mut PgConnection| {
                    queries::realms_allowing(connection, &[id])
                };
                let found = self.0.db.run(read).await?;
                found.into_iter().next().map(|(_, allowed)| allowed).unwrap_or_default()
            }
        };
        if allowed.admits(address) { Ok(()) } else { Err(address_not_allowed()) }
    }

    /// Reads the lists of the realms in use again. If that fails, their callers look them up.
    pub async fn read_again(&self) {
        let read = Instant::now();
        let in_use: Vec<i32> = self
            .known()
            .values()
            .filter_map(|known| match known {
                Known::There(there) if read.duration_since(there.used) < IN_USE => {
                    Some(there.realm.id())
                }
                _ => None,
            })
            .collect();
        if in_use.is_empty() {
            return;
        }
        let ids = in_use.clone();
        let found =
            self.0.db.run(move |connection| queries::realms_allowing(connection, &ids)).await;
        let Ok(found) = found else { return };
        let mut lists: HashMap<i32, AllowList> = found.into_iter().collect();
        for known in self.known().values_mut() {
            if let Known::There(there) = known
                && in_use.contains(&there.realm.id())
                && there.read < read
            {
                there.allowed = lists.remove(&there.realm.id()).unwrap_or_default();
                there.read = read;
            }
        }
    }

    async fn find_any(&self, granted: &Granted) -> Result<(Realm, AllowList)> {
        if let Some(known) = self.recall_for(granted) {
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
        if let Some(known) = self.recall_for(granted) {
            return known.ok_or_else(|| refused(granted));
        }
        let read = Instant::now();
        let (org, mode, makes) = (granted.org.clone(), granted.mode, granted.issuer.makes_realms);
        let find = move |connection: &mut PgConnection| match queries::find_realm_allowing(
            connection, &org, mode,
        )? {
            None if makes => {
                Ok(Some((queries::make_realm(connection, &org, mode)?, AllowList::default())))
            }
            found => Ok(found),
        };
        let found = self.0.db.run(find).await?;
        self.keep(granted, found.clone(), read);
        found.ok_or_else(|| refused(granted))
    }

    /// What is remembered of a realm and still believed.
    fn recall(&self, (org, mode): (&str, Mode)) -> Option<Known> {
        let now = Instant::now();
        let mut known = self.known();
        let known = known.get_mut(&(org.to_owned(), mode))?;
        let (since, believed) = match known {
            Known::There(there) => {
                there.used = now;
                (there.read, BELIEVED)
            }
            Known::Absent(since) => (*since, ABSENT),
        };
        (now.duration_since(since) < believed).then(|| known.clone())
    }

    /// The same for a token: the realm with its list, or that there is none. One that the issuer makes is never absent.
    fn recall_for(&self, granted: &Granted) -> Option<Option<(Realm, AllowList)>> {
        match self.recall((&granted.org, granted.mode))? {
            Known::There(there) => Some(Some((there.realm, there.allowed))),
            Known::Absent(_) => (!granted.issuer.makes_realms).then_some(None),
        }
    }

    fn keep(&self, granted: &Granted, found: Option<(Realm, AllowList)>, read: Instant) {
        let mut known = self.known();
        let place = (granted.org.clone(), granted.mode);
        known.remove(&place);
        if known.len() >= CACHED_REALMS_AT_MOST {
            known.retain(|_, known| matches!(known, Known::There(_)));
        }
        if known.len() >= CACHED_REALMS_AT_MOST {
            return CACHED_REALMS.reached();
        }
        let found = match found {
            Some((realm, allowed)) => Known::There(There { realm, allowed, read, used: read }),
            None => Known::Absent(Instant::now()),
        };
        known.insert(place, found);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<(String, Mode), Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(granted: &Granted) -> Error {
    note_refusal(Some(&granted.issuer), &[Reason::Realm.as_str()]);
    invalid_credentials()
}
