//! `offboard bulk-delete preview`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::connect::{Connection, Service};
use super::selection::Selection;
use super::show::{entities, mode, realm_of, roughly, to_std, value};
use super::wrong_usage;
use crate::cli::output::print;
use crate::cli::refusal::refused;
use crate::error::{Error, Result};
use crate::limits::thousands;
use crate::proto::v1;

/// How many ids are shown to people.
const IDS_SHOWN: usize = 10;

/// Arguments of `preview`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    #[command(flatten)]
    selection: Selection,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shows what a task would do.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    if let Some(fault) = arguments.selection.misuse() {
        return Ok(wrong_usage(fault));
    }
    let hard = arguments.selection.is_hard();
    let request = arguments.selection.request()?;
    let service = arguments.connection.open().await?;
    let task = ask(&service, &request).await?;
    let text = if arguments.json { with_realm(&task)?.to_string() } else { describe(&task, hard) };
    print(text)?;
    Ok(ExitCode::SUCCESS)
}

/// The preview as JSON, and whose entities it is of.
fn with_realm(task: &v1::Task) -> Result<Value> {
    let mut preview = value(&task.preview.clone().unwrap_or_default())?;
    preview["tenant"] = task.tenant.clone().into();
    preview["realmMode"] = mode(task).into();
    preview["undo"] = task.undo.clone().into();
    Ok(preview)
}

/// Asks the service what a request would do. The response has a preview.
pub async fn ask(service: &Service, request: &v1::StartBulkDeleteRequest) -> Result<v1::Task> {
    let request = v1::StartBulkDeleteRequest { dry_run: true, ..request.clone() };
    let answer = service
        .client
        .clone()
        .start_bulk_delete(service.request(request))
        .await
        .map_err(refused)?
        .into_inner();
    if answer.preview.is_none() {
        return Err(Error::internal("a dry run has a preview"));
    }
    Ok(answer)
}

/// The preview of a task as text for people; the last line is not ended.
pub fn describe(task: &v1::Task, hard: bool) -> String {
    let preview = task.preview.clone().unwrap_or_default();
    let how = if hard { "erased" } else { "marked as deleted" };
    let mut text = format!("{} of {} selected.\n", entities(preview.matched_count), realm_of(task));
    if preview.matched_count == 0 {
        text.push_str("Nothing is selected: a task has nothing to delete.\n");
    }
    text.push_str(&format!("  {:>13} would be {how}", thousands(preview.deletable_count)));
    if let Some(duration) = preview.estimated_duration.filter(|_| preview.deletable_count > 0) {
        text.push_str(&format!(", in {}", roughly(to_std(duration))));
    }
    text.push('\n');
    let mut reasons: Vec<_> = preview.failing_by_reason.iter().collect();
    reasons.sort_by_key(|(reason, count)| (-**count, *reason));
    for (reason, count) in reasons {
        text.push_str(&format!(
            "  {:>13} would fail: {}\n",
            thousands(*count),
            reason.replace('_', " ")
        ));
    }
    if preview.excluded_count > 0 {
        text.push_str(&format!("  {:>13} excluded\n", thousands(preview.excluded_count)));
    }
    if preview.unselected_excluded_count > 0 {
        text.push_str(&format!(
            "  {:>13} of the exclude list not selected anyway\n",
            thousands(preview.unselected_excluded_count)
        ));
    }
    if !preview.sample.is_empty() {
        let shown: Vec<&str> = preview.sample.iter().take(IDS_SHOWN).map(String::as_str).collect();
        let more = if preview.deletable_count > shown.len() as i64 { ", …" } else { "" };
        text.push_str(&format!("First of them: {}{more}\n", shown.join(", ")));
    }
    for warning in &preview.warnings {
        text.push_str(&format!("Warning: {}\n", warning.message));
    }
    if preview.deletable_count > 0 {
        text.push_str(&task.undo);
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_reports_how_long_a_task_would_take() {
        let line = |seconds, deletable_count| {
            let estimated_duration = Some(prost_types::Duration { seconds, nanos: 5_000_000 });
            let preview = v1::BulkDeletePreview {
                matched_count: 2,
                deletable_count,
                estimated_duration,
                ..Default::default()
            };
            describe(&v1::Task { preview: Some(preview), ..Default::default() }, true)
                .lines()
                .nth(1)
                .map(|line| line.trim().to_owned())
        };
        assert_eq!(line(0, 2).as_deref(), Some("2 would be erased, in less than a second"));
        assert_eq!(line(90, 2).as_deref(), Some("2 would be erased, in about 90 seconds"));
        assert_eq!(line(90, 0).as_deref(), Some("0 would be erased"));
        assert!(
            describe(
                &v1::Task { preview: Some(v1::BulkDeletePreview::default()), ..Default::default() },
                true
            )
            .contains("Nothing is selected")
        );
    }
}
