//! The keys of a realm, as its callers manage them.

mod answers;
mod change_queries;
mod model;
pub mod policy;
pub(crate) mod policy_queries;
pub mod queries;
mod service;

pub use queries::sweep;
pub use service::AccessService;
