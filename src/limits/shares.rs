//! The shares of one realm and one key.

use super::limits;

/// How many exports there may be.
pub const EXPORTS_AT_ONCE: u64 = 3;

/// The processor time that a step of a call may take, in microseconds, before the next ones are done on a thread of their own.
pub const STEP_MICROSECONDS: u64 = 1_000;

/// How large a request may declare to be, in bytes, and be worked on by threads that all calls share.
pub const COMPUTE_BYTES: u64 = 64 << 10;

limits! {
    REALM_CALLS "realm_calls" {
        bounds: "Calls of one realm at once at one replica, without streams; fewer when others call too, so that some stay free",
        value: Setting("realm-concurrent-calls"),
        past: "`rate_limit_exceeded` (429) with `Retry-After`, at once",
    }
    KEY_CALLS "key_calls" {
        bounds: "Calls of one key at once at one replica, without streams",
        value: Setting("key-concurrent-calls"),
        past: "`rate_limit_exceeded` (429) with `Retry-After`, at once",
    }
    STREAMS "streams" {
        bounds: "Streams with a key at once at one replica: watches, imports and exports",
        value: Setting("max-concurrent-streams"),
        past: "`unavailable` (503), at once",
    }
    REALM_STREAMS "realm_streams" {
        bounds: "Streams of one realm at once at one replica; fewer when others have streams too, so that some stay free",
        value: Setting("realm-concurrent-streams"),
        past: "`rate_limit_exceeded` (429) with `Retry-After`, at once",
    }
    KEY_STREAMS "key_streams" {
        bounds: "Streams of one key at once at one replica",
        value: Setting("key-concurrent-streams"),
        past: "`rate_limit_exceeded` (429) with `Retry-After`, at once",
    }
    STREAM_SILENCE "stream_silence" {
        bounds: "Time for which the caller of an import or another stream of requests may send nothing",
        value: Setting("stream-silence-timeout"),
        past: "`deadline_exceeded` (504); what a response was sent for has taken effect",
    }
    REALM_CONNECTIONS "realm_connections" {
        bounds: "Connections of the pool that the calls of one realm have at once; fewer when others need some too, so that one is left",
        value: Setting("realm-db-connections"),
        past: "The call waits, and fails with `unavailable` (503) when it has waited for `--db-acquire-timeout`",
    }
    HEAVY_CONNECTIONS "heavy_connections" {
        bounds: "Connections that calls of one realm have at once while calls of others come too, for those calls whose steps take the processor long: \
                 large requests, large answers, filters of many conditions",
        value: Fixed(1, "connection for every two processors"),
        past: "The call waits, and fails with `unavailable` (503) when it has waited for `--db-acquire-timeout`",
    }
    SLOW_CONNECTIONS "slow_connections" {
        bounds: "Connections that calls of one method by one realm have at once while they take long, such as lists with a slow filter or changes that wait for a lock; half of the pool for all of them together",
        value: Setting("slow-db-connections"),
        past: "The call waits, and fails with `unavailable` (503) when it has waited for `--db-acquire-timeout`",
    }
    EXPORTS "exports" {
        bounds: "Exports at once at one replica, two thirds of them of one realm; no more than half of the pool's connections",
        value: Fixed(EXPORTS_AT_ONCE, "exports"),
        past: "The call waits, and fails with `unavailable` (503) when it has waited for `--db-acquire-timeout`",
    }
    STEP "step_time" {
        bounds: "Processor time of one step of a call on a thread that all calls share",
        value: Fixed(STEP_MICROSECONDS, "microseconds"),
        past: "Calls of this kind by this caller are done beside the shared threads for as long as they take long, one step at once for each processor but one, half of them of one caller",
    }
    COMPUTE "shared_thread_bytes" {
        bounds: "Bytes of a request that is worked on by threads that all calls share, as far as it declares its length",
        value: Fixed(COMPUTE_BYTES, "bytes"),
        past: "It is worked on beside them, as what takes long is",
    }
}
