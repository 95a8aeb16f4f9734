//! The way to Postgres: the pool and its timeouts, the schema and its migrations, wake-ups, and the embedded cluster.

mod abandoned;
mod address;
mod backoff;
#[cfg(test)]
pub(crate) mod checked;
pub(crate) mod clock;
pub(crate) mod condition;
pub mod deadline;
pub mod embedded;
mod fail;
mod fault;
mod fitness;
mod group;
pub(crate) mod id;
pub(crate) mod listen;
pub(crate) mod migrations;
mod options;
pub(crate) mod outage;
mod page;
pub(crate) mod partitions;
mod pool;
pub(crate) mod probe;
mod reading;
mod realm;
mod realm_queries;
mod reconnecting;
mod refused;
mod reserve;
mod reserved_connection;
pub(crate) mod schema;
mod schema_queries;
mod seal;
mod sequences;
mod session;
mod share;
pub(crate) mod statement;
mod sweep;
mod text_enum;
mod vitals;
mod watchdog;

pub use address::{RESERVED, fault as address_fault, shown as shown_address};
pub use backoff::{backoff, backoff_of};
pub use fail::Fail;
pub use fault::{Fault, fault, is_locked, is_refusal, sqlstate};
pub use fitness::check_at_start as check_fitness;
pub use group::{Group, Together, placed};
pub use options::{Options, Shares};
pub(crate) use page::paged;
pub use page::{Page, PageAsked, PageRequest, PageSize, binding};
pub use pool::Db;
pub use realm::{Mode, Realm};
pub(crate) use realm_queries::lock_realm;
pub use refused::Refused;
pub use reserved_connection::ReservedConnection;
pub use seal::Seal;
pub use session::connect;
pub(crate) use statement::statement;
pub use sweep::sweep;
pub(crate) use text_enum::text_enum;

/// The result of a piece of work on the database.
pub type Work<T> = std::result::Result<T, Fail>;
