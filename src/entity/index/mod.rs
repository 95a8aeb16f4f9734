//! Indexes over attributes that a realm has declared.
//!
//! An index has a row for each value of each entity. It says which entities may match a filter; whether one does is decided on its own row,
//! in the same snapshot. So a surplus row costs a read, and a missing row would lose a match: that must never be. `docs/adr/0013` explains
//! how an index is built while entities are changed and removed.

mod build;
mod build_queries;
mod executor;
mod lease_queries;
pub(crate) mod lookup_queries;
pub(crate) mod model;
pub mod queries;
mod service;

pub use executor::IndexExecutor;
pub use service::AttributeIndexService;
