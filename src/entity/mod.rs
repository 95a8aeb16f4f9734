//! The registry of entities.

pub mod model;
pub mod queries;
mod service;

pub use service::EntityService;
