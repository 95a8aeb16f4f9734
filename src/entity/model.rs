//! What an entity is, how it moves through its life, and what makes a new one valid. Pure.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::db::{id, text_enum};
use crate::error::{Code, Error, Result, Violations};
use crate::proto::{convert, v1};

/// The deepest nesting of attributes and other JSON objects.
pub const MAX_DEPTH: usize = 32;
const MAX_OBJECT_BYTES: usize = 1 << 20;
const MAX_COMPONENTS: usize = 1_000;
const MAX_CROSSWALKS: usize = 1_000;
const MAX_DEPENDENTS: usize = 10_000;
const MAX_TYPE_CHARACTERS: usize = 256;
const MAX_KIND_LENGTH: usize = 64;

text_enum! {
    /// Where an entity stands in its life. What is gone has no row, and so no state.
    pub enum State {
        /// Still being taken in.
        Onboarding = "onboarding",
        /// In use.
        Active = "active",
        /// An offboarding request is live for it.
        Offboarding = "offboarding",
    }
}

text_enum! {
    /// What is done to an entity's state.
    pub enum Action {
        /// Taking in is done.
        CompleteOnboarding = "complete_onboarding",
        /// It becomes a member of a portfolio; its state stays.
        Attach = "attach",
        /// Removal is asked for.
        RequestOffboarding = "offboard",
        /// Removal is called off, or could not be done.
        Restore = "restore",
    }
}

impl State {
    /// The state that an action leads to, or `invalid_state_transition`.
    pub fn transition(self, action: Action) -> Result<State> {
        self.after(action).ok_or_else(|| refuse(self.as_str(), action, &self.allowed()))
    }

    /// What can be done in this state.
    pub fn allowed(self) -> Vec<Action> {
        Action::ALL.iter().copied().filter(|action| self.after(*action).is_some()).collect()
    }

    fn after(self, action: Action) -> Option<State> {
        match (self, action) {
            (State::Onboarding, Action::CompleteOnboarding) => Some(State::Active),
            (State::Onboarding | State::Active, Action::Attach) => Some(self),
            (State::Active, Action::RequestOffboarding) => Some(State::Offboarding),
            (State::Offboarding, Action::Restore) => Some(State::Active),
            _ => None,
        }
    }
}

/// The refusal of an action. `current` is the state, or `on_hold`, which prevents removal in any state.
pub fn refuse(current: &str, action: Action, allowed: &[Action]) -> Error {
    Error::new(Code::InvalidStateTransition, format!("The entity is `{current}`, so `{action}` is not possible."))
        .with("current_state", current)
        .with("attempted_transition", action)
        .with_list("allowed_transitions", allowed)
}

/// An entity as it is stored.
#[derive(Clone, Debug, diesel::Queryable, diesel::Selectable)]
#[diesel(table_name = crate::db::schema::entity)]
pub struct Entity {
    /// Its id.
    pub id: String,
    /// What it is.
    pub type_: String,
    /// Where it stands.
    pub state: State,
    /// Its attributes, a JSON object.
    pub attributes: Json,
    /// The parts that go with it.
    pub components: Vec<Uuid>,
    /// The portfolio it is in.
    pub portfolio_id: Option<String>,
    /// Why it must not be removed, if it must not.
    pub hold_reason: Option<String>,
    /// Who said so.
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

/// A valid entity that is to be created.
#[derive(Clone, Debug)]
pub struct NewEntity {
    /// Its id.
    pub id: String,
    /// Tells it from an entity that had the id before.
    pub incarnation: Uuid,
    /// What it is.
    pub type_: String,
    /// `Onboarding` or `Active`.
    pub state: State,
    /// Its attributes, a JSON object.
    pub attributes: Json,
    /// References to it in other systems, a JSON array.
    pub crosswalks: Json,
    /// The parts that go with it.
    pub components: Vec<Uuid>,
    /// What hangs on it.
    pub dependents: Vec<NewDependent>,
    /// The portfolio it becomes a member of.
    pub portfolio_id: Option<String>,
}

impl NewEntity {
    /// What it is once it was created.
    pub fn into_entity(self, created_at: DateTime<Utc>) -> Entity {
        Entity {
            id: self.id,
            type_: self.type_,
            state: self.state,
            attributes: self.attributes,
            components: self.components,
            portfolio_id: self.portfolio_id,
            hold_reason: None,
            hold_placed_by: None,
            hold_placed_at: None,
            version: 1,
            created_at,
            updated_at: created_at,
        }
    }
}

/// A valid dependent that is to be created with its entity.
#[derive(Clone, Debug)]
pub struct NewDependent {
    /// `assessment`, `task`, ...
    pub kind: String,
    /// Unique among the entity's dependents of the kind.
    pub id: String,
    /// A JSON object.
    pub data: Json,
}

impl NewEntity {
    /// Checks a message and fills in what the caller left to us. Every fault is told; `at` is the path of the message in its request.
    pub fn check(message: v1::NewEntity, at: &str) -> Result<NewEntity> {
        let mut faults = Violations::new();
        let v1::NewEntity { entity_id, r#type, state, attributes, components, crosswalks, dependents, portfolio_id } = message;
        let incarnation = id::new_id();
        let entity_id = if entity_id.is_empty() { incarnation.to_string() } else { entity_id };
        id::check_id(&entity_id, &format!("{at}.entity_id"), &mut faults);
        if r#type.is_empty() {
            faults.add(format!("{at}.type"), "required", "must be given");
        } else if r#type.chars().count() > MAX_TYPE_CHARACTERS || r#type.contains('\0') {
            faults.add(format!("{at}.type"), "invalid", "must be 1 to 256 characters, none of them U+0000");
        }
        let state = match v1::EntityState::try_from(state) {
            Ok(v1::EntityState::Unspecified | v1::EntityState::Active) => State::Active,
            Ok(v1::EntityState::Onboarding) => State::Onboarding,
            _ => {
                faults.add(format!("{at}.state"), "invalid", "must be `onboarding` or `active`");
                State::Active
            }
        };
        let attributes = object(attributes, &format!("{at}.attributes"), &mut faults);
        let components = check_components(&components, at, &mut faults);
        if crosswalks.len() > MAX_CROSSWALKS {
            faults.add(format!("{at}.crosswalks"), "too_many", "must be at most 1,000");
        }
        let crosswalks = crosswalks.into_iter().take(MAX_CROSSWALKS).enumerate();
        let crosswalks = crosswalks.map(|(n, value)| object(Some(value), &format!("{at}.crosswalks[{n}]"), &mut faults)).collect();
        let dependents = check_dependents(dependents, at, &mut faults);
        let portfolio_id = (!portfolio_id.is_empty()).then_some(portfolio_id);
        if let Some(portfolio_id) = &portfolio_id {
            id::check_id(portfolio_id, &format!("{at}.portfolio_id"), &mut faults);
        }
        faults.check()?;
        let crosswalks = Json::Array(crosswalks);
        Ok(NewEntity { id: entity_id, incarnation, type_: r#type, state, attributes, crosswalks, components, dependents, portfolio_id })
    }
}

/// A JSON object of a message within the bounds of size and depth; absent is empty.
pub fn object(message: Option<prost_types::Struct>, field: &str, faults: &mut Violations) -> Json {
    let Some(message) = message else { return Json::Object(serde_json::Map::new()) };
    if prost::Message::encoded_len(&message) > MAX_OBJECT_BYTES {
        faults.add(field, "too_long", "must be at most 1 MiB");
        return Json::Null;
    }
    convert::from_struct(message, MAX_DEPTH).unwrap_or_else(|fault| {
        faults.add(field, "invalid", fault);
        Json::Null
    })
}

fn check_components(components: &[String], at: &str, faults: &mut Violations) -> Vec<Uuid> {
    if components.len() > MAX_COMPONENTS {
        faults.add(format!("{at}.components"), "too_many", "must be at most 1,000");
    }
    let mut checked = Vec::with_capacity(components.len().min(MAX_COMPONENTS));
    for (n, component) in components.iter().take(MAX_COMPONENTS).enumerate() {
        match Uuid::try_parse(component) {
            Ok(component) => checked.push(component),
            Err(_) => faults.add(format!("{at}.components[{n}]"), "invalid", "must be a UUID"),
        }
    }
    checked
}

fn check_dependents(dependents: Vec<v1::NewDependent>, at: &str, faults: &mut Violations) -> Vec<NewDependent> {
    if dependents.len() > MAX_DEPENDENTS {
        faults.add(format!("{at}.dependents"), "too_many", "must be at most 10,000");
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut checked = Vec::with_capacity(dependents.len());
    for (n, v1::NewDependent { kind, id, data }) in dependents.into_iter().enumerate() {
        let at = format!("{at}.dependents[{n}]");
        if kind.is_empty() {
            faults.add(format!("{at}.kind"), "required", "must be given");
        } else if !is_kind(&kind) {
            faults.add(format!("{at}.kind"), "invalid", "must be 1 to 64 characters from a-z 0-9 _, a letter first");
        }
        let id = if id.is_empty() { id::new_id().to_string() } else { id };
        id::check_id(&id, &format!("{at}.id"), faults);
        let data = object(data, &format!("{at}.data"), faults);
        if !seen.insert((kind.clone(), id.clone())) {
            faults.add(format!("{at}.id"), "duplicate", "must be unique among the dependents of its kind");
        }
        checked.push(NewDependent { kind, id, data });
    }
    checked
}

fn is_kind(text: &str) -> bool {
    let characters = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    text.len() <= MAX_KIND_LENGTH && characters && text.starts_with(|first: char| first.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn transitions_and_what_is_allowed_are_one_table() {
        for state in State::ALL {
            for action in Action::ALL {
                assert_eq!(state.transition(*action).is_ok(), state.allowed().contains(action), "{state} {action}");
            }
        }
        let refused = State::Onboarding.transition(Action::RequestOffboarding).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidStateTransition);
    }

    #[test]
    fn every_fault_of_a_new_entity_is_told() {
        let message = v1::NewEntity {
            entity_id: "a b".to_owned(),
            state: v1::EntityState::Offboarding as i32,
            components: vec!["x".to_owned()],
            dependents: vec![
                v1::NewDependent { kind: "Task".to_owned(), ..Default::default() },
                v1::NewDependent { kind: "task".to_owned(), id: "t".to_owned(), ..Default::default() },
                v1::NewDependent { kind: "task".to_owned(), id: "t".to_owned(), ..Default::default() },
            ],
            portfolio_id: "p/q".to_owned(),
            ..Default::default()
        };
        let error = NewEntity::check(message, "entity").unwrap_err();
        let fields: Vec<_> = error.violations().iter().map(|fault| fault.field.as_str()).collect();
        let expected = [
            "entity.entity_id",
            "entity.type",
            "entity.state",
            "entity.components[0]",
            "entity.dependents[0].kind",
            "entity.dependents[2].id",
            "entity.portfolio_id",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let entity = NewEntity::check(v1::NewEntity { r#type: "t".to_owned(), ..Default::default() }, "entity").unwrap();
        assert_eq!(entity.id, entity.incarnation.to_string());
        assert_eq!(entity.state, State::Active);
        assert_eq!(entity.attributes, serde_json::json!({}));
    }
}
