//! Deletion of many entities, as a task; and whatever else is done to many, slice by slice.

pub mod chunk;
mod control;
mod control_queries;
mod executor;
pub mod kind;
pub mod model;
mod pace;
mod progress;
pub mod queries;
pub mod selector;
mod service;
pub mod slice_queries;
pub mod state;
mod step;
pub mod task_queries;
mod watch;

pub use executor::{BulkDeleteExecutor, Pace, rescue};
pub use service::BulkDeleteService;
