//! Limits of how often somebody may call.

use super::limits;

/// Of how many keys, realms and addresses the buckets of calls are kept.
pub const RATE_BUCKETS_AT_MOST: usize = 10_000;

limits! {
    CALL_RATE "call_rate" {
        bounds: "Calls of one key a second, at one replica",
        value: Setting("rate-limit"),
        past: "`rate_limit_exceeded` (429) with `Retry-After`",
    }
    WRITE_RATE "write_rate" {
        bounds: "Of these, calls that change something and neither start a task nor begin a stream",
        value: Setting("write-rate-limit"),
        past: "As for `call_rate`",
    }
    TASK_RATE "task_rate" {
        bounds: "Of these, calls that start a task: `StartBulkDelete`, `CheckConsistency`, `CreateAttributeIndex`",
        value: Setting("task-rate-limit"),
        past: "As for `call_rate`",
    }
    STREAM_RATE "stream_rate" {
        bounds: "Of these, calls that begin a stream: watches, imports and exports",
        value: Setting("stream-rate-limit"),
        past: "As for `call_rate`",
    }
    REALM_CALL_RATE "realm_call_rate" {
        bounds: "Calls of the keys of one realm a second, at one replica; those that the limit of their key refuses are not counted",
        value: Setting("realm-rate-limit"),
        past: "As for `call_rate`",
    }
    REALM_WRITE_RATE "realm_write_rate" {
        bounds: "Of these, calls that change something and neither start a task nor begin a stream",
        value: Setting("realm-write-rate-limit"),
        past: "As for `call_rate`",
    }
    REALM_TASK_RATE "realm_task_rate" {
        bounds: "Of these, calls that start a task",
        value: Setting("realm-task-rate-limit"),
        past: "As for `call_rate`",
    }
    REALM_STREAM_RATE "realm_stream_rate" {
        bounds: "Of these, calls that begin a stream",
        value: Setting("realm-stream-rate-limit"),
        past: "As for `call_rate`",
    }
    ADDRESS_RATE "address_rate" {
        bounds: "Calls without a valid key a second, at one replica, from one IPv4 address or one IPv6 network of 64 bits, where a key is asked for; not health, reflection and pages, which have limits of their own",
        value: Setting("address-rate-limit"),
        past: "`rate_limit_exceeded` (429) with `Retry-After`, before the key of a call is looked at; calls with keys that were used at this replica within a minute are not affected",
    }
    RATE_BUCKETS "rate_buckets" {
        bounds: "Keys, realms and addresses that have a bucket of their own, for each of the rates above and of the bytes that addresses without a key are sent",
        value: Fixed(RATE_BUCKETS_AT_MOST as u64, "of each"),
        past: "Further ones have one bucket together until another is full again",
    }
}
