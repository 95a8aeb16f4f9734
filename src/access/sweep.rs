//! Removal of idempotency records that have had their time.

use std::time::Duration;

use crate::access::idempotency_queries::sweep;
use crate::db::Db;

const EVERY: Duration = Duration::from_secs(60);
/// Small, so that nobody waits behind it.
const BATCH: i64 = 1_000;

/// Removes old records, a batch a transaction, until it is dropped. Any number of replicas may do so side by side.
pub async fn sweep_idempotency_keys(db: Db) {
    loop {
        match db.run(|connection| sweep(connection, BATCH)).await {
            Ok(removed) if removed as i64 == BATCH => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, cause = error.cause_chain(), "cannot remove old idempotency keys"),
        }
        tokio::time::sleep(EVERY).await;
    }
}
