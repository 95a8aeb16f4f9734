//! Partitions for the time ahead.

use std::time::Duration;

use diesel::RunQueryDsl;

use crate::db::{Db, Work};

/// How many weeks ahead.
const AHEAD: i32 = 3;
const EVERY: Duration = Duration::from_secs(6 * 3600);
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Keeps partitions ahead of the clock until it is dropped. Rows without a partition go to the default one, so a late run loses nothing.
pub async fn keep(db: Db) {
    loop {
        let kept = db.transaction(ensure).await;
        let pause = match kept {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::warn!(%error, cause = error.cause_chain(), "cannot make partitions ahead");
                AFTER_FAILURE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn ensure(connection: &mut diesel::PgConnection) -> Work<()> {
    diesel::sql_query("SELECT ensure_partitions($1)").bind::<diesel::sql_types::Integer, _>(AHEAD).execute(connection)?;
    Ok(())
}
