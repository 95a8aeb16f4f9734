//! The dependents of an entity. Pure.

use chrono::{DateTime, Utc};

use crate::db::id;
use crate::entity::fields::check_kind;
use crate::entity::new_entity::MAX_DEPENDENTS;
use crate::error::{Code, Error, Violations};
use crate::proto::object::Struct;

/// Names one thing that hangs on an entity.
#[derive(Clone, Debug)]
pub struct DependentKey {
    /// The entity.
    pub entity_id: String,
    /// The kind: `assessment`, `task`, ...
    pub kind: String,
    /// Unique among the entity's dependents of the kind.
    pub id: String,
}

impl DependentKey {
    /// Adds the faults of a key.
    pub fn check(&self, faults: &mut Violations) {
        id::check_id(&self.entity_id, "entity_id", faults);
        check_kind(&self.kind, "kind", faults);
        id::check_id(&self.id, "dependent_id", faults);
    }

    /// The response if there is no such dependent, or no such entity: it does not say which.
    pub fn not_found(&self) -> Error {
        Error::not_found("dependent", &self.id)
            .with("entity_id", &self.entity_id)
            .with("kind", &self.kind)
    }
}

/// Something that hangs on an entity, as it is stored.
#[derive(Clone, Debug, diesel::Queryable)]
pub struct Dependent {
    /// The kind.
    pub kind: String,
    /// The id.
    pub id: String,
    /// A JSON object.
    pub data: Struct,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When its data was last changed.
    pub updated_at: DateTime<Utc>,
}

/// The change of a dependent, as events record it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DependentChange {
    /// It is new.
    Created,
    /// It has other data.
    Replaced,
    /// It was deleted.
    Deleted,
}

impl DependentChange {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            DependentChange::Created => "created",
            DependentChange::Replaced => "replaced",
            DependentChange::Deleted => "deleted",
        }
    }
}

/// The refusal to hang more on an entity than may hang on it.
pub fn too_many(entity_id: &str) -> Error {
    Error::new(
        Code::LimitReached,
        format!("The entity `{entity_id}` has {MAX_DEPENDENTS} dependents, and can have no more."),
    )
    .with("limit", MAX_DEPENDENTS)
    .with("entity_id", entity_id)
}
