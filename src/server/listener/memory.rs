//! Has the memory of closed connections given back.
//!
//! A connection costs some 30 KiB, in pieces that are too small to be mapped for themselves. When many are closed, their memory is
//! scattered between that of others, and the allocator keeps it. So it is asked to return it, not more often than there is something to
//! return.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use malloc_trim::malloc_trim;

/// How often it is looked whether it is time.
const PAUSE: Duration = Duration::from_secs(3);
/// So many connections are worth it: two mebibytes.
const WORTHWHILE: usize = 64;

/// How many connections were closed since.
static CLOSED: AtomicUsize = AtomicUsize::new(0);

/// A connection was closed.
pub fn closed() {
    CLOSED.fetch_add(1, Relaxed);
}

/// Has the memory of the connections of all listeners given back, until it is dropped.
pub async fn give_back() {
    loop {
        tokio::time::sleep(PAUSE).await;
        if CLOSED.load(Relaxed) >= WORTHWHILE {
            CLOSED.store(0, Relaxed);
            // It does not panic, and where the runtime ends it does not matter.
            let _ = tokio::task::spawn_blocking(malloc_trim).await;
        }
    }
}
