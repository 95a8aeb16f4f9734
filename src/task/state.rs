//! The states of a task and its transitions. Pure, and the only place that defines them.

use crate::db::text_enum;
use crate::error::{Code, Error, Result};
use crate::proto::v1;

text_enum! {
    /// The state of a task.
    pub enum TaskState {
        /// Waits for a worker.
        Scheduled = "scheduled",
        /// At work.
        Processing = "processing",
        /// Pauses at the end of the chunk in hand.
        Pausing = "pausing",
        /// Paused.
        Paused = "paused",
        /// Stops at the end of the chunk in hand.
        Canceling = "canceling",
        /// Stopped for good.
        Canceled = "canceled",
        /// Done; nothing failed.
        Completed = "completed",
        /// Done; something failed.
        CompletedWithErrors = "completed_with_errors",
        /// Ended by an error of its own.
        Failed = "failed",
        /// Waits for its turn: others are served.
        WaitingForResource = "waiting_for_resource",
        /// Its worker was lost or has left; another one takes it up.
        ScheduledPoll = "scheduled_poll",
    }
}

text_enum! {
    /// The change of a task.
    pub enum TaskAction {
        /// A worker takes it up.
        Start = "start",
        /// It is to pause.
        Pause = "pause",
        /// Its workers have paused.
        Paused = "paused",
        /// It is to continue.
        Resume = "resume",
        /// It is to stop.
        Stop = "stop",
        /// Its workers have stopped.
        Stopped = "stopped",
        /// It is to be faster or slower.
        Update = "update",
        /// Its last worker turns to another task that waits.
        Wait = "wait",
        /// Its last worker was lost or has left.
        Lose = "lose",
        /// All is done and nothing failed.
        Complete = "complete",
        /// All is done and something failed.
        CompleteWithErrors = "complete_with_errors",
        /// It cannot continue.
        Fail = "fail",
    }
}

impl TaskState {
    /// The state that an action leads to, or `invalid_state_transition`.
    pub fn transition(self, action: TaskAction) -> Result<TaskState> {
        self.after(action).ok_or_else(|| {
            // As the contract spells a status.
            let status = self.as_str().to_ascii_uppercase();
            Error::new(
                Code::InvalidStateTransition,
                format!("The task is `{status}`, so `{action}` is not possible."),
            )
            .with("current_state", status)
            .with("attempted_transition", action)
            .with_choices("allowed_transitions", self.allowed())
        })
    }

    /// The actions that are possible in this state.
    pub fn allowed(self) -> Vec<TaskAction> {
        TaskAction::ALL.iter().copied().filter(|action| self.after(*action).is_some()).collect()
    }

    /// Returns whether it is over.
    pub fn is_ended(self) -> bool {
        TaskAction::ALL.iter().all(|action| self.after(*action).is_none_or(|state| state == self))
    }

    /// Returns whether workers continue from chunk to chunk.
    pub fn is_at_work(self) -> bool {
        self == TaskState::Processing
    }

    /// Returns whether workers may be in the middle of a chunk: the time counts as time at work.
    pub fn may_hold_slices(self) -> bool {
        matches!(self, TaskState::Processing | TaskState::Pausing | TaskState::Canceling)
    }

    /// The states in which a worker may take up a slice.
    pub fn startable() -> Vec<&'static str> {
        TaskState::ALL
            .iter()
            .filter(|state| state.after(TaskAction::Start).is_some())
            .map(|state| state.as_str())
            .collect()
    }

    /// The state that an action leads to; none if it is not possible.
    pub fn after(self, action: TaskAction) -> Option<TaskState> {
        use TaskAction as A;
        use TaskState as S;
        match (self, action) {
            (S::Scheduled | S::Processing | S::WaitingForResource | S::ScheduledPoll, A::Start) => {
                Some(S::Processing)
            }
            // Where no worker has it, there is nothing to wait for.
            (S::Scheduled | S::WaitingForResource | S::ScheduledPoll | S::Paused, A::Pause) => {
                Some(S::Paused)
            }
            (S::Processing | S::Pausing, A::Pause) => Some(S::Pausing),
            (S::Pausing, A::Paused) => Some(S::Paused),
            (S::Paused, A::Resume) => Some(S::Scheduled),
            (S::Pausing | S::Processing, A::Resume) => Some(S::Processing),
            (S::Scheduled | S::WaitingForResource | S::ScheduledPoll, A::Resume) => Some(self),
            (S::Scheduled | S::Canceled, A::Stop) => Some(S::Canceled),
            (
                S::Processing
                | S::Pausing
                | S::Paused
                | S::WaitingForResource
                | S::ScheduledPoll
                | S::Canceling,
                A::Stop,
            ) => Some(S::Canceling),
            (S::Canceling, A::Stopped) => Some(S::Canceled),
            (state, A::Update) => {
                (!matches!(state, S::Canceled | S::Completed | S::CompletedWithErrors | S::Failed))
                    .then_some(state)
            }
            (S::Processing, A::Wait) => Some(S::WaitingForResource),
            (S::Processing, A::Lose) => Some(S::ScheduledPoll),
            // The last chunk may have been in hand when the task was to pause.
            (S::Processing | S::Pausing, A::Complete) => Some(S::Completed),
            (S::Processing | S::Pausing, A::CompleteWithErrors) => Some(S::CompletedWithErrors),
            (S::Processing, A::Fail) => Some(S::Failed),
            _ => None,
        }
    }

    /// The contract's word for it inside `currentState`.
    pub fn word(self) -> &'static str {
        match self {
            TaskState::Scheduled | TaskState::WaitingForResource | TaskState::ScheduledPoll => {
                "Scheduled"
            }
            TaskState::Processing => "Processing",
            TaskState::Pausing => "Pausing",
            TaskState::Paused => "Paused",
            TaskState::Canceling => "Canceling",
            TaskState::Canceled => "Canceled",
            TaskState::Completed | TaskState::CompletedWithErrors => "Completed",
            TaskState::Failed => "Failed",
        }
    }
}

impl From<TaskState> for v1::TaskStatus {
    fn from(state: TaskState) -> Self {
        match state {
            TaskState::Scheduled => Self::Scheduled,
            TaskState::Processing => Self::Processing,
            TaskState::Pausing => Self::Pausing,
            TaskState::Paused => Self::Paused,
            TaskState::Canceling => Self::Canceling,
            TaskState::Canceled => Self::Canceled,
            TaskState::Completed => Self::Completed,
            TaskState::CompletedWithErrors => Self::CompletedWithErrors,
            TaskState::Failed => Self::Failed,
            TaskState::WaitingForResource => Self::WaitingForResource,
            TaskState::ScheduledPoll => Self::ScheduledPoll,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_task_allows_nothing() {
        let ended: Vec<_> = TaskState::ALL.iter().filter(|state| state.is_ended()).collect();
        assert_eq!(
            ended,
            [
                &TaskState::Canceled,
                &TaskState::Completed,
                &TaskState::CompletedWithErrors,
                &TaskState::Failed
            ]
        );
    }

    #[test]
    fn every_move_of_the_contract_is_possible() {
        use TaskAction as A;
        use TaskState as S;
        let walks: [(S, &[(A, S)]); 6] = [
            (S::Scheduled, &[(A::Stop, S::Canceled)]),
            (
                S::Scheduled,
                &[
                    (A::Start, S::Processing),
                    (A::Pause, S::Pausing),
                    (A::Paused, S::Paused),
                    (A::Resume, S::Scheduled),
                ],
            ),
            (S::Processing, &[(A::Stop, S::Canceling), (A::Stopped, S::Canceled)]),
            (S::Paused, &[(A::Stop, S::Canceling)]),
            (S::WaitingForResource, &[(A::Stop, S::Canceling)]),
            (
                S::Processing,
                &[
                    (A::Lose, S::ScheduledPoll),
                    (A::Start, S::Processing),
                    (A::CompleteWithErrors, S::CompletedWithErrors),
                ],
            ),
        ];
        for (from, moves) in walks {
            moves.iter().fold(from, |state, (action, to)| {
                assert_eq!(state.after(*action), Some(*to), "{state} {action}");
                *to
            });
        }
    }

    #[test]
    fn pausing_resuming_and_stopping_twice_is_as_once() {
        for action in [TaskAction::Pause, TaskAction::Resume, TaskAction::Stop] {
            for state in TaskState::ALL {
                if let Some(next) = state.after(action) {
                    assert!(
                        next.after(action) == Some(next)
                            || next.is_ended()
                            || !next.may_hold_slices(),
                        "{state} {action}"
                    );
                    assert!(next.after(action).is_some(), "{state} {action} twice");
                }
            }
        }
    }

    #[test]
    fn what_is_about_to_stop_goes_nowhere_else() {
        let ways: Vec<_> = TaskAction::ALL
            .iter()
            .filter_map(|action| TaskState::Canceling.after(*action))
            .collect();
        assert_eq!(ways, [TaskState::Canceling, TaskState::Canceled, TaskState::Canceling]);
    }
}
