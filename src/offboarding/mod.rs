//! Offboarding of single entities: one request, seen through two contracts, done by a worker.

mod answers;
mod executor;
mod group_queries;
pub mod model;
mod policy;
pub mod policy_queries;
mod preview;
mod preview_queries;
pub mod queries;
pub mod removal_queries;
mod removal_service;
mod service;
mod watch;

pub use executor::OffboardingExecutor;
pub use removal_service::RemovalService;
pub use service::OffboardingService;
