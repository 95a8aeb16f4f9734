//! Deletion of many entities, as a task; and whatever else is done to many, slice by slice.

pub mod chunk;
pub mod consistency;
mod control_queries;
mod executor;
pub mod kind;
pub mod model;
mod pace;
pub mod queries;
pub mod selector;
mod service;
pub mod slice_queries;
pub mod state;
mod step;
pub mod task_queries;

pub use executor::{BulkDeleteExecutor, Pace, rescue};
pub use service::BulkDeleteService;
