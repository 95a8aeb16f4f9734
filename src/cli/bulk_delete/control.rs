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

/// What is done to a task.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// It pauses.
    Pause,
    /// It goes on.
    Resume,
    /// It ends.
    Stop,
}

/// Does something to a task.
pub async fn run(arguments: Arguments, act: Act) -> Result<ExitCode> {
    let service = arguments.connection.open().await?;
    let (mut client, task_id, tenant) = (service.client.clone(), arguments.task, String::new());
    match act {
        Act::Pause => drop(client.pause_task(service.request(v1::PauseTaskRequest { tenant, task_id })).await.map_err(refused)?),
        Act::Resume => drop(client.resume_task(service.request(v1::ResumeTaskRequest { tenant, task_id })).await.map_err(refused)?),
        Act::Stop => drop(client.stop_task(service.request(v1::StopTaskRequest { tenant, task_id })).await.map_err(refused)?),
    }
    print(match act {
        Act::Pause => "The task pauses at the end of the chunk in hand.",
        Act::Resume => "The task goes on.",
        Act::Stop => "The task stops at the end of the chunk in hand.",
    })?;
    Ok(ExitCode::SUCCESS)
}
