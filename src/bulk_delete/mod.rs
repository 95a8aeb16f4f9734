//! Deletion of many entities, as a task; and whatever else is done to many, slice by slice.

mod admission;
mod answers;
pub mod bound;
mod caution;
pub mod chunk;
mod chunk_queries;
pub mod consistency;
mod control;
mod control_queries;
mod exclude_queries;
mod excludes;
mod executor;
#[cfg(test)]
mod forms;
mod guards;
pub mod kind;
pub mod list;
pub mod list_queries;
mod lists;
mod mail;
mod mail_queries;
mod missing_queries;
pub mod model;
mod pace;
mod plan_queries;
mod planning;
mod preview;
pub mod preview_queries;
mod progress;
pub mod queries;
pub mod recall_queries;
mod requirement_queries;
pub mod selector;
mod service;
mod shown;
pub mod slice_queries;
mod start;
pub mod state;
mod step;
pub mod task_queries;
mod unmet;
mod void;
mod watch;

pub use executor::{BulkDeleteExecutor, Hours, Pace, rescue};
pub use mail::MailExecutor;
pub use service::BulkDeleteService;
