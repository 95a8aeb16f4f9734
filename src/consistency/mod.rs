//! The consistency check: a task that finds contradictions, and repairs them.
//!
//! Every operation of the service commits with all of its consequences. So the one snapshot of a single statement is consistent, and every
//! contradiction in it is a finding; no lock is needed to check. A repair locks the rows it is about to change, checks again in a later
//! snapshot, and changes them with their event: a contradiction that has ended meanwhile is not a finding.

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
