//! The requirements of a realm that a bulk delete does not meet: all are reported at once. Pure.

use std::time::Duration;

use chrono::TimeDelta;

use crate::error::{Code, Error, Result, Violations};
use crate::proto::v1;

/// The unmet requirements.
#[derive(Debug, Default)]
pub struct Unmet {
    names: Vec<&'static str>,
    faults: Violations,
    /// How many entities are selected, and how many may be, where that is too few.
    counts: Option<(i64, i64)>,
}

impl Unmet {
    /// The number of entities that are expected is not given.
    pub fn expected_count(&mut self) {
        self.add(
            "expected_count",
            "expected_count",
            "must be given: how many entities the task is expected to select".to_owned(),
        );
    }

    /// So many entities are selected, where a task may select so many at most.
    pub fn max_objects(&mut self, most: i64, matched: i64) {
        if matched > most {
            self.counts = Some((matched, most));
            self.add(
                "max_objects",
                "max_objects",
                format!("a task may select at most {most}, and this one selects {matched}"),
            );
        }
    }

    /// A preview must not be older than this; that of the request has this age, if it names one.
    pub fn preview(&mut self, within: Duration, age: Option<TimeDelta>) {
        let fresh = TimeDelta::from_std(within).unwrap_or(TimeDelta::MAX);
        if age.is_none_or(|age| age > fresh) {
            let seconds = within.as_secs_f64();
            let description = format!(
                "must be the `token` of a dry run of the same request within the last {seconds}s"
            );
            self.add("preview_token", "preview_token", description);
        }
    }

    /// There is no clean report of this age.
    pub fn clean_report(&mut self, within: Duration) {
        let seconds = within.as_secs_f64();
        let description = format!(
            "the latest consistency check must have begun within the last {seconds}s and have left nothing unrepaired"
        );
        self.add("clean_report", "clean_report_within", description);
    }

    fn add(&mut self, name: &'static str, field: &'static str, description: String) {
        self.names.push(name);
        self.faults.add(field, name, description);
    }

    /// Fails with `requirements_unmet` if there is anything.
    pub fn check(self) -> Result<()> {
        if self.names.is_empty() {
            return Ok(());
        }
        let message = format!(
            "The removal policy has requirements that are not met: {}. Nothing was started.",
            self.names.join(", ")
        );
        let mut error =
            Error::new(Code::RequirementsUnmet, message).with_list("unmet", &self.names);
        if let Some((matched, most)) = self.counts {
            error = error.with("matched_count", matched).with("max_objects", most);
        }
        Err(error.at(self.faults))
    }

    /// The same as warnings.
    pub fn warnings(&self) -> impl Iterator<Item = v1::Warning> {
        self.faults.as_slice().iter().map(|fault| v1::Warning {
            code: Code::RequirementsUnmet.name().to_owned(),
            message: format!("the removal policy would refuse a task: {}", fault.description),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_unmet_requirements_are_reported_at_once() {
        let mut unmet = Unmet::default();
        unmet.expected_count();
        unmet.max_objects(5, 6);
        unmet.preview(Duration::from_secs(600), Some(TimeDelta::seconds(601)));
        unmet.clean_report(Duration::from_secs(3600));
        assert_eq!(unmet.warnings().count(), 4);
        let error = unmet.check().unwrap_err();
        assert_eq!(
            error.member("unmet"),
            Some(r#"["expected_count","max_objects","preview_token","clean_report"]"#)
        );
        assert_eq!(
            (error.member("matched_count"), error.member("max_objects"), error.violations().len()),
            (Some("6"), Some("5"), 4)
        );
    }

    #[test]
    fn requirements_that_are_met_are_not_reported() {
        let mut unmet = Unmet::default();
        unmet.max_objects(5, 5);
        unmet.preview(Duration::from_secs(600), Some(TimeDelta::seconds(599)));
        assert!(unmet.check().is_ok());
    }
}
