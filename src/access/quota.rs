//! How many responses a realm may keep, and how that is counted.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Code, Error};
use crate::limits::kept;

/// The most that the idempotency records of a realm may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many there may be.
    pub records: u64,
    /// How many bytes their responses may have together.
    pub bytes: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Quota { records: 2_000_000, bytes: 1 << 30 }
    }
}

/// In how many seconds to try again: as often as old records are removed.
const RETRY_AFTER: u32 = 60;

/// Where a record is counted, and how much may be counted there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    pub number: i16,
    pub records: i64,
    pub bytes: i64,
}

/// The most rows that the records of a realm are counted in: a call waits only for another one that is just committing and counted in the same row.
const SHARDS: u64 = 16;
/// A share is not a smaller than this, so that chance fills all shares alike.
const LEAST_RECORDS: u64 = 10_000;
/// Nor than this, so that every response fits in one.
const LEAST_BYTES: u64 = 4 << 20;

impl Quota {
    /// The shard of a record. Shares add up to the whole, so none can be passed without the others.
    pub(super) fn shard(self, api_key: Uuid, key: &str, part: i64) -> Shard {
        let shards = (self.records / LEAST_RECORDS).min(self.bytes / LEAST_BYTES).clamp(1, SHARDS);
        let digest = Sha256::new()
            .chain_update(api_key)
            .chain_update(part.to_be_bytes())
            .chain_update(key)
            .finalize();
        let share = |whole: u64| i64::try_from(whole / shards).unwrap_or(i64::MAX);
        Shard {
            number: i16::from(digest[0]) % shards as i16,
            records: share(self.records),
            bytes: share(self.bytes),
        }
    }

    /// The refusal of a call whose response could not be recorded. Without a key it would be done; doing it without a record would break a
    /// promise. `of_records` is whether the limit of their number is reached, and not that of their size.
    pub(super) fn full(self, of_records: bool) -> Error {
        if of_records {
            kept::IDEMPOTENCY_RECORDS.reached()
        } else {
            kept::IDEMPOTENCY_BYTES.reached()
        }
        let Quota { records, bytes } = self;
        let message = format!(
            "The realm keeps as many responses for idempotency keys as it may: {records} of {bytes} bytes together, each for 24 hours. \
             A call whose answer could not be kept is not done; try again later."
        );
        Error::new(Code::RateLimitExceeded, message)
            .with("limit_records", records)
            .with("limit_bytes", bytes)
            .with("retry_after", RETRY_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_to_no_more_than_the_whole_and_small_quotas_are_not_cut() {
        let of = |records, bytes| Quota { records, bytes };
        for quota in
            [Quota::default(), of(3, 64 << 10), of(160_001, 1 << 30), of(u64::MAX, u64::MAX)]
        {
            let shards: Vec<Shard> =
                (0..2_000).map(|part| quota.shard(Uuid::nil(), "k", part)).collect();
            let count = 1 + shards.iter().map(|shard| shard.number).max().unwrap();
            assert!(
                shards.iter().all(|shard| shard.number >= 0
                    && shard.records as u64 <= quota.records / count as u64)
            );
            assert!(shards.iter().all(|shard| shard.bytes as u64 <= quota.bytes / count as u64));
        }
        assert_eq!(
            of(3, 64 << 10).shard(Uuid::nil(), "k", 0),
            Shard { number: 0, records: 3, bytes: 64 << 10 }
        );
        assert_eq!(
            Quota::default().shard(Uuid::nil(), "k", 0),
            Quota::default().shard(Uuid::nil(), "k", 0)
        );
    }
}
