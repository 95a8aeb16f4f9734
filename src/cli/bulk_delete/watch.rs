//! `offboard bulk-delete watch`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tonic::Code;

use super::connect::Connection;
use super::progress::Display;
use super::refusal::refused;
use super::{DETACHED, outcome};
use crate::cli::output::note;
use crate::error::{Error, Result};
use crate::proto::v1;

/// How often in a row a service that went away is looked for again.
const MAX_ATTEMPTS: u32 = 30;
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// Arguments of `watch`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// The task's id
    task: String,

    /// Print JSON: the task whenever it has moved, one a line
    #[arg(long)]
    json: bool,
}

/// Watches a task until it is over.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    follow(&arguments.connection, arguments.task, arguments.json).await
}

/// Shows a task until it is over or the user has seen enough.
pub async fn follow(connection: &Connection, task_id: String, json: bool) -> Result<ExitCode> {
    let mut display = Display::new(json);
    let watched = tokio::select! {
        watched = to_the_end(connection, &task_id, &mut display) => watched,
        _ = tokio::signal::ctrl_c() => {
            display.leave();
            note(format_args!("The task goes on. `offboard bulk-delete watch {task_id}` shows it again, `offboard bulk-delete stop {task_id}` ends it."));
            return Ok(DETACHED.into());
        }
    };
    display.leave();
    watched
}

/// Watches over connections that may break: a service that restarts does not end the task, so it does not end the watching.
async fn to_the_end(connection: &Connection, task_id: &str, display: &mut Display) -> Result<ExitCode> {
    let mut attempts = 0;
    loop {
        match watch(connection, task_id, display, &mut attempts).await {
            Ok(Some(code)) => return Ok(code),
            Ok(None) => {}
            Err(error) if attempts >= MAX_ATTEMPTS || error.code() != crate::error::Code::Unavailable => return Err(error),
            Err(_) => {}
        }
        attempts += 1;
        if attempts > MAX_ATTEMPTS {
            return Err(Error::unavailable("The service ends the stream each time before the task is over."));
        }
        tokio::time::sleep(BETWEEN_ATTEMPTS).await;
    }
}

/// Watches over one connection; none if it ended before the task.
async fn watch(connection: &Connection, task_id: &str, display: &mut Display, attempts: &mut u32) -> Result<Option<ExitCode>> {
    let service = connection.open().await?;
    let request = v1::WatchTaskRequest { tenant: String::new(), task_id: task_id.to_owned() };
    let mut tasks = service.client.clone().watch_task(service.request(request)).await.map_err(refused)?.into_inner();
    loop {
        let task = match tasks.message().await {
            Ok(Some(task)) => task,
            Ok(None) => return Ok(None),
            // What the transport says of a connection that breaks.
            Err(status) if matches!(status.code(), Code::Unknown | Code::Cancelled) => return Ok(None),
            Err(status) => return Err(refused(status)),
        };
        *attempts = 0;
        display.show(&task)?;
        if let Some(code) = outcome(&task) {
            return Ok(Some(code));
        }
    }
}
