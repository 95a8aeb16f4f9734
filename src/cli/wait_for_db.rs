//! `offboard wait-for-db`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use diesel::connection::SimpleConnection;

use super::database::{Opened, RETRY};
use crate::config::Database;
use crate::error::{Code, Result};

/// Arguments of `wait-for-db`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    database: Database,

    /// Seconds after which to give up; 0 tries once
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

/// Waits until the database executes a query.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let until = Instant::now() + Duration::from_secs(arguments.timeout);
    // A database or a role that does not exist yet may be made during the wait.
    let database = loop {
        match Opened::existing(&arguments.database).await {
            Err(error) if error.code() == Code::PermissionDenied && Instant::now() < until => {
                tokio::time::sleep(RETRY).await
            }
            opened => break opened?,
        }
    };
    loop {
        match database.with_connection(|connection| Ok(connection.batch_execute("SELECT 1")?)).await
        {
            Ok(()) => {
                database.close().await?;
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) if Instant::now() >= until => {
                database.close().await?;
                return Err(error);
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}
