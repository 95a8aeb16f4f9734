//! The entities that responses of changing calls show. Requests and jobs outlive their entities, so nothing of them is erased.

use crate::access::{Answer, Caller, Scope, Subject, shows_nothing};
use crate::proto::v1;

shows_nothing!(v1::RemovalPolicy);

impl Answer for v1::OffboardingRequest {
    fn shows(&self) -> Vec<Subject> {
        Vec::new()
    }

    fn withhold(&mut self, caller: &Caller) {
        if let Some(data) = self.data.as_mut().filter(|_| !caller.may(Scope::EntitiesRead)) {
            data.components.clear();
        }
    }

    // Its components are the entity's.
    const CREATED_IS_SAID: bool = false;
}

impl Answer for v1::RemovalJob {
    fn shows(&self) -> Vec<Subject> {
        Vec::new()
    }

    fn withhold(&mut self, caller: &Caller) {
        if !caller.may(Scope::EntitiesRead) {
            self.removed.clear();
        }
    }

    const CREATED_IS_SAID: bool = false;
}
