//! The search for workers that were lost: their slices are freed.

use std::time::Duration;

use diesel::Connection;

use crate::db::Db;
use crate::db::outage::warn_of;
use crate::task::slice_queries;

/// The least time between two searches for workers that were lost.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

/// Frees the slices of dead workers, every so often, until it is dropped: so that a task without workers pauses and stops, and shows that
/// it waits to be taken up again. Any number of processes may do so side by side.
pub async fn rescue(db: Db, every: Duration) {
    loop {
        match db.run(|connection| connection.transaction(slice_queries::rescue)).await {
            Ok(0) => {}
            Ok(tasks) => tracing::info!(tasks, "slices of lost workers were freed"),
            Err(error) => warn_of!(error, "cannot search for lost workers"),
        }
        tokio::time::sleep(every.max(LEAST_PAUSE)).await;
    }
}
