//! Reads the idempotency key of a call, and lets calls with one key pass one after another.
//!
//! The transaction of the effect decides whether a call took effect before; the wait here only keeps waiting calls from taking connections
//! of the pool. Callers at other replicas wait in the database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use tonic::body::Body;
use uuid::Uuid;

use super::around::{Around, Inner};
use crate::access::{Caller, IdempotencyKey, Quota};
use crate::error::{Error, Form};

const HEADER: &str = "idempotency-key";

/// Puts an [`IdempotencyKey`] among the extensions of each request that has one; comes after the layer that finds the caller. Clones share
/// the calls under way.
#[derive(Clone, Default)]
pub struct Idempotency {
    gates: Gates,
    quota: Quota,
}

impl Idempotency {
    /// Keeps no more than this of the calls of a realm.
    pub fn new(quota: Quota) -> Self {
        Idempotency { gates: Gates::default(), quota }
    }
}

impl Around for Idempotency {
    async fn around<S: Inner>(
        self,
        mut request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let caller = request.extensions().get::<Caller>().map(|caller| caller.key_id);
        match (caller, key(&request, self.quota)) {
            (Some(key_id), Ok(Some(key))) => {
                let _passing = self.gates.enter(key_id, key.key()).await;
                request.extensions_mut().insert(key);
                inner.call(request).await
            }
            (Some(_), Err(error)) => {
                Form::of(request.extensions_mut()).note(&error.into_violations());
                inner.call(request).await
            }
            _ => inner.call(request).await,
        }
    }
}

fn key(request: &Request<Body>, quota: Quota) -> Result<Option<IdempotencyKey>, Error> {
    let mut given = request.headers().get_all(HEADER).iter();
    let Some(key) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Error::invalid("Idempotency-Key", "duplicate", "is given twice"));
    }
    IdempotencyKey::parse(key.as_bytes(), request.uri().path(), quota).map(Some)
}

type Name = (Uuid, String);

/// A gate for each key of which a call is under way.
#[derive(Clone, Default)]
struct Gates(Arc<Mutex<HashMap<Name, Arc<tokio::sync::Mutex<()>>>>>);

impl Gates {
    async fn enter(&self, key_id: Uuid, key: &str) -> Passing {
        let name = (key_id, key.to_owned());
        let gate = self.open().entry(name.clone()).or_default().clone();
        // Made before the wait, so that a caller who gives up waiting also removes the gate after the last one.
        let mut passing = Passing { gates: self.clone(), name, guard: None };
        passing.guard = Some(gate.lock_owned().await);
        passing
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call on its way through a gate, or waiting before it.
struct Passing {
    gates: Gates,
    name: Name,
    guard: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Passing {
    fn drop(&mut self) {
        let mut gates = self.gates.open();
        self.guard = None;
        // Calls that pass or wait have the gate as well, and can only get it under the lock that we have.
        if gates.get(&self.name).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            gates.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn calls_with_one_key_pass_one_after_another_and_leave_nothing() {
        let gates = Gates::default();
        let first = gates.enter(Uuid::nil(), "k").await;
        let other = gates.enter(Uuid::nil(), "other").await;
        let repeat = tokio::spawn({
            let gates = gates.clone();
            async move { drop(gates.enter(Uuid::nil(), "k").await) }
        });
        tokio::task::yield_now().await;
        assert!(!repeat.is_finished());
        drop(first);
        repeat.await.unwrap();
        drop(other);
        assert!(gates.open().is_empty());
    }

    #[tokio::test]
    async fn one_who_gives_up_waiting_leaves_nothing() {
        let gates = Gates::default();
        let first = gates.enter(Uuid::nil(), "k").await;
        let waited =
            tokio::time::timeout(Duration::from_millis(5), gates.enter(Uuid::nil(), "k")).await;
        assert!(waited.is_err());
        drop(first);
        assert!(gates.open().is_empty());
    }
}
