//! The loop that every executor runs in: claim under a lease, work, wait to be woken, try again.

mod clock;
mod clock_queries;
mod traffic;
mod worker;

pub use clock::{Recall, watch_clock};
pub use traffic::Traffic;
pub use worker::{Executor, Lease, run};
