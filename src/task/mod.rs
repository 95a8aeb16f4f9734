//! The engine of durable tasks: work on many objects that survives any process, slice by slice, whatever its kind.

pub mod answers;
mod caution;
pub mod control;
mod control_queries;
mod executor;
pub mod list;
pub mod list_queries;
pub mod mail;
pub mod mail_queries;
pub mod model;
pub mod pace;
mod plan_queries;
pub mod planning;
mod progress;
pub mod queries;
pub mod reads;
pub mod slice_queries;
pub mod state;
mod step;
pub mod turn_queries;
mod watch;
pub mod work;

pub use executor::{Hours, Pace, TaskExecutor, rescue};
pub use mail::MailExecutor;
pub use model::TOPIC;
