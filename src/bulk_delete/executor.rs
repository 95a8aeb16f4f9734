//! The worker that walks the slices of bulk deletes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::bulk_delete::chunk::{Chunks, Progress};
use crate::bulk_delete::model::parse_filter;
use crate::bulk_delete::queries::TOPIC;
use crate::bulk_delete::selector::Selector;
use crate::bulk_delete::task_queries::{self, Claimed};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::jobs::{Executor, Lease};
use crate::telemetry;

/// How often a slice that does not move is tried before its task fails.
const MAX_ATTEMPTS: i32 = 10;

/// Takes up slices and deletes a chunk a transaction.
pub struct BulkDeleteExecutor {
    db: Db,
    lease: Lease,
    chunk_size: i64,
}

impl BulkDeleteExecutor {
    /// A worker on this database that deletes at most `chunk_size` entities in one transaction.
    pub fn new(db: Db, lease: Lease, chunk_size: i64) -> Self {
        BulkDeleteExecutor { db, lease, chunk_size }
    }

    async fn walk(&self, claim: &mut Claimed, stop: &CancellationToken) -> Result<()> {
        let filter = claim.filter.clone().map(parse_filter).transpose()?.map(|(_, filter)| filter);
        let selector = || Selector::new(claim.mode, claim.listed, filter.as_ref(), claim.entity_type.as_deref());
        if !claim.planned {
            let (claim, selector) = (claim.clone(), selector());
            self.db.transaction(move |connection| task_queries::plan(connection, &claim, &selector)).await?;
        }
        let chunks = Arc::new(Chunks::new(selector()));
        while !stop.is_cancelled() {
            let started = Instant::now();
            let (chunks, claimed, limit, lease) = (chunks.clone(), claim.clone(), self.chunk_size, self.lease.duration);
            let progress = self.db.run(move |connection| chunks.run(connection, &claimed, limit, lease)).await?;
            let (Progress::More { deleted } | Progress::Done { deleted }) = progress else { break };
            // It moves, so what failed before counts no more.
            claim.attempts = 0;
            telemetry::chunk(TOPIC, deleted.unsigned_abs(), started.elapsed());
            telemetry::entities_deleted(claim.mode.as_str(), deleted.unsigned_abs());
            if matches!(progress, Progress::Done { .. }) {
                telemetry::job_finished(TOPIC, "succeeded");
                return Ok(());
            }
        }
        self.release(claim, Duration::ZERO).await
    }

    async fn release(&self, claim: &Claimed, delay: Duration) -> Result<()> {
        let claim = claim.clone();
        self.db.run(move |connection| task_queries::release(connection, &claim, delay)).await.map(drop)
    }

    /// After a failure: tries again later, or ends the task when it has not moved for long.
    async fn give_back(&self, claim: &Claimed, error: &Error) -> Result<()> {
        tracing::warn!(%error, cause = error.cause_chain(), task = %claim.task_id, slice = claim.slice, attempts = claim.attempts, "slice failed");
        let hopeless = matches!(error.code(), crate::error::Code::InvalidFilter);
        if !hopeless && claim.attempts < MAX_ATTEMPTS {
            let delay = Duration::from_secs(1 << claim.attempts.clamp(1, 6).unsigned_abs()) / 2;
            return self.release(claim, delay).await;
        }
        let (claim, code) = (claim.clone(), error.code().name());
        let message = "The task could not go on; the service's log tells why.";
        self.db.transaction(move |connection| task_queries::fail(connection, &claim, code, message)).await
    }
}

#[tonic::async_trait]
impl Executor for BulkDeleteExecutor {
    type Job = Claimed;

    fn topic(&self) -> &'static str {
        TOPIC
    }

    async fn claim(&self) -> Result<Option<Claimed>> {
        let Lease { owner, duration } = self.lease.clone();
        let claimed = self.db.run(move |connection| task_queries::claim(connection, &owner, duration)).await?;
        claimed.iter().for_each(|_| telemetry::job_claimed(TOPIC));
        Ok(claimed)
    }

    async fn execute(&self, mut claim: Claimed, stop: &CancellationToken) -> Result<()> {
        let span = tracing::info_span!("offboard.bulk_delete.slice", job_id = %claim.task_id, slice = claim.slice);
        match self.walk(&mut claim, stop).instrument(span).await {
            Ok(()) => Ok(()),
            Err(error) => self.give_back(&claim, &error).await,
        }
    }
}
