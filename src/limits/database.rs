//! Limits of the use of the database.

use super::limits;

/// How much longer than its session allows the database may keep silent, in seconds.
pub const SILENCE_SECONDS: u64 = 5;
/// How long a statement runs on after its caller has left, in milliseconds.
pub const ABANDONED_MILLIS: u64 = 100;
/// How long a statement of a worker may run that can be done in smaller parts, in seconds.
pub const WORKER_STATEMENT_SECONDS: u64 = 5;
/// How long a statement of a migration waits for a lock, in milliseconds.
pub const MIGRATION_LOCK_MILLIS: u64 = 500;

/// How many calls of one kind are done in one statement.
pub const GROUP_CALLS: usize = 64;

/// How large an entity is stored that is read together with others, in bytes.
pub const GROUP_ENTITY_BYTES: i32 = 16 << 10;

limits! {
    CONNECTIONS "database_connections" {
        bounds: "Connections to the database of one process, besides one that listens and one of its probes, which come first; fewer where the server lets fewer in",
        value: Setting("db-pool-size"),
        past: "Calls wait for one",
    }
    QUEUE "database_queue" {
        bounds: "Calls of one process that wait for a connection to the database; half as many of one realm",
        value: Setting("db-queue-limit"),
        past: "`unavailable` (503), at once",
    }
    QUEUE_TIME "database_queue_time" {
        bounds: "Time that a call waits for a connection, twelve times as long within a stream; and that an unreachable database is tried",
        value: Setting("db-acquire-timeout"),
        past: "`unavailable` (503)",
    }
    GROUP "database_group" {
        bounds: "Calls of one kind that are done in one statement; of those, two at once in one process that read and one that writes",
        value: Fixed(GROUP_CALLS as u64, "calls"),
        past: "the others wait for the next one",
    }
    GROUP_ENTITY "database_group_entity" {
        bounds: "Bytes of an entity, as it is stored, that is read in one statement with others; an eighth of them where it is stored compressed",
        value: Fixed(GROUP_ENTITY_BYTES as u64, "bytes"),
        past: "it is read by itself",
    }
    STATEMENT_TIME "database_statement_time" {
        bounds: "Time of one statement; less where the caller gives its call less",
        value: Setting("db-statement-timeout"),
        past: "`deadline_exceeded` (504)",
    }
    WORKER_STATEMENT "worker_statement_time" {
        bounds: "Time of one statement of a worker that plans or does a bulk delete, or counts for an index",
        value: Fixed(WORKER_STATEMENT_SECONDS, "seconds"),
        past: "The statement is undone and done in smaller parts, between which the worker turns to others that wait; what is one entity has more time, and the count for an index is left out",
    }
    LOCK_TIME "database_lock_time" {
        bounds: "Time that a statement waits for what others have locked",
        value: Setting("db-lock-timeout"),
        past: "`unavailable` (503)",
    }
    ABANDONED "database_abandoned_time" {
        bounds: "Time that a statement runs on after its caller has hung up, or the time of its call is over",
        value: Fixed(ABANDONED_MILLIS, "milliseconds"),
        past: "The statement is cancelled and its transaction rolled back; what was committed stays",
    }
    SILENCE "database_silence" {
        bounds: "Time past its own limit for which a statement is waited for; a backend that is found not to be at work on one costs its connection at once",
        value: Fixed(SILENCE_SECONDS, "seconds"),
        past: "The connection is given up; what cannot have changed anything is done again on another, for the rest `unavailable` (503)",
    }
    MIGRATION_LOCK "migration_lock_time" {
        bounds: "Time that a statement of a migration waits for a lock, and all others behind it",
        value: Fixed(MIGRATION_LOCK_MILLIS, "milliseconds"),
        past: "The migration gives up its locks, and is tried again after a pause",
    }
}
