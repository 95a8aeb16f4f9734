//! The worker that walks the slices of tasks.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::Connection;
use diesel::pg::PgConnection;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::db::outage::warn_of;
use crate::db::{Db, Work};
use crate::error::{Code, Error, Result};
use crate::jobs::{Executor, Lease, Traffic};
use crate::limits::database::WORKER_STATEMENT;
use crate::task::caution::Caution;
use crate::task::chunk_size::ChunkSize;
use crate::task::control_queries;
use crate::task::model::TOPIC;
use crate::task::pace::Reservation;
use crate::task::plan_queries::{self, Planned};
use crate::task::slice_queries::{self, Leave};
use crate::task::step::{StepEnd, StepSize, step};
use crate::task::turn_queries::{self, ReadySlices};
use crate::task::work::{ClaimedSlice, Moved, Step, TaskWork, Undone, Works};
use crate::telemetry;

/// How often a slice that does not move is tried before its task fails.
const MAX_ATTEMPTS: i32 = 10;

/// How long a worker of an unlimited task continues before it checks whether one with a pace waits; and how long a worker waits
/// for an allowance before it checks whether anyone else has work for it.
const GLANCE: Duration = Duration::from_millis(200);

/// A chunk waits for a lock for so many times as long as it shall take.
const LOCK_WAIT: u32 = 2;

/// A worker that has a statement under way checks so often whether its task is to pause or to stop. A chunk takes less, as a rule.
const CHECK_EVERY: Duration = Duration::from_millis(300);

/// How long what a worker has under way may continue once its task is to pause or to stop: a chunk is over by then, as a rule, and not done
/// in vain.
const LAST: Duration = Duration::from_millis(1_500);

/// How large chunks are, and how long a worker stays with a task.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    /// The most objects that one chunk takes up.
    pub chunk_size: i64,
    /// How long a chunk shall take.
    pub chunk_target: Duration,
    /// After how long a worker turns to another task that waits.
    pub turn: Duration,
    /// For how long a chunk is tried again that ran into what others have locked.
    pub lock_patience: Duration,
}

/// When a worker works.
#[derive(Clone, Debug)]
pub enum Hours {
    /// Whenever there is work.
    Always,
    /// While this process gets hardly any calls. When that changes, the worker stops at the end of its chunk.
    Quiet(Traffic),
}

impl Hours {
    fn are_now(&self) -> bool {
        match self {
            Hours::Always => true,
            Hours::Quiet(traffic) => traffic.is_quiet(),
        }
    }
}

/// Takes up slices and does a chunk a transaction.
pub struct TaskExecutor {
    db: Db,
    works: Works,
    lease: Lease,
    options: WorkerOptions,
    hours: Hours,
    /// How large chunks had become in the slice that was left last, and of which task that was.
    learned: Mutex<Option<(Uuid, ChunkSize)>>,
}

/// The next move of a worker.
enum Next {
    /// The next chunk.
    Chunk(Moved, Duration),
    /// Another try, after this time.
    Wait(Duration),
    /// The same again, in a smaller chunk: it took too long and is undone.
    Again,
    /// Nothing more.
    Leave,
}

/// The result of a step of work, or `otherwise` if the slice belongs to another worker. The worker that then leaves it finds that out.
fn unless_lease_lost<T>(step: Step<T>, otherwise: T) -> Work<T> {
    match step {
        Ok(done) => Ok(done),
        Err(Undone::LeaseLost) => Ok(otherwise),
        Err(Undone::Failed(fail)) => Err(fail),
    }
}

impl TaskExecutor {
    /// A worker on this database, for tasks of these kinds.
    pub fn new(db: Db, works: Works, lease: Lease, options: WorkerOptions, hours: Hours) -> Self {
        TaskExecutor { db, works, lease, options, hours, learned: Mutex::new(None) }
    }

    async fn walk(&self, claim: &mut ClaimedSlice, stop: &CancellationToken) -> Result<()> {
        let work = self.works.of(claim)?;
        let (mut since, mut glanced) = (Instant::now(), Instant::now());
        let mut is_planned = claim.planned;
        while !is_planned {
            if let Some(leave) = self.is_to_end(stop) {
                return self.leave(claim, leave, Duration::ZERO).await;
            }
            match self.plan(claim, &work).await? {
                Planned::Halt => return self.leave(claim, Leave::Rest, Duration::ZERO).await,
                Planned::Whole => is_planned = true,
                Planned::Partly if self.has_had_its_turn(claim, &mut since).await? => {
                    return self.leave(claim, Leave::Turn, Duration::ZERO).await;
                }
                Planned::Partly => {}
            }
        }
        let mut size = self.known_size(claim.task_id);
        let mut caution = Caution::default();
        loop {
            if let Some(leave) = self.is_to_end(stop) {
                return self.leave(claim, leave, Duration::ZERO).await;
            }
            match self.next(claim, &work, size, &mut caution).await? {
                Next::Leave => return self.leave(claim, Leave::Rest, Duration::ZERO).await,
                Next::Chunk(Moved { done: true, .. }, _) => return Ok(()),
                Next::Chunk(moved, took) => {
                    size.learn(moved, took);
                    self.learn(claim, size);
                }
                Next::Again => {
                    size.took_too_long();
                    self.learn(claim, size);
                }
                Next::Wait(pause) => {
                    // A worker that waits for an allowance is of use elsewhere.
                    if !pause.is_zero() && self.is_any_ready(claim, ReadySlices::Any).await? {
                        return self.leave(claim, Leave::Rest, pause).await;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(pause.min(GLANCE)) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
            if self.has_had_its_turn(claim, &mut since).await? {
                return self.leave(claim, Leave::Turn, Duration::ZERO).await;
            }
            if !claim.limited && glanced.elapsed() >= GLANCE {
                glanced = Instant::now();
                if self.is_any_ready(claim, ReadySlices::Limited).await? {
                    return self.leave(claim, Leave::Rest, Duration::ZERO).await;
                }
            }
        }
    }

    /// Why the slice is to be given back now, if it is: the worker ends, or has other hours.
    fn is_to_end(&self, stop: &CancellationToken) -> Option<Leave> {
        match self.hours.are_now() {
            _ if stop.is_cancelled() => Some(Leave::End),
            false => Some(Leave::Turn),
            true => None,
        }
    }

    /// Returns whether a turn that began at `since` is over, and others wait for it. Otherwise another one begins.
    async fn has_had_its_turn(&self, claim: &ClaimedSlice, since: &mut Instant) -> Result<bool> {
        if since.elapsed() < self.options.turn {
            return Ok(false);
        }
        *since = Instant::now();
        self.others_wait(claim).await
    }

    /// Plans the task, or does the next step of that.
    async fn plan(&self, claim: &ClaimedSlice, work: &Arc<dyn TaskWork>) -> Result<Planned> {
        let (claimed, work, lease, target) =
            (claim.clone(), work.clone(), self.lease.duration, self.options.chunk_target);
        let planning = self.db.run(move |connection| {
            let planned = connection.transaction(|connection| {
                plan_queries::plan(connection, &claimed, &*work, lease, target)
            });
            unless_lease_lost(planned, Planned::Halt)
        });
        Ok(self.unless_halted(claim, planning).await?.unwrap_or(Planned::Halt))
    }

    /// The result of this work; none if the task is to pause or to stop and the work is not over soon. The present statement is cancelled
    /// then, and the transaction rolled back, unless it is being committed.
    async fn unless_halted<T>(
        &self,
        claim: &ClaimedSlice,
        work: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        let mut work = pin!(work);
        let mut halted = None;
        loop {
            tokio::select! {
                biased;
                outcome = &mut work => return outcome.map(Some),
                () = tokio::time::sleep(CHECK_EVERY) => {}
            }
            let (realm, task) = (claim.realm.clone(), claim.task_id);
            let is_at_work = self
                .db
                .run(move |connection| control_queries::is_at_work(connection, &realm, task));
            match is_at_work.await {
                Ok(false) if halted.get_or_insert_with(Instant::now).elapsed() >= LAST => {
                    return Ok(None);
                }
                Ok(false) => {}
                // If that cannot be found out, the work continues.
                Ok(true) | Err(_) => halted = None,
            }
        }
    }

    /// The next slice of this task that this worker takes up begins as large as this.
    fn learn(&self, claim: &ClaimedSlice, size: ChunkSize) {
        // A chunk that was limited by its task's pace says nothing about the size of others.
        if !claim.limited {
            *self.learned.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((claim.task_id, size));
        }
    }

    /// How large the first chunk of a slice is: as large as those of the same task have become.
    fn known_size(&self, task: Uuid) -> ChunkSize {
        let learned = *self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let known = learned.filter(|(of, _)| *of == task).map(|(_, size)| size);
        known.unwrap_or_else(|| ChunkSize::new(self.options.chunk_size, self.options.chunk_target))
    }

    /// Reserves what the next chunk may take up, where the task's pace is limited, and does it.
    async fn next(
        &self,
        claim: &mut ClaimedSlice,
        work: &Arc<dyn TaskWork>,
        size: ChunkSize,
        caution: &mut Caution,
    ) -> Result<Next> {
        let (claimed, worker, lease) = (claim.clone(), work.clone(), self.lease.duration);
        let (full, read_limit) = (size.get(), size.read_limit());
        let (wanted, before) = (caution.limit(full), *caution);
        let patience = self.options.lock_patience;
        let lock_wait = (self.options.chunk_target * LOCK_WAIT).min(patience);
        // A timeout while waiting for a lock is reported as that, and not as the end of the worker's time.
        let time = size.time().max(lock_wait * 2);
        let chunk = move |connection: &mut PgConnection| {
            let reservation = match claimed.limited {
                true => slice_queries::reserve(connection, &claimed, wanted, lease)?,
                false => Reservation::Unlimited,
            };
            let (limit, reserved) = match reservation {
                Reservation::Wait(pause) => return Ok((Err(pause), true, Duration::ZERO, before)),
                Reservation::Take { objects, .. } => (objects, true),
                Reservation::Unlimited => (wanted, false),
            };
            let started = Instant::now();
            let size =
                StepSize { limit, read_limit, reserved, lease, time, lock_wait, patience, full };
            let mut caution = before;
            let progress = step(connection, &*worker, &claimed, size, &mut caution)?;
            Ok((Ok(progress), reserved, started.elapsed(), caution))
        };
        let halted = (Ok(StepEnd::Halt), claim.limited, Duration::ZERO, before);
        let chunk = self.db.run(move |connection| unless_lease_lost(chunk(connection), halted));
        let (progress, limited, took, after) = match self.unless_halted(claim, chunk).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok(Next::Leave),
            Err(error) if error.code() == Code::DeadlineExceeded => return self.again(claim).await,
            Err(error) => return Err(error),
        };
        claim.limited = limited;
        *caution = after;
        match progress {
            Err(pause) => Ok(Next::Wait(pause)),
            Ok(StepEnd::Halt) => Ok(Next::Leave),
            Ok(StepEnd::Limited) => {
                claim.limited = true;
                Ok(Next::Wait(Duration::ZERO))
            }
            Ok(StepEnd::Moved(moved)) => {
                // It moves, so what failed before counts no more.
                claim.attempts = 0;
                work.committed(moved);
                telemetry::chunk(TOPIC, moved.met.unsigned_abs(), took);
                if moved.done {
                    telemetry::job_finished(TOPIC, "succeeded");
                }
                Ok(Next::Chunk(moved, took))
            }
        }
    }

    /// After a chunk that took too long and is undone.
    async fn again(&self, claim: &ClaimedSlice) -> Result<Next> {
        WORKER_STATEMENT.reached();
        let (claim, lease) = (claim.clone(), self.lease.duration);
        let renew = move |connection: &mut PgConnection| {
            slice_queries::renew(connection, &claim, lease).map(|()| Next::Again)
        };
        self.db.run(move |connection| unless_lease_lost(renew(connection), Next::Leave)).await
    }

    async fn others_wait(&self, claim: &ClaimedSlice) -> Result<bool> {
        let (claim, works) = (claim.clone(), self.works);
        self.db.run(move |connection| turn_queries::others_wait(connection, works, &claim)).await
    }

    async fn is_any_ready(&self, claim: &ClaimedSlice, ready: ReadySlices) -> Result<bool> {
        let claim = claim.clone();
        self.db
            .run(move |connection| {
                turn_queries::is_any_ready(connection, &claim.realm, claim.task_id, ready)
            })
            .await
    }

    async fn leave(&self, claim: &ClaimedSlice, leave: Leave, delay: Duration) -> Result<()> {
        let claimed = claim.clone();
        let released = self
            .db
            .run(move |connection| slice_queries::release(connection, &claimed, leave, delay))
            .await?;
        if !released {
            tracing::warn!(task = %claim.task_id, slice = claim.slice, "the lease of a slice was lost");
            telemetry::lease_lost(TOPIC);
        }
        Ok(())
    }

    /// After a failure: tries again later, or ends the task when it has not moved for long.
    async fn give_back(&self, claim: &ClaimedSlice, error: &Error) -> Result<()> {
        warn_of!(error, task = %claim.task_id, slice = claim.slice, attempts = claim.attempts, "slice failed");
        let hopeless = matches!(
            error.code(),
            Code::InvalidFilter | Code::CountMismatch | Code::UnknownAttribute
        );
        if !hopeless && claim.attempts < MAX_ATTEMPTS {
            let delay = Duration::from_secs(1 << claim.attempts.clamp(1, 6).unsigned_abs()) / 2;
            return self.leave(claim, Leave::Failure, delay).await;
        }
        let (claim, code) = (claim.clone(), error.code().name());
        let message = if hopeless {
            error.message()
        } else {
            "The task could not continue; the service's log says why."
        }
        .to_owned();
        self.db.run(move |connection| slice_queries::fail(connection, &claim, code, &message)).await
    }
}

#[tonic::async_trait]
impl Executor for TaskExecutor {
    type Job = ClaimedSlice;

    fn topic(&self) -> &'static str {
        TOPIC
    }

    async fn claim(&self) -> Result<Option<ClaimedSlice>> {
        if !self.hours.are_now() {
            return Ok(None);
        }
        let (Lease { owner, duration }, works) = (self.lease.clone(), self.works);
        let claimed = self
            .db
            .run(move |connection| turn_queries::claim(connection, works, &owner, duration))
            .await?;
        claimed.iter().for_each(|_| telemetry::job_claimed(TOPIC));
        Ok(claimed)
    }

    async fn execute(&self, mut claim: ClaimedSlice, stop: &CancellationToken) -> Result<()> {
        let (org, mode) = (claim.realm.org().to_owned(), claim.realm.mode());
        let span = tracing::info_span!("offboard.bulk_delete.slice", job_id = %claim.task_id, slice = claim.slice, org, %mode);
        let work = async {
            match self.walk(&mut claim, stop).await {
                Ok(()) => Ok(()),
                Err(error) => self.give_back(&claim, &error).await,
            }
        };
        work.instrument(span).await
    }
}
