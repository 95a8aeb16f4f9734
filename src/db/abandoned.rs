//! Work that nobody waits for any more: its statement is cancelled, like one that takes too long.
//!
//! A call may stop waiting for its work: its caller hangs up, its time is up, a worker shuts down. The work itself is on a thread that
//! waits in libpq. Then the server is asked over another connection to cancel the present statement, and asked again until the work is
//! over, since between two statements there is nothing to cancel. A transaction is rolled back; what was committed stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::db::vitals::Vitals;
use crate::error::{Code, Error, Result};

/// How long work continues without its caller: most is over by then, and cancelling costs the server a process.
const GRACE: Duration = Duration::from_millis(crate::limits::database::ABANDONED_MILLIS);

/// A piece of work on the database, from the view of those that wait for it.
#[derive(Default)]
pub(super) struct Abandonable {
    abandoned: AtomicBool,
    stage: Mutex<Stage>,
}

/// Where a piece of work is.
#[derive(Default)]
enum Stage {
    /// On no connection.
    #[default]
    Between,
    /// On this one.
    At(Arc<Vitals>),
    /// It is over.
    Over,
}

impl Abandonable {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if nobody waits for the work any more.
    pub(super) fn check(&self) -> Result<()> {
        if self.abandoned.load(Ordering::Acquire) {
            return Err(Error::new(Code::DeadlineExceeded, "The caller has left."));
        }
        Ok(())
    }

    /// The work is done on this connection from now on.
    pub(super) fn begin(&self, vitals: &Arc<Vitals>) {
        *self.stage() = Stage::At(vitals.clone());
    }

    /// It is not any more; nothing that others do on the connection is cancelled from now on. Waits for a cancellation that is under way.
    pub(super) fn leave(&self) {
        *self.stage() = Stage::Between;
    }

    /// Cancels the statement under way. Returns whether there is more work to come.
    fn cancel(&self) -> bool {
        let stage = self.stage();
        if let Stage::At(vitals) = &*stage {
            vitals.cancel();
        }
        !matches!(&*stage, Stage::Over)
    }
}

/// The thread that does the work. Dropping it ends the work.
pub(super) struct Doing(pub(super) Arc<Abandonable>);

impl Drop for Doing {
    fn drop(&mut self) {
        *self.0.stage() = Stage::Over;
    }
}

/// The caller that waits for the work. Dropping it before the work is over abandons that.
pub(super) struct Waiting(Option<Arc<Abandonable>>);

impl Waiting {
    /// Waits for this.
    pub(super) fn new(abandonable: Arc<Abandonable>) -> Self {
        Waiting(Some(abandonable))
    }

    /// The work is over.
    pub(super) fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(abandonable) = self.0.take() else { return };
        abandonable.abandoned.store(true, Ordering::Release);
        // Without a runtime the process ends.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(cancel(Arc::downgrade(&abandonable)));
        }
    }
}

/// Cancels the present statement until the work is over.
async fn cancel(abandonable: Weak<Abandonable>) {
    loop {
        tokio::time::sleep(GRACE).await;
        let Some(abandonable) = abandonable.upgrade() else { return };
        match tokio::task::spawn_blocking(move || abandonable.cancel()).await {
            Ok(true) => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_whose_caller_has_left_is_not_begun_again() {
        let abandonable = Arc::new(Abandonable::default());
        let waiting = Waiting::new(abandonable.clone());
        assert!(abandonable.check().is_ok());
        drop(waiting);
        assert_eq!(abandonable.check().unwrap_err().code(), Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn work_that_is_over_was_not_abandoned() {
        let abandonable = Arc::new(Abandonable::default());
        let (waiting, doing) = (Waiting::new(abandonable.clone()), Doing(abandonable.clone()));
        assert!(abandonable.cancel(), "there is more to come");
        drop(doing);
        assert!(!abandonable.cancel());
        waiting.done();
        assert!(abandonable.check().is_ok());
    }
}
