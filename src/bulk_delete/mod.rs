//! Deletion of many entities, as a task.

pub mod chunk;
mod executor;
pub mod model;
pub mod queries;
pub mod selector;
mod service;
pub mod state;
mod task_queries;

pub use executor::BulkDeleteExecutor;
pub use service::BulkDeleteService;
