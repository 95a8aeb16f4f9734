//! `offboard migrate`.

use std::process::ExitCode;

use clap::Args;

use super::database::Opened;
use super::output::print;
use crate::config::Database;
use crate::db::migrations::{SchemaState, patient_schema_state};
use crate::error::Result;

/// Arguments of `migrate`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    database: Database,

    /// Make the tables in a schema that contains tables of others
    #[arg(long, env = "OFFBOARD_INTO_EXISTING")]
    into_existing: bool,
}

/// Applies the missing migrations. Safe to run from several places at once.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let database = Opened::existing(&arguments.database).await?;
    let migrated = async {
        let applied = database.migrate(arguments.into_existing).await?;
        Ok((applied, database.with_connection(patient_schema_state).await?))
    };
    let migrated: Result<_> = migrated.await;
    database.close().await?;
    let (applied, state) = migrated?;
    match (applied.as_slice(), state) {
        ([], SchemaState::Ahead(ahead)) => print(format_args!("Nothing was changed: {ahead}."))?,
        ([], _) => print("The schema is up to date.")?,
        (applied, _) => print(format_args!("Applied {}.", applied.join(", ")))?,
    };
    Ok(ExitCode::SUCCESS)
}
