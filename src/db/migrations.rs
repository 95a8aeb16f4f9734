//! Bringing the schema up to date, and knowing whether it is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::connection::{InstrumentationEvent, SimpleConnection};
use diesel::migration::{Migration, MigrationSource};
use diesel::pg::{Pg, PgConnection};
use diesel::sql_types::Text;
use diesel::{Connection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::db::fault::{Fault, fault, sqlstate};
use crate::db::statement;
use crate::error::{Code, Error, Result};
use crate::limits::database::{MIGRATION_LOCK, MIGRATION_LOCK_MILLIS};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// The key of the advisory lock under which migrations run: "offboard" in ASCII.
const LOCK: i64 = 0x6f66_6662_6f61_7264;

/// Pauses between attempts at a migration that others do not let through, the first and the longest.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// For how long that is tried.
const PATIENCE: Duration = Duration::from_secs(600);

/// The SQLSTATE of a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

statement! {
    /// The migrations that the database has.
    struct ReadApplied {} -> (Text,),
    "SELECT version::text FROM __diesel_schema_migrations"
}

/// Applies what is missing and returns the versions applied. Replicas may start together: one migrates, the others wait and find it done.
///
/// A statement that has to wait for a lock holds up everyone who comes after it, readers included. So each waits for a moment only; then the
/// migration is rolled back, lets the others through, and is tried again.
pub fn migrate(connection: &mut PgConnection) -> Result<Vec<String>> {
    // Migrations may take longer than any call. Of the advisory lock, which keeps nobody but another migration waiting, so may the wait.
    connection.batch_execute(&format!("SET statement_timeout = 0; SET lock_timeout = 0; SELECT pg_advisory_lock({LOCK})"))?;
    let applied = apply(connection);
    let released = connection.batch_execute(&format!("SELECT pg_advisory_unlock({LOCK})"));
    let applied = applied?;
    released?;
    Ok(applied)
}

fn apply(connection: &mut PgConnection) -> Result<Vec<String>> {
    connection.batch_execute(&format!("SET lock_timeout = {MIGRATION_LOCK_MILLIS}"))?;
    let last = LastFault::of(connection);
    let missing = missing(connection)?;
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    // Makes the table of those that are applied.
    patiently("of the table of migrations", &last, || connection.applied_migrations().map(drop))?;
    let mut applied = Vec::new();
    for migration in all()? {
        let version = migration.name().version().to_string();
        if missing.contains(&version) {
            patiently(&version, &last, || connection.run_migration(&*migration).map(drop))?;
            applied.push(version);
        }
    }
    Ok(applied)
}

type Applied = diesel::migration::Result<()>;

/// Does it, and again while others hold what it needs.
#[expect(clippy::disallowed_methods, reason = "on a thread for blocking work")]
fn patiently(what: &str, last: &LastFault, mut attempt: impl FnMut() -> Applied) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut pause = AGAIN_AFTER.0;
    loop {
        let error = match attempt() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let fault = last.get();
        if !matches!(fault, Some(Fault::Locked | Fault::Conflict)) || Instant::now() >= until {
            return Err(refused(what, fault, error));
        }
        MIGRATION_LOCK.reached();
        tracing::warn!(migration = what, "others hold what the migration needs; it is tried again");
        std::thread::sleep(pause);
        pause = (pause * 2).min(AGAIN_AFTER.1);
    }
}

/// What the last statement that failed on a connection failed of; the errors of migrations keep it to themselves.
struct LastFault(Arc<Mutex<Option<Fault>>>);

impl LastFault {
    fn of(connection: &mut PgConnection) -> Self {
        let last: Arc<Mutex<Option<Fault>>> = Arc::default();
        let seen = last.clone();
        connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::FinishQuery { error: Some(error), .. } = event
                // Of a transaction that has failed already.
                && sqlstate(error) != Some("25P02")
            {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault(error));
            }
        });
        LastFault(last)
    }

    fn get(&self) -> Option<Fault> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the person who migrates is told.
fn refused(what: &str, fault: Option<Fault>, error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    let told = match fault {
        Some(Fault::Denied) => {
            "The role may not change the schema; migrate with the role that owns it, or grant CREATE on the database and on the schema."
                .to_owned()
        }
        Some(Fault::ReadOnly) => "The database takes no changes: it is a standby, or set to be read only.".to_owned(),
        Some(Fault::Locked | Fault::Conflict) => {
            format!("Migration {what} was not let through by others who use the database for {} minutes.", PATIENCE.as_secs() / 60)
        }
        Some(Fault::Exhausted) => "The database has no room: its disk or its memory is full.".to_owned(),
        Some(Fault::Away) => "The connection to the database was lost.".to_owned(),
        _ => format!("Migration {what} failed."),
    };
    Error::new(Code::Unavailable, told).caused_by(error)
}

/// How the database's schema stands to this binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// Every migration of this binary is applied. A newer binary may have applied more: migrations only add what older ones can live with.
    Current,
    /// These versions are missing.
    Behind(Vec<String>),
}

/// Compares the migrations of this binary with those that the database has. Reads, and does nothing else: a role with rights on rows alone may ask,
/// and so may anyone on a standby.
pub fn schema_state(connection: &mut PgConnection) -> Result<SchemaState> {
    let missing = missing(connection)?;
    Ok(if missing.is_empty() { SchemaState::Current } else { SchemaState::Behind(missing.into_iter().collect()) })
}

fn missing(connection: &mut PgConnection) -> Result<BTreeSet<String>> {
    let mut missing: BTreeSet<String> = all()?.iter().map(|migration| migration.name().version().to_string()).collect();
    let applied = ReadApplied {}.load::<(String,)>(connection);
    match applied {
        Ok(applied) => applied.iter().for_each(|(version,)| {
            missing.remove(version);
        }),
        Err(error) if sqlstate(&error) == Some(UNDEFINED_TABLE) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(missing)
}

/// The migrations of this binary, in their order.
fn all() -> Result<Vec<Box<dyn Migration<Pg>>>> {
    let mut all = MigrationSource::<Pg>::migrations(&MIGRATIONS).map_err(Error::internal)?;
    all.sort_unstable_by(|one, other| one.name().version().cmp(&other.name().version()));
    Ok(all)
}
