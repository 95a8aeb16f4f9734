//! The care that a realm demands of whoever deletes many of its entities. Pure.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::error::Violations;
use crate::proto::{convert, v1};

/// The oldest preview that may be let pass.
const MAX_PREVIEW_AGE: Duration = Duration::from_secs(24 * 3600);
/// The oldest report that may be let pass: older tasks are not kept.
pub const MAX_REPORT_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// What a report may be of, in words.
pub const REPORT_AGE: &str = "must be above 0s and at most 2592000s (30 days)";

/// What a bulk delete of one kind must show to be started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// How many entities are expected.
    pub expected_count: bool,
    /// No more than so many entities.
    pub max_objects: Option<i64>,
    /// A preview that is no older.
    pub preview_within: Option<Duration>,
    /// A clean check of consistency that began no longer ago.
    pub clean_report_within: Option<Duration>,
}

impl Requirements {
    /// Reads what a policy says; nothing said is nothing demanded.
    pub fn check(message: Option<v1::BulkDeleteRequirements>, at: &str, faults: &mut Violations) -> Requirements {
        let Some(message) = message else { return Requirements::default() };
        let v1::BulkDeleteRequirements { expected_count, max_objects, preview_within, clean_report_within } = message;
        if max_objects.is_some_and(|most| most < 0) {
            faults.add(format!("{at}.max_objects"), "out_of_range", "must be at least 0");
        }
        let mut age = |given: Option<prost_types::Duration>, most: Duration, wanted: &str, name: &str| {
            convert::check_duration(given?, Duration::from_nanos(1)..=most, wanted, &format!("{at}.{name}"), faults)
        };
        Requirements {
            expected_count,
            max_objects,
            preview_within: age(preview_within, MAX_PREVIEW_AGE, "must be above 0s and at most 86400s (a day)", "preview_within"),
            clean_report_within: age(clean_report_within, MAX_REPORT_AGE, REPORT_AGE, "clean_report_within"),
        }
    }

    /// As it is stored: a JSON object with the members of the message, durations in seconds.
    pub fn to_json(&self) -> Json {
        json!({
            "expected_count": self.expected_count, "max_objects": self.max_objects,
            "preview_within": self.preview_within.map(|age| age.as_secs_f64()),
            "clean_report_within": self.clean_report_within.map(|age| age.as_secs_f64()),
        })
    }

    /// From what is stored.
    pub fn from_json(stored: &Json) -> Requirements {
        let age = |name: &str| stored[name].as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Requirements {
            expected_count: stored["expected_count"].as_bool().unwrap_or_default(),
            max_objects: stored["max_objects"].as_i64(),
            preview_within: age("preview_within"),
            clean_report_within: age("clean_report_within"),
        }
    }
}

impl From<Requirements> for Option<v1::BulkDeleteRequirements> {
    fn from(requirements: Requirements) -> Self {
        let message = |duration: Duration| prost_types::Duration::try_from(duration).ok();
        (requirements != Requirements::default()).then(|| v1::BulkDeleteRequirements {
            expected_count: requirements.expected_count,
            max_objects: requirements.max_objects,
            preview_within: requirements.preview_within.and_then(message),
            clean_report_within: requirements.clean_report_within.and_then(message),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_what_was_said() {
        let said = Requirements {
            expected_count: true,
            max_objects: Some(5),
            preview_within: Some(Duration::from_secs(600)),
            clean_report_within: Some(Duration::from_millis(1500)),
        };
        assert_eq!(Requirements::from_json(&said.to_json()), said);
        let message: Option<v1::BulkDeleteRequirements> = said.clone().into();
        assert_eq!(Requirements::check(message, "", &mut Violations::new()), said);
        assert_eq!(Requirements::from_json(&json!({})), Requirements::default());
        assert_eq!(Option::<v1::BulkDeleteRequirements>::from(Requirements::default()), None);
    }

    #[test]
    fn every_fault_is_told_where_it_is() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let message = v1::BulkDeleteRequirements {
            expected_count: false,
            max_objects: Some(-1),
            preview_within: seconds(86_401),
            clean_report_within: seconds(0),
        };
        let mut faults = Violations::new();
        Requirements::check(Some(message), "policy.hard_delete", &mut faults);
        let fields: Vec<_> = faults.as_slice().iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            fields,
            ["policy.hard_delete.max_objects", "policy.hard_delete.preview_within", "policy.hard_delete.clean_report_within"]
        );
    }
}
