//! An offboarding request and its states. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::text_enum;
use crate::error::{Code, Error, Result, Violations};
use crate::proto::{convert, v1};

/// The longest grace period: 90 days.
pub const MAX_GRACE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How often a request is tried before it fails.
pub const MAX_ATTEMPTS: i32 = 10;
/// The kinds of dependents that a removal always counts.
const COUNTED_KINDS: [&str; 3] = ["assessment", "task", "data_override"];

text_enum! {
    /// The state of a request.
    pub enum OffboardingState {
        /// Waits for its grace period to end and for a worker.
        Pending = "pending",
        /// A worker has it.
        Running = "running",
        /// The entity is removed.
        Succeeded = "succeeded",
        /// The entity could not be removed and is active again.
        Failed = "failed",
        /// Called off before it started.
        Canceled = "canceled",
    }
}

text_enum! {
    /// The change of a request.
    pub enum OffboardingAction {
        /// A worker takes it up.
        Start = "start",
        /// It is canceled.
        Cancel = "cancel",
        /// The entity has been removed.
        Succeed = "succeed",
        /// The entity cannot be removed.
        Fail = "fail",
    }
}

impl OffboardingState {
    /// The state that an action leads to, or the refusal.
    pub fn transition(self, action: OffboardingAction) -> Result<OffboardingState> {
        self.after(action).ok_or_else(|| {
            let now = self.word();
            let error = match action {
                OffboardingAction::Cancel => Error::new(
                    Code::NotCancelable,
                    format!("The request is `{now}`; only a `Pending` one can be canceled."),
                ),
                _ => Error::new(
                    Code::InvalidStateTransition,
                    format!("The request is `{now}`, so `{action}` is not possible."),
                )
                .with("attempted_transition", action),
            };
            error.with("current_state", now).with_choices("allowed_transitions", self.allowed())
        })
    }

    /// The actions that are possible in this state.
    pub fn allowed(self) -> Vec<OffboardingAction> {
        OffboardingAction::ALL
            .iter()
            .copied()
            .filter(|action| self.after(*action).is_some())
            .collect()
    }

    /// The contract's word for it.
    pub fn word(self) -> &'static str {
        match self {
            OffboardingState::Pending => "Pending",
            OffboardingState::Running => "Running",
            OffboardingState::Succeeded => "Succeeded",
            OffboardingState::Failed => "Failed",
            OffboardingState::Canceled => "Canceled",
        }
    }

    /// Returns whether the request still has something before it.
    pub fn is_open(self) -> bool {
        !self.allowed().is_empty()
    }

    /// The state that an action leads to, if it is possible.
    pub fn after(self, action: OffboardingAction) -> Option<OffboardingState> {
        match (self, action) {
            (OffboardingState::Pending, OffboardingAction::Start) => {
                Some(OffboardingState::Running)
            }
            (OffboardingState::Pending, OffboardingAction::Cancel) => {
                Some(OffboardingState::Canceled)
            }
            // A worker whose lease ran out is followed by another.
            (OffboardingState::Running, OffboardingAction::Start) => {
                Some(OffboardingState::Running)
            }
            (OffboardingState::Running, OffboardingAction::Succeed) => {
                Some(OffboardingState::Succeeded)
            }
            (OffboardingState::Running, OffboardingAction::Fail) => Some(OffboardingState::Failed),
            _ => None,
        }
    }
}

impl From<OffboardingState> for v1::OffboardingStatus {
    fn from(state: OffboardingState) -> Self {
        match state {
            OffboardingState::Pending => Self::Pending,
            OffboardingState::Running => Self::Running,
            OffboardingState::Succeeded => Self::Succeeded,
            OffboardingState::Failed => Self::Failed,
            OffboardingState::Canceled => Self::Canceled,
        }
    }
}

/// A request as it is stored.
#[derive(Clone, Debug, diesel::Queryable, diesel::Selectable)]
#[diesel(table_name = crate::db::schema::offboarding_request)]
pub struct Offboarding {
    /// Its id.
    pub id: Uuid,
    /// The entity.
    pub entity_id: String,
    /// The caller.
    pub principal_id: Uuid,
    /// Its state.
    #[diesel(column_name = status)]
    pub state: OffboardingState,
    /// The entity's parts.
    pub components: Vec<Uuid>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When its grace period ends.
    pub execute_after: DateTime<Utc>,
    /// When a worker took it up first.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// How many dependents of each kind were removed.
    pub removed: Option<serde_json::Value>,
    /// Why it failed, as a code.
    pub error_code: Option<String>,
    /// Why it failed, as a sentence.
    pub error_message: Option<String>,
    /// How often workers have taken it up.
    pub attempts: i32,
    /// Why the last attempt came to nothing, as a code.
    pub last_error_code: Option<String>,
    /// The same as a sentence.
    pub last_error_message: Option<String>,
    /// When it is tried again after that.
    pub next_attempt_at: Option<DateTime<Utc>>,
}

impl Offboarding {
    /// Why it failed.
    pub fn error(&self) -> Option<v1::JobError> {
        job_error(&self.error_code, &self.error_message)
    }

    /// Why the last attempt came to nothing.
    pub fn last_error(&self) -> Option<v1::JobError> {
        job_error(&self.last_error_code, &self.last_error_message)
    }

    /// When it is tried next, while it waits for that.
    pub fn next_attempt(&self) -> Option<DateTime<Utc>> {
        match self.state {
            OffboardingState::Pending => Some(self.execute_after),
            _ => self.next_attempt_at,
        }
    }

    /// How many dependents of each kind were removed, by the kind's plural. Empty unless it has succeeded.
    pub fn removed_by_plural(&self) -> BTreeMap<String, i64> {
        self.removed.as_ref().map(by_plural).unwrap_or_default()
    }
}

fn job_error(code: &Option<String>, message: &Option<String>) -> Option<v1::JobError> {
    Some(v1::JobError { code: code.clone()?, message: message.clone().unwrap_or_default() })
}

/// Counts by the plural of their kind; the usual kinds are always there.
pub fn by_plural(counts: &serde_json::Value) -> BTreeMap<String, i64> {
    let mut plural: BTreeMap<_, _> =
        COUNTED_KINDS.iter().map(|kind| (format!("{kind}s"), 0)).collect();
    let counts = counts.as_object().into_iter().flatten();
    plural.extend(
        counts.map(|(kind, count)| (format!("{kind}s"), count.as_i64().unwrap_or_default())),
    );
    plural
}

/// The grace period that a call asks for; none is the realm's default.
pub fn check_grace(
    message: Option<prost_types::Duration>,
    field: &str,
    faults: &mut Violations,
) -> Option<Duration> {
    convert::check_duration(
        message?,
        Duration::ZERO..=MAX_GRACE,
        "must be from 0s to 7776000s (90 days)",
        field,
        faults,
    )
}

/// The refusal of a grace period that is longer than the realm allows.
pub fn too_long(max: Duration) -> Error {
    Error::invalid(
        "grace_period",
        "out_of_range",
        format!("must be at most {}s, the maximum of the realm", max.as_secs_f64()),
    )
}

/// The refusal of a grace period that is shorter than the realm demands.
pub fn too_short(min: Duration) -> Error {
    let least = min.as_secs_f64();
    let mut places = Violations::new();
    places.add(
        "grace_period",
        "min_grace_period",
        format!("must be at least {least}s, the minimum of the realm"),
    );
    let message = format!("The removal policy asks for a grace period of at least {least}s.");
    Error::new(Code::RequirementsUnmet, message)
        .with_list("unmet", ["min_grace_period"])
        .with("min_grace_period", format!("{least}s"))
        .at(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pending_request_can_be_canceled() {
        for state in OffboardingState::ALL {
            let canceled = state.transition(OffboardingAction::Cancel);
            match state {
                OffboardingState::Pending => {
                    assert_eq!(canceled.ok(), Some(OffboardingState::Canceled))
                }
                _ => assert_eq!(canceled.unwrap_err().code(), Code::NotCancelable),
            }
        }
    }

    #[test]
    fn an_ended_request_stays_as_it_is() {
        for state in
            [OffboardingState::Succeeded, OffboardingState::Failed, OffboardingState::Canceled]
        {
            assert!(!state.is_open());
        }
        assert!(OffboardingState::Pending.is_open() && OffboardingState::Running.is_open());
    }

    #[test]
    fn grace_is_bounded() {
        let check = |seconds| {
            let mut faults = Violations::new();
            let grace = check_grace(
                Some(prost_types::Duration { seconds, nanos: 0 }),
                "grace_period",
                &mut faults,
            );
            (grace.map(|grace| grace.as_secs()), faults.as_slice().len())
        };
        assert_eq!(check(3600), (Some(3600), 0));
        assert_eq!(check(-1), (None, 1));
        assert_eq!(check(90 * 24 * 3600 + 1), (None, 1));
    }
}
