//! Where a bulk delete stands and how it moves. Pure.

use crate::db::text_enum;
use crate::error::{Code, Error, Result};
use crate::proto::v1;

text_enum! {
    /// Where a task stands.
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
        /// Waits for room.
        WaitingForResource = "waiting_for_resource",
        /// Its worker was lost.
        ScheduledPoll = "scheduled_poll",
    }
}

text_enum! {
    /// What is done to a task.
    pub enum TaskAction {
        /// A worker takes it up.
        Start = "start",
        /// It is to pause.
        Pause = "pause",
        /// Its workers have paused.
        Paused = "paused",
        /// It is to go on.
        Resume = "resume",
        /// It is to stop.
        Stop = "stop",
        /// Its workers have stopped.
        Stopped = "stopped",
        /// It has to wait for room.
        Wait = "wait",
        /// Its worker was lost.
        Lose = "lose",
        /// All is done and nothing failed.
        Complete = "complete",
        /// All is done and something failed.
        CompleteWithErrors = "complete_with_errors",
        /// It cannot go on.
        Fail = "fail",
    }
}

impl TaskState {
    /// The state that an action leads to, or `invalid_state_transition`.
    pub fn transition(self, action: TaskAction) -> Result<TaskState> {
        self.after(action).ok_or_else(|| {
            Error::new(Code::InvalidStateTransition, format!("The task is `{self}`, so `{action}` is not possible."))
                .with("current_state", self)
                .with("attempted_transition", action)
                .with_list("allowed_transitions", self.allowed())
        })
    }

    /// What can be done in this state.
    pub fn allowed(self) -> Vec<TaskAction> {
        TaskAction::ALL.iter().copied().filter(|action| self.after(*action).is_some()).collect()
    }

    /// Whether it is over.
    pub fn is_ended(self) -> bool {
        self.allowed().is_empty()
    }

    /// Whether workers go on from chunk to chunk.
    pub fn is_at_work(self) -> bool {
        self.after(TaskAction::Complete).is_some()
    }

    fn after(self, action: TaskAction) -> Option<TaskState> {
        use TaskAction as A;
        use TaskState as S;
        match (self, action) {
            (S::Scheduled | S::ScheduledPoll | S::WaitingForResource, A::Start) => Some(S::Processing),
            (S::Scheduled, A::Wait) => Some(S::WaitingForResource),
            (S::Scheduled, A::Stop) => Some(S::Canceled),
            (S::Processing, A::Pause) => Some(S::Pausing),
            (S::Pausing, A::Paused) => Some(S::Paused),
            (S::Paused, A::Resume) => Some(S::Scheduled),
            (S::Processing | S::Paused | S::WaitingForResource, A::Stop) => Some(S::Canceling),
            (S::Canceling, A::Stopped) => Some(S::Canceled),
            (S::Processing, A::Lose) => Some(S::ScheduledPoll),
            (S::Processing, A::Complete) => Some(S::Completed),
            (S::Processing, A::CompleteWithErrors) => Some(S::CompletedWithErrors),
            (S::Processing, A::Fail) => Some(S::Failed),
            _ => None,
        }
    }

    /// The contract's word for it inside `currentState`.
    pub fn word(self) -> &'static str {
        match self {
            TaskState::Scheduled | TaskState::WaitingForResource | TaskState::ScheduledPoll => "Scheduled",
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
        assert_eq!(ended, [&TaskState::Canceled, &TaskState::Completed, &TaskState::CompletedWithErrors, &TaskState::Failed]);
    }
}
