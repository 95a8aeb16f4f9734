//! Limits how many calls a key may make.
//!
//! Each key has a bucket of calls that fills up again at an even rate (GCRA). Every response reports how full it is. Replicas count apart:
//! with several of them a key may make as many times more.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::body::Body;
use uuid::Uuid;

use super::around::{Around, Inner};
use super::refuse;
use crate::access::Caller;
use crate::error::{Code, Error};
use crate::limits::requests::CALL_RATE;

/// How often keys that have not called for long are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

type Buckets = RateLimiter<Uuid, HashMapStateStore<Uuid>, DefaultClock, StateInformationMiddleware>;

/// Refuses calls of a key that makes too many, and adds to every response how many are left: `x-ratelimit-limit`, the calls in a full
/// bucket; `x-ratelimit-remaining`, those that are left; `x-ratelimit-reset`, in how many seconds the bucket is full again.
#[derive(Clone)]
pub struct RateLimit {
    buckets: Option<(NonZeroU32, Arc<Buckets>)>,
}

impl RateLimit {
    /// So many calls a second for each key, and as many at once. None: no limit, and no word of it.
    pub fn new(per_second: Option<NonZeroU32>) -> Self {
        let buckets = per_second.map(|limit| {
            (limit, Arc::new(RateLimiter::hashmap(Quota::per_second(limit)).with_middleware()))
        });
        RateLimit { buckets }
    }

    /// The headers of a call that was refused before it was counted: it counts now, if the key is known. Without a key the bucket is full.
    pub fn report(&self, key: Option<Uuid>) -> HeaderMap {
        let Some((limit, buckets)) = &self.buckets else { return HeaderMap::new() };
        match key.map(|key| buckets.check_key(&key)) {
            Some(Ok(state)) => reported(&state),
            Some(Err(_)) => used_up(*limit),
            None => headers(limit.get(), limit.get(), Duration::ZERO),
        }
    }

    /// Forgets keys whose bucket is full, until it is dropped.
    pub async fn forget(self) {
        loop {
            tokio::time::sleep(FORGET_EVERY).await;
            if let Some((_, buckets)) = &self.buckets {
                buckets.retain_recent();
                buckets.shrink_to_fit();
            }
        }
    }
}

impl Around for RateLimit {
    async fn around<S: Inner>(
        self,
        request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let key = request.extensions().get::<Caller>().map(|caller| caller.key_id);
        let (Some((limit, buckets)), Some(key)) = (self.buckets, key) else {
            return inner.call(request).await;
        };
        let (headers, mut response) = match buckets.check_key(&key) {
            Ok(state) => (reported(&state), inner.call(request).await?),
            Err(not_until) => {
                CALL_RATE.reached();
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                let message = "This key makes too many calls; try again later.";
                let error = Error::new(Code::RateLimitExceeded, message).retry_after(wait);
                (used_up(limit), refuse(error))
            }
        };
        response.headers_mut().extend(headers);
        Ok(response)
    }
}

fn reported(state: &StateSnapshot) -> HeaderMap {
    let (limit, left) = (state.quota().burst_size().get(), state.remaining_burst_capacity());
    headers(limit, left, state.quota().replenish_interval() * (limit - left))
}

fn used_up(limit: NonZeroU32) -> HeaderMap {
    headers(limit.get(), 0, Quota::per_second(limit).burst_size_replenished_in())
}

fn headers(limit: u32, left: u32, full_in: Duration) -> HeaderMap {
    let seconds = full_in.as_nanos().div_ceil(1_000_000_000).min(u128::from(u32::MAX)) as u32;
    let pairs = [
        ("x-ratelimit-limit", limit),
        ("x-ratelimit-remaining", left),
        ("x-ratelimit-reset", seconds),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_is_not_full_is_full_in_a_second_at_most() {
        let of = |left| headers(100, left, Duration::from_millis(10) * (100 - left));
        assert_eq!(of(100)["x-ratelimit-reset"], "0");
        assert_eq!(of(99)["x-ratelimit-reset"], "1");
        assert_eq!(of(0)["x-ratelimit-reset"], "1");
        assert_eq!(headers(5000, 4999, Duration::from_micros(200))["x-ratelimit-reset"], "1");
        assert_eq!(
            (of(7)["x-ratelimit-limit"].clone(), of(7)["x-ratelimit-remaining"].clone()),
            ("100".parse().unwrap(), "7".parse().unwrap())
        );
    }
}
