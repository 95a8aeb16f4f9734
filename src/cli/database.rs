//! The database that a command works on: one that is given, or the embedded one.

use std::sync::Arc;
use std::time::Duration;

use diesel::PgConnection;
use tokio::sync::Mutex;

use super::output::note;
use crate::config::{Database, Pool, Shares};
use crate::db::embedded::EmbeddedPostgres;
use crate::db::{self, Db, Options, Refused, migrations};
use crate::error::{Code, Error, Result};
use crate::server::drain::Signals;

/// A database in use.
pub struct Opened {
    /// How to reach it.
    pub options: Options,
    is_embedded: bool,
    embedded: Arc<Mutex<Option<EmbeddedPostgres>>>,
}

impl Opened {
    /// Uses the given database, or joins, starts or makes the embedded one: for what serves.
    pub async fn open(settings: &Database) -> Result<Opened> {
        match &settings.database_url {
            Some(url) => Opened::given(url).await,
            None => Ok(Opened::of(EmbeddedPostgres::start_or_join(&settings.data_dir).await?)),
        }
    }

    /// Uses an existing database, and says which: for commands that work on the data of a service. A new one would be the database of
    /// nothing that runs.
    pub async fn existing(settings: &Database) -> Result<Opened> {
        if let Some(url) = &settings.database_url {
            let opened = Opened::given(url).await?;
            note(format_args!("Using the database {}.", db::shown_address(url)));
            return Ok(opened);
        }
        let mut signals = Signals::install().map_err(Error::internal)?;
        let found = tokio::select! {
            found = EmbeddedPostgres::start_or_join_existing(&settings.data_dir) => found?,
            code = signals.ends() => end(code),
        };
        let Some(embedded) = found else {
            let message = format!(
                "There is no database in `{}`. Say which one the service uses: its folder by `--data-dir` (OFFBOARD_DATA_DIR), or its URL by `--database-url` \
                 (OFFBOARD_DATABASE_URL). Only `offboard serve` and `offboard demo` make a database.",
                settings.data_dir.display()
            );
            return Err(Error::new(Code::NotFound, message));
        };
        note(format_args!("Using the database in {}.", embedded.data_dir().display()));
        let opened = Opened::of(embedded);
        tokio::spawn(give_back_at_a_signal(signals, opened.embedded.clone()));
        Ok(opened)
    }

    async fn given(url: &str) -> Result<Opened> {
        if let Some(fault) = db::address_fault(url) {
            return Err(Error::invalid("--database-url", "invalid", fault));
        }
        let options = Options::new(url);
        check_fitness(&options).await?;
        Ok(Opened { options, is_embedded: false, embedded: Arc::default() })
    }

    fn of(embedded: EmbeddedPostgres) -> Opened {
        let options = Options::new(embedded.database_url());
        Opened { options, is_embedded: true, embedded: Arc::new(Mutex::new(Some(embedded))) }
    }

    /// Sets how the database is used.
    pub fn with_pool(mut self, pool: &Pool) -> Self {
        self.options.pool_size = pool.db_pool_size;
        self.options.queue_limit = pool.db_queue_limit;
        self.options.acquire_timeout = pool.db_acquire_timeout;
        self.options.statement_timeout = pool.db_statement_timeout;
        self.options.lock_timeout = pool.lock_timeout();
        self
    }

    /// Sets how its connections are shared out among realms.
    pub fn with_shares(mut self, shares: &Shares) -> Self {
        self.options.shares =
            db::Shares { realm: shares.realm_db_connections, slow: shares.slow_db_connections };
        self
    }

    /// True if it is the embedded one.
    pub fn is_embedded(&self) -> bool {
        self.is_embedded
    }

    /// A pool.
    pub fn pool(&self) -> Db {
        Db::new(self.options.clone())
    }

    /// Does `work` on a connection of its own.
    pub async fn with_connection<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut PgConnection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let options = self.options.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = db::connect(&options)?;
            work(&mut connection)
        });
        done.await.map_err(Error::internal)?
    }

    /// Brings the schema up to date and returns the versions applied; it shares a schema with tables of others only if asked to.
    pub async fn migrate(&self, into_existing: bool) -> Result<Vec<String>> {
        self.with_connection(move |connection| migrations::migrate(connection, into_existing)).await
    }

    /// Brings the schema of an embedded database up to date; that of a given one is its owner's affair.
    pub async fn migrate_embedded(&self) -> Result<()> {
        if self.is_embedded() {
            self.migrate(false).await?;
        }
        Ok(())
    }

    /// Keeps the embedded database running, if it is the one; runs until it is dropped.
    pub async fn supervise(&self) {
        match &*self.embedded.lock().await {
            Some(embedded) => embedded.supervise().await,
            None => std::future::pending().await,
        }
    }

    /// Gives the embedded database back.
    pub async fn close(self) -> Result<()> {
        // Locked until it is down, so that a signal waits for that.
        let mut embedded = self.embedded.lock().await;
        match embedded.take() {
            Some(embedded) => embedded.stop().await,
            None => Ok(()),
        }
    }
}

/// Waits for a signal that would end the process, gives the embedded database back, and ends it.
async fn give_back_at_a_signal(
    mut signals: Signals,
    embedded: Arc<Mutex<Option<EmbeddedPostgres>>>,
) {
    let code = signals.ends().await;
    drop(embedded.lock().await.take());
    end(code)
}

/// Ends the process as a signal does that nobody takes over, where the embedded database was asked to stop.
#[expect(clippy::disallowed_methods, reason = "what destructors would do is done")]
fn end(code: i32) -> ! {
    std::process::exit(code)
}

/// Fails if the database cannot be used as it is. One that cannot be reached is left to who wants something of it.
async fn check_fitness(options: &Options) -> Result<()> {
    let options = options.clone();
    match tokio::task::spawn_blocking(move || db::check_fitness(&options))
        .await
        .map_err(Error::internal)?
    {
        Err(unfit @ (Refused::Unfit(_) | Refused::Denied(_))) => Err(unfit.into()),
        Err(Refused::Unreachable(_) | Refused::Crowded | Refused::Queued) | Ok(()) => Ok(()),
    }
}

/// The pause between two tries to reach a database.
pub const RETRY: Duration = Duration::from_millis(250);
