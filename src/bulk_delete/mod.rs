//! Deletion of many entities, as a task.

pub mod chunk;
mod executor;
mod guards;
mod list;
pub mod list_queries;
mod mail;
mod mail_queries;
pub mod model;
mod preview;
pub mod preview_queries;
pub mod queries;
pub mod selector;
mod service;
mod start;
pub mod state;
mod task_queries;

pub use executor::BulkDeleteExecutor;
pub use mail::MailExecutor;
pub use service::BulkDeleteService;
