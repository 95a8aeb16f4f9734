//! Portfolios and their members.

mod answers;
mod batch;
pub mod batch_queries;
mod export;
pub mod export_queries;
mod group_queries;
mod membership;
mod model;
pub mod queries;
pub mod registry_queries;
mod service;

pub use service::PortfolioService;
