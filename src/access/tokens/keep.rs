//! Keeps the issuers and their keys as they are now: the file is read again when it changes, and keys are fetched again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tokio::time::sleep;

use crate::access::tokens::file::{self, Seen};
use crate::access::tokens::issuer::Issuer;
use crate::access::tokens::keys::IssuerKeys;
use crate::access::tokens::store::Tokens;
use crate::telemetry;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pauses after fetches that failed: the first, which doubles, up to the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Tokens {
    /// Keeps all of it, until it is dropped. `seen` is what was read of the files so far.
    pub async fn keep(self, mut seen: Seen) {
        let mut fetching = Fetching::default();
        fetching.adjust(&self);
        loop {
            sleep(LOOK_EVERY).await;
            for issuer in self.issuers().iter() {
                if let Some(age) = issuer.keys.age() {
                    telemetry::jwks_age(&issuer.name, age);
                }
            }
            let (path, ages, issuers) =
                (self.options().file.clone(), self.options().ages(), self.issuers());
            let before = seen.clone();
            let look =
                move || (!seen.is_current()).then(|| file::load(&path, ages, &issuers)).ok_or(seen);
            seen = match spawn_blocking(look).await {
                Ok(Ok((seen, Ok(issuers)))) => {
                    tracing::info!(issuers = issuers.len(), "the issuers of tokens are read again");
                    telemetry::auth_file_read(true);
                    self.replace(issuers);
                    fetching.adjust(&self);
                    seen
                }
                Ok(Ok((seen, Err(faults)))) => {
                    let told: Vec<_> =
                        faults.as_slice().iter().map(|fault| fault.description.as_str()).collect();
                    tracing::warn!(
                        faults = told.join("; "),
                        "the file of issuers has faults, so what it had before stays"
                    );
                    telemetry::auth_file_read(false);
                    seen
                }
                Ok(Err(unchanged)) => unchanged,
                Err(error) => {
                    tracing::error!(%error, "the file of issuers cannot be looked at");
                    before
                }
            };
        }
    }
}

/// The fetches of the keys of all issuers that have them at an address.
#[derive(Default)]
struct Fetching {
    tasks: JoinSet<()>,
    of: Vec<(Arc<IssuerKeys>, AbortHandle)>,
}

impl Fetching {
    /// Begins what is new, and ends what is not there any more.
    fn adjust(&mut self, tokens: &Tokens) {
        let issuers = tokens.issuers();
        self.of.retain(|(keys, task)| {
            let is_there = issuers.iter().any(|issuer| Arc::ptr_eq(&issuer.keys, keys));
            if !is_there {
                task.abort();
            }
            is_there
        });
        while self.tasks.try_join_next().is_some() {}
        for issuer in issuers.iter() {
            let is_new = !self.of.iter().any(|(keys, _)| Arc::ptr_eq(&issuer.keys, keys));
            if is_new && issuer.keys.address.is_some() {
                let task = self.tasks.spawn(fetch(tokens.clone(), issuer.clone()));
                self.of.push((issuer.keys.clone(), task));
            }
        }
    }
}

/// Fetches the keys of an issuer again and again.
async fn fetch(tokens: Tokens, issuer: Arc<Issuer>) {
    let (keys, name) = (&issuer.keys, issuer.name.as_str());
    let Some(address) = &keys.address else { return };
    let mut failures = 0;
    loop {
        let began = keys.begin();
        let fetched = address.fetch().await;
        telemetry::jwks_fetched(name, fetched.is_ok());
        let pause = match fetched {
            Ok(set) => {
                let (count, passed_over) = (set.len(), set.passed_over.join("; "));
                if keys.end(began, Some(set)) {
                    tokens.has_changed();
                    tracing::info!(
                        issuer = name,
                        keys = count,
                        passed_over,
                        "the keys of an issuer are others than before"
                    );
                } else if failures > 0 {
                    tracing::info!(
                        issuer = name,
                        keys = count,
                        "the keys of an issuer can be fetched again"
                    );
                }
                failures = 0;
                keys.ages().refresh
            }
            Err(reason) => {
                keys.end(began, None);
                let are_usable = keys.are_known();
                tracing::warn!(issuer = name, %address, reason, are_usable, "the keys of an issuer cannot be fetched");
                failures += 1;
                let (first, longest) = RETRY;
                (first * (1 << (failures - 1).min(10))).min(longest).min(keys.ages().refresh)
            }
        };
        keys.is_due(pause).await;
    }
}
