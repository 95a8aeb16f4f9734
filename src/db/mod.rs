//! The way to Postgres: the pool and its timeouts, the schema and its migrations, wake-ups, and the embedded cluster.

pub mod embedded;
mod fault;
pub mod id;
pub mod listen;
pub mod migrations;
mod page;
pub mod partitions;
mod pool;
mod realm;
pub mod schema;
mod seal;
pub(crate) mod statement;
mod sweep;
mod text_enum;

pub use fault::{Fault, fault};
pub use page::{Page, PageSize, binding};
pub use pool::{Db, Fail, Options, connect};
pub use realm::{Mode, Realm};
pub use seal::Seal;
pub(crate) use statement::statement;
pub use sweep::sweep;
pub(crate) use text_enum::text_enum;

/// The result of a piece of work on the database.
pub type Work<T> = std::result::Result<T, Fail>;
