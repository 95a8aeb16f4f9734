//! The worker that removes entities whose grace period is over.

use std::collections::HashSet;

use diesel::pg::PgConnection;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::db::outage::warn_of;
use crate::db::{Db, Fail, backoff_of, is_refusal};
use crate::error::{Result, one_line};
use crate::jobs::{Executor, Lease};
use crate::offboarding::model::MAX_ATTEMPTS;
use crate::offboarding::queries::TOPIC;
use crate::offboarding::removal_queries::{self, ClaimedRequest, LONGEST_WAIT, Reason};
use crate::telemetry;

/// How many requests are claimed, and removed, at once.
const BATCH: i64 = 100;
/// How often the removal of entities that others keep changing is tried before it is put off.
const ROUNDS: usize = 3;

/// The code and the sentence of a removal that the database refuses.
const REFUSED: (&str, &str) = (
    "refused_by_database",
    "The database refuses to have the entity removed; the service's log says why.",
);

/// The outcome of a request that was tried alone.
enum Alone {
    /// Its entity was removed.
    Removed,
    /// It was not.
    Left,
    /// The database refuses it, for this cause.
    Refused(String),
}

/// How a request ended that was not done.
enum Settled {
    /// It failed.
    Failed,
    /// It is tried again later.
    PutOff,
    /// Nothing was changed: the request is another worker's.
    LeaseLost,
}

/// Takes up ready requests and removes their entities, many in one transaction.
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
    async fn remove(&self, claimed: Vec<ClaimedRequest>) -> Result<Vec<ClaimedRequest>> {
        let batch = claimed.clone();
        let done =
            self.db.run(move |connection| removal_queries::remove(connection, &batch)).await?;
        let done: HashSet<Uuid> = done.into_iter().collect();
        done.iter().for_each(|_| telemetry::job_finished(TOPIC, "succeeded"));
        Ok(claimed.into_iter().filter(|claim| !done.contains(&claim.id)).collect())
    }

    /// Removes the entity of one request.
    async fn remove_alone(&self, claim: &ClaimedRequest) -> Result<Alone> {
        let batch = [claim.clone()];
        let removing = move |connection: &mut PgConnection| match removal_queries::remove(
            connection, &batch,
        ) {
            Ok(done) => Ok(if done.is_empty() { Alone::Left } else { Alone::Removed }),
            Err(Fail::Database(error)) if is_refusal(&error) => {
                // Where the statement fails with nothing to remove as well, the fault is not with this entity.
                removal_queries::remove(connection, &[])?;
                Ok(Alone::Refused(one_line(&error.to_string())))
            }
            Err(fail) => Err(fail),
        };
        self.db.run(removing).await
    }

    /// Ends a request whose entity the database refuses to have removed: it would again. Where it refuses the way back to `active` as well, the request
    /// is put off.
    async fn end_refused(&self, claim: ClaimedRequest) -> Result<()> {
        let refused = claim.clone();
        let ended = self
            .db
            .run(move |connection| {
                removal_queries::fail(connection, &refused, REFUSED.0, REFUSED.1)
            })
            .await;
        let Err(error) = ended else {
            telemetry::job_finished(TOPIC, "failed");
            return Ok(());
        };
        warn_of!(error, job_id = %claim.id, "a request cannot be ended; it is put off");
        let reason = Reason { code: REFUSED.0, message: REFUSED.1 };
        self.db
            .run(move |connection| {
                removal_queries::put_off(
                    connection,
                    &claim,
                    backoff_of(claim.attempts, LONGEST_WAIT),
                    reason,
                )
            })
            .await?;
        Ok(())
    }

    /// Finds out why a request was not done, and ends it or puts it off.
    async fn settle(&self, claim: ClaimedRequest) -> Result<()> {
        let settled = self.db.run(move |connection| {
            let Some(obstacle) = removal_queries::obstacle(connection, &claim)? else {
                return Ok(Settled::LeaseLost);
            };
            let reason = if !obstacle.leaving {
                ("not_found", "The entity is not there any more.")
            } else if obstacle.on_hold {
                ("on_hold", "The entity is on hold.")
            } else if claim.attempts >= MAX_ATTEMPTS {
                ("unavailable", "The entity was changed by others each time it was tried.")
            } else {
                let reason = Reason {
                    code: "unavailable",
                    message: "The entity was changed by others while it was tried.",
                };
                removal_queries::put_off(
                    connection,
                    &claim,
                    backoff_of(claim.attempts, LONGEST_WAIT),
                    reason,
                )?;
                return Ok(Settled::PutOff);
            };
            removal_queries::fail(connection, &claim, reason.0, reason.1)?;
            Ok(Settled::Failed)
        });
        match settled.await? {
            Settled::LeaseLost => telemetry::lease_lost(TOPIC),
            Settled::PutOff => telemetry::job_finished(TOPIC, "put_off"),
            Settled::Failed => telemetry::job_finished(TOPIC, "failed"),
        }
        Ok(())
    }

    /// Ends or puts off a request that the database refused to do.
    async fn give_back(&self, claim: ClaimedRequest) -> Result<()> {
        self.db
            .run(move |connection| {
                if claim.attempts >= MAX_ATTEMPTS {
                    removal_queries::fail(
                        connection,
                        &claim,
                        "internal",
                        "The entity could not be removed.",
                    )
                } else {
                    let reason = Reason {
                        code: "internal",
                        message: "The entity could not be removed; it is tried again.",
                    };
                    removal_queries::put_off(
                        connection,
                        &claim,
                        backoff_of(claim.attempts, LONGEST_WAIT),
                        reason,
                    )
                }
            })
            .await?;
        Ok(())
    }
}

#[tonic::async_trait]
impl Executor for OffboardingExecutor {
    type Job = Vec<ClaimedRequest>;

    fn topic(&self) -> &'static str {
        TOPIC
    }

    async fn claim(&self) -> Result<Option<Vec<ClaimedRequest>>> {
        let Lease { owner, duration } = self.lease.clone();
        let claimed = self
            .db
            .run(move |connection| removal_queries::claim(connection, &owner, duration, BATCH))
            .await?;
        claimed.iter().for_each(|_| telemetry::job_claimed(TOPIC));
        Ok((!claimed.is_empty()).then_some(claimed))
    }

    async fn execute(&self, claimed: Vec<ClaimedRequest>, _stop: &CancellationToken) -> Result<()> {
        let span = tracing::info_span!("offboard.offboarding.batch", requests = claimed.len());
        self.finish(claimed).instrument(span).await
    }
}

impl OffboardingExecutor {
    /// Ends every one of these, or gives it back.
    async fn finish(&self, claimed: Vec<ClaimedRequest>) -> Result<()> {
        let mut left = claimed;
        for _ in 0..ROUNDS {
            left = match self.remove(left.clone()).await {
                Ok(rest) => rest,
                Err(error) => {
                    warn_of!(
                        error,
                        requests = left.len(),
                        "removal failed as a batch; trying each alone"
                    );
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
    async fn each_alone(&self, claimed: Vec<ClaimedRequest>) -> Result<()> {
        for claim in claimed {
            match self.remove_alone(&claim).await {
                Ok(Alone::Removed) => telemetry::job_finished(TOPIC, "succeeded"),
                Ok(Alone::Left) => self.settle(claim).await?,
                Ok(Alone::Refused(cause)) => {
                    tracing::warn!(job_id = %claim.id, org = claim.realm.org(), mode = %claim.realm.mode(), cause, "the database refuses the removal");
                    self.end_refused(claim).await?;
                }
                Err(error) => {
                    warn_of!(error, job_id = %claim.id, org = claim.realm.org(), mode = %claim.realm.mode(), attempts = claim.attempts, "removal failed");
                    self.give_back(claim).await?;
                }
            }
        }
        Ok(())
    }
}
