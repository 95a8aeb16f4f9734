//! The shares of one realm and one key.

use super::{Limit, Value};

/// Calls of a realm at once.
pub static REALM_CALLS: Limit = Limit {
    name: "realm_calls",
    bounds: "Calls of one realm at once at one replica, without streams; fewer when others call too, so that some stay free",
    value: Value::Setting("realm-concurrent-calls"),
    past: "`rate_limit_exceeded` (429) with `Retry-After`, at once",
};

/// Calls of a key at once.
pub static KEY_CALLS: Limit = Limit {
    name: "key_calls",
    bounds: "Calls of one key at once at one replica, without streams",
    value: Value::Setting("key-concurrent-calls"),
    past: "`rate_limit_exceeded` (429) with `Retry-After`, at once",
};

/// Streams at once.
pub static STREAMS: Limit = Limit {
    name: "streams",
    bounds: "Streams with a key at once at one replica: watches, imports and exports",
    value: Value::Setting("max-concurrent-streams"),
    past: "`unavailable` (503), at once",
};

/// Streams of a realm at once.
pub static REALM_STREAMS: Limit = Limit {
    name: "realm_streams",
    bounds: "Streams of one realm at once at one replica; fewer when others have streams too, so that some stay free",
    value: Value::Setting("realm-concurrent-streams"),
    past: "`rate_limit_exceeded` (429) with `Retry-After`, at once",
};

/// Streams of a key at once.
pub static KEY_STREAMS: Limit = Limit {
    name: "key_streams",
    bounds: "Streams of one key at once at one replica",
    value: Value::Setting("key-concurrent-streams"),
    past: "`rate_limit_exceeded` (429) with `Retry-After`, at once",
};

/// How long the caller of a stream may send nothing.
pub static STREAM_SILENCE: Limit = Limit {
    name: "stream_silence",
    bounds: "Time for which the caller of an import or another stream of requests may send nothing",
    value: Value::Setting("stream-silence-timeout"),
    past: "`deadline_exceeded` (504); what was answered before has taken effect",
};

/// Connections of a realm.
pub static REALM_CONNECTIONS: Limit = Limit {
    name: "realm_connections",
    bounds: "Connections of the pool that the calls of one realm have at once; fewer when others need some too, so that one is left",
    value: Value::Setting("realm-db-connections"),
    past: "The call waits, and is answered `unavailable` (503) when it has waited for `--db-acquire-timeout`",
};

/// Connections of work that computes for long.
pub static HEAVY_CONNECTIONS: Limit = Limit {
    name: "heavy_connections",
    bounds: "Connections that calls of one realm have at once while calls of others come too, for those calls whose steps take the processor long: \
             large requests, large answers, filters of many conditions",
    value: Value::Fixed(1, "connection for every two processors"),
    past: "The call waits, and is answered `unavailable` (503) when it has waited for `--db-acquire-timeout`",
};

/// Connections of slow work.
pub static SLOW_CONNECTIONS: Limit = Limit {
    name: "slow_connections",
    bounds: "Connections that calls of one method by one realm have at once while they take long, such as lists with a slow filter or changes that wait for a lock; half of the pool for all of them together",
    value: Value::Setting("slow-db-connections"),
    past: "The call waits, and is answered `unavailable` (503) when it has waited for `--db-acquire-timeout`",
};

/// How many exports there may be.
pub const EXPORTS_AT_ONCE: u64 = 3;

/// Exports at once.
pub static EXPORTS: Limit = Limit {
    name: "exports",
    bounds: "Exports at once at one replica, two thirds of them of one realm; no more than half of the pool's connections",
    value: Value::Fixed(EXPORTS_AT_ONCE, "exports"),
    past: "The call waits, and is answered `unavailable` (503) when it has waited for `--db-acquire-timeout`",
};

/// How long a step of a call may use the processor, in microseconds, before the next ones run off the runtime.
pub const STEP_MICROSECONDS: u64 = 1_000;

/// How long a step of a call may use the processor.
pub static STEP: Limit = Limit {
    name: "step_time",
    bounds: "Processor time of one step of a call on a thread that all calls share",
    value: Value::Fixed(STEP_MICROSECONDS, "microseconds"),
    past: "Calls of this kind by this caller are done beside the shared threads for as long as they take long, one step at once for each processor but one, half of them of one caller",
};

/// How large a request may declare to be, in bytes, and be worked on by threads that all calls share.
pub const COMPUTE_BYTES: u64 = 64 << 10;

/// How large a request may be on a thread that all calls share.
pub static COMPUTE: Limit = Limit {
    name: "shared_thread_bytes",
    bounds: "Bytes of a request that is worked on by threads that all calls share, as far as it declares its length",
    value: Value::Fixed(COMPUTE_BYTES, "bytes"),
    past: "It is worked on beside them, as what takes long is",
};

/// All of them.
pub const ALL: &[&Limit] = &[
    &REALM_CALLS,
    &KEY_CALLS,
    &STREAMS,
    &REALM_STREAMS,
    &KEY_STREAMS,
    &STREAM_SILENCE,
    &REALM_CONNECTIONS,
    &HEAVY_CONNECTIONS,
    &SLOW_CONNECTIONS,
    &EXPORTS,
    &STEP,
    &COMPUTE,
];
