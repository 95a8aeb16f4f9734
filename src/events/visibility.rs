//! The parts of an event that a caller may see: no more than the same key could read elsewhere. Pure.

use crate::access::{Caller, Scope};
use crate::events::model::Event;

/// Members of `data` that are numbers, our own words or ids. Whoever may see events sees them.
const PLAIN: &[&str] = &[
    "principal_id",
    "version",
    "offboarding_request_id",
    "bulk_delete_id",
    "incarnation",
    "execute_after",
    "previous_secret_expires_at",
    "mode",
    "status",
    "fields",
    "code",
    "error_code",
];

/// The data that a key may read besides events.
#[derive(Clone, Copy, Debug)]
pub struct Visibility {
    entities: bool,
    portfolios: bool,
    policies: bool,
}

impl Visibility {
    /// That of a caller.
    pub fn of(caller: &Caller) -> Visibility {
        Visibility {
            entities: caller.may(Scope::EntitiesRead),
            portfolios: caller.may(Scope::PortfoliosRead),
            policies: caller.may(Scope::PoliciesRead),
        }
    }

    /// The event as the caller may see it. Filters are tried on this, so that nobody finds out by trying.
    pub fn see(self, mut event: Event) -> Event {
        let whole = match event.event_type.split('.').next() {
            Some("portfolio") => self.portfolios,
            Some("removal_policy") => self.policies,
            _ => self.entities,
        };
        if !whole {
            event.data = event.data.retain(|name| PLAIN.contains(&name));
        }
        event
    }
}
