//! `offboard bulk-delete list`, `failures` and `excludes`.

use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat};
use clap::Args;
use serde_json::Value;

use super::connect::Connection;
use super::show;
use crate::cli::client::realm_of;
use crate::cli::output::{note, print};
use crate::cli::refusal::refused;
use crate::error::Result;
use crate::limits::thousands;
use crate::proto::v1;

const PAGE: i32 = 1_000;

/// Arguments of `list`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// Those that ended within the last 30 days, instead of those that are not over
    #[arg(long)]
    history: bool,

    /// How many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i32).range(1..=1_000), value_name = "COUNT")]
    max: i32,

    /// How many to leave out before that
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..), value_name = "COUNT")]
    offset: i32,

    /// The order: createdTime, startTime, endTime, updatedTime, name, status or createdBy
    #[arg(long, default_value = "createdTime", value_name = "MEMBER")]
    order_by: String,

    /// The least first
    #[arg(long)]
    ascending: bool,

    /// Print JSON, a task a line
    #[arg(long)]
    json: bool,
}

/// Lists tasks.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { connection, history, max, offset, order_by, ascending, json } = arguments;
    let service = connection.open().await?;
    let mut client = service.client.clone();
    let (realm, tasks) = if history {
        let request =
            v1::ListTaskHistoryRequest { max, offset, order_by, ascending, ..Default::default() };
        let answer = client.list_task_history(service.request(request)).await.map_err(refused)?;
        (realm_of(answer.metadata()), answer.into_inner().tasks)
    } else {
        let request =
            v1::ListTasksRequest { max, offset, order_by, ascending, ..Default::default() };
        let answer = client.list_tasks(service.request(request)).await.map_err(refused)?;
        (realm_of(answer.metadata()), answer.into_inner().tasks)
    };
    if let (true, Some(realm)) = (tasks.is_empty(), realm) {
        note(format_args!("Nothing found for {realm}, the organisation and mode of the key."));
    }
    for task in tasks {
        let text = if json { show::json(&task)? } else { line(&task) };
        if !print(&text)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(task: &v1::Task) -> String {
    let progress = task.current_state.clone().unwrap_or_default();
    let created = task
        .created_time
        .and_then(|time| DateTime::from_timestamp(time.seconds, 0))
        .unwrap_or_default();
    format!(
        "{}  {}  {:<22} {:>13} done {:>9} failed  {}",
        task.id,
        created.to_rfc3339_opts(SecondsFormat::Secs, true),
        show::status(task),
        thousands(progress.number_of_processed_objects),
        thousands(progress.objects_failed_to_delete_count),
        task.name.replace(char::is_control, " ")
    )
}

/// Arguments of `failures`.
#[derive(Args, Debug)]
pub struct FailuresArguments {
    #[command(flatten)]
    connection: Connection,

    /// The task's id
    task: String,

    /// Print JSON, a failure a line
    #[arg(long)]
    json: bool,
}

/// Lists all that a task could not delete, page by page.
pub async fn failures(arguments: FailuresArguments) -> Result<ExitCode> {
    let service = arguments.connection.open().await?;
    let mut request = v1::ListTaskFailuresRequest {
        tenant: String::new(),
        task_id: arguments.task,
        page_size: PAGE,
        page_token: String::new(),
        filter: String::new(),
    };
    loop {
        let page = service
            .client
            .clone()
            .list_task_failures(service.request(request.clone()))
            .await
            .map_err(refused)?
            .into_inner();
        for failure in &page.failures {
            let text = if arguments.json {
                show::json(failure)?
            } else {
                format!("{}  {}  {}", failure.entity_id, failure.reason, failure.message)
            };
            if !print(&text)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        request.page_token = page.next_page_token;
    }
}

/// Arguments of `excludes`.
#[derive(Args, Debug)]
pub struct ExcludesArguments {
    #[command(flatten)]
    connection: Connection,

    /// The task's id
    task: String,

    /// Print JSON, an id a line
    #[arg(long)]
    json: bool,
}

/// Lists everything that a task excludes, page by page.
pub async fn excludes(arguments: ExcludesArguments) -> Result<ExitCode> {
    let service = arguments.connection.open().await?;
    let mut request = v1::ListTaskExcludesRequest {
        task_id: arguments.task,
        page_size: PAGE,
        ..Default::default()
    };
    loop {
        let page = service
            .client
            .clone()
            .list_task_excludes(service.request(request.clone()))
            .await
            .map_err(refused)?
            .into_inner();
        for id in &page.entity_ids {
            let text =
                if arguments.json { Value::from(id.as_str()).to_string() } else { id.clone() };
            if !print(&text)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        request.page_token = page.next_page_token;
    }
}
