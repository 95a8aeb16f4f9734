//! A Postgres of our own, run from the machine's Postgres binaries in a data folder, for people without a database server at hand.
//!
//! It is an ordinary cluster with durable settings, that listens on a Unix socket alone and asks for a random password. Its files:
//!
//! | path in the data folder | what it is |
//! | --- | --- |
//! | `postgres/` | the cluster |
//! | `run/` | the folder of the socket; a symbolic link `socket` to a short one where this path would be too long |
//! | `password` | the password of the database user `offboard` |
//! | `postgres.log` | the cluster's log |
//! | `start.lock` | locked while a process starts, joins or stops the cluster |
//! | `users.lock` | locked, shared, by every process that uses the cluster |
//! | `home` | a symbolic link to where the first four are, if the cluster's user cannot reach the data folder |
//!
//! Any number of our processes may use the cluster at once. The first starts it, the others join, and **the last to leave stops it**. A
//! process that is killed leaves the postmaster running and its locks free, so the next one joins what it finds and, if it is the last to
//! leave, stops it.

mod account;
mod binaries;
mod cluster;
mod home;
mod lock;
mod memory;
mod postmaster;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use diesel::{Connection, PgConnection};

pub use binaries::Search;
use cluster::Cluster;
use home::Home;
use lock::Lock;
use postmaster::State;

use crate::error::{Code, Error};

/// How long to wait for another process that starts or stops the cluster.
const GATE_PATIENCE: Duration = Duration::from_secs(600);

/// For how long another process may be about to make a cluster, without a sign of it.
const ONSET: Duration = Duration::from_secs(1);

/// How often a cluster in use is checked, and the longest pause between attempts to bring it up again.
const CHECK_EVERY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A use of the cluster of a data folder. As long as one exists, in any process, the cluster runs.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    cluster: Cluster,
    database_url: String,
    alone: bool,
    data_dir: PathBuf,
    /// `None` once it is given back.
    users: Option<Lock>,
    /// Locked on the way up, so that a start that is given up stops what it has started.
    gate: Option<Lock>,
}

impl EmbeddedPostgres {
    /// Joins the cluster of `data_dir` if it runs, else starts it; the first time, makes it.
    ///
    /// Fails with a sentence for the person at the terminal: no Postgres on this machine and what to install, a cluster of another major
    /// version, a folder that cannot be used, or the end of Postgres' log if it did not come up.
    pub async fn start_or_join(data_dir: &Path) -> Result<Self, Error> {
        Self::start_or_join_with(data_dir, &Search::system().await).await
    }

    /// As [`EmbeddedPostgres::start_or_join`], where there is a cluster; none where there is not. Makes nothing. One that another process is
    /// making is waited for.
    pub async fn start_or_join_existing(data_dir: &Path) -> Result<Option<Self>, Error> {
        let gate = data_dir.join("start.lock");
        let since = Instant::now();
        while !gate.exists() {
            if since.elapsed() >= ONSET {
                return Ok(None);
            }
            tokio::time::sleep(ONSET / 20).await;
        }
        // The process that makes the cluster has this lock until it is made.
        drop(Lock::exclusive(&gate, GATE_PATIENCE).await?);
        if !home::has_cluster(data_dir) {
            return Ok(None);
        }
        Self::start_or_join(data_dir).await.map(Some)
    }

    /// As [`EmbeddedPostgres::start_or_join`], with the folders in which to search for Postgres' binaries.
    pub async fn start_or_join_with(data_dir: &Path, search: &Search) -> Result<Self, Error> {
        let data_dir = home::make_data_dir(data_dir)?;
        let gate = Lock::exclusive(&data_dir.join("start.lock"), GATE_PATIENCE).await?;
        let home = Home::of(&data_dir).await?;
        let (users, alone) = Lock::shared(&data_dir.join("users.lock"))?;

        let cluster = Cluster::open_or_create(home, search).await?;
        let mut running = EmbeddedPostgres {
            cluster,
            database_url: String::new(),
            alone,
            data_dir,
            users: Some(users),
            gate: Some(gate),
        };
        let socket_dir = running.cluster.bring_up(alone).await?;
        running.database_url = running.cluster.database_url(&socket_dir);
        running.check_connection().await?;
        running.gate = None;
        tracing::info!(data_dir = %running.data_dir.display(), joined = !alone, "embedded Postgres is ready");
        Ok(running)
    }

    /// The data folder, absolute and without symbolic links.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The cluster's database as a libpq URL over the Unix socket, with the password.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Returns whether no other process of ours used the cluster when this one came: it was started here, or found running without a user.
    pub fn is_owner(&self) -> bool {
        self.alone
    }

    /// Has the cluster come up again whenever it ended without being asked, for instance because its postmaster was killed. Runs until it is dropped.
    pub async fn supervise(&self) {
        let mut pause = CHECK_EVERY.0;
        loop {
            tokio::time::sleep(pause).await;
            if self.cluster.postmaster().state() != State::Absent {
                pause = CHECK_EVERY.0;
                continue;
            }
            tracing::warn!(data_dir = %self.data_dir.display(), "embedded Postgres has ended; it is started again");
            match self.bring_up_again().await {
                Ok(()) => {
                    tracing::info!(data_dir = %self.data_dir.display(), "embedded Postgres is ready again")
                }
                Err(error) => {
                    tracing::error!(%error, cause = error.cause_chain(), "embedded Postgres cannot be started again");
                    pause = (pause * 2).min(CHECK_EVERY.1);
                }
            }
        }
    }

    /// Other processes may be about to do the same; the second finds it done.
    async fn bring_up_again(&self) -> Result<(), Error> {
        let _gate = Lock::exclusive(&self.data_dir.join("start.lock"), GATE_PATIENCE).await?;
        let socket_dir = self.cluster.bring_up(false).await?;
        if self.cluster.database_url(&socket_dir) != self.database_url {
            return Err(failure(
                "The embedded Postgres is elsewhere now",
                "its socket was removed; start again",
            ));
        }
        self.check_connection().await
    }

    /// Gives the use back. The last to do so stops the cluster (a fast shutdown: open transactions are rolled back) and waits until it is
    /// down.
    pub async fn stop(mut self) -> Result<(), Error> {
        let gate = Lock::exclusive(&self.data_dir.join("start.lock"), GATE_PATIENCE).await?;
        if self.was_last() {
            self.cluster.postmaster().stop().await?;
            tracing::info!(data_dir = %self.data_dir.display(), "embedded Postgres is stopped");
        }
        drop(gate);
        Ok(())
    }

    /// Gives the use back and returns whether it was the last. The gate must be locked, so that nobody joins in between.
    fn was_last(&mut self) -> bool {
        self.users.take().is_some_and(|users| {
            drop(users);
            Lock::try_exclusive(&self.data_dir.join("users.lock")).is_ok_and(|lock| lock.is_some())
        })
    }

    async fn check_connection(&self) -> Result<(), Error> {
        let database_url = self.database_url.clone();
        tokio::task::spawn_blocking(move || PgConnection::establish(&database_url).map(drop))
            .await
            .map_err(Error::internal)?
            .map_err(|cause| failure("The embedded Postgres runs but does not let us in", cause))
    }
}

impl Drop for EmbeddedPostgres {
    /// For paths that return early: asks the postmaster to stop if nobody else uses it, and does not wait. If another process waits at the
    /// gate, the cluster is left to it.
    fn drop(&mut self) {
        if self.users.is_none() {
            return;
        }
        let gate = self
            .gate
            .take()
            .or_else(|| Lock::try_exclusive(&self.data_dir.join("start.lock")).ok().flatten());
        if gate.is_some()
            && self.was_last()
            && let State::Starting(pid) | State::Ready { pid, .. } =
                self.cluster.postmaster().state()
        {
            postmaster::signal(pid, nix::sys::signal::Signal::SIGINT);
        }
    }
}

/// A failure of the embedded Postgres, shown with its cause: it is read by the person who started the program, never by a caller.
fn failure(what: impl std::fmt::Display, cause: impl std::fmt::Display) -> Error {
    Error::new(Code::Unavailable, format!("{what}: {cause}"))
}
