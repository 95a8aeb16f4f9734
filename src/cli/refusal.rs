//! Refusals of the service, in the words of the command line.

use tonic::Status;
use tonic_types::{FieldViolation, StatusExt};

use super::client::{failure_text, realm_of};
use crate::error::{Code, Error, Violation};

/// The fields of requests, as they are given on the command line.
const FLAGS: &[(&str, &str)] = &[
    ("allowed", "--allow"),
    ("api_version", "--api-version"),
    ("clean_report_within", "--clean-report-within"),
    ("email", "--email"),
    ("expected_count", "--expected-count"),
    ("expected_version", "--expected-version"),
    ("expires_at", "--expires-in-days"),
    ("key_id", "ID"),
    ("max", "--max"),
    ("max_objects", "--max-objects"),
    ("max_objects_per_second", "--max-objects-per-second"),
    ("name", "--name"),
    ("offset", "--offset"),
    ("order_by", "--order-by"),
    ("overlap", "--overlap"),
    ("policy.default_grace_period", "--default-grace-period"),
    ("policy.filter_retention", "--filter-retention"),
    ("policy.hard_delete.clean_report_within", "--hard-clean-report-within"),
    ("policy.hard_delete.expected_count", "--hard-expected-count"),
    ("policy.hard_delete.max_objects", "--hard-max-objects"),
    ("policy.hard_delete.preview_within", "--hard-preview-within"),
    ("policy.mail_domains", "--mail-domain"),
    ("policy.max_grace_period", "--max-grace-period"),
    ("policy.min_grace_period", "--min-grace-period"),
    ("policy.request_retention", "--request-retention"),
    ("policy.soft_delete.clean_report_within", "--soft-clean-report-within"),
    ("policy.soft_delete.expected_count", "--soft-expected-count"),
    ("policy.soft_delete.max_objects", "--soft-max-objects"),
    ("policy.soft_delete.preview_within", "--soft-preview-within"),
    ("policy.tombstone_retention", "--tombstone-retention"),
    ("preview_token", "--preview-token"),
    ("scopes", "--scope"),
    ("send_mail", "--send-mail"),
    ("spec.objects.entity_type", "--type"),
    ("spec.objects.exclude_list", "--exclude and --exclude-from"),
    ("spec.objects.filter", "--filter"),
    ("spec.objects.uri_list", "--uri and --uris-from"),
    ("task_id", "TASK"),
];

/// A refusal of the service.
pub fn refused(status: Status) -> Error {
    let details = status.get_error_details();
    let faults = details
        .bad_request()
        .map(|request| request.field_violations.as_slice())
        .unwrap_or_default();
    if !faults.is_empty() {
        return Error::validation(faults.iter().map(violation).collect());
    }
    let code = details
        .error_info()
        .and_then(|info| Code::from_reason(&info.reason))
        .unwrap_or_else(|| Code::from_grpc(status.code()));
    let mut message = failure_text(&status);
    if let (Code::NotFound, Some(realm)) = (code, realm_of(status.metadata())) {
        message.push_str(&format!(
            " The key is of {realm}, and finds nothing of any other organisation or mode."
        ));
    }
    Error::new(code, message)
}

fn violation(fault: &FieldViolation) -> Violation {
    let allowed = match fault.reason.as_str() {
        "SUSPECT_VALUE" | "UNKNOWN_VALUE" | "UNCHECKED_VALUE" => Some("--allow-suspect-values"),
        "UNKNOWN_ATTRIBUTE" => Some("--allow-unknown-attributes"),
        "MISSING_EXCLUDES" => Some("--allow-missing-excludes"),
        _ => None,
    };
    let stop = if fault.description.ends_with('?') { "" } else { "." };
    let all_the_same = allowed
        .map(|allowed| format!("{stop} {allowed} starts the task all the same"))
        .unwrap_or_default();
    Violation {
        field: flag(&fault.field),
        code: "invalid".into(),
        description: format!("{}{all_the_same}", fault.description),
    }
}

/// A fault found before anything was sent, with a body that is this field of the request, or the whole of it where that is empty.
pub fn refused_here(error: Error, body: &str) -> Error {
    if error.violations().is_empty() {
        return error;
    }
    Error::validation(error.into_violations().map(|fault| {
        let field = format!("{body}.{}", fault.field);
        Violation { field: flag(field.trim_start_matches('.')), ..fault }
    }))
}

/// The flag that a field was given by; a field that has none stays as it is.
fn flag(field: &str) -> String {
    let (list, place) = match field.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
        Some((list, place)) => (list, place.parse::<usize>().ok()),
        None => (field, None),
    };
    match (FLAGS.iter().find(|(known, _)| *known == list), place) {
        (Some((_, flags)), Some(place)) => format!("value {} of {flags}", place + 1),
        (Some((_, flags)), None) => (*flags).to_owned(),
        (None, _) => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_reported_as_flags() {
        for (field, reported) in [
            ("spec.objects.filter", "--filter"),
            ("spec.objects.entity_type", "--type"),
            ("spec.objects.uri_list", "--uri and --uris-from"),
            ("spec.objects.uri_list[0]", "value 1 of --uri and --uris-from"),
            ("spec.objects.exclude_list[41]", "value 42 of --exclude and --exclude-from"),
            ("max_objects", "--max-objects"),
            ("order_by", "--order-by"),
            ("policy.mail_domains[1]", "value 2 of --mail-domain"),
            ("policy.hard_delete.max_objects", "--hard-max-objects"),
            ("created_by", "created_by"),
            ("spec.findings[3]", "spec.findings[3]"),
        ] {
            assert_eq!(flag(field), reported);
        }
    }
}
