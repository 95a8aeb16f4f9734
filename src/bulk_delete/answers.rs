//! What answers of changing calls show of tasks.

use crate::access::{Answer, Caller, Scope, Subject, shows_nothing};
use crate::proto::v1;

shows_nothing!(v1::PauseTaskResponse, v1::ResumeTaskResponse, v1::StopTaskResponse);

impl Answer for v1::Task {
    /// A task outlives what it removes. What it keeps of its filter is for the removal policy to say.
    fn shows(&self) -> Vec<Subject> {
        Vec::new()
    }

    /// What others ask for is read with the scope that reads tasks.
    fn withhold(&mut self, caller: &Caller) {
        if caller.may(Scope::EntitiesRead) || self.created_by == caller.principal_id.to_string() {
            return;
        }
        self.name.clear();
        self.parameters.clear();
        if let Some(progress) = &mut self.current_state {
            progress.objects_failed_to_delete.clear();
            progress.entity_type.clear();
        }
    }
}
