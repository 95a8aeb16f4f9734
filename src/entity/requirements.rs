//! The requirements of a realm for bulk deletes. Pure.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::error::{Form, Violations};
use crate::proto::{convert, v1};

/// The oldest preview that may be let pass.
const MAX_PREVIEW_AGE: Duration = Duration::from_secs(24 * 3600);
/// The oldest report that may be let pass: older tasks are not kept.
pub const MAX_REPORT_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// The ages that a report may have, in words.
pub const REPORT_AGE: &str = "must be above 0s and at most 2592000s (30 days)";

/// The requirements for one kind of bulk delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// How many entities are expected.
    pub expected_count: bool,
    /// No more than so many entities.
    pub max_objects: Option<i64>,
    /// A preview that is not an older.
    pub preview_within: Option<Duration>,
    /// A clean consistency check that began no longer ago.
    pub clean_report_within: Option<Duration>,
}

impl Requirements {
    /// Reads what a policy says; nothing said is nothing demanded.
    pub fn check(
        message: Option<v1::BulkDeleteRequirements>,
        at: &str,
        faults: &mut Violations,
    ) -> Requirements {
        let Some(message) = message else { return Requirements::default() };
        let v1::BulkDeleteRequirements {
            expected_count,
            max_objects,
            preview_within,
            clean_report_within,
        } = message;
        if max_objects.is_some_and(|most| most < 0) {
            faults.add(format!("{at}.max_objects"), "out_of_range", "must be at least 0");
        }
        let mut age =
            |given: Option<prost_types::Duration>, most: Duration, wanted: &str, name: &str| {
                convert::check_duration(
                    given?,
                    Duration::from_nanos(1)..=most,
                    wanted,
                    &format!("{at}.{name}"),
                    faults,
                )
            };
        Requirements {
            expected_count,
            max_objects,
            preview_within: age(
                preview_within,
                MAX_PREVIEW_AGE,
                "must be above 0s and at most 86400s (a day)",
                "preview_within",
            ),
            clean_report_within: age(
                clean_report_within,
                MAX_REPORT_AGE,
                REPORT_AGE,
                "clean_report_within",
            ),
        }
    }

    /// In the form of events: the requirements that are set, durations as everywhere in JSON; none if nothing is required.
    pub fn to_event(&self) -> Option<Json> {
        let mut members = serde_json::Map::new();
        if self.expected_count {
            members.insert("expected_count".to_owned(), true.into());
        }
        members.extend(self.max_objects.map(|most| ("max_objects".to_owned(), most.into())));
        for (name, age) in [
            ("preview_within", self.preview_within),
            ("clean_report_within", self.clean_report_within),
        ] {
            members
                .extend(age.map(|age| (name.to_owned(), convert::std_duration_text(age).into())));
        }
        (!members.is_empty()).then(|| members.into())
    }

    /// As it is stored: a JSON object with the members of the message, durations in seconds.
    pub fn to_json(&self) -> Json {
        json!({
            "expected_count": self.expected_count, "max_objects": self.max_objects,
            "preview_within": self.preview_within.map(|age| age.as_secs_f64()),
            "clean_report_within": self.clean_report_within.map(|age| age.as_secs_f64()),
        })
    }

    /// From the stored form.
    pub fn from_json(stored: &Json) -> Requirements {
        let age = |name: &str| {
            stored[name].as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        };
        Requirements {
            expected_count: stored["expected_count"].as_bool().unwrap_or_default(),
            max_objects: stored["max_objects"].as_i64(),
            preview_within: age("preview_within"),
            clean_report_within: age("clean_report_within"),
        }
    }
}

/// A change of requirements: all of them are replaced, or those that are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequirementsChange {
    values: Requirements,
    whole: bool,
    named: Vec<&'static str>,
}

impl RequirementsChange {
    /// The requirements that can be named.
    pub const MEMBERS: [&'static str; 4] =
        ["expected_count", "max_objects", "preview_within", "clean_report_within"];

    /// The names of what a message has.
    pub fn given(message: &v1::BulkDeleteRequirements) -> Vec<&'static str> {
        let there = [
            message.expected_count,
            message.max_objects.is_some(),
            message.preview_within.is_some(),
            message.clean_report_within.is_some(),
        ];
        RequirementsChange::MEMBERS
            .into_iter()
            .zip(there)
            .filter(|(_, there)| *there)
            .map(|(name, _)| name)
            .collect()
    }

    /// Reads a change from a message, which is `at` this path. `members` are the names of the changed ones, and without them all are
    /// replaced: by those of the message, or by nothing if it is not set. An empty such message is a fault, since its sender may not mean
    /// to reset everything. Every name must be one of [`RequirementsChange::MEMBERS`].
    pub fn check(
        message: Option<v1::BulkDeleteRequirements>,
        members: &[Option<&str>],
        at: &str,
        faults: &mut Violations,
    ) -> Self {
        let whole = members.contains(&None);
        let is_named = |name: &&'static str| members.contains(&Some(*name));
        let named: Vec<&'static str> =
            RequirementsChange::MEMBERS.into_iter().filter(is_named).collect();
        // Where the form has faults, it may be empty for those.
        if whole
            && message == Some(v1::BulkDeleteRequirements::default())
            && Form::check_current().is_ok()
        {
            faults.add(
                at,
                "required",
                "must name what is demanded; `null`, or a field that is named in the mask and not set, takes all of it back",
            );
        }
        let counts = |name: &str| whole || named.contains(&name);
        let message = message.map(|given| v1::BulkDeleteRequirements {
            expected_count: given.expected_count && counts("expected_count"),
            max_objects: given.max_objects.filter(|_| counts("max_objects")),
            preview_within: given.preview_within.filter(|_| counts("preview_within")),
            clean_report_within: given
                .clean_report_within
                .filter(|_| counts("clean_report_within")),
        });
        RequirementsChange { values: Requirements::check(message, at, faults), whole, named }
    }

    /// The requirements after the change.
    pub fn apply(&self, to: Requirements) -> Requirements {
        if self.whole {
            return self.values.clone();
        }
        let mut changed = to;
        for name in &self.named {
            match *name {
                "expected_count" => changed.expected_count = self.values.expected_count,
                "max_objects" => changed.max_objects = self.values.max_objects,
                "preview_within" => changed.preview_within = self.values.preview_within,
                _ => changed.clean_report_within = self.values.clean_report_within,
            }
        }
        changed
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
    fn what_is_not_named_stays_and_nothing_goes_by_an_empty_message() {
        let was =
            Requirements { expected_count: true, max_objects: Some(5), ..Requirements::default() };
        let change = |message, members: &[Option<&str>]| {
            let mut faults = Violations::new();
            let change = RequirementsChange::check(message, members, "hard_delete", &mut faults);
            (change.apply(was.clone()), faults.as_slice().len())
        };
        let most =
            |most| Some(v1::BulkDeleteRequirements { max_objects: most, ..Default::default() });
        assert_eq!(
            change(most(Some(7)), &[Some("max_objects")]),
            (Requirements { max_objects: Some(7), ..was.clone() }, 0)
        );
        assert_eq!(
            change(most(None), &[Some("max_objects")]),
            (Requirements { max_objects: None, ..was.clone() }, 0)
        );
        assert_eq!(
            change(most(Some(7)), &[None]),
            (Requirements { max_objects: Some(7), ..Requirements::default() }, 0)
        );
        assert_eq!(change(None, &[None]), (Requirements::default(), 0));
        assert_eq!(change(most(None), &[None]).1, 1);
        assert_eq!(
            change(most(Some(-1)), &[Some("expected_count")]).1,
            0,
            "what is not named does not count"
        );
        assert_eq!(was.to_event(), Some(json!({"expected_count": true, "max_objects": 5})));
        assert_eq!(Requirements::default().to_event(), None);
    }

    #[test]
    fn every_fault_is_reported_where_it_is() {
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
            [
                "policy.hard_delete.max_objects",
                "policy.hard_delete.preview_within",
                "policy.hard_delete.clean_report_within"
            ]
        );
    }
}
