//! The registry of entities.

pub mod model;
pub mod queries;
mod service;

pub use service::EntityService;
pub(crate) use service::to_proto;
