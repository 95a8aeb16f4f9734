//! `offboard migrate`.

use std::process::ExitCode;

use clap::Args;

use super::database::Opened;
use super::output::print;
use crate::config::Database;
use crate::error::Result;

/// Arguments of `migrate`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    database: Database,
}

/// Applies what is missing. Safe to run from several places at once.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let database = Opened::existing(&arguments.database).await?;
    let applied = database.migrate().await;
    database.close().await?;
    let applied = applied?;
    if applied.is_empty() {
        print("The schema is up to date.")?;
    } else {
        print(format_args!("Applied {}.", applied.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}
