//! The faults of a request: those of its form, which are found here, and those that its service finds in what could be read.

use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic_types::{FieldViolation, StatusExt};

use crate::error::{Code, Error, Form, Violations, filter_fault};

/// What is found wrong with the form of a request while it is read. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct FormFaults {
    form: Form,
    faults: Arc<OnceLock<Violations>>,
}

impl FormFaults {
    /// What is said of it to those who do the work.
    pub fn form(&self) -> Form {
        self.form.clone()
    }

    /// Keeps the faults of a message that goes on to its service.
    pub fn keep(&self, faults: Violations) {
        if !faults.is_empty() {
            self.form.spoil();
            // A request is one message.
            let _ = self.faults.set(faults);
        }
    }

    /// The failure of a request whose form has faults, with those that its service has found as well.
    pub fn told(&self, answered: Option<&Status>, spell: impl Fn(&str) -> String) -> Option<Error> {
        let faults = self.faults.get()?;
        let mut all = Violations::new();
        all.extend(faults);
        let places: Vec<(String, bool)> =
            faults.as_slice().iter().map(|fault| (spell(&fault.field), fault.code == "unknown_field")).collect();
        for fault in answered.map(found_by_service).unwrap_or_default() {
            let place = spell(&fault.field);
            // What could not be read is missing to the service, and so is what it is a part of.
            let is_same = |(faulty, is_unknown): &(String, bool)| {
                is_within(&place, faulty) || !is_unknown && fault.reason == "REQUIRED" && is_within(faulty, &place)
            };
            if !places.iter().any(is_same) {
                all.add(fault.field, fault.reason.to_ascii_lowercase(), fault.description);
            }
        }
        Some(Error::validation(all))
    }
}

/// The faults that a service tells; none where it says something else, such as that a thing is not there.
fn found_by_service(status: &Status) -> Vec<FieldViolation> {
    let details = status.get_error_details();
    let Some(info) = details.error_info() else { return Vec::new() };
    match Code::from_reason(&info.reason) {
        Some(Code::ValidationFailed) => details.bad_request().map(|request| request.field_violations.clone()).unwrap_or_default(),
        Some(code @ Code::InvalidFilter) => {
            let member = |name: &str| info.metadata.get(name).map(String::as_str);
            let fault = filter_fault(status.message(), member);
            let violation =
                |(field, description): (String, String)| FieldViolation { field, description, reason: code.reason(), ..Default::default() };
            fault.map(violation).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// A fault that was found here, with what the layers told the caller beside it, such as what is left of its rate limit.
pub fn with_metadata_of(fault: &Status, status: &Status) -> Status {
    with_metadata(fault.clone(), status.metadata().clone().into_headers())
}

/// A fault, to be told with this metadata.
pub fn with_metadata(mut fault: Status, metadata: HeaderMap) -> Status {
    *fault.metadata_mut() = MetadataMap::from_headers(metadata);
    fault
}

/// Whether a path is this place or leads into it.
fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(form: &[(&str, &'static str)], service: &[(&str, &'static str)]) -> Vec<String> {
        let faults = |faults: &[(&str, &'static str)]| {
            let mut violations = Violations::new();
            faults.iter().for_each(|(field, code)| violations.add(*field, *code, "is wrong"));
            violations
        };
        let found = FormFaults::default();
        found.keep(faults(form));
        let status = Status::from(Error::validation(faults(service)));
        let error = found.told(Some(&status), str::to_owned).expect("faults");
        assert!(found.form().is_spoilt());
        error.violations().iter().map(|fault| format!("{} {}", fault.field, fault.code)).collect()
    }

    #[test]
    fn faults_of_the_form_and_of_the_service_are_told_together() {
        let all = told(&[("nome", "unknown_field")], &[("portfolio_id", "invalid"), ("name", "required")]);
        assert_eq!(all, ["nome unknown_field", "portfolio_id invalid", "name required"]);
    }

    #[test]
    fn what_could_not_be_read_is_not_told_to_be_missing() {
        let form = &[("entity.type", "invalid_type"), ("requests[2]", "invalid_type")];
        let service = &[
            ("entity.type", "required"),
            ("entity", "required"),
            ("requests[2].entity.type", "required"),
            ("requests[3].entity.type", "required"),
            ("requests[21]", "required"),
            ("entity.types", "invalid"),
        ];
        let expected = ["requests[3].entity.type required", "requests[21] required", "entity.types invalid"];
        assert_eq!(told(form, service)[2..], expected);
        let unknown = told(&[("spec.objects.fliter", "unknown_field")], &[("spec.objects", "required")]);
        assert_eq!(unknown, ["spec.objects.fliter unknown_field", "spec.objects required"]);
    }

    #[test]
    fn what_a_service_says_of_other_things_is_not_told() {
        let found = FormFaults::default();
        assert!(found.told(None, str::to_owned).is_none() && !found.form().is_spoilt());
        let mut faults = Violations::new();
        faults.add("nome", "unknown_field", "is not known here");
        found.keep(faults);
        let missing = Status::from(Error::not_found("entity", "e"));
        for answered in [None, Some(&missing)] {
            assert_eq!(found.told(answered, str::to_owned).expect("faults").violations().len(), 1);
        }
        let filter = Error::new(Code::InvalidFilter, "wanted `(`\nequals\n      ^").with("field", "filter").with("position", 6);
        let both = found.told(Some(&Status::from(filter)), str::to_owned).expect("faults");
        assert_eq!(both.violations()[1].description, "wanted `(` (at position 6)");
        assert_eq!((both.code(), both.violations()[1].code.as_ref()), (Code::ValidationFailed, "invalid_filter"));
    }
}
