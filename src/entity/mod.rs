//! The registry of entities.

mod answers;
mod batch;
pub(crate) mod bounded;
mod change_queries;
mod change_service;
mod dependent;
pub mod dependent_queries;
mod dependent_service;
mod entity_update;
pub(crate) mod fields;
pub(crate) mod filter_check;
pub(crate) mod filter_check_queries;
mod get;
mod group_queries;
mod import;
pub mod index;
pub mod list;
pub mod list_queries;
pub mod model;
mod new_entity;
mod queries;
mod reads;
pub(crate) mod requirements;
mod service;
pub(crate) mod suspect_value;
pub mod tombstone_queries;
pub(crate) mod unknown;
pub(crate) mod unknown_queries;
pub(crate) mod unknown_value;
pub(crate) mod unknown_value_queries;
pub(crate) mod walk_queries;
pub(crate) mod warning_queries;

pub use index::{AttributeIndexService, IndexExecutor};
pub use new_entity::NewEntity;
pub use service::EntityService;
pub(crate) use service::to_proto;
