//! Connections: when one is tested, when one is dropped, and how many calls may wait for one.
//!
//! A connection is used again only if there is no sign that it is broken. Before each use its socket is checked, which shows without a
//! round trip that the server has ended it; one that was idle for a while, or that was opened before another was lost, is tested by a
//! statement. After its first failure that means its end it is dropped.

mod pooled;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diesel::Connection;
use diesel::pg::PgConnection;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use self::pooled::Pooled;
use crate::db::abandoned::{Abandonable, Doing, Waiting};
use crate::db::deadline;
use crate::db::fail::Fail;
use crate::db::fault::{Fault, fault};
use crate::db::options::Options;
use crate::db::reconnecting::{AGAIN, Reconnecting};
use crate::db::refused::Refused;
use crate::db::reserve::Reserve;
use crate::db::seal::{self, Seal};
use crate::db::share::Permits;
use crate::error::{Error, Form, Result};
use crate::telemetry;

/// A connection that nobody has used for so long is closed.
const LONGEST_IDLE: Duration = Duration::from_secs(10 * 60);
/// The least time between two times that all idle connections are closed because the database takes no changes.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// A number of losses that there never is: the connection is tested before its next use. What was cancelled on it is over, as far as the server
/// says; a proxy on the way may be late.
const DOUBTFUL: u64 = u64::MAX;
/// How often work that lost a race, or its connection, is done again before its caller hears of it.
const ATTEMPTS: u32 = 5;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    /// Connections that nobody uses; the one that was used last is last. There are never more of them, with those in use, than permits.
    idle: Mutex<Vec<Pooled>>,
    /// One has come back.
    returned: Condvar,
    /// Connections that come before the pool.
    reserve: Reserve,
    used: AtomicU32,
    /// How many connections were lost. One that was opened before the last of them is tested before its next use.
    losses: AtomicU64,
    /// When the idle connections were last closed because the database took no changes.
    swept: Mutex<Option<Instant>>,
    reconnecting: Reconnecting,
    /// Something has shown that a pooler shares backends: it is to be found out.
    suspect: AtomicBool,
    /// It was found that the database cannot be used as it is.
    unfit: AtomicBool,
    permits: Permits,
    options: Options,
    seal: OnceCell<Seal>,
}

impl Db {
    /// A pool for this database. Does not connect yet, so a service may start before its database does.
    pub fn new(options: Options) -> Self {
        Db(Arc::new(Inner {
            idle: Mutex::default(),
            returned: Condvar::new(),
            reserve: Reserve::default(),
            used: AtomicU32::new(0),
            losses: AtomicU64::new(0),
            swept: Mutex::default(),
            reconnecting: Reconnecting::default(),
            suspect: AtomicBool::new(false),
            unfit: AtomicBool::new(false),
            permits: Permits::new(&options),
            options,
            seal: OnceCell::new(),
        }))
    }

    /// How the database is used.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Connections that come before the pool where the server accepts few.
    pub(super) fn reserve(&self) -> &Reserve {
        &self.0.reserve
    }

    /// Closes a connection for the sake of another one: one that is idle, or else the next that comes back.
    pub(super) fn give_one_up(&self) {
        let idle = {
            let mut idle = self.0.idle();
            (!idle.is_empty()).then(|| idle.remove(0))
        };
        if idle.is_none() {
            self.0.reserve.owe();
        }
    }

    /// Whether something has shown that a pooler shares backends since this was last asked.
    pub(super) fn take_suspicion(&self) -> bool {
        self.0.suspect.swap(false, Ordering::AcqRel)
    }

    /// Whether the database can be used as it is. While it cannot, nothing is done: a statement might do what another one says.
    pub(super) fn set_fit(&self, fit: bool) {
        self.0.unfit.store(!fit, Ordering::Release);
        if !fit {
            let idle = std::mem::take(&mut *self.0.idle());
            drop(idle);
        }
    }

    /// Whether there is no connection, neither in use nor idle.
    pub(super) fn has_no_connection(&self) -> bool {
        self.0.used.load(Ordering::Relaxed) == 0 && self.0.idle().is_empty()
    }

    /// Has the pool's state measured. To be called once in a process.
    pub fn observe(&self) {
        let inner = self.0.clone();
        telemetry::observe_pool(move || telemetry::PoolState {
            used: inner.used.load(Ordering::Relaxed),
            idle: u32::try_from(inner.idle().len()).unwrap_or(u32::MAX),
            waiting: u32::try_from(inner.permits.waiting()).unwrap_or(u32::MAX),
            max: inner.options.pool_size,
        });
    }

    /// Does `work` on a connection, off the runtime's threads. Work that lost a race against another transaction, or its connection before it can
    /// have changed anything, is done again, so it must leave nothing behind but the changes of its transaction.
    ///
    /// Calls wait in async code, not in blocked threads: a permit for each connection is taken first, which [realms](crate::shares) share. Past
    /// the queue limit, or when none is free in time, the call fails with `unavailable`.
    ///
    /// If the caller has a [deadline], no statement may run past it; if the caller leaves, which drops the future that this returns, the
    /// present statement is cancelled. If the [form](Form) of its request has faults, nothing is done.
    pub async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut PgConnection) -> Result<T, Fail> + Send + 'static,
    {
        Form::check_current()?;
        self.run_in_any_case(work).await
    }

    async fn run_in_any_case<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut PgConnection) -> Result<T, Fail> + Send + 'static,
    {
        let mut permit = telemetry::waiting_for_pool(self.0.permits.take()).await?;
        let inner = self.0.clone();
        let span = tracing::Span::current();
        let deadline = deadline::current();
        let abandonable = Arc::new(Abandonable::default());
        let (waiting, doing) = (Waiting::new(abandonable.clone()), Doing(abandonable));
        let outcome = tokio::task::spawn_blocking(move || {
            permit.begin();
            let _permit = permit;
            let _entered = span.enter();
            run_blocking(&inner, deadline, &doing.0, work).map_err(|failed| failed.error)
        });
        let outcome = outcome.await;
        waiting.done();
        outcome.map_err(Error::internal)?
    }

    /// Does `work` on this thread, which may wait, as the service's own. See [`Db::run`].
    pub(super) fn run_here<T>(
        &self,
        deadline: Option<Instant>,
        abandonable: &Abandonable,
        work: impl FnMut(&mut PgConnection) -> Result<T, Fail>,
    ) -> Result<T, Failed> {
        let permit = Handle::current().block_on(telemetry::waiting_for_pool(self.0.permits.take()));
        let mut permit = permit.map_err(Failed::before_it_began)?;
        permit.begin();
        run_blocking(&self.0, deadline, abandonable, work)
    }

    /// Does `work` in one transaction. See [`Db::run`].
    pub async fn transaction<T, F>(&self, mut work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut PgConnection) -> Result<T, Fail> + Send + 'static,
    {
        self.run(move |connection| connection.transaction(|connection| work(connection))).await
    }

    /// The seal of tokens, read once in a process: also for callers who are to learn that a token is invalid.
    pub async fn seal(&self) -> Result<Seal> {
        self.0.seal.get_or_try_init(|| self.run_in_any_case(seal::read)).await.cloned()
    }
}

/// Counts a connection that is in use, also one whose work panics.
struct InUse<'a>(&'a AtomicU32);

impl<'a> InUse<'a> {
    fn enter(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        InUse(count)
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Vec<Pooled>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that can be used: an idle one, or a new one. While the database is unreachable, or lets no more of us in, that is tried
    /// again for as long as a call may wait, so that a restart costs nobody an error and calls share what connections there are.
    fn take(&self, deadline: Option<Instant>, abandonable: &Abandonable) -> Result<Pooled> {
        let mut until = Instant::now() + self.options.acquire_timeout;
        if let Some(deadline) = deadline {
            until = until.min(deadline);
        }
        loop {
            abandonable.check()?;
            if self.unfit.load(Ordering::Acquire) {
                let cause = Refused::Unfit(
                    "the database cannot be used as it is; readiness says why".to_owned(),
                );
                return Err(Error::unavailable("The database cannot be reached.").caused_by(cause));
            }
            // Apart from the loop's body, so that nothing is locked while a connection is tested or closed.
            let next = || self.idle().pop();
            while let Some(mut pooled) = next() {
                if pooled.is_usable(self.losses.load(Ordering::Acquire)) {
                    return Ok(pooled);
                }
                // The others are tested as well before they are used.
                self.lost();
            }
            let may_try = if self.reserve.goes_first() {
                Err(AGAIN.0)
            } else {
                self.reconnecting.try_now(self.used.load(Ordering::Relaxed) > 0)
            };
            let (pause, refused) = match may_try {
                Err(pause) => (pause, None),
                Ok(()) => match Pooled::open(self) {
                    Ok(pooled) => {
                        self.reconnecting.succeeded();
                        return Ok(pooled);
                    }
                    Err(refused) => {
                        if matches!(refused, Refused::Unfit(_)) {
                            self.suspect.store(true, Ordering::Release);
                        }
                        self.reconnecting.failed(&refused);
                        if matches!(refused, Refused::Queued)
                            && deadline.is_none_or(|deadline| deadline > Instant::now())
                        {
                            // It has waited for that alone; others may have given one back meanwhile.
                            until = until.max(Instant::now() + AGAIN.1 * 2);
                        }
                        (AGAIN.0, Some(refused))
                    }
                },
            };
            if Instant::now() + pause >= until || matches!(refused, Some(Refused::Unfit(_))) {
                // Whatever it is, callers get the same message.
                let error = Error::unavailable("The database cannot be reached.");
                return Err(match refused {
                    Some(refused) => error.caused_by(refused),
                    None => error,
                });
            }
            let idle = self.idle();
            // The next round finds out whether one has come back.
            drop(self.returned.wait_timeout_while(idle, pause, |idle| idle.is_empty()));
        }
    }

    fn lost(&self) {
        self.losses.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes a connection back, or closes it. Returns whether it failed its work by what it is, so that another connection may do better.
    fn give_back(&self, mut pooled: Pooled) -> bool {
        let vitals = &pooled.session.vitals;
        vitals.finish();
        let was_cancelled = vitals.take_cancelled();
        let another_may_do = match vitals.ended() {
            Some(Fault::ReadOnly) => self.turned_read_only(vitals.age()),
            Some(Fault::Shared) => {
                self.suspect.store(true, Ordering::Release);
                self.lost();
                true
            }
            Some(_) => {
                self.lost();
                true
            }
            None => false,
        };
        if pooled.is_whole() && !self.reserve.take_owed() {
            if was_cancelled {
                pooled.losses = DOUBTFUL;
            }
            pooled.used = Instant::now();
            let mut idle = self.idle();
            idle.push(pooled);
            let old = idle.iter().take_while(|pooled| pooled.used.elapsed() > LONGEST_IDLE).count();
            let old: Vec<Pooled> = idle.drain(..old).collect();
            drop(idle);
            self.returned.notify_one();
            drop(old);
        }
        another_may_do
    }

    /// A connection of this age learned that the database takes no changes. It may lead to a server that was replaced, and so may the
    /// idle ones: they are closed, since a test would find nothing. Where that was done a moment ago, the database is so.
    fn turned_read_only(&self, age: Duration) -> bool {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        match *swept {
            Some(at) if at.elapsed() < SWEEP_EVERY => age > at.elapsed(),
            _ => {
                *swept = Some(Instant::now());
                drop(swept);
                let idle = std::mem::take(&mut *self.idle());
                drop(idle);
                true
            }
        }
    }
}

/// Why work failed, and whether it is certain, for work of one statement, that it has left nothing in the database.
pub(super) struct Failed {
    pub error: Error,
    pub left_nothing: bool,
}

impl Failed {
    fn before_it_began(error: Error) -> Self {
        Failed { error, left_nothing: true }
    }
}

fn run_blocking<T>(
    inner: &Inner,
    deadline: Option<Instant>,
    abandonable: &Abandonable,
    mut work: impl FnMut(&mut PgConnection) -> Result<T, Fail>,
) -> Result<T, Failed> {
    let mut attempt = 1;
    loop {
        let mut pooled = inner.take(deadline, abandonable).map_err(Failed::before_it_began)?;
        let in_use = InUse::enter(&inner.used);
        let allowance = deadline::allowance(deadline, inner.options.statement_timeout)
            .map_err(Failed::before_it_began)?;
        let allowed = pooled.allow(allowance);
        // The earlier settings of the session leave nothing behind.
        pooled.session.vitals.begin();
        abandonable.begin(&pooled.session.vitals);
        // Work that panics leaves its connection in no known state, and takes it along.
        let outcome = allowed.and_then(|()| work(&mut pooled.session.connection));
        abandonable.leave();
        drop(in_use);
        let left_nothing = pooled.session.vitals.left_nothing();
        let has_ended = pooled.session.vitals.ended().is_some();
        let another_may_do = inner.give_back(pooled);
        let fail = match outcome {
            Ok(value) => return Ok(value),
            Err(fail) => fail,
        };
        abandonable.check().map_err(|error| Failed { error, left_nothing })?;
        let lost_a_race = matches!(&fail, Fail::Database(error) if fault(error) == Fault::Conflict);
        if attempt >= ATTEMPTS || !(lost_a_race || another_may_do && left_nothing) {
            // A setting that the server refused is undone.
            let is_refused =
                matches!(&fail, Fail::Database(diesel::result::Error::DatabaseError(..)))
                    && !has_ended;
            return Err(Failed { left_nothing: left_nothing || is_refused, error: fail.into() });
        }
        attempt += 1;
    }
}
