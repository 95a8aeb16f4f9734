//! The check of consistency: a task that looks for what should not be, and mends it.
//!
//! Every act of the service commits with all that it owes. So what a single statement sees, in its one snapshot, holds together, and whatever
//! does not is a finding; no lock is needed to look. A mend locks what it is about to change, looks again in a later snapshot, and changes it
//! with its event: what has come right meanwhile is no finding.

mod dependent_queries;
mod entity_queries;
mod event_queries;
mod index_queries;
mod model;
mod offboarding_queries;
mod portfolio_queries;
pub mod queries;
pub(crate) mod service;
mod work;

pub use work::CHECKS;
