//! `offboard bulk-delete pause`, `resume` and `stop`.

use std::process::ExitCode;

use clap::Args;

use super::connect::Connection;
use crate::cli::output::print;
use crate::cli::refusal::refused;
use crate::error::Result;
use crate::proto::v1;

/// Arguments of `pause`, `resume` and `stop`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// The task's id
    task: String,
}

/// A change of the course of a task.
#[derive(Clone, Copy, Debug)]
pub enum TaskAction {
    /// It pauses.
    Pause,
    /// It continues.
    Resume,
    /// It ends.
    Stop,
}

/// Does something to a task.
pub async fn run(arguments: Arguments, action: TaskAction) -> Result<ExitCode> {
    let service = arguments.connection.open().await?;
    let (mut client, task_id, tenant) = (service.client.clone(), arguments.task, String::new());
    match action {
        TaskAction::Pause => drop(
            client
                .pause_task(service.request(v1::PauseTaskRequest { tenant, task_id }))
                .await
                .map_err(refused)?,
        ),
        TaskAction::Resume => drop(
            client
                .resume_task(service.request(v1::ResumeTaskRequest { tenant, task_id }))
                .await
                .map_err(refused)?,
        ),
        TaskAction::Stop => drop(
            client
                .stop_task(service.request(v1::StopTaskRequest { tenant, task_id }))
                .await
                .map_err(refused)?,
        ),
    }
    print(match action {
        TaskAction::Pause => "The task pauses at the end of the chunk in hand.",
        TaskAction::Resume => "The task is resumed.",
        TaskAction::Stop => "The task stops at the end of the chunk in hand.",
    })?;
    Ok(ExitCode::SUCCESS)
}
