//! Connections: how one is made, when it is tested, and how many calls may wait for one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::pg::PgConnection;
use diesel::sql_types::Text;
use diesel::{Connection, ConnectionError, RunQueryDsl};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::db::deadline;
use crate::db::fault::{Fault, fault};
use crate::db::seal::{self, Seal};
use crate::error::{Error, Result, one_line};
use crate::telemetry;

/// A connection that was idle for longer than this is tested before it is used again.
const IDLE_BEFORE_TEST: Duration = Duration::from_secs(5);
/// The least time between two warnings that the database cannot be reached.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// How often work that lost a race is done again before its caller hears of it.
const ATTEMPTS: u32 = 5;

/// Whether the language of messages was looked at in this process.
static MESSAGES_READ: Once = Once::new();

/// How the service uses its database.
#[derive(Clone, Debug)]
pub struct Options {
    /// A libpq URL or connection string.
    pub database_url: String,
    /// How many connections this process may hold.
    pub pool_size: u32,
    /// How many calls may wait for a connection before further ones are turned away with `unavailable`.
    pub queue_limit: usize,
    /// How long a call may wait for a connection.
    pub acquire_timeout: Duration,
    /// The longest that a statement may run.
    pub statement_timeout: Duration,
    /// The longest that a statement may wait for a lock.
    pub lock_timeout: Duration,
}

impl Options {
    /// The defaults, for a database.
    pub fn new(database_url: impl Into<String>) -> Self {
        Options {
            database_url: database_url.into(),
            pool_size: 10,
            queue_limit: 1000,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(60),
            lock_timeout: Duration::from_secs(5),
        }
    }
}

/// Opens a connection with the timeouts that every session of ours has.
pub fn connect(options: &Options) -> Result<PgConnection, ConnectionError> {
    let mut connection = PgConnection::establish(&bounded(&options.database_url))?;
    let session = format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = 60000; SET TIME ZONE 'UTC'; \
         SET application_name = 'offboard'; SET jit = off; SET client_min_messages = warning; \
         SELECT set_config('lc_messages', 'C', false) WHERE has_parameter_privilege('lc_messages', 'SET')",
        options.statement_timeout.as_millis(),
        options.lock_timeout.as_millis(),
    );
    connection.batch_execute(&session).map_err(ConnectionError::CouldntSetupConfiguration)?;
    MESSAGES_READ.call_once(|| warn_of_foreign_messages(&mut connection));
    Ok(connection)
}

/// Warns if the messages of the database are not in English and this role may not have them so: see [`fault`](crate::db::fault::fault).
fn warn_of_foreign_messages(connection: &mut PgConnection) {
    let language = diesel::select(sql::<Text>("current_setting('lc_messages')")).get_result::<String>(connection);
    if let Some(language) = language.ok().filter(|language| !is_english(language)) {
        tracing::warn!(
            lc_messages = language,
            "the messages of the database are not in English, so timeouts of locks and statements are not told from other failures; \
             set lc_messages to C for the role or the database, or grant SET on it"
        );
    }
}

/// Whether a locale has messages in English, as those without a language do.
fn is_english(locale: &str) -> bool {
    let language = locale.split(['.', '_', '@']).next().unwrap_or_default();
    ["", "C", "POSIX", "en", "English"].contains(&language)
}

/// The address with bounds on how long a peer may keep silent while we connect or after, unless it has bounds of its own: libpq would wait as
/// long as TCP does.
fn bounded(database_url: &str) -> String {
    let mut address = database_url.to_owned();
    let is_url = address.starts_with("postgres://") || address.starts_with("postgresql://");
    for (name, value) in [("connect_timeout", "5"), ("tcp_user_timeout", "30000")] {
        if !database_url.contains(name) {
            let joint = match (is_url, address.contains('?')) {
                (true, true) => '&',
                (true, false) => '?',
                (false, _) => ' ',
            };
            address.push_str(&format!("{joint}{name}={value}"));
        }
    }
    address
}

struct Pooled {
    connection: PgConnection,
    used: Instant,
    /// The `statement_timeout` of the session.
    allowance: Duration,
}

impl Pooled {
    /// Gives the statements to come this much time.
    fn allow(&mut self, allowance: Duration) -> Result<(), Fail> {
        if allowance != self.allowance {
            self.connection.batch_execute(&format!("SET statement_timeout = {}", allowance.as_millis()))?;
            self.allowance = allowance;
        }
        Ok(())
    }
}

struct Manager {
    options: Options,
}

impl r2d2::ManageConnection for Manager {
    type Connection = Pooled;
    type Error = Failure;

    fn connect(&self) -> Result<Pooled, Failure> {
        let connection = connect(&self.options).map_err(Failure::new)?;
        Ok(Pooled { connection, used: Instant::now(), allowance: self.options.statement_timeout })
    }

    /// Called on every check-out. A round trip each time would cost up to a fifth of the throughput, so only what was idle is tested.
    fn is_valid(&self, pooled: &mut Pooled) -> Result<(), Failure> {
        if pooled.used.elapsed() < IDLE_BEFORE_TEST {
            return Ok(());
        }
        // Not the empty statement, which diesel takes for an error.
        pooled.connection.batch_execute("SELECT 1").map_err(Failure::new)
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        use diesel::connection::TransactionManager;
        type Manager = <PgConnection as Connection>::TransactionManager;
        std::thread::panicking() || Manager::is_broken_transaction_manager(&mut pooled.connection)
    }
}

#[derive(Debug)]
struct Failure(String);

impl Failure {
    fn new(error: impl std::error::Error) -> Self {
        Failure(one_line(&error.to_string()))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// r2d2 tells of every failed attempt of every connection; the log warns of one in a while, with how many there were.
#[derive(Debug, Default)]
struct LogFailures(Mutex<(Option<Instant>, u64)>);

impl r2d2::HandleError<Failure> for LogFailures {
    fn handle_error(&self, error: Failure) {
        let (warned, attempts) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *attempts += 1;
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            tracing::warn!(cause = %error, attempts, "cannot connect to the database");
            (*warned, *attempts) = (Some(Instant::now()), 0);
        }
    }
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    pool: r2d2::Pool<Manager>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    options: Options,
    seal: OnceCell<Seal>,
}

impl Db {
    /// A pool for this database. Does not connect yet, so a service may start before its database does.
    pub fn new(options: Options) -> Self {
        let pool = r2d2::Pool::builder()
            .max_size(options.pool_size)
            .min_idle(Some(0))
            .test_on_check_out(true)
            .connection_timeout(options.acquire_timeout)
            .error_handler(Box::new(LogFailures::default()))
            .build_unchecked(Manager { options: options.clone() });
        let permits = Arc::new(Semaphore::new(options.pool_size as usize));
        Db(Arc::new(Inner { pool, permits, waiting: AtomicUsize::new(0), options, seal: OnceCell::new() }))
    }

    /// How the database is used.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Has the pool's state measured. To be called once in a process.
    pub fn observe(&self) {
        let inner = self.0.clone();
        telemetry::observe_pool(move || {
            let state = inner.pool.state();
            telemetry::PoolState {
                used: state.connections.saturating_sub(state.idle_connections),
                idle: state.idle_connections,
                waiting: u32::try_from(inner.waiting.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
                max: inner.options.pool_size,
            }
        });
    }

    /// Does `work` on a connection, off the runtime's threads. Work that lost a race against another transaction is done again, so it must
    /// leave nothing behind but what its transaction holds.
    ///
    /// Calls wait in async code, not in blocked threads: a permit for each connection is taken first. Past the queue limit, or when none is
    /// free in time, the call fails with `unavailable`.
    ///
    /// Where the caller has a [deadline], no statement may run past it.
    pub async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut PgConnection) -> Result<T, Fail> + Send + 'static,
    {
        let permit = telemetry::waiting_for_pool(self.permit()).await?;
        let inner = self.0.clone();
        let span = tracing::Span::current();
        let deadline = deadline::current();
        let outcome = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let _entered = span.enter();
            run_blocking(&inner, deadline, work)
        });
        outcome.await.map_err(Error::internal)?
    }

    /// Does `work` in one transaction. See [`Db::run`].
    pub async fn transaction<T, F>(&self, mut work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut PgConnection) -> Result<T, Fail> + Send + 'static,
    {
        self.run(move |connection| connection.transaction(|connection| work(connection))).await
    }

    /// What tokens are sealed with, read once in a process.
    pub async fn seal(&self) -> Result<Seal> {
        self.0.seal.get_or_try_init(|| self.run(seal::read)).await.cloned()
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let inner = &self.0;
        if let Ok(permit) = inner.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::enter(&inner.waiting, inner.options.queue_limit)?;
        let acquired = tokio::time::timeout(inner.options.acquire_timeout, inner.permits.clone().acquire_owned()).await;
        acquired.map_err(|_| Error::unavailable("The service is busy; try again."))?.map_err(Error::internal)
    }
}

/// A place in the queue, given back also when its caller goes away.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, limit: usize) -> Result<Self> {
        let place = Waiting(count);
        if count.fetch_add(1, Ordering::Relaxed) >= limit {
            return Err(Error::unavailable("The service is busy; try again."));
        }
        Ok(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn run_blocking<T>(inner: &Inner, deadline: Option<Instant>, mut work: impl FnMut(&mut PgConnection) -> Result<T, Fail>) -> Result<T> {
    let mut attempt = 1;
    loop {
        let mut pooled = inner.pool.get().map_err(|error| Error::unavailable("The database cannot be reached.").caused_by(error))?;
        let allowance = deadline::allowance(deadline, inner.options.statement_timeout)?;
        let outcome = pooled.allow(allowance).and_then(|()| work(&mut pooled.connection));
        pooled.used = Instant::now();
        match outcome {
            Ok(value) => return Ok(value),
            Err(Fail::Database(error)) if fault(&error) == Fault::Conflict && attempt < ATTEMPTS => attempt += 1,
            Err(fail) => return Err(fail.into()),
        }
    }
}

/// Why a piece of work on the database ended: the database failed it, or it has an answer for the caller.
#[derive(Debug)]
pub enum Fail {
    /// The database failed; if it was by losing a race, the work is done again.
    Database(diesel::result::Error),
    /// The work came to an end that the caller must hear of. The transaction is rolled back.
    Answer(Error),
}

impl From<diesel::result::Error> for Fail {
    fn from(error: diesel::result::Error) -> Self {
        Fail::Database(error)
    }
}

impl From<Fail> for Error {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::Database(error) => error.into(),
            Fail::Answer(error) => error,
        }
    }
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Fail::Answer(error)
    }
}

#[cfg(test)]
mod tests {
    use super::{bounded, is_english};

    #[test]
    fn an_address_gets_the_bounds_that_it_lacks() {
        assert_eq!(bounded("postgresql://h/d"), "postgresql://h/d?connect_timeout=5&tcp_user_timeout=30000");
        assert_eq!(
            bounded("postgres://h/d?sslmode=require&connect_timeout=9"),
            "postgres://h/d?sslmode=require&connect_timeout=9&tcp_user_timeout=30000"
        );
        assert_eq!(bounded("host=h dbname=d"), "host=h dbname=d connect_timeout=5 tcp_user_timeout=30000");
    }

    #[test]
    fn a_locale_without_a_language_is_english() {
        assert!(["", "C", "C.UTF-8", "POSIX", "en_US.UTF-8", "en_GB", "English_United States.1252"].into_iter().all(is_english));
        assert!(["de_DE.UTF-8", "fr_FR@euro", "ja_JP", "eo", "German_Germany.1252"].into_iter().all(|locale| !is_english(locale)));
    }
}
