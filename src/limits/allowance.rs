//! How many bytes of responses an address that shows no key gets within a minute: a small request may have a large response.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::Quota;

use super::Limit;
use super::buckets::{Buckets, buckets};
use super::rates::{RATE_BUCKETS, RATE_BUCKETS_AT_MOST};
use crate::error::{Code, Error};

/// The time until an address with a used-up allowance can come again.
const AGAIN: Duration = Duration::from_secs(60);

/// So many bytes a minute for each network. Clones count together.
#[derive(Clone, Debug)]
pub struct Allowance {
    limit: &'static Limit,
    reported: Arc<Buckets<IpAddr>>,
}

impl Allowance {
    /// At most so many bytes, counted by this limit.
    pub fn new(bytes: NonZeroU32, limit: &'static Limit) -> Self {
        let quota = Quota::per_minute(bytes);
        let reported = Arc::new(buckets(quota, RATE_BUCKETS_AT_MOST, &RATE_BUCKETS));
        Allowance { limit, reported }
    }

    /// Takes so many bytes of the allowance of this address. Fails with the refusal to send where not as many are left.
    pub fn report(&self, address: IpAddr, bytes: u64) -> Result<(), Error> {
        let Some(bytes) = NonZeroU32::new(u32::try_from(bytes).unwrap_or(u32::MAX)) else {
            return Ok(());
        };
        if matches!(self.reported.check_key_n(&network(address), bytes), Ok(Ok(_))) {
            return Ok(());
        }
        self.limit.reached();
        let message = "This address has received as much without a key as it may within a minute.";
        Err(Error::new(Code::RateLimitExceeded, message).retry_after(AGAIN))
    }
}

/// One caller by address: an IPv4 address, or the first half of an IPv6 address, of which one host has as many as it likes.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::listeners::PAGE_BYTES;

    #[test]
    fn an_address_is_reported_so_much_and_another_has_its_own() {
        let allowance = Allowance::new(NonZeroU32::new(100).unwrap(), &PAGE_BYTES);
        let [one, other] = [1, 2].map(|host| IpAddr::from([10, 0, 0, host]));
        assert!(allowance.report(one, 60).is_ok() && allowance.report(one, 0).is_ok());
        let refused = allowance.report(one, 60).unwrap_err();
        assert_eq!(refused.code(), Code::RateLimitExceeded);
        assert!(allowance.report(one, 40).is_ok() && allowance.report(other, 60).is_ok());
        assert!(allowance.report(other, 101).is_err(), "more than there ever is");
    }
}
