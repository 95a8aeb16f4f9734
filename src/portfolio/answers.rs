//! What answers of changing calls show of portfolios.

use crate::access::{Answer, Caller, Scope, Subject};
use crate::proto::v1;

impl Answer for v1::Portfolio {
    fn shows(&self) -> Vec<Subject> {
        vec![Subject::Portfolio(self.id.clone())]
    }

    fn withhold(&mut self, caller: &Caller) {
        if caller.may(Scope::PortfoliosRead) {
            return;
        }
        self.name.clear();
        self.entity_ids.clear();
        (self.shared_registered_agent_id, self.shared_compliance_calendar, self.entity_count) = (None, false, 0);
        self.metadata = Some(crate::proto::object::Struct::default());
    }
}

macro_rules! of_the_portfolio {
    ($($answer:ty),+) => {
        $(impl Answer for $answer {
            fn shows(&self) -> Vec<Subject> {
                self.portfolio.iter().flat_map(Answer::shows).collect()
            }

            fn withhold(&mut self, caller: &Caller) {
                self.portfolio.iter_mut().for_each(|portfolio| portfolio.withhold(caller));
            }
        })+
    };
}

of_the_portfolio!(v1::BatchAttachEntitiesResponse, v1::BatchDetachEntitiesResponse);
