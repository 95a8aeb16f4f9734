//! The way to Postgres: the pool and its timeouts, the schema and its migrations, wake-ups, and the embedded cluster.

mod address;
#[cfg(test)]
pub(crate) mod checked;
pub mod clock;
pub mod deadline;
pub mod embedded;
mod errand;
mod fail;
mod fault;
pub(crate) mod filtered;
mod fitness;
mod group;
pub mod id;
pub mod listen;
pub mod migrations;
mod options;
pub mod outage;
mod page;
pub mod partitions;
mod pool;
pub mod probe;
mod reading;
mod realm;
mod reconnecting;
mod reserve;
pub mod schema;
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

pub use address::{fault as address_fault, shown as shown_address};
pub use fail::Fail;
pub use fault::{Fault, fault, is_locked, is_refusal, sqlstate};
pub use fitness::check_at_start as check_fitness;
pub use group::{Group, Together};
pub use options::{Options, Shares};
pub use page::{Page, PageSize, binding};
pub use pool::Db;
pub use realm::{Mode, Realm};
pub use reserve::Place;
pub use seal::Seal;
pub use session::{Refused, connect};
pub(crate) use statement::statement;
pub use sweep::sweep;
pub(crate) use text_enum::text_enum;

/// The result of a piece of work on the database.
pub type Work<T> = std::result::Result<T, Fail>;
