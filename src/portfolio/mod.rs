//! Portfolios and who is in them.

pub mod model;
pub mod queries;
mod service;

pub use service::PortfolioService;
