//! The check of consistency: a task that finds contradictions, and repairs them.
//!
//! Every operation of the service commits with all of its consequences. So the one snapshot of a single statement is consistent, and every
//! contradiction in it is a finding; no lock is needed to check. A repair locks the rows it is about to change, checks again in a later
//! snapshot, and changes them with their event: a contradiction that has ended meanwhile is not a finding.

pub mod dependent_queries;
pub mod entity_queries;
pub mod event_queries;
pub mod index_queries;
pub mod model;
pub mod offboarding_queries;
pub mod portfolio_queries;
pub mod queries;
pub mod service;
mod work;

pub use work::CHECKS;
