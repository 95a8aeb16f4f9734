//! The guards of a bulk delete: they are checked before it starts. Pure.

use std::time::Duration;

use crate::entity::requirements::{MAX_REPORT_AGE, REPORT_AGE};
use crate::error::{Code, Error, Result, Violations};
use crate::proto::{convert, v1};
use crate::task::model::entities;
use crate::task::pace::check_pace;

/// The guards that must pass before a task starts; and its pace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// How many entities it must select.
    pub expected_count: Option<i64>,
    /// How many entities it may select.
    pub max_objects: Option<i64>,
    /// How many entities it may take up a second.
    pub max_objects_per_second: Option<i32>,
    /// How long ago a consistency check that found nothing, or repaired all, may have begun.
    pub clean_report_within: Option<Duration>,
    /// True if the filter may name attributes that no entity has.
    pub allow_unknown_attributes: bool,
    /// True if the filter of a hard delete may compare otherwise than it looks.
    pub allow_suspect_values: bool,
    /// True if the exclude list of a hard delete may have ids of no entity.
    pub allow_missing_excludes: bool,
    /// The token of a dry run with the same selection.
    pub preview_token: Option<String>,
}

impl Guards {
    /// Reads the guards, from the request and from its body.
    pub fn check(request: &v1::StartBulkDeleteRequest, faults: &mut Violations) -> Guards {
        let (expected_in_body, max_in_body) = request
            .spec
            .as_ref()
            .map(|spec| (spec.expected_count, spec.max_objects))
            .unwrap_or_default();
        let expected_count =
            one_number("expected_count", request.expected_count, expected_in_body, faults);
        let max_objects = one_number("max_objects", request.max_objects, max_in_body, faults);
        let max_objects_per_second = check_pace(request.max_objects_per_second, faults);
        let clean_report_within = request.clean_report_within.and_then(|given| {
            convert::check_duration(
                given,
                Duration::from_nanos(1)..=MAX_REPORT_AGE,
                REPORT_AGE,
                "clean_report_within",
                faults,
            )
        });
        let spec = request.spec.as_ref();
        let token_in_body = spec.map(|spec| spec.preview_token.as_str()).unwrap_or_default();
        Guards {
            expected_count,
            max_objects,
            max_objects_per_second,
            clean_report_within,
            allow_unknown_attributes: one_flag(
                "allow_unknown_attributes",
                request.allow_unknown_attributes,
                spec.and_then(|spec| spec.allow_unknown_attributes),
                faults,
            ),
            allow_suspect_values: one_flag(
                "allow_suspect_values",
                request.allow_suspect_values,
                spec.and_then(|spec| spec.allow_suspect_values),
                faults,
            ),
            allow_missing_excludes: one_flag(
                "allow_missing_excludes",
                request.allow_missing_excludes,
                spec.and_then(|spec| spec.allow_missing_excludes),
                faults,
            ),
            preview_token: one_token(&request.preview_token, token_in_body, faults),
        }
    }

    /// Returns whether it has to be known how many entities are selected.
    pub fn need_a_count(&self) -> bool {
        self.expected_count.is_some() || self.max_objects.is_some()
    }

    /// Fails with `count_mismatch` if that many selected entities are not what the caller expects or allows.
    pub fn compare(&self, matched: i64) -> Result<()> {
        let mismatch = |message: String| {
            Error::new(Code::CountMismatch, message).with("matched_count", matched)
        };
        match (self.expected_count, self.max_objects) {
            (Some(expected), _) if expected != matched => Err(mismatch(format!(
                "The selection contains {}, not {expected}. Nothing was started.",
                entities(matched)
            ))
            .with("expected_count", expected)),
            (_, Some(max)) if matched > max => Err(mismatch(format!(
                "The selection contains {}, more than {max}. Nothing was started.",
                entities(matched)
            ))
            .with("max_objects", max)),
            _ => Ok(()),
        }
    }

    /// How many entities the task may take up while it runs, whatever comes to be selected meanwhile.
    pub fn cap(&self) -> Option<i64> {
        self.expected_count.into_iter().chain(self.max_objects).min()
    }

    /// The guards that were given, as the contract shows them among the parameters of a task.
    pub fn parameters(&self) -> impl Iterator<Item = (&'static str, String)> {
        let Guards {
            expected_count, max_objects, max_objects_per_second, clean_report_within, ..
        } = self;
        let (unknown, suspect, missing) =
            (self.allow_unknown_attributes, self.allow_suspect_values, self.allow_missing_excludes);
        let given = [
            ("expectedCount", expected_count.map(|count| count.to_string())),
            ("maxObjects", max_objects.map(|max| max.to_string())),
            ("maxObjectsPerSecond", max_objects_per_second.map(|pace| pace.to_string())),
            ("cleanReportWithin", clean_report_within.map(|age| format!("{}s", age.as_secs_f64()))),
            ("allowUnknownAttributes", unknown.then(|| "true".to_owned())),
            ("allowSuspectValues", suspect.then(|| "true".to_owned())),
            ("allowMissingExcludes", missing.then(|| "true".to_owned())),
            ("previewed", self.preview_token.as_ref().map(|_| "true".to_owned())),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// The refusal of a task for which no clean report is young enough.
pub fn report_required(within: Duration) -> Error {
    let seconds = within.as_secs_f64();
    let message = format!(
        "The latest consistency check must have begun within the last {seconds} seconds and have left nothing unrepaired. Run a consistency check first."
    );
    Error::new(Code::ReportRequired, message).with("clean_report_within", format!("{seconds}s"))
}

/// A number that may be given in two places, in which it must be the same.
fn one_number(
    name: &str,
    given: Option<i64>,
    in_body: Option<i64>,
    faults: &mut Violations,
) -> Option<i64> {
    for (field, value) in [(name, given), (&format!("spec.{name}"), in_body)] {
        if value.is_some_and(|number| number < 0) {
            faults.add(field, "out_of_range", "must be at least 0");
        }
    }
    one(name, given, in_body, faults)
}

/// A flag that may be given in two places, in which it must be the same.
fn one_flag(
    name: &str,
    given: Option<bool>,
    in_body: Option<bool>,
    faults: &mut Violations,
) -> bool {
    one(name, given, in_body, faults).unwrap_or_default()
}

/// A token that may be given in two places, in which it must be the same; an empty one is as good as none.
fn one_token(given: &str, in_body: &str, faults: &mut Violations) -> Option<String> {
    if !given.is_empty() && !in_body.is_empty() && given != in_body {
        faults.add(
            "spec.preview_token",
            "conflict",
            "differs between the request, by REST its query, and the body",
        );
    }
    [given, in_body].into_iter().find(|token| !token.is_empty()).map(str::to_owned)
}

/// A value that may be given in two places: by the request itself, which is its query by REST, and by its body.
fn one<T: PartialEq + std::fmt::Display>(
    name: &str,
    given: Option<T>,
    in_body: Option<T>,
    faults: &mut Violations,
) -> Option<T> {
    if let (Some(given), Some(in_body)) = (&given, &in_body)
        && given != in_body
    {
        let description = format!(
            "differs between the request, by REST its query, which says `{given}`, and the body, which says `{in_body}`"
        );
        faults.add(format!("spec.{name}"), "conflict", description);
    }
    given.or(in_body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: v1::StartBulkDeleteRequest) -> Result<Guards> {
        let mut faults = Violations::new();
        let guards = Guards::check(&request, &mut faults);
        faults.check().map(|()| guards)
    }

    #[test]
    fn guards_may_stand_in_the_request_in_its_body_or_in_both_alike() {
        let spec = |expected_count, max_objects| {
            Some(v1::BulkDeleteSpec { expected_count, max_objects, ..Default::default() })
        };
        let expected =
            Guards { expected_count: Some(3), max_objects: Some(5), ..Guards::default() };
        for request in [
            v1::StartBulkDeleteRequest {
                expected_count: Some(3),
                max_objects: Some(5),
                ..Default::default()
            },
            v1::StartBulkDeleteRequest { spec: spec(Some(3), Some(5)), ..Default::default() },
            v1::StartBulkDeleteRequest {
                expected_count: Some(3),
                spec: spec(Some(3), Some(5)),
                ..Default::default()
            },
        ] {
            assert_eq!(check(request).unwrap(), expected);
        }
        let differing = v1::StartBulkDeleteRequest {
            max_objects: Some(4),
            spec: spec(None, Some(5)),
            ..Default::default()
        };
        let fields = |request| {
            check(request)
                .unwrap_err()
                .violations()
                .iter()
                .map(|fault| fault.field.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(fields(differing), ["spec.max_objects"]);
        let flags = v1::StartBulkDeleteRequest {
            allow_missing_excludes: Some(false),
            spec: Some(v1::BulkDeleteSpec {
                allow_missing_excludes: Some(true),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(fields(flags), ["spec.allow_missing_excludes"]);
    }

    #[test]
    fn a_count_is_checked_against_the_expected_and_the_allowed() {
        let guards = Guards { expected_count: Some(3), max_objects: Some(5), ..Guards::default() };
        assert!(guards.compare(3).is_ok());
        let refused = guards.compare(4).unwrap_err();
        assert_eq!(
            (refused.member("expected_count"), refused.member("matched_count")),
            (Some("3"), Some("4"))
        );
        let capped = Guards { max_objects: Some(5), ..Guards::default() };
        assert!(capped.compare(5).is_ok() && Guards::default().compare(i64::MAX).is_ok());
        assert_eq!(capped.compare(6).unwrap_err().member("max_objects"), Some("5"));
        assert_eq!([guards.cap(), capped.cap(), Guards::default().cap()], [Some(3), Some(5), None]);
    }

    #[test]
    fn a_report_may_be_as_old_as_tasks_are_kept() {
        let request = |seconds| v1::StartBulkDeleteRequest {
            clean_report_within: Some(prost_types::Duration { seconds, nanos: 0 }),
            ..Default::default()
        };
        assert_eq!(
            check(request(3600)).unwrap().clean_report_within,
            Some(Duration::from_secs(3600))
        );
        for bad in [0, -1, 30 * 24 * 3600 + 1] {
            assert_eq!(
                check(request(bad)).unwrap_err().violations()[0].field,
                "clean_report_within"
            );
        }
    }
}
