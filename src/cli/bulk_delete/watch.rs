//! `offboard bulk-delete watch`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tonic::Code;

use super::connect::Connection;
use super::progress::Display;
use super::{DETACHED, outcome};
use crate::cli::output::note;
use crate::cli::refusal::refused;
use crate::error::{Error, Result};
use crate::proto::v1;

/// How often in a row the connection is retried.
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

/// True once the service has responded: from then on a lost connection is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Not yet.
    Never,
    /// Before the watching began.
    Before,
}

/// Watches a task until it is over.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    follow(&arguments.connection, &arguments.task, arguments.json, Answered::Never).await
}

/// Shows a task until it is over or the user has seen enough.
pub async fn follow(
    connection: &Connection,
    task_id: &str,
    json: bool,
    answered: Answered,
) -> Result<ExitCode> {
    let mut watched = Watched {
        connection,
        task_id,
        display: Display::new(json),
        answered: answered == Answered::Before,
        attempts: 0,
    };
    let ended = tokio::select! {
        ended = watched.until_over() => ended,
        _ = tokio::signal::ctrl_c() => {
            watched.display.leave();
            note(format_args!(
                "The task continues. `offboard bulk-delete watch {task_id}` shows it again, `offboard bulk-delete stop {task_id}` ends it."
            ));
            return Ok(DETACHED.into());
        }
    };
    watched.display.leave();
    ended
}

/// A task that is watched.
struct Watched<'w> {
    connection: &'w Connection,
    task_id: &'w str,
    display: Display,
    answered: bool,
    /// How often in a row the service was tried again.
    attempts: u32,
}

impl Watched<'_> {
    /// Watches over connections that may break: a service that restarts does not end the task, so it does not end the watching.
    async fn until_over(&mut self) -> Result<ExitCode> {
        loop {
            let error = match self.over_one_connection().await {
                Ok(Some(code)) => return Ok(code),
                Ok(None) => {
                    Error::unavailable("The service ends the stream before the task is over.")
                }
                Err(error) => error,
            };
            if !self.answered
                || self.attempts >= MAX_ATTEMPTS
                || error.code() != crate::error::Code::Unavailable
            {
                return Err(error);
            }
            if self.attempts == 0 {
                self.display.note("The connection to the service was lost; it is tried again.");
            }
            self.attempts += 1;
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
    }

    /// Watches over one connection; none if it ended before the task.
    async fn over_one_connection(&mut self) -> Result<Option<ExitCode>> {
        let service = self.connection.open().await?;
        let request =
            v1::WatchTaskRequest { tenant: String::new(), task_id: self.task_id.to_owned() };
        let mut tasks = service
            .client
            .clone()
            .watch_task(service.request(request))
            .await
            .map_err(refused)?
            .into_inner();
        loop {
            let task = match tasks.message().await {
                Ok(Some(task)) => task,
                Ok(None) => return Ok(None),
                // The message of the transport for a connection that breaks.
                Err(status) if matches!(status.code(), Code::Unknown | Code::Cancelled) => {
                    return Ok(None);
                }
                Err(status) => return Err(refused(status)),
            };
            (self.answered, self.attempts) = (true, 0);
            self.display.show(&task)?;
            if let Some(code) = outcome(&task) {
                return Ok(Some(code));
            }
        }
    }
}
