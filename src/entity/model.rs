//! An entity and its states. Pure.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::text_enum;
use crate::error::{Code, Error, Result};
use crate::proto::object::Struct;

text_enum! {
    /// The state of an entity. A removed entity has no row, and so no state.
    pub enum State {
        /// Still being taken in.
        Onboarding = "onboarding",
        /// In use.
        Active = "active",
        /// An offboarding request for it is open.
        Offboarding = "offboarding",
    }
}

text_enum! {
    /// The change of an entity.
    pub enum Action {
        /// Taking in is done.
        CompleteOnboarding = "complete_onboarding",
        /// Its data or its dependents are changed; its state stays.
        Update = "update",
        /// It becomes a member of a portfolio; its state stays.
        Attach = "attach",
        /// It is kept from being removed; its state stays.
        PlaceHold = "place_hold",
        /// It may be removed again; its state stays.
        ReleaseHold = "release_hold",
        /// Removal is asked for.
        RequestOffboarding = "offboard",
        /// Removal is called off, or could not be done.
        Restore = "restore",
    }
}

impl Action {
    /// Returns whether a hold prevents it, whatever the state. An existing hold is not replaced: its caller would not learn of it.
    pub fn is_prevented_by_hold(self) -> bool {
        matches!(self, Action::RequestOffboarding | Action::PlaceHold)
    }
}

impl State {
    /// The state that an action leads to, or `invalid_state_transition`.
    pub fn transition(self, action: Action) -> Result<State> {
        self.after(action).ok_or_else(|| refuse(self.as_str(), action, &self.allowed()))
    }

    /// The state that an action leads to with an entity that is on hold, or `invalid_state_transition`.
    pub fn transition_on_hold(self, action: Action) -> Result<State> {
        if self.after(action).is_some() && action.is_prevented_by_hold() {
            let allowed: Vec<_> = self
                .allowed()
                .into_iter()
                .filter(|action| !action.is_prevented_by_hold())
                .collect();
            return Err(refuse("on_hold", action, &allowed));
        }
        self.transition(action)
    }

    /// The actions that are possible in this state.
    pub fn allowed(self) -> Vec<Action> {
        Action::ALL.iter().copied().filter(|action| self.after(*action).is_some()).collect()
    }

    /// The state that an action leads to, if it is possible.
    pub fn after(self, action: Action) -> Option<State> {
        match (self, action) {
            (State::Onboarding, Action::CompleteOnboarding) => Some(State::Active),
            (
                State::Onboarding | State::Active,
                Action::Update | Action::Attach | Action::PlaceHold | Action::ReleaseHold,
            ) => Some(self),
            (State::Active, Action::RequestOffboarding) => Some(State::Offboarding),
            (State::Offboarding, Action::Restore) => Some(State::Active),
            _ => None,
        }
    }
}

/// The refusal of an action. `current` is the state, or `on_hold`, which prevents removal in any state.
pub fn refuse(current: &str, action: Action, allowed: &[Action]) -> Error {
    Error::new(
        Code::InvalidStateTransition,
        format!("The entity is `{current}`, so `{action}` is not possible."),
    )
    .with("current_state", current)
    .with("attempted_transition", action)
    .with_choices("allowed_transitions", allowed)
}

/// An entity as it is stored.
#[derive(Clone, Debug, diesel::Queryable, diesel::Selectable)]
#[diesel(table_name = crate::db::schema::entity)]
pub struct Entity {
    /// Its id.
    pub id: String,
    /// The type of the finding.
    pub type_: String,
    /// Its state.
    pub state: State,
    /// Its attributes, a JSON object.
    pub attributes: Struct,
    /// The parts that are removed with it.
    pub components: Vec<Uuid>,
    /// The portfolio it is in.
    pub portfolio_id: Option<String>,
    /// Why it must not be removed, if it must not.
    pub hold_reason: Option<String>,
    /// The principal who placed it.
    pub hold_placed_by: Option<Uuid>,
    /// When.
    pub hold_placed_at: Option<DateTime<Utc>>,
    /// Steps with every change.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl Entity {
    /// The state that an action leads to, or `invalid_state_transition`.
    pub fn transition(&self, action: Action) -> Result<State> {
        if self.hold_reason.is_some() {
            self.state.transition_on_hold(action)
        } else {
            self.state.transition(action)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn transitions_and_what_is_allowed_are_one_table() {
        for state in State::ALL {
            for action in Action::ALL {
                assert_eq!(
                    state.transition(*action).is_ok(),
                    state.allowed().contains(action),
                    "{state} {action}"
                );
            }
        }
        let refused = State::Onboarding.transition(Action::RequestOffboarding).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidStateTransition);
    }

    #[test]
    fn a_hold_prevents_removal_and_another_hold_and_nothing_else() {
        let refused = State::Active.transition_on_hold(Action::RequestOffboarding).unwrap_err();
        assert!(refused.message().contains("`on_hold`"), "{refused}");
        let possible = |state: State| {
            Action::ALL
                .iter()
                .copied()
                .filter(move |action| state.transition_on_hold(*action).is_ok())
        };
        let active = [Action::Update, Action::Attach, Action::ReleaseHold];
        assert_eq!(possible(State::Active).collect::<Vec<_>>(), active);
        assert_eq!(possible(State::Onboarding).next(), Some(Action::CompleteOnboarding));
        assert_eq!(possible(State::Offboarding).collect::<Vec<_>>(), [Action::Restore]);
    }
}
