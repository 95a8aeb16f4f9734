//! A portfolio as a message, and the parts of it that responses of changing calls show.

use crate::access::{Answer, Caller, Scope, Subject};
use crate::db::Realm;
use crate::portfolio::model::Portfolio;
use crate::proto::{convert, v1};

/// A portfolio as a message.
pub(super) fn to_proto(portfolio: Portfolio, realm: &Realm) -> v1::Portfolio {
    v1::Portfolio {
        id: portfolio.id,
        object: "portfolio".to_owned(),
        mode: v1::Mode::from(realm.mode()).into(),
        name: portfolio.name,
        shared_registered_agent_id: portfolio.shared_registered_agent_id,
        shared_compliance_calendar: portfolio.shared_compliance_calendar,
        entity_ids: portfolio.entity_ids,
        entity_count: portfolio.entity_count,
        version: portfolio.version,
        metadata: Some(portfolio.metadata),
        created_at: Some(convert::timestamp(portfolio.created_at)),
        updated_at: Some(convert::timestamp(portfolio.updated_at)),
    }
}

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
        (self.shared_registered_agent_id, self.shared_compliance_calendar, self.entity_count) =
            (None, false, 0);
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
