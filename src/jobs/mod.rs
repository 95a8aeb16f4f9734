//! The loop that every executor runs in: claim under a lease, work, wait to be woken, try again.

mod traffic;
mod worker;

pub use traffic::Traffic;
pub use worker::{Executor, Lease, run};
