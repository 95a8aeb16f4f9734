//! Limits of the use of the database.

use super::{Limit, Value};

/// How much longer than its session allows the database may keep silent, in seconds.
pub const SILENCE_SECONDS: u64 = 5;
/// How long a statement runs on after its caller has left, in milliseconds.
pub const ABANDONED_MILLIS: u64 = 100;
/// How long a statement of a worker may run that can be done in smaller parts, in seconds.
pub const WORKER_STATEMENT_SECONDS: u64 = 5;
/// How long a statement of a migration waits for a lock, in milliseconds.
pub const MIGRATION_LOCK_MILLIS: u64 = 500;

/// Connections of one process.
pub static CONNECTIONS: Limit = Limit {
    name: "database_connections",
    bounds: "Connections to the database of one process, besides one that listens and one of its probes, which come first; fewer where the server lets fewer in",
    value: Value::Setting("db-pool-size"),
    past: "Calls wait for one",
};

/// Calls that wait for a connection.
pub static QUEUE: Limit = Limit {
    name: "database_queue",
    bounds: "Calls of one process that wait for a connection to the database; half as many of one realm",
    value: Value::Setting("db-queue-limit"),
    past: "`unavailable` (503), at once",
};

/// How long a call waits for a connection.
pub static QUEUE_TIME: Limit = Limit {
    name: "database_queue_time",
    bounds: "Time that a call waits for a connection, twelve times as long within a stream; and that an unreachable database is tried",
    value: Value::Setting("db-acquire-timeout"),
    past: "`unavailable` (503)",
};

/// How many calls of one kind are done in one statement.
pub const GROUP_CALLS: usize = 64;

/// Calls that are done together.
pub static GROUP: Limit = Limit {
    name: "database_group",
    bounds: "Calls of one kind that are done in one statement; of those, two at once in one process that read and one that writes",
    value: Value::Fixed(GROUP_CALLS as u64, "calls"),
    past: "the others wait for the next one",
};

/// How long a statement may run.
pub static STATEMENT_TIME: Limit = Limit {
    name: "database_statement_time",
    bounds: "Time of one statement; less where the caller gives its call less",
    value: Value::Setting("db-statement-timeout"),
    past: "`deadline_exceeded` (504)",
};

/// How long a statement of a worker may run.
pub static WORKER_STATEMENT: Limit = Limit {
    name: "worker_statement_time",
    bounds: "Time of one statement of a worker that plans or does a bulk delete, or counts for an index",
    value: Value::Fixed(WORKER_STATEMENT_SECONDS, "seconds"),
    past: "The statement is undone and done in smaller parts, between which the worker turns to others that wait; what is one entity has more time, and the count for an index is left out",
};

/// How long a statement may wait for a lock.
pub static LOCK_TIME: Limit = Limit {
    name: "database_lock_time",
    bounds: "Time that a statement waits for what others have locked",
    value: Value::Setting("db-lock-timeout"),
    past: "`unavailable` (503)",
};

/// How long a statement runs on after its caller has left.
pub static ABANDONED: Limit = Limit {
    name: "database_abandoned_time",
    bounds: "Time that a statement runs on after its caller has hung up, or the time of its call is over",
    value: Value::Fixed(ABANDONED_MILLIS, "milliseconds"),
    past: "The statement is cancelled and its transaction rolled back; what was committed stays",
};

/// How long the database may keep silent.
pub static SILENCE: Limit = Limit {
    name: "database_silence",
    bounds: "Time past its own limit for which a statement is waited for; a backend that is found not to be at work on one costs its connection at once",
    value: Value::Fixed(SILENCE_SECONDS, "seconds"),
    past: "The connection is given up; what cannot have changed anything is done again on another, for the rest `unavailable` (503)",
};

/// How long a migration waits for a lock.
pub static MIGRATION_LOCK: Limit = Limit {
    name: "migration_lock_time",
    bounds: "Time that a statement of a migration waits for a lock, and all others behind it",
    value: Value::Fixed(MIGRATION_LOCK_MILLIS, "milliseconds"),
    past: "The migration gives up its locks, and is tried again after a pause",
};

/// All of them.
pub const ALL: &[&Limit] =
    &[&CONNECTIONS, &QUEUE, &QUEUE_TIME, &GROUP, &STATEMENT_TIME, &WORKER_STATEMENT, &LOCK_TIME, &ABANDONED, &SILENCE, &MIGRATION_LOCK];
