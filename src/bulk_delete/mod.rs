//! Deletion of many entities, as a task.

mod admission;
mod admission_queries;
pub mod bound;
pub mod chunk;
mod chunk_queries;
mod exclude_queries;
mod excludes;
#[cfg(test)]
mod forms;
mod guards;
mod lists;
mod model;
mod plan_queries;
mod preview;
mod preview_queries;
mod queries;
pub mod selector;
mod service;
mod shown;
mod start;
mod unmet;
mod void;
mod works;

pub use service::BulkDeleteService;
pub use works::WORKS;
