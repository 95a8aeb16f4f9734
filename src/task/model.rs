//! A task as it is stored: its kind, its progress, and its failures. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::db::text_enum;
use crate::error::{Code, Error};
use crate::task::state::TaskState;

/// The topic that wakes the workers.
pub const TOPIC: &str = "bulk_delete";
/// How many failed ids a task shows.
pub const FAILURES_SHOWN: i64 = 100;
/// The prefix of a type in full.
const TYPE_PREFIX: &str = "configuration/entityTypes/";
/// The text between the kind and the type in the name of a task about one type.
pub const BY_TYPE: &str = " By Type: ";

text_enum! {
    /// The kind of a task.
    pub enum TaskKind {
        /// Deletes entities.
        Delete = "delete",
        /// Searches for what should not be, and repairs it.
        CheckConsistency = "check_consistency",
    }
}

impl TaskKind {
    /// The contract's word for it.
    pub fn word(self) -> &'static str {
        match self {
            TaskKind::Delete => "DeleteEntitiesTask",
            TaskKind::CheckConsistency => "CheckConsistencyTask",
        }
    }
}

text_enum! {
    /// How thoroughly to delete.
    pub enum DeleteMode {
        /// Marked as deleted.
        Soft = "soft",
        /// Erased but for a tombstone.
        Hard = "hard",
    }
}

impl DeleteMode {
    /// The consequences of the mode: whether it can be undone.
    pub fn undo(self) -> &'static str {
        match self {
            DeleteMode::Soft => {
                "Nobody sees what is marked as deleted, nor restores it by this API. Its data stays until a hard bulk delete takes it."
            }
            DeleteMode::Hard => {
                "This cannot be undone: of what is erased only ids, types, versions and times stay, as tombstones."
            }
        }
    }
}

text_enum! {
    /// Why an entity could not be deleted.
    pub enum Reason {
        /// It is still being taken in.
        Onboarding = "onboarding",
        /// It is on hold.
        OnHold = "on_hold",
        /// An offboarding of it is open.
        Offboarding = "offboarding",
        /// Others kept changing it.
        Locked = "locked",
        /// It is listed but does not exist.
        NotFound = "not_found",
        /// The database refuses to have it deleted.
        Refused = "refused_by_database",
    }
}

impl Reason {
    /// The reason as a sentence.
    pub fn message(self) -> &'static str {
        match self {
            Reason::Onboarding => "The entity is still onboarding.",
            Reason::OnHold => "The entity is on hold.",
            Reason::Offboarding => "An offboarding of the entity is pending or running.",
            Reason::Locked => "The entity was being changed by others each time it was tried.",
            Reason::NotFound => "No such entity is visible.",
            Reason::Refused => {
                "The database refused to delete the entity; the service's log says why."
            }
        }
    }
}

/// A task with its account, as it is stored.
#[derive(Clone, Debug, diesel::Queryable)]
pub struct Task {
    /// Its id.
    pub id: Uuid,
    /// The kind of the task.
    pub kind: TaskKind,
    /// Its state.
    pub state: TaskState,
    /// Its name for people.
    pub name: String,
    /// The type that was asked for, as it was given.
    pub entity_type: Option<String>,
    /// How it was started, a JSON object of strings.
    pub parameters: Json,
    /// The principal who started it.
    pub principal_id: Uuid,
    /// The principal who last changed it.
    pub updated_by: Uuid,
    /// How many the selection contained when it was taken up.
    pub selected: Option<i64>,
    /// Which replicas worked on it.
    pub instances: Vec<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it first started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was paused, while it is.
    pub paused_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// The moment that this account is of.
    pub now: DateTime<Utc>,
    /// How many objects the selection matched.
    pub matched: i64,
    /// How many were deleted.
    pub processed: i64,
    /// How many could not be deleted.
    pub failed: i64,
    /// How many were excluded.
    pub excluded: i64,
    /// How many had changed or were removed.
    pub skipped: i64,
    /// The first ids that could not be deleted.
    pub first_failures: Vec<String>,
    /// How many of its events a publisher has tried and could not deliver so far.
    pub unpublished: i64,
    /// For how many seconds it has been at work.
    pub worked: f64,
    /// Since when it has been at work, while it is.
    pub working_since: Option<DateTime<Utc>>,
    /// How many objects it may take up a second.
    pub max_objects_per_second: Option<i32>,
    /// How many objects the task read in this sample of ten seconds and the two before it, while it was at work.
    pub met_lately: i64,
    /// How many objects were processed within the last hour.
    pub processed_in_hour: i64,
    /// The code of what ended it, if it failed.
    pub error_code: Option<String>,
    /// The same as a sentence.
    pub error_message: Option<String>,
    /// The findings of a check so far: an object with `[found, mended]` for each kind.
    pub findings: Json,
    /// The outcome of its mail, if one was asked for: an object with `status` and `reason`.
    pub mail: Option<Json>,
    /// The accounts of the lists in its request, if there were any: see `bulk_delete::lists`.
    pub lists: Option<Json>,
}

/// The number of findings by kind, and of repaired ones, from an object with `[found, mended]` for each kind.
pub fn tally(counts: &Json) -> (BTreeMap<String, i64>, i64) {
    let number =
        |pair: &Json, place: usize| pair.get(place).and_then(Json::as_i64).unwrap_or_default();
    let kinds: Vec<_> = counts.as_object().into_iter().flatten().collect();
    let found = kinds.iter().map(|(kind, pair)| ((*kind).clone(), number(pair, 0))).collect();
    (found, kinds.iter().map(|(_, pair)| number(pair, 1)).sum())
}

/// The one type that a task is about, in full: the one that was asked for, or the one that the filter names. A filter is blanked in time, so the
/// name is what keeps that.
pub fn type_of(entity_type: Option<&str>, name: &str) -> String {
    entity_type
        .map(full_type)
        .or_else(|| name.split_once(BY_TYPE).map(|(_, named)| named.to_owned()))
        .unwrap_or_default()
}

/// A type in full, where it was given by its last part.
pub fn full_type(entity_type: &str) -> String {
    if entity_type.contains('/') {
        entity_type.to_owned()
    } else {
        format!("{TYPE_PREFIX}{entity_type}")
    }
}

/// The error of a task that would take up more entities than it may.
pub fn cap_exceeded(cap: i64) -> Error {
    let message = format!(
        "Others changed entities while the task ran, so that it selects more than {}.",
        entities(cap)
    );
    Error::new(Code::CountMismatch, message).with("max_objects", cap)
}

/// So many entities, in words.
pub fn entities(count: i64) -> String {
    if count == 1 { "1 entity".to_owned() } else { format!("{count} entities") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_are_reported_by_kind_and_repairs_in_all() {
        let (found, mended) =
            tally(&json!({"orphan_dependent": [5, 3], "portfolio_count": [1, 1]}));
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("orphan_dependent".to_owned(), 5), ("portfolio_count".to_owned(), 1)]
        );
        assert_eq!(mended, 4);
        assert_eq!(tally(&Json::Null), (BTreeMap::new(), 0));
    }
}
