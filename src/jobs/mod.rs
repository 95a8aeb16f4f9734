//! The loop that every executor runs in: claim under a lease, work, wait to be woken, try again.

mod worker;

pub use worker::{Executor, Lease, run};
