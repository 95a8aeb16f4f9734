//! Tasks as the REST contract has them, and the words for them and for times.

use std::time::Duration;

use prost::Name;
use serde_json::Value;

use crate::cli::output::Spelling;
use crate::error::Result;
use crate::limits::thousands;
use crate::proto::v1;

static SPELLING: Spelling = Spelling::of("offboard.v1.BulkDeleteService");

/// A message of the service as REST shows it.
pub fn json(message: &impl Name) -> Result<String> {
    SPELLING.json(message)
}

/// The same, to take members from.
pub fn value(message: &impl Name) -> Result<Value> {
    SPELLING.value(message)
}

/// Which of the organisation's two modes a task is of.
pub fn mode(task: &v1::Task) -> Option<&'static str> {
    match task.realm_mode() {
        v1::Mode::Test => Some("test"),
        v1::Mode::Live => Some("live"),
        v1::Mode::Unspecified => None,
    }
}

/// Returns whether a task is about entities of the mode live, or the service does not say.
pub fn is_live(task: &v1::Task) -> bool {
    mode(task) != Some("test")
}

/// The realm of a task, for people: `acme (live)`.
pub fn realm_of(task: &v1::Task) -> String {
    match mode(task) {
        Some(mode) => format!("{} ({mode})", task.tenant),
        None => task.tenant.clone(),
    }
}

/// The contract's word for the state of a task.
pub fn status(task: &v1::Task) -> &'static str {
    task.status().as_str_name().trim_start_matches("TASK_STATUS_")
}

/// A duration of a message; one below zero is as good as none.
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

/// A number of entities.
pub fn entities(number: i64) -> String {
    format!("{} {}", thousands(number), if number == 1 { "entity" } else { "entities" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_for_people() {
        assert_eq!(
            (entities(1), entities(2000)),
            ("1 entity".to_owned(), "2,000 entities".to_owned())
        );
        let reported = [0, 1, 61, 600, 7300].map(|seconds| about(Duration::from_secs(seconds)));
        assert_eq!(
            reported,
            ["less than a second", "1 second", "61 seconds", "10 minutes", "2 hours"]
        );
    }
}
