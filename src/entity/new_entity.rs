//! The rules for a new entity. Pure.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::access::{Caller, Scope};
use crate::db::id;
use crate::entity::fields::{check_components, check_crosswalks, check_kind, check_type, object};
use crate::entity::model::{Entity, State};
use crate::error::{Result, Violations};
use crate::proto::object::{Objects, Struct};
use crate::proto::v1;

/// How many things may hang on one entity.
pub const MAX_DEPENDENTS: usize = 10_000;

/// A valid entity that is to be created.
#[derive(Clone, Debug)]
pub struct NewEntity {
    /// Its id.
    pub id: String,
    /// Distinguishes it from an entity that had the id before.
    pub incarnation: Uuid,
    /// Its own fields.
    pub type_: String,
    /// `Onboarding` or `Active`.
    pub state: State,
    /// Its attributes, a JSON object.
    pub attributes: Struct,
    /// References to it in other systems.
    pub crosswalks: Objects,
    /// The parts that belong to it.
    pub components: Vec<Uuid>,
    /// Its dependents.
    pub dependents: Vec<NewDependent>,
    /// The portfolio it becomes a member of.
    pub portfolio_id: Option<String>,
}

impl NewEntity {
    /// Fails unless the caller may do everything that its creation does: a caller that cannot make members cannot do so here, nor learn
    /// which portfolios exist.
    pub fn check_scope(&self, caller: &Caller) -> Result<()> {
        if self.portfolio_id.is_some() { caller.require(Scope::PortfoliosWrite) } else { Ok(()) }
    }

    /// The entity once it is created.
    pub fn to_entity(&self, created_at: DateTime<Utc>) -> Entity {
        Entity {
            id: self.id.clone(),
            type_: self.type_.clone(),
            state: self.state,
            attributes: self.attributes.clone(),
            components: self.components.clone(),
            portfolio_id: self.portfolio_id.clone(),
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
    pub data: Struct,
}

impl NewEntity {
    /// Checks a message and fills in what the caller left to us. Every fault is reported; `at` is the path of the message in its request.
    pub fn check(message: v1::NewEntity, at: &str) -> Result<NewEntity> {
        let mut faults = Violations::new();
        let v1::NewEntity {
            entity_id,
            r#type,
            state,
            attributes,
            components,
            crosswalks,
            dependents,
            portfolio_id,
        } = message;
        let incarnation = id::new_id();
        let entity_id = if entity_id.is_empty() { incarnation.to_string() } else { entity_id };
        id::check_new_id(&entity_id, &format!("{at}.entity_id"), &mut faults);
        check_type(&r#type, &format!("{at}.type"), &mut faults);
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
        let crosswalks = check_crosswalks(crosswalks, at, &mut faults);
        let dependents = check_dependents(dependents, at, &mut faults);
        let portfolio_id = (!portfolio_id.is_empty()).then_some(portfolio_id);
        if let Some(portfolio_id) = &portfolio_id {
            id::check_id(portfolio_id, &format!("{at}.portfolio_id"), &mut faults);
        }
        faults.check()?;
        Ok(NewEntity {
            id: entity_id,
            incarnation,
            type_: r#type,
            state,
            attributes,
            crosswalks,
            components,
            dependents,
            portfolio_id,
        })
    }
}

fn check_dependents(
    dependents: Vec<v1::NewDependent>,
    at: &str,
    faults: &mut Violations,
) -> Vec<NewDependent> {
    if dependents.len() > MAX_DEPENDENTS {
        faults.add(format!("{at}.dependents"), "too_many", "must be at most 10,000");
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut checked = Vec::with_capacity(dependents.len());
    for (n, v1::NewDependent { kind, id, data }) in dependents.into_iter().enumerate() {
        let at = format!("{at}.dependents[{n}]");
        check_kind(&kind, &format!("{at}.kind"), faults);
        let id = if id.is_empty() { id::new_id().to_string() } else { id };
        id::check_new_id(&id, &format!("{at}.id"), faults);
        let data = object(data, &format!("{at}.data"), faults);
        if !seen.insert((kind.clone(), id.clone())) {
            faults.add(
                format!("{at}.id"),
                "duplicate",
                "must be unique among the dependents of its kind",
            );
        }
        checked.push(NewDependent { kind, id, data });
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_new_entity_is_reported() {
        let message = v1::NewEntity {
            entity_id: "a b".to_owned(),
            state: v1::EntityState::Offboarding as i32,
            components: vec!["x".to_owned()],
            dependents: vec![
                v1::NewDependent { kind: "Task".to_owned(), ..Default::default() },
                v1::NewDependent {
                    kind: "task".to_owned(),
                    id: "t".to_owned(),
                    ..Default::default()
                },
                v1::NewDependent {
                    kind: "task".to_owned(),
                    id: "t".to_owned(),
                    ..Default::default()
                },
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
        let entity = NewEntity::check(
            v1::NewEntity { r#type: "t".to_owned(), ..Default::default() },
            "entity",
        )
        .unwrap();
        assert_eq!(entity.id, entity.incarnation.to_string());
        assert_eq!(entity.state, State::Active);
        assert_eq!(entity.attributes, Struct::default());
    }
}
