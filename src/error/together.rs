//! Combines the faults of a request that were found on its way with those that its service finds in the readable part.

use tonic::Status;
use tonic_types::{FieldViolation, StatusExt};

use super::{Code, Error, Violations};

/// Returns the failure of a request with these faults and those in the response of its service. Returns none if there are no faults, or if
/// the response takes precedence: it is about the caller, a size or a time. `spell` turns a path into the spelling of the caller.
pub fn together(
    faults: &Violations,
    answered: Option<&Status>,
    spell: impl Fn(&str) -> String,
) -> Option<Error> {
    if faults.is_empty() || answered.is_some_and(comes_first) {
        return None;
    }
    let mut all = Violations::new();
    all.extend(faults);
    let places: Vec<(String, bool)> = faults
        .as_slice()
        .iter()
        .map(|fault| (spell(&fault.field), fault.code == "unknown_field"))
        .collect();
    for fault in answered.map(found_by_service).unwrap_or_default() {
        let place = spell(&fault.field);
        // A part that could not be read is missing to the service, and so is its parent.
        let is_same = |(faulty, is_unknown): &(String, bool)| {
            is_within(&place, faulty)
                || !is_unknown && fault.reason == "REQUIRED" && is_within(faulty, &place)
        };
        if !places.iter().any(is_same) {
            all.add(fault.field, fault.reason.to_ascii_lowercase(), fault.description);
        }
    }
    Some(Error::validation(all))
}

/// The failure of a part of a request that has these faults, and this one as well.
pub fn with_others(faults: Violations, other: Option<Error>) -> Error {
    let answered = other.map(Status::from);
    together(&faults, answered.as_ref(), str::to_owned).unwrap_or_else(|| Error::validation(faults))
}

fn code_of(status: &Status) -> Option<Code> {
    Code::from_reason(&status.get_details_error_info()?.reason)
}

/// Returns whether a failure is reported instead of the faults of its request.
fn comes_first(status: &Status) -> bool {
    match code_of(status) {
        Some(code) => matches!(code.http(), 401 | 403 | 413 | 415 | 429 | 499..),
        None => matches!(
            status.code(),
            tonic::Code::Unimplemented
                | tonic::Code::Unauthenticated
                | tonic::Code::PermissionDenied
                | tonic::Code::ResourceExhausted
                | tonic::Code::OutOfRange
                | tonic::Code::Unavailable
                | tonic::Code::DeadlineExceeded
                | tonic::Code::Cancelled
        ),
    }
}

/// The faults in the status of a service; none if the status is about something else, such as a missing entity.
fn found_by_service(status: &Status) -> Vec<FieldViolation> {
    let details = status.get_error_details();
    let Some(info) = details.error_info() else { return Vec::new() };
    let violations =
        details.bad_request().map(|request| request.field_violations.clone()).unwrap_or_default();
    match Code::from_reason(&info.reason) {
        Some(Code::ValidationFailed | Code::InvalidFilter) => violations,
        _ => Vec::new(),
    }
}

/// Returns whether a path is this one or leads into it.
fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(faults: &[(&str, &'static str)]) -> Violations {
        let mut violations = Violations::new();
        faults.iter().for_each(|(field, code)| violations.add(*field, *code, "is wrong"));
        violations
    }

    fn reported(form: &[(&str, &'static str)], service: &[(&str, &'static str)]) -> Vec<String> {
        let status = Status::from(Error::validation(faults(service)));
        let error = together(&faults(form), Some(&status), str::to_owned).expect("faults");
        error.violations().iter().map(|fault| format!("{} {}", fault.field, fault.code)).collect()
    }

    #[test]
    fn faults_of_the_form_and_of_the_service_are_reported_together() {
        let all = reported(
            &[("nome", "unknown_field")],
            &[("portfolio_id", "invalid"), ("name", "required")],
        );
        assert_eq!(all, ["nome unknown_field", "portfolio_id invalid", "name required"]);
    }

    #[test]
    fn what_could_not_be_read_is_not_reported_to_be_missing() {
        let form = &[("entity.type", "invalid_type"), ("requests[2]", "invalid_type")];
        let service = &[
            ("entity.type", "required"),
            ("entity", "required"),
            ("requests[2].entity.type", "required"),
            ("requests[3].entity.type", "required"),
            ("requests[21]", "required"),
            ("entity.types", "invalid"),
        ];
        let expected =
            ["requests[3].entity.type required", "requests[21] required", "entity.types invalid"];
        assert_eq!(reported(form, service)[2..], expected);
        let unknown =
            reported(&[("spec.objects.fliter", "unknown_field")], &[("spec.objects", "required")]);
        assert_eq!(unknown, ["spec.objects.fliter unknown_field", "spec.objects required"]);
    }

    #[test]
    fn what_a_service_says_of_other_things_is_not_reported() {
        let found = faults(&[("nome", "unknown_field")]);
        let missing = Status::from(Error::not_found("entity", "e"));
        for answered in [None, Some(&missing)] {
            assert_eq!(
                together(&found, answered, str::to_owned).expect("faults").violations().len(),
                1
            );
        }
        assert!(together(&Violations::new(), None, str::to_owned).is_none());
        let described = ["wanted `(` (at position 6)".to_owned()];
        let filter = Error::invalid_filter("filter", "wanted `(`\nequals\n      ^", described);
        let both = together(&found, Some(&Status::from(filter)), str::to_owned).expect("faults");
        assert_eq!(both.violations()[1].description, "wanted `(` (at position 6)");
        assert_eq!(
            (both.code(), both.violations()[1].code.as_ref()),
            (Code::ValidationFailed, "invalid_filter")
        );
    }

    #[test]
    fn who_calls_and_how_much_comes_first() {
        let found = faults(&[("Api-Version", "unknown_version")]);
        for code in [
            Code::InvalidCredentials,
            Code::PermissionDenied,
            Code::PayloadTooLarge,
            Code::RateLimitExceeded,
            Code::Unavailable,
        ] {
            assert!(
                together(&found, Some(&Status::from(Error::new(code, "x"))), str::to_owned)
                    .is_none(),
                "{code}"
            );
        }
        assert!(together(&found, Some(&Status::unimplemented("x")), str::to_owned).is_none());
        assert!(
            together(
                &found,
                Some(&Status::internal("failed to decode Protobuf message")),
                str::to_owned
            )
            .is_some()
        );
    }
}
