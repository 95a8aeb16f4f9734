//! The engine of durable tasks: work on many objects that survives any process, slice by slice, whatever its kind.

pub(crate) mod answers;
mod caution;
mod chunk_size;
pub(crate) mod control;
mod control_queries;
mod executor;
pub mod list;
pub(crate) mod list_queries;
pub(crate) mod mail;
pub mod mail_queries;
pub mod model;
pub(crate) mod pace;
mod plan_queries;
pub(crate) mod planning;
mod progress;
pub mod queries;
pub(crate) mod reads;
mod rescue;
pub(crate) mod slice_queries;
pub mod state;
mod step;
mod turn_queries;
mod watch;
pub(crate) mod work;

pub use executor::{Hours, TaskExecutor, WorkerOptions};
pub use mail::MailExecutor;
pub use model::TOPIC;
pub use rescue::rescue;
