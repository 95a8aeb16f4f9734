//! `offboard bulk-delete start`.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;

use super::connect::Connection;
use super::refusal::refused;
use super::selection::{Selection, not_blank};
use super::show::{entities, task as to_json};
use super::watch::{self, Answered};
use super::{preview, wrong_usage};
use crate::cli::output::{note, print};
use crate::error::{Error, Result};

/// Arguments of `start`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    #[command(flatten)]
    selection: Selection,

    /// Start without asking
    #[arg(long)]
    yes: bool,

    /// Start without counting first what is selected
    #[arg(long, requires = "yes")]
    no_preview: bool,

    /// End as soon as the task has started, and do not watch it
    #[arg(long)]
    detach: bool,

    /// Where a mail goes when the task is over: an address, or `true` for that of the key
    #[arg(long, value_name = "ADDRESS", value_parser = not_blank)]
    send_mail: Option<String>,

    /// Key by which the service knows the call again, so that it starts one task however often it is sent; only with --no-preview, since what is shown may differ each time
    #[arg(long, value_name = "KEY", requires = "no_preview", value_parser = not_blank)]
    idempotency_key: Option<String>,

    /// Print JSON: the task whenever it has moved, one a line
    #[arg(long)]
    json: bool,
}

/// Starts a task, after a look at what it would do, and watches it.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !arguments.yes && !can_ask {
        return Ok(wrong_usage("nobody can be asked here; --yes starts the task without asking"));
    }
    if let Some(fault) = arguments.selection.misuse() {
        return Ok(wrong_usage(fault));
    }
    let hard = arguments.selection.is_hard();
    let mut request = arguments.selection.request()?;
    let service = arguments.connection.open().await?;
    if !arguments.no_preview {
        let preview = preview::ask(&service, &request).await?;
        if !arguments.json {
            note(preview::describe(&preview, hard));
        }
        if !arguments.yes && !confirmed(preview.deletable_count, hard)? {
            note("Nothing was started.");
            return Ok(ExitCode::FAILURE);
        }
        // What is deleted is what was shown.
        request.expected_count = Some(preview.matched_count);
    }
    request.send_mail = arguments.send_mail.unwrap_or_default();
    let mut call = service.request(request);
    if let Some(key) = &arguments.idempotency_key {
        let key = key.parse().map_err(|_| Error::invalid("--idempotency-key", "invalid", "must be printable ASCII"))?;
        call.metadata_mut().insert("idempotency-key", key);
    }
    let task = service.client.clone().start_bulk_delete(call).await.map_err(refused)?.into_inner();
    if arguments.detach {
        print(if arguments.json { to_json(&task).to_string() } else { task.id })?;
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.json {
        note(format_args!("Task {} has started.", task.id));
    }
    watch::follow(&arguments.connection, &task.id, arguments.json, Answered::Before).await
}

/// Asks whoever sits at the terminal.
fn confirmed(count: i64, hard: bool) -> Result<bool> {
    let what = if hard { "Erase" } else { "Delete" };
    let mut line = String::new();
    let asked = write!(std::io::stderr(), "{what} {}? [y/N] ", entities(count)).and_then(|()| std::io::stderr().flush());
    asked.and_then(|()| std::io::stdin().lock().read_line(&mut line)).map_err(Error::internal)?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
