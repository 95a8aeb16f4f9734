//! The worker that removes entities whose grace period is over.

use std::collections::HashSet;

use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::db::outage::warn_of;
use crate::db::{Db, backoff_of};
use crate::error::Result;
use crate::jobs::{Executor, Lease};
use crate::offboarding::model::MAX_ATTEMPTS;
use crate::offboarding::queries::TOPIC;
use crate::offboarding::removal_queries::{self, Claimed, LONGEST_WAIT, Reason};
use crate::telemetry;

/// How many requests are claimed, and removed, at once.
const BATCH: i64 = 100;
/// How often the removal of entities that others keep changing is tried before it is put off.
const ROUNDS: usize = 3;

/// Takes up due requests and removes their entities, many in one transaction.
pub struct OffboardingExecutor {
    db: Db,
    lease: Lease,
}

impl OffboardingExecutor {
    /// A worker on this database.
    pub fn new(db: Db, lease: Lease) -> Self {
        OffboardingExecutor { db, lease }
    }

    /// Removes what can be removed of these and returns the rest.
    async fn remove(&self, claimed: Vec<Claimed>) -> Result<Vec<Claimed>> {
        let batch = claimed.clone();
        let done = self.db.run(move |connection| removal_queries::remove(connection, &batch)).await?;
        let done: HashSet<Uuid> = done.into_iter().collect();
        done.iter().for_each(|_| telemetry::job_finished(TOPIC, "succeeded"));
        Ok(claimed.into_iter().filter(|claim| !done.contains(&claim.id)).collect())
    }

    /// Finds out why a request was not done, and ends it or puts it off.
    async fn settle(&self, claim: Claimed) -> Result<()> {
        let settled = self.db.run(move |connection| {
            let Some(obstacle) = removal_queries::obstacle(connection, &claim)? else { return Ok("lease_lost") };
            let reason = if !obstacle.leaving {
                ("not_found", "The entity is not there any more.")
            } else if obstacle.on_hold {
                ("on_hold", "The entity is on hold.")
            } else if claim.attempts >= MAX_ATTEMPTS {
                ("unavailable", "The entity was changed by others each time it was tried.")
            } else {
                let reason = Reason { code: "unavailable", message: "The entity was changed by others while it was tried." };
                removal_queries::put_off(connection, &claim, backoff_of(claim.attempts, LONGEST_WAIT), reason)?;
                return Ok("put_off");
            };
            removal_queries::fail(connection, &claim, reason.0, reason.1)?;
            Ok("failed")
        });
        match settled.await? {
            "lease_lost" => telemetry::lease_lost(TOPIC),
            outcome => telemetry::job_finished(TOPIC, outcome),
        }
        Ok(())
    }

    /// Ends or puts off a request that the database refused to do.
    async fn give_back(&self, claim: Claimed) -> Result<()> {
        self.db
            .run(move |connection| {
                if claim.attempts >= MAX_ATTEMPTS {
                    removal_queries::fail(connection, &claim, "internal", "The entity could not be removed.")
                } else {
                    let reason = Reason { code: "internal", message: "The entity could not be removed; it is tried again." };
                    removal_queries::put_off(connection, &claim, backoff_of(claim.attempts, LONGEST_WAIT), reason)
                }
            })
            .await?;
        Ok(())
    }
}

#[tonic::async_trait]
impl Executor for OffboardingExecutor {
    type Job = Vec<Claimed>;

    fn topic(&self) -> &'static str {
        TOPIC
    }

    async fn claim(&self) -> Result<Option<Vec<Claimed>>> {
        let Lease { owner, duration } = self.lease.clone();
        let claimed = self.db.run(move |connection| removal_queries::claim(connection, &owner, duration, BATCH)).await?;
        claimed.iter().for_each(|_| telemetry::job_claimed(TOPIC));
        Ok((!claimed.is_empty()).then_some(claimed))
    }

    async fn execute(&self, claimed: Vec<Claimed>, _stop: &CancellationToken) -> Result<()> {
        let span = tracing::info_span!("offboard.offboarding.batch", requests = claimed.len());
        self.finish(claimed).instrument(span).await
    }
}

impl OffboardingExecutor {
    /// Ends every one of these, or gives it back.
    async fn finish(&self, claimed: Vec<Claimed>) -> Result<()> {
        let mut left = claimed;
        for _ in 0..ROUNDS {
            left = match self.remove(left.clone()).await {
                Ok(rest) => rest,
                Err(error) => {
                    warn_of!(error, requests = left.len(), "removal failed as a batch; trying each alone");
                    return self.each_alone(left).await;
                }
            };
            if left.is_empty() {
                return Ok(());
            }
        }
        for claim in left {
            self.settle(claim).await?;
        }
        Ok(())
    }

    /// So that one that cannot be done does not keep the others.
    async fn each_alone(&self, claimed: Vec<Claimed>) -> Result<()> {
        for claim in claimed {
            match self.remove(vec![claim.clone()]).await {
                Ok(rest) if rest.is_empty() => {}
                Ok(_) => self.settle(claim).await?,
                Err(error) => {
                    warn_of!(error, job_id = %claim.id, org = claim.realm.org(), mode = %claim.realm.mode(), attempts = claim.attempts, "removal failed");
                    self.give_back(claim).await?;
                }
            }
        }
        Ok(())
    }
}
