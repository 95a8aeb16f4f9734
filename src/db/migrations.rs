//! Bringing the schema up to date, and knowing whether it is.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::connection::{InstrumentationEvent, SimpleConnection};
use diesel::migration::{Migration, MigrationSource};
use diesel::pg::{Pg, PgConnection};
use diesel::{Connection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::db::fault::{Fault, fault, sqlstate};
use crate::db::schema_queries::{ReadApplied, ReadPlace, ReadTables, TakeTurn, UNDEFINED_TABLE};
use crate::error::{Code, Error, Result, cut};
use crate::limits::database::{MIGRATION_LOCK, MIGRATION_LOCK_MILLIS};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// The key of the advisory lock under which migrations run: "offboard" in ASCII.
const LOCK: i64 = 0x6f66_6662_6f61_7264;

/// Pauses between attempts at a migration that others do not let through, the first and the longest.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// For how long that is tried.
const PATIENCE: Duration = Duration::from_secs(600);

/// Applies what is missing and returns the versions applied. Replicas may start together: one migrates, the others wait and find it done.
///
/// A statement that has to wait for a lock delays everyone who comes after it, readers included. So each waits for a moment only; then the
/// migration is rolled back, lets the others through, and is tried again.
///
/// A schema that contains tables of others is left alone, unless it is to be shared with them.
pub fn migrate(connection: &mut PgConnection, into_existing: bool) -> Result<Vec<String>> {
    // Migrations may take longer than any call, and so may the wait for another one.
    connection.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0")?;
    take_turn(connection)?;
    let applied = apply(connection, into_existing);
    let released = connection.batch_execute(&format!("SELECT pg_advisory_unlock({LOCK})"));
    let applied = applied?;
    released?;
    Ok(applied)
}

/// Waits until no other migration is under way. Between checks there is no statement: one that waited would have a snapshot, and an index
/// that is built concurrently waits for all that have an older one.
#[expect(clippy::disallowed_methods, reason = "on a thread for blocking work")]
fn take_turn(connection: &mut PgConnection) -> Result<()> {
    while !(TakeTurn { lock: LOCK }).get_result::<(bool,)>(connection)?.0 {
        std::thread::sleep(AGAIN_AFTER.0);
    }
    Ok(())
}

fn apply(connection: &mut PgConnection, into_existing: bool) -> Result<Vec<String>> {
    connection.batch_execute(&format!("SET lock_timeout = {MIGRATION_LOCK_MILLIS}"))?;
    let last = LastFault::of(connection);
    let missing = match read_patiently(&last, connection)? {
        SchemaState::Current | SchemaState::Ahead(_) => return Ok(Vec::new()),
        SchemaState::Foreign(others) if !into_existing || others.collides => {
            return Err(others.refusal());
        }
        SchemaState::Foreign(_) => versions(&all()?).collect(),
        SchemaState::Behind(missing) => missing,
        SchemaState::Absent(absent) => return Err(absent.refusal()),
    };
    // Makes the table of those that are applied.
    patiently("of the table of migrations", &last, || connection.applied_migrations().map(drop))?;
    let mut applied = Vec::new();
    for migration in all()? {
        let version = migration.name().version().to_string();
        if missing.contains(&version) {
            patiently(&version, &last, || run(connection, &*migration))?;
            applied.push(version);
        }
    }
    Ok(applied)
}

/// Compares the migrations of this binary with those that the database has, as one who migrates does: others may have locked the table of those.
pub fn patient_schema_state(connection: &mut PgConnection) -> Result<SchemaState> {
    connection.batch_execute(&format!("SET lock_timeout = {MIGRATION_LOCK_MILLIS}"))?;
    let last = LastFault::of(connection);
    read_patiently(&last, connection)
}

fn read_patiently(last: &LastFault, connection: &mut PgConnection) -> Result<SchemaState> {
    let mut failed = None;
    let read = patiently("of the table of migrations", last, || {
        last.clear();
        let read = schema_state(connection);
        read.map_err(|error| {
            let reported = error.to_string();
            failed = Some(error);
            reported.into()
        })
    });
    // A failure that no patience would help is returned at once.
    match failed {
        Some(error)
            if read.is_err() && !matches!(last.get(), Some(Fault::Locked | Fault::Conflict)) =>
        {
            Err(error)
        }
        _ => read,
    }
}

type Attempted<T> = diesel::migration::Result<T>;

/// Applies one. What is built concurrently is not rolled back where it fails, so what an earlier try left is removed first; and nobody waits
/// behind it while it waits.
fn run(connection: &mut PgConnection, migration: &dyn Migration<Pg>) -> Attempted<()> {
    if migration.metadata().run_in_transaction() {
        return connection.run_migration(migration).map(drop);
    }
    connection.batch_execute("SET lock_timeout = 0")?;
    let ran = migration.revert(connection).and_then(|()| connection.run_migration(migration));
    let restored = connection.batch_execute(&format!("SET lock_timeout = {MIGRATION_LOCK_MILLIS}"));
    ran?;
    Ok(restored?)
}

/// Does it, and again while others have locked what it needs.
#[expect(clippy::disallowed_methods, reason = "on a thread for blocking work")]
fn patiently<T>(
    what: &str,
    last: &LastFault,
    mut attempt: impl FnMut() -> Attempted<T>,
) -> Result<T> {
    let until = Instant::now() + PATIENCE;
    let mut pause = AGAIN_AFTER.0;
    loop {
        let error = match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let fault = last.get();
        if !matches!(fault, Some(Fault::Locked | Fault::Conflict)) || Instant::now() >= until {
            return Err(refused(what, fault, error));
        }
        MIGRATION_LOCK.reached();
        tracing::warn!(
            migration = what,
            "other sessions have locks that the migration needs; it is tried again"
        );
        std::thread::sleep(pause);
        pause = (pause * 2).min(AGAIN_AFTER.1);
    }
}

/// The last failure of a statement on a connection; the errors of migrations do not pass it on.
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

    fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn get(&self) -> Option<Fault> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message to the person who migrates.
fn refused(
    what: &str,
    fault: Option<Fault>,
    error: Box<dyn std::error::Error + Send + Sync>,
) -> Error {
    let reported = match fault {
        Some(Fault::Denied) => {
            "The role may not change the schema; migrate with the role that owns it, or grant CREATE on the database and on the schema."
                .to_owned()
        }
        Some(Fault::ReadOnly) => "The database takes no changes: it is a standby, or set to be read only.".to_owned(),
        Some(Fault::Locked | Fault::Conflict) => {
            format!("Migration {what} waited {} minutes for the locks of other sessions and was given up.", PATIENCE.as_secs() / 60)
        }
        Some(Fault::Exhausted) => "The database has no room: its disk or its memory is full.".to_owned(),
        Some(Fault::Unreachable) => "The connection to the database was lost.".to_owned(),
        _ => format!("Migration {what} failed."),
    };
    Error::new(Code::Unavailable, reported).caused_by(error)
}

/// How the database's schema compares with this binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// Every migration of this binary is applied, and none that it does not know.
    Current,
    /// The same, and a newer binary has applied more: migrations only add what older ones can work with.
    Ahead(Ahead),
    /// These versions are missing.
    Behind(Vec<String>),
    /// None is applied, and where they would make their tables there is something of others.
    Foreign(Others),
    /// There is no schema to make tables in.
    Absent(Absent),
}

/// A schema that is newer than this binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The last migration of the database.
    pub schema: String,
    /// The last migration of this binary.
    pub known: String,
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ahead { schema, known } = self;
        let version = env!("CARGO_PKG_VERSION");
        write!(
            f,
            "the schema is newer than this offboard {version}: its last migration is {schema}, and the last that this version knows is {known}"
        )
    }
}

/// None of the schemas that `search_path` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    search_path: String,
}

impl Absent {
    /// The message to the person who would use it.
    pub fn refusal(&self) -> Error {
        Error::new(
            Code::ValidationFailed,
            format!("{self}: make it by `CREATE SCHEMA`, or fix the `search_path` of the URL."),
        )
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "The database has no schema that `search_path` names ({})",
            cut(&self.search_path)
        )
    }
}

/// The objects of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Others {
    /// The schema that it is in.
    schema: String,
    /// The first tables, views and sequences.
    tables: Vec<String>,
    /// True if another application has noted migrations where we would note ours.
    migrates: bool,
    /// True if some of those have the numbers of ours.
    collides: bool,
}

impl Others {
    /// The message to the person who would make our tables beside them.
    pub fn refusal(&self) -> Error {
        const SHOWN: usize = 3;
        let Others { schema, tables, migrates, collides } = self;
        let schema = cut(schema);
        if *collides {
            let message = format!(
                "The migrations in `__diesel_schema_migrations` of the schema `{schema}` are of another application, and have the numbers of offboard's: \
                 give offboard a database or a schema of its own."
            );
            return Error::new(Code::ValidationFailed, message);
        }
        let shown: Vec<_> =
            tables.iter().take(SHOWN).map(|table| format!("`{}`", cut(table))).collect();
        let more = if tables.len() > SHOWN { ", ..." } else { "" };
        let what = match (migrates, tables.is_empty()) {
            (true, true) => "migrations of another application".to_owned(),
            _ => format!("tables, views or sequences of others ({}{more})", shown.join(", ")),
        };
        let message = format!(
            "The schema `{schema}` of the database has {what} and no migration of offboard: give it a database or a schema of its own, or say \
             --into-existing (OFFBOARD_INTO_EXISTING) if it is to share this one."
        );
        Error::new(Code::ValidationFailed, message)
    }
}

/// Compares the migrations of this binary with those that the database has. Reads, and does nothing else: a role with rights on rows alone may ask,
/// and so may anyone on a standby.
pub fn schema_state(connection: &mut PgConnection) -> Result<SchemaState> {
    let all = all()?;
    let (schema, search_path, is_ours) =
        ReadPlace {}.get_result::<(Option<String>, String, bool)>(connection)?;
    let Some(schema) = schema else { return Ok(SchemaState::Absent(Absent { search_path })) };
    let applied: BTreeSet<String> = match (ReadApplied {}).load::<(String,)>(connection) {
        Ok(applied) => applied.into_iter().map(|(version,)| version).collect(),
        Err(error) if sqlstate(&error) == Some(UNDEFINED_TABLE) => BTreeSet::new(),
        Err(error) => return Err(error.into()),
    };
    let missing: Vec<_> = versions(&all).filter(|version| !applied.contains(version)).collect();
    let migrates = !applied.is_empty() && !is_ours;
    if migrates || missing.len() == all.len() {
        let tables: Vec<_> = ReadTables {}
            .load::<(String,)>(connection)?
            .into_iter()
            .map(|(table,)| table)
            .collect();
        if migrates || !tables.is_empty() {
            let collides = migrates && missing.len() < all.len();
            return Ok(SchemaState::Foreign(Others { schema, tables, migrates, collides }));
        }
    }
    if !missing.is_empty() {
        return Ok(SchemaState::Behind(missing));
    }
    let ours = applied.iter().rfind(|version| version.starts_with(OURS));
    Ok(match (ours, versions(&all).last()) {
        (Some(schema), Some(known)) if *schema > known => {
            SchemaState::Ahead(Ahead { schema: schema.clone(), known })
        }
        _ => SchemaState::Current,
    })
}

/// How the numbers of our migrations begin. Other applications that note theirs in the same table begin them with a year.
const OURS: &str = "00000000";

fn versions(migrations: &[Box<dyn Migration<Pg>>]) -> impl Iterator<Item = String> {
    migrations.iter().map(|migration| migration.name().version().to_string())
}

/// The migrations of this binary, in their order.
fn all() -> Result<Vec<Box<dyn Migration<Pg>>>> {
    let mut all = MigrationSource::<Pg>::migrations(&MIGRATIONS).map_err(Error::internal)?;
    all.sort_unstable_by(|one, other| one.name().version().cmp(&other.name().version()));
    Ok(all)
}
