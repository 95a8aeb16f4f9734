//! What is wrong with the form of a request, when its service has yet to say what else is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether the form of a request has faults. What could be read of it goes to its service all the same, which checks it and then finds that nothing
/// is to be done: so every fault is told at once. Among the extensions of a request; clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Form(Arc<AtomicBool>);

impl Form {
    /// It has faults.
    pub fn spoil(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it has.
    pub fn is_spoilt(&self) -> bool {
        self.0.load(Relaxed)
    }
}
