//! Limits of what is kept of calls, and of keys.

use super::limits;

/// A response of more bytes is not kept as it is if it can be read again.
pub const WHOLE: usize = 64 << 10;

/// Of how many keys the last use is kept in memory until it is written.
pub const USED_KEYS_AT_MOST: usize = 10_000;

/// How many keys of a realm that have ended are kept, at most for [`ENDED_KEY_DAYS`].
pub const ENDED_KEYS_AT_MOST: u64 = 1_000;
/// For how many days a key is kept after its end.
pub const ENDED_KEY_DAYS: i32 = 90;

limits! {
    IDEMPOTENCY_RECORDS "idempotency_records" {
        bounds: "Idempotency records of a realm: calls with an `Idempotency-Key` in 24 hours, and batches of such imports",
        value: Setting("idempotency-records"),
        past: "`rate_limit_exceeded` (429) with `Retry-After`, for calls with a new key; nothing is done. Existing records are still returned",
    }
    IDEMPOTENCY_BYTES "idempotency_bytes" {
        bounds: "Bytes of the responses in the idempotency records of a realm",
        value: Setting("idempotency-bytes"),
        past: "As for their number",
    }
    WHOLE_ANSWER "whole_answer" {
        bounds: "Bytes of a response that an idempotency record keeps as it is, where it shows entities or a dependent",
        value: Fixed(WHOLE as u64, "bytes"),
        past: "The call sent again has the same response while what it shows is unchanged, and `answer_gone` (410) from then on",
    }
    KEYS "keys" {
        bounds: "Keys of a realm that are neither expired nor revoked",
        value: Setting("keys-per-realm"),
        past: "`CreateKey` and an `UpdateKey` that would make an expired key valid are refused with `limit_reached` (409); `offboard key create` by the database is not",
    }
    ENDED_KEYS "ended_keys" {
        bounds: "Keys of a realm that have expired or were revoked and are kept, each for 90 days",
        value: Fixed(ENDED_KEYS_AT_MOST, "keys"),
        past: "Those that ended first are removed when a key is created",
    }
    USED_KEYS "used_keys" {
        bounds: "Keys whose last use is in memory until it is written, at one replica",
        value: Fixed(USED_KEYS_AT_MOST as u64, "keys"),
        past: "The uses of further ones are not noted in that minute",
    }
}
