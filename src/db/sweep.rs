//! Removes expired rows, in the background.

use std::time::Duration;

use diesel::pg::PgConnection;

use crate::db::outage::warn_of;
use crate::db::{Db, Work};

const EVERY: Duration = Duration::from_secs(60);
/// Small, so that nobody waits behind it.
const BATCH: i64 = 1_000;

/// Removes old rows, a batch a transaction, until it is dropped. `batch` removes at most so many and returns how many; `what` names them in
/// the log. Any number of replicas may do so side by side.
pub async fn sweep(db: Db, what: &'static str, batch: fn(&mut PgConnection, i64) -> Work<usize>) {
    loop {
        match db.run(move |connection| batch(connection, BATCH)).await {
            Ok(removed) if removed as i64 == BATCH => continue,
            Ok(_) => {}
            Err(error) => warn_of!(error, what, "cannot remove what is old"),
        }
        tokio::time::sleep(EVERY).await;
    }
}
