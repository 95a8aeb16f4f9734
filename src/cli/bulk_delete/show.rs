//! Tasks as JSON, in the spelling of the REST contract, and the words for numbers and times.

use std::time::Duration;

use prost_types::Timestamp;
use serde_json::{Value, json};

use crate::proto::v1;

/// A task as the REST door shows it.
pub fn task(task: &v1::Task) -> Value {
    let progress = task.current_state.as_ref().map(progress);
    json!({
        "id": task.id, "name": task.name, "type": task.r#type, "tenant": task.tenant, "status": status(task), "parameters": task.parameters,
        "currentState": progress, "started": millis(task.started), "current": millis(task.current), "throughput": task.throughput,
        "duration": seconds(task.duration), "createdTime": millis(task.created_time), "startTime": millis(task.start_time),
        "endTime": millis(task.end_time), "pausedTime": millis(task.paused_time), "createdBy": task.created_by, "updatedBy": task.updated_by,
        "errorCode": task.error_code, "errorMessage": task.error_message, "mail": task.mail.as_ref().map(mail),
        "realmMode": mode(task), "undo": task.undo, "lists": task.lists.as_ref().map(lists),
        "warnings": task.warnings.iter().map(warning).collect::<Vec<_>>(),
    })
}

/// Which of the organisation's two worlds a task is of.
pub fn mode(task: &v1::Task) -> Option<&'static str> {
    match task.realm_mode() {
        v1::Mode::Test => Some("test"),
        v1::Mode::Live => Some("live"),
        v1::Mode::Unspecified => None,
    }
}

/// Whether a task is about entities of the live world, or the service does not say.
pub fn is_live(task: &v1::Task) -> bool {
    mode(task) != Some("test")
}

/// Whose entities a task is about, for people: `acme (live)`.
pub fn whose(task: &v1::Task) -> String {
    match mode(task) {
        Some(mode) => format!("{} ({mode})", task.tenant),
        None => task.tenant.clone(),
    }
}

fn lists(lists: &v1::TaskLists) -> Value {
    json!({
        "excludedCount": lists.excluded_count, "excluded": lists.excluded, "missingExcludedCount": lists.missing_excluded_count,
        "missingExcluded": lists.missing_excluded, "missingUriCount": lists.missing_uri_count, "missingUris": lists.missing_uris,
        "unselectedExcludedCount": lists.unselected_excluded_count, "unselectedExcluded": lists.unselected_excluded,
    })
}

fn mail(mail: &v1::TaskMail) -> Value {
    let status = mail.status().as_str_name().trim_start_matches("TASK_MAIL_STATUS_");
    json!({"status": status, "reason": mail.reason, "message": mail.message})
}

fn progress(progress: &v1::TaskProgress) -> Value {
    json!({
        "objectsFailedToDelete": progress.objects_failed_to_delete, "entityType": progress.entity_type,
        "objectsFailedToDeleteCount": progress.objects_failed_to_delete_count,
        "numberOfFailedToPublishEvents": progress.number_of_failed_to_publish_events,
        "lastHourThroughput": progress.last_hour_throughput, "numberOfProcessedObjects": progress.number_of_processed_objects,
        "lastExecutionInstances": progress.last_execution_instances,
        "lastExecutionEC2Instances": progress.last_execution_ec2_instances, "status": progress.status,
        "numberOfMatchedObjects": progress.number_of_matched_objects, "numberOfExcludedObjects": progress.number_of_excluded_objects,
        "numberOfSkippedObjects": progress.number_of_skipped_objects, "numberOfSelectedObjects": progress.number_of_selected_objects,
        "currentThroughput": progress.current_throughput, "estimatedRemaining": seconds(progress.estimated_remaining),
        "maxObjectsPerSecond": progress.max_objects_per_second, "findings": progress.findings,
        "numberOfMendedFindings": progress.number_of_mended_findings,
    })
}

/// A preview as the REST door shows it.
pub fn preview(preview: &v1::BulkDeletePreview) -> Value {
    json!({
        "matchedCount": preview.matched_count, "deletableCount": preview.deletable_count, "failingCount": preview.failing_count,
        "excludedCount": preview.excluded_count, "failingByReason": preview.failing_by_reason, "sample": preview.sample,
        "estimatedDuration": seconds(preview.estimated_duration), "warnings": preview.warnings.iter().map(warning).collect::<Vec<_>>(),
        "missingExcludedCount": preview.missing_excluded_count, "missingExcluded": preview.missing_excluded,
        "missingUriCount": preview.missing_uri_count, "missingUris": preview.missing_uris, "token": preview.token,
        "unselectedExcludedCount": preview.unselected_excluded_count, "unselectedExcluded": preview.unselected_excluded,
    })
}

fn warning(warning: &v1::Warning) -> Value {
    json!({"code": warning.code, "message": warning.message})
}

/// A failure as the REST door shows it.
pub fn failure(failure: &v1::TaskFailure) -> Value {
    json!({"entityId": failure.entity_id, "reason": failure.reason, "message": failure.message, "time": millis(failure.time)})
}

/// The contract's word for where a task stands.
pub fn status(task: &v1::Task) -> &'static str {
    task.status().as_str_name().trim_start_matches("TASK_STATUS_")
}

fn millis(moment: Option<Timestamp>) -> Option<i64> {
    moment.map(|moment| moment.seconds * 1000 + i64::from(moment.nanos) / 1_000_000)
}

fn seconds(duration: Option<prost_types::Duration>) -> Option<String> {
    Some(format!("{}s", to_std(duration?).as_secs_f64()))
}

/// A duration of a message; one below zero is none at all.
pub fn to_std(duration: prost_types::Duration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}

/// A duration for people.
pub fn about(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => "less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..120 => format!("{seconds} seconds"),
        120..7200 => format!("{} minutes", seconds / 60),
        _ => format!("{} hours", seconds / 3600),
    }
}

/// An estimated duration for people.
pub fn roughly(duration: Duration) -> String {
    let text = about(duration);
    if duration.as_secs() == 0 { text } else { format!("about {text}") }
}

/// A number with its thousands apart.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    format!("{}{}", if number < 0 { "-" } else { "" }, groups.join(","))
}

/// A number of entities.
pub fn entities(number: i64) -> String {
    format!("{} {}", grouped(number), if number == 1 { "entity" } else { "entities" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_for_people() {
        assert_eq!([0, 999, 1000, -1_234_567].map(grouped), ["0", "999", "1,000", "-1,234,567"]);
        assert_eq!((entities(1), entities(2000)), ("1 entity".to_owned(), "2,000 entities".to_owned()));
        let told = [0, 1, 61, 600, 7300].map(|seconds| about(Duration::from_secs(seconds)));
        assert_eq!(told, ["less than a second", "1 second", "61 seconds", "10 minutes", "2 hours"]);
    }
}
