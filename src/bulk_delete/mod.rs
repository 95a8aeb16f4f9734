//! Deletion of many entities, as a task; and whatever else is done to many, slice by slice.

mod answers;
pub mod bound;
mod caution;
pub mod chunk;
pub mod consistency;
mod control;
mod control_queries;
mod executor;
mod guards;
pub mod kind;
pub mod list;
pub mod list_queries;
mod mail;
mod mail_queries;
pub mod model;
mod pace;
mod preview;
pub mod preview_queries;
mod progress;
pub mod queries;
pub mod recall_queries;
pub mod selector;
mod service;
pub mod slice_queries;
mod start;
pub mod state;
mod step;
pub mod task_queries;
mod watch;

pub use executor::{BulkDeleteExecutor, Hours, Pace, rescue};
pub use mail::MailExecutor;
pub use service::BulkDeleteService;
