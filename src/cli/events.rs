//! `offboard events`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::ask;
use super::database::Opened;
use super::output::{note, print};
use crate::config::Database;
use crate::error::Result;
use crate::events::history_queries::{self, HistoryRow};
use crate::events::sequencer;

/// Arguments of `events`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    database: Database,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show the histories of this database's events, and where they part
    History(Show),
    /// Begin a new history at the next position, as is needed after a restore that the service cannot see by itself
    NewHistory(Begin),
}

#[derive(Args, Debug)]
struct Begin {
    /// Begin it without asking
    #[arg(long)]
    yes: bool,
}

#[derive(Args, Debug)]
struct Show {
    /// Print JSON, a history a line
    #[arg(long)]
    json: bool,
}

/// Shows the histories of a database, or begins one.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    if matches!(arguments.action, Action::NewHistory(Begin { yes: false })) && !ask::can_ask() {
        return Ok(ask::unasked("begins the history"));
    }
    let database = Opened::existing(&arguments.database).await?;
    let done = async {
        database.migrate_embedded().await?;
        match arguments.action {
            Action::History(show) => history(&database, show).await,
            Action::NewHistory(arguments) => begin(&database, arguments).await,
        }
    };
    let done = done.await;
    database.close().await?;
    done
}

async fn history(database: &Opened, show: Show) -> Result<ExitCode> {
    let rows =
        database.with_connection(|connection| Ok(history_queries::list(connection)?)).await?;
    if rows.is_empty() && !show.json {
        print("No event has a position yet.")?;
    }
    for HistoryRow {
        number,
        id,
        begins,
        ends,
        is_present,
        began_at,
        reason,
        system_identifier,
        timeline,
        database_oid,
    } in rows
    {
        if show.json {
            print(json!({
                "number": number, "id": id, "first_position": begins, "last_position": ends, "present": is_present, "began_at": began_at,
                "reason": reason, "system_identifier": system_identifier, "timeline": timeline, "database_oid": database_oid,
            }))?;
        } else {
            let unknown = || "unknown".to_owned();
            let (system, timeline) =
                (system_identifier.unwrap_or_else(unknown), timeline.unwrap_or_else(unknown));
            let until = if is_present { "now" } else { "where the next begins" };
            let began_at = began_at.format("%Y-%m-%dT%H:%M:%SZ");
            print(format_args!(
                "{number}  {began_at}  {reason:6}  positions {begins} to {ends} ({until})  system {system}  timeline {timeline}  database {database_oid}"
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// It concerns all realms: positions are of the database.
const QUESTION: &str = "Begin a new history of the events of all organisations in this database, test and live? Cursors after its beginning \
                        are refused for ever. This cannot be undone. [y/N] ";

async fn begin(database: &Opened, Begin { yes }: Begin) -> Result<ExitCode> {
    if !yes && !ask::is_yes(&ask::ask(QUESTION)?) {
        note("No history was begun.");
        return Ok(ExitCode::FAILURE);
    }
    let position =
        database.with_connection(|connection| Ok(sequencer::begin_history(connection)?)).await?;
    print(format_args!(
        "A new history begins at position {position}. Cursors up to {} stay valid; those after it are out of range.",
        position - 1
    ))?;
    Ok(ExitCode::SUCCESS)
}
