//! Limits how often an address may call without a valid key.
//!
//! Whoever has no key costs a hash and, if it is one that nobody has shown before, a lookup. So an address that fails to authenticate too often is refused
//! before its key is looked at, until its bucket has a call again. A key that is in use is believed without a lookup, and its calls have buckets of
//! their own: they are not affected by others at their address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::Quota;
use governor::clock::{Clock, DefaultClock};
use http::{Request, Response};
use tokio::time::Instant;
use tonic::Code as GrpcCode;
use tonic::body::Body;

use super::around::{Around, Inner};
use super::auth::{caller_address, credential, peer};
use super::methods::Methods;
use super::{code_of, refuse};
use crate::access::Authenticator;
use crate::error::{Code, Error};
use crate::limits::allowance::network;
use crate::limits::buckets::{Buckets, buckets};
use crate::limits::rates::{ADDRESS_RATE, RATE_BUCKETS, RATE_BUCKETS_AT_MOST};

/// How often it is looked for addresses that need not wait any more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Refuses calls of addresses that fail to authenticate too often. Comes before the layer that authenticates. Clones count together.
#[derive(Clone)]
pub struct AddressRate {
    methods: Methods,
    authenticator: Authenticator,
    failures: Option<Arc<Failures>>,
}

impl AddressRate {
    /// So many failures a second for each address; as many as it likes, if none.
    pub fn new(
        methods: Methods,
        authenticator: Authenticator,
        per_second: Option<NonZeroU32>,
    ) -> Self {
        let failures = per_second.map(|rate| Arc::new(Failures::new(rate)));
        AddressRate { methods, authenticator, failures }
    }

    /// Returns whether the call is by a key that is in use.
    fn is_known(&self, request: &Request<Body>) -> bool {
        let address = caller_address(request.extensions());
        credential(request.headers())
            .is_ok_and(|secret| self.authenticator.remembered(secret, address).is_some())
    }
}

impl Around for AddressRate {
    async fn around<S: Inner>(
        self,
        request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        // Health and reflection have limits of their own.
        let is_probe = self.methods.find(request.uri().path()).is_none_or(|method| method.probe);
        let address = peer(request.extensions()).filter(|_| !is_probe).map(network);
        let Some((failures, address)) = self.failures.clone().zip(address) else {
            return inner.call(request).await;
        };
        if let Some(wait) = failures.wait(address)
            && !self.is_known(&request)
        {
            ADDRESS_RATE.reached();
            let message = "This address calls too often without a valid key; try again later.";
            return Ok(refuse(Error::new(Code::RateLimitExceeded, message).retry_after(wait)));
        }
        let response = inner.call(request).await?;
        if code_of(response.headers()) == Some(GrpcCode::Unauthenticated) {
            failures.note(address);
        }
        Ok(response)
    }
}

/// How often each address has failed, and which of them have to wait.
struct Failures {
    buckets: Buckets<IpAddr>,
    waiting: Mutex<Waiting>,
}

/// The addresses whose bucket is empty.
struct Waiting {
    until: HashMap<IpAddr, Instant>,
    /// When it was last looked for those that need not wait any more.
    looked: Instant,
}

impl Failures {
    fn new(per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second);
        Failures {
            buckets: buckets(quota, RATE_BUCKETS_AT_MOST, &RATE_BUCKETS),
            waiting: Mutex::new(Waiting { until: HashMap::new(), looked: Instant::now() }),
        }
    }

    /// For how long an address has to wait, if it does.
    fn wait(&self, address: IpAddr) -> Option<Duration> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let until = waiting.until.get(&address)?;
        until.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero())
    }

    /// Notes that an address has failed.
    fn note(&self, address: IpAddr) {
        let Err(not_until) = self.buckets.check_key(&address) else { return };
        let now = Instant::now();
        let ends = now + not_until.wait_time_from(DefaultClock::default().now());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(waiting.looked) >= LOOK_EVERY {
            waiting.looked = now;
            waiting.until.retain(|_, ends| *ends > now);
        }
        if waiting.until.len() < RATE_BUCKETS_AT_MOST || waiting.until.contains_key(&address) {
            waiting.until.insert(address, ends);
        } else {
            RATE_BUCKETS.reached();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_too_often_waits_and_others_do_not() {
        let failures = Failures::new(NonZeroU32::new(3).unwrap());
        for _ in 0..3 {
            failures.note(host(1));
            assert_eq!(failures.wait(host(1)), None);
        }
        failures.note(host(1));
        let wait = failures.wait(host(1)).unwrap();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(failures.wait(host(2)), None);
        tokio::time::advance(wait).await;
        assert_eq!(failures.wait(host(1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_addresses_fail_a_bounded_number_is_kept() {
        let failures = Failures::new(NonZeroU32::new(1).unwrap());
        for n in 0..RATE_BUCKETS_AT_MOST as u32 + 1_000 {
            failures.note(host(n));
            failures.note(host(n));
        }
        assert_eq!(failures.waiting.lock().unwrap().until.len(), RATE_BUCKETS_AT_MOST);
        tokio::time::advance(Duration::from_secs(2)).await;
        failures.note(host(u32::MAX));
        failures.note(host(u32::MAX));
        assert_eq!(failures.waiting.lock().unwrap().until.len(), 1, "what is over is forgotten");
    }
}
