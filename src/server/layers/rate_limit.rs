//! Limits how many calls a key and a realm may make.
//!
//! Each key and each realm has a bucket of calls that fills up again at an even rate (GCRA), and buckets of their own for calls that change
//! something, start a task or begin a stream. Every response reports how full they are. Replicas count apart: with several of them there
//! may be as many times more.

mod reported;

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::Quota;
use governor::clock::{Clock, DefaultClock};
use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use uuid::Uuid;

use self::reported::{Reported, State};
use super::around::{Around, Inner};
use super::methods::{Class, Methods};
use super::refuse;
use crate::access::Caller;
use crate::config::{ClassRates, Rates};
use crate::error::{Code, Error};
use crate::limits::Limit;
use crate::limits::buckets::{Buckets, buckets};
use crate::limits::rates::{
    CALL_RATE, RATE_BUCKETS, RATE_BUCKETS_AT_MOST, REALM_CALL_RATE, REALM_STREAM_RATE,
    REALM_TASK_RATE, REALM_WRITE_RATE, STREAM_RATE, TASK_RATE, WRITE_RATE,
};

/// How often buckets that are full are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Refuses calls of a key or a realm that makes too many, and adds to every response how many are left. `RateLimit-Policy` and `RateLimit`
/// (draft-ietf-httpapi-ratelimit-headers-11) list every bucket that the call is of; `x-ratelimit-limit`, the calls in a full bucket of the key,
/// `x-ratelimit-remaining`, those that are left, and `x-ratelimit-reset`, in how many seconds it is full again, are of the key's calls of all
/// classes.
#[derive(Clone)]
pub struct RateLimit {
    methods: Methods,
    key: Arc<Policies<Uuid>>,
    realm: Arc<Policies<i32>>,
}

/// The buckets of keys or of realms.
struct Policies<K: Clone + Eq + Hash> {
    all: Option<Policy<K>>,
    write: Option<Policy<K>>,
    task: Option<Policy<K>>,
    stream: Option<Policy<K>>,
}

/// One bucket for each key or realm.
struct Policy<K: Clone + Eq + Hash> {
    /// Its name in headers.
    name: &'static str,
    /// What is too much of it, for people.
    too_much: &'static str,
    rate: NonZeroU32,
    buckets: Buckets<K>,
    limit: &'static Limit,
}

impl<K: Clone + Eq + Hash> Policy<K> {
    fn new(
        rate: Option<NonZeroU32>,
        (name, too_much): (&'static str, &'static str),
        limit: &'static Limit,
    ) -> Option<Self> {
        let rate = rate?;
        let buckets = buckets(Quota::per_second(rate), RATE_BUCKETS_AT_MOST, &RATE_BUCKETS);
        Some(Policy { name, too_much, rate, buckets, limit })
    }

    /// Takes a call out of a bucket. Fails with the time to wait where there is none.
    fn take(&self, key: &K) -> Result<State, Duration> {
        let left = self.buckets.check_key(key);
        left.map(|state| State {
            policy: self.name,
            limit: self.rate.get(),
            left: state.remaining_burst_capacity(),
        })
        .map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }

    fn full(&self) -> State {
        State { policy: self.name, limit: self.rate.get(), left: self.rate.get() }
    }

    fn used_up(&self) -> State {
        State { left: 0, ..self.full() }
    }
}

impl<K: Clone + Eq + Hash> Policies<K> {
    /// Those that a call of this class is of.
    fn of(&self, class: Class) -> impl Iterator<Item = &Policy<K>> {
        let own = match class {
            Class::Read => None,
            Class::Write => self.write.as_ref(),
            Class::Task => self.task.as_ref(),
            Class::Stream => self.stream.as_ref(),
        };
        self.all.iter().chain(own)
    }

    /// Takes a call of this class, and notes what is left. Fails with the refusal of the first bucket that is empty.
    fn take(&self, key: &K, class: Class, reported: &mut Reported) -> Result<(), Error> {
        for policy in self.of(class) {
            match policy.take(key) {
                Ok(state) => reported.add(state),
                Err(wait) => {
                    policy.limit.reached();
                    reported.add(policy.used_up());
                    let message = format!("{}; try again later.", policy.too_much);
                    return Err(Error::new(Code::RateLimitExceeded, message).retry_after(wait));
                }
            }
        }
        Ok(())
    }

    fn forget(&self) {
        let all = [&self.all, &self.write, &self.task, &self.stream];
        for policy in all.into_iter().flatten() {
            policy.buckets.retain_recent();
            policy.buckets.shrink_to_fit();
        }
    }
}

impl RateLimit {
    /// So many calls of these methods.
    pub fn new(methods: Methods, rates: &Rates) -> Self {
        let ClassRates { all, write, task, stream } = rates.of_key();
        let key = Policies {
            all: Policy::new(all, ("key", "This key makes too many calls"), &CALL_RATE),
            write: Policy::new(write, ("key-write", "This key changes too much"), &WRITE_RATE),
            task: Policy::new(task, ("key-task", "This key starts too many tasks"), &TASK_RATE),
            stream: Policy::new(
                stream,
                ("key-stream", "This key begins too many streams"),
                &STREAM_RATE,
            ),
        };
        let ClassRates { all, write, task, stream } = rates.of_realm();
        let of = |name, what: &'static str| (name, what);
        let realm = Policies {
            all: Policy::new(
                all,
                of("realm", "The organisation of this key makes too many calls"),
                &REALM_CALL_RATE,
            ),
            write: Policy::new(
                write,
                of("realm-write", "The organisation of this key changes too much"),
                &REALM_WRITE_RATE,
            ),
            task: Policy::new(
                task,
                of("realm-task", "The organisation of this key starts too many tasks"),
                &REALM_TASK_RATE,
            ),
            stream: Policy::new(
                stream,
                of("realm-stream", "The organisation of this key begins too many streams"),
                &REALM_STREAM_RATE,
            ),
        };
        RateLimit { methods, key: Arc::new(key), realm: Arc::new(realm) }
    }

    /// The headers of a call that was refused before it was counted: it counts now, if the key is known. Without a key the bucket is full.
    pub fn report(&self, key: Option<Uuid>) -> HeaderMap {
        let Some(policy) = &self.key.all else { return HeaderMap::new() };
        let mut reported = Reported::default();
        reported.add(match key {
            Some(key) => policy.take(&key).unwrap_or_else(|_| policy.used_up()),
            None => policy.full(),
        });
        reported.headers()
    }

    /// Forgets buckets that are full, until it is dropped.
    pub async fn forget(self) {
        loop {
            tokio::time::sleep(FORGET_EVERY).await;
            self.key.forget();
            self.realm.forget();
        }
    }
}

impl Around for RateLimit {
    async fn around<S: Inner>(
        self,
        request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let Some(caller) = request.extensions().get::<Caller>() else {
            return inner.call(request).await;
        };
        let class = self.methods.class(request.uri().path());
        let mut reported = Reported::default();
        // What its own key is refused costs the realm nothing.
        let taken = self
            .key
            .take(&caller.key_id, class, &mut reported)
            .and_then(|()| self.realm.take(&caller.realm.id(), class, &mut reported));
        let mut response = match taken {
            Ok(()) => inner.call(request).await?,
            Err(error) => refuse(error),
        };
        response.headers_mut().extend(reported.headers());
        Ok(response)
    }
}
