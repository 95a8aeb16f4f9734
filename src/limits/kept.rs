//! Limits of the records of calls.

use super::{Limit, Value};

/// An answer of more bytes is not kept as it is if it can be read again.
pub const WHOLE: usize = 64 << 10;

/// How many idempotency records a realm has.
pub static IDEMPOTENCY_RECORDS: Limit = Limit {
    name: "idempotency_records",
    bounds: "Idempotency records of a realm: calls with an `Idempotency-Key` in 24 hours, and batches of such imports",
    value: Value::Setting("idempotency-records"),
    past: "`rate_limit_exceeded` (429) with `Retry-After`, for calls with a new key; nothing is done. Existing records still answer",
};

/// How large the answers in the records of a realm are.
pub static IDEMPOTENCY_BYTES: Limit = Limit {
    name: "idempotency_bytes",
    bounds: "Bytes of the answers in the idempotency records of a realm",
    value: Value::Setting("idempotency-bytes"),
    past: "As for their number",
};

/// The largest answer that is kept as it is.
pub static WHOLE_ANSWER: Limit = Limit {
    name: "whole_answer",
    bounds: "Bytes of an answer that an idempotency record keeps as it is, where it shows entities or a dependent",
    value: Value::Fixed(WHOLE as u64, "bytes"),
    past: "The call sent again has the same answer while what it shows is unchanged, and `answer_gone` (410) from then on",
};

/// All of them.
pub const ALL: &[&Limit] = &[&IDEMPOTENCY_RECORDS, &IDEMPOTENCY_BYTES, &WHOLE_ANSWER];
