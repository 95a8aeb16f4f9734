//! The registry of entities.

mod import;
pub mod model;
pub mod queries;
mod service;

pub use service::EntityService;
