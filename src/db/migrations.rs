//! Bringing the schema up to date, and knowing whether it is.

use std::collections::BTreeSet;

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::error::{Error, Result};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// The key of the advisory lock under which migrations run: "offboard" in ASCII.
const LOCK: i64 = 0x6f66_6662_6f61_7264;

/// Applies what is missing and returns the versions applied. Replicas may start together: one migrates, the others wait and find it done.
pub fn migrate(connection: &mut PgConnection) -> Result<Vec<String>> {
    // Migrations may take longer than any call; and the lock is waited for as long as its holder needs.
    let unbounded = "SET statement_timeout = 0; SET lock_timeout = 0";
    connection.batch_execute(&format!("{unbounded}; SELECT pg_advisory_lock({LOCK})"))?;
    let applied = connection.run_pending_migrations(MIGRATIONS).map(|versions| versions.iter().map(ToString::to_string).collect());
    let released = connection.batch_execute(&format!("SELECT pg_advisory_unlock({LOCK})"));
    let applied = applied.map_err(Error::internal)?;
    released?;
    Ok(applied)
}

/// How the database's schema stands to this binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// Every migration of this binary is applied. A newer binary may have applied more: migrations only add what older ones can live with.
    Current,
    /// These versions are missing.
    Behind(Vec<String>),
}

/// Compares the migrations of this binary with those that the database has.
pub fn schema_state(connection: &mut PgConnection) -> Result<SchemaState> {
    use diesel::migration::MigrationSource;
    let mut missing = BTreeSet::new();
    for migration in MigrationSource::<diesel::pg::Pg>::migrations(&MIGRATIONS).map_err(Error::internal)? {
        missing.insert(migration.name().version().to_string());
    }
    for applied in connection.applied_migrations().map_err(Error::internal)? {
        missing.remove(&applied.to_string());
    }
    Ok(if missing.is_empty() { SchemaState::Current } else { SchemaState::Behind(missing.into_iter().collect()) })
}
