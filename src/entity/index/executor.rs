//! The worker that builds and removes indexes.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::db::Db;
use crate::db::outage::warn_of;
use crate::entity::index::build::{self, IndexStepEnd};
use crate::entity::index::lease_queries::{self, ClaimedIndex};
use crate::entity::index::model::Phase;
use crate::entity::index::queries::TOPIC;
use crate::error::{Error, Result};
use crate::jobs::{Executor, Lease};
use crate::telemetry;

/// How often a step that fails is tried before the build is given up.
const MAX_ATTEMPTS: i32 = 10;
/// How soon to check again whether those that are waited for are over.
const PATIENCE: Duration = Duration::from_millis(50);
/// After how many checks to do something else meanwhile.
const CHECKS: usize = 20;
/// And for how long.
const MEANWHILE: Duration = Duration::from_secs(1);

/// After how long to turn to another realm that waits.
const TURN: Duration = Duration::from_secs(2);

/// Takes up indexes that are to be built or removed.
pub struct IndexExecutor {
    db: Db,
    lease: Lease,
}

impl IndexExecutor {
    /// A worker on this database.
    pub fn new(db: Db, lease: Lease) -> Self {
        IndexExecutor { db, lease }
    }

    async fn work(&self, claim: &mut ClaimedIndex, stop: &CancellationToken) -> Result<()> {
        let (mut checks, mut since) = (0, Instant::now());
        while !stop.is_cancelled() {
            let (claimed, lease) = (claim.clone(), self.lease.duration);
            match self.db.run(move |connection| build::step(connection, &claimed, lease)).await? {
                IndexStepEnd::Done => {
                    telemetry::job_finished(TOPIC, "succeeded");
                    return Ok(());
                }
                IndexStepEnd::LeaseLost => {
                    telemetry::lease_lost(TOPIC);
                    return Ok(());
                }
                IndexStepEnd::More(phase) => (claim.phase, checks) = (phase, 0),
                IndexStepEnd::Waits if checks < CHECKS => {
                    checks += 1;
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(PATIENCE) => {}
                    }
                }
                IndexStepEnd::Waits => return self.release(claim, MEANWHILE, false).await,
            }
            // It moves, so what failed before counts no more.
            claim.attempts = 0;
            if since.elapsed() >= TURN {
                since = Instant::now();
                let claimed = claim.clone();
                if self
                    .db
                    .run(move |connection| lease_queries::others_wait(connection, &claimed))
                    .await?
                {
                    break;
                }
            }
        }
        self.release(claim, Duration::ZERO, false).await
    }

    async fn release(&self, claim: &ClaimedIndex, delay: Duration, counts: bool) -> Result<()> {
        let claim = claim.clone();
        self.db
            .run(move |connection| lease_queries::release(connection, &claim, delay, counts))
            .await
            .map(drop)
    }

    /// After a failure: tries again later, or ends the build when it has not moved for long. A removal is never given up.
    async fn give_back(&self, claim: &ClaimedIndex, error: &Error) -> Result<()> {
        let attribute = &claim.declared.attribute;
        warn_of!(error, attribute, attempts = claim.attempts, "index failed");
        if claim.attempts < MAX_ATTEMPTS || matches!(claim.phase, Phase::Retiring | Phase::Clearing)
        {
            let delay = Duration::from_secs(1 << claim.attempts.clamp(1, 6).unsigned_abs()) / 2;
            return self.release(claim, delay, true).await;
        }
        telemetry::job_finished(TOPIC, "failed");
        let (claim, code) = (claim.clone(), error.code().name());
        let message = "The index could not be built; the service's log says why.";
        self.db
            .transaction(move |connection| lease_queries::fail(connection, &claim, code, message))
            .await
    }
}

#[tonic::async_trait]
impl Executor for IndexExecutor {
    type Job = ClaimedIndex;

    fn topic(&self) -> &'static str {
        TOPIC
    }

    async fn claim(&self) -> Result<Option<ClaimedIndex>> {
        let Lease { owner, duration } = self.lease.clone();
        let claimed = self
            .db
            .run(move |connection| lease_queries::claim(connection, &owner, duration))
            .await?;
        claimed.iter().for_each(|_| telemetry::job_claimed(TOPIC));
        Ok(claimed)
    }

    async fn execute(&self, mut claim: ClaimedIndex, stop: &CancellationToken) -> Result<()> {
        let (org, mode) = (claim.realm.org().to_owned(), claim.realm.mode());
        let span = tracing::info_span!("offboard.attribute_index", attribute = claim.declared.attribute, org, %mode);
        let work = async {
            match self.work(&mut claim, stop).await {
                Ok(()) => Ok(()),
                Err(error) => self.give_back(&claim, &error).await,
            }
        };
        work.instrument(span).await
    }
}
