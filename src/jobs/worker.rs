//! Claim, lease, retry and wake-up.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::db::listen::Topics;
use crate::db::outage::warn_of;
use crate::error::Result;

/// The wait after a failure of the loop itself, such as a database that is unreachable.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How soon to check again after work. A request for work while other work waits wakes nobody; it may have been committed after the
/// worker's last check.
const AFTER_WORK: Duration = Duration::from_millis(50);

/// The owner and the length of leases.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Names this process among the replicas.
    pub owner: String,
    /// For how long a claim is valid before another worker may take it over.
    pub duration: Duration,
}

/// A kind of work that Postgres hands out.
///
/// Work is claimed in one transaction, under a lease with a fencing token, and done in others; each checks the token, so that a worker that
/// lost its lease changes nothing.
#[tonic::async_trait]
pub trait Executor: Send + Sync + 'static {
    /// The work of one claim.
    type Job: Send;

    /// The topic that wakes the loop; also the name in logs and metrics.
    fn topic(&self) -> &'static str;

    /// Claims ready work; none if there is nothing.
    async fn claim(&self) -> Result<Option<Self::Job>>;

    /// Does the claimed work. When `stop` is cancelled it ends at the next safe point and gives back the rest. A returned failure is
    /// logged; the lease of its work runs out.
    async fn execute(&self, job: Self::Job, stop: &CancellationToken) -> Result<()>;
}

/// Runs an executor until `stop`. A wake-up or, after it, the poll interval ends a wait; the first wait after work is short.
pub async fn run<E: Executor>(
    executor: E,
    topics: Topics,
    poll: Duration,
    stop: CancellationToken,
) {
    let topic = executor.topic();
    let mut wake_ups = topics.subscribe(topic);
    let mut worked = false;
    while !stop.is_cancelled() {
        let outcome = match executor.claim().await {
            Ok(Some(job)) => {
                worked = true;
                executor.execute(job, &stop).await
            }
            Ok(None) => {
                let patience =
                    if std::mem::take(&mut worked) { poll.min(AFTER_WORK) } else { poll };
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = wake_ups.next() => {}
                    () = tokio::time::sleep(patience) => {}
                }
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            warn_of!(error, worker = topic, "worker failed");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(AFTER_FAILURE) => {}
            }
        }
    }
}
