//! Limits of the records of calls.

use super::limits;

/// A response of more bytes is not kept as it is if it can be read again.
pub const WHOLE: usize = 64 << 10;

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
}
