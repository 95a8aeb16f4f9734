//! The effect of an update on an entity. Pure.

use uuid::Uuid;

use crate::db::id;
use crate::entity::fields::{
    MAX_OBJECT_BYTES, check_components, check_crosswalks, check_type, object,
};
use crate::entity::model::Entity;
use crate::error::{Code, Error, Result, Violations};
use crate::proto::mask::Mask;
use crate::proto::object::{Objects, Struct};
use crate::proto::v1;

/// The members that can be changed, as the mask names them.
const UPDATABLE: [&str; 4] = ["type", "attributes", "components", "crosswalks"];
/// The members that say how to change it. They count in and out of the mask: by REST the mask is all members of the body.
const STEERING: [&str; 2] = ["expected_version", "replace_attributes"];

/// A valid update: the members to change, and their new values.
#[derive(Clone, Debug)]
pub struct EntityUpdate {
    type_: Option<String>,
    attributes: Option<Attributes>,
    components: Option<Vec<Uuid>>,
    crosswalks: Option<Objects>,
    expected_version: Option<i64>,
}

/// The change of attributes.
#[derive(Clone, Debug)]
enum Attributes {
    /// This is merged into them.
    Merge(Struct),
    /// They become this.
    Replace(Struct),
}

/// The parts of an entity that an update changes: those that differ from what they were.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// The new type.
    pub type_: Option<String>,
    /// All of the attributes.
    pub attributes: Option<Struct>,
    /// All of the components.
    pub components: Option<Vec<Uuid>>,
    /// All of the crosswalks.
    pub crosswalks: Option<Objects>,
}

impl Changes {
    /// The names of the changed members; empty if there are none.
    pub fn names(&self) -> Vec<&'static str> {
        let changed = [
            self.type_.is_some(),
            self.attributes.is_some(),
            self.components.is_some(),
            self.crosswalks.is_some(),
        ];
        UPDATABLE
            .into_iter()
            .zip(changed)
            .filter(|(_, changed)| *changed)
            .map(|(name, _)| name)
            .collect()
    }

    /// Makes them.
    pub fn apply(self, entity: &mut Entity) {
        if let Some(type_) = self.type_ {
            entity.type_ = type_;
        }
        if let Some(attributes) = self.attributes {
            entity.attributes = attributes;
        }
        if let Some(components) = self.components {
            entity.components = components;
        }
    }
}

impl EntityUpdate {
    /// Checks a request, and returns the entity's id and what to make of it. Every fault is reported.
    pub fn check(request: v1::UpdateEntityRequest) -> Result<(String, EntityUpdate)> {
        let mut faults = Violations::new();
        id::check_id(&request.entity_id, "entity_id", &mut faults);
        let message = request.entity.unwrap_or_default();
        let mask = mask(request.update_mask, &message, &mut faults);
        let given = |name: &str| mask.names(name);
        if message.expected_version.is_some_and(|version| version < 1) {
            faults.add("entity.expected_version", "out_of_range", "must be at least 1");
        }
        if message.replace_attributes && !given("attributes") {
            faults.add(
                "entity.replace_attributes",
                "invalid",
                "needs `attributes` to replace them with",
            );
        }
        if given("type") {
            check_type(&message.r#type, "entity.type", &mut faults);
        }
        let attributes = given("attributes").then(|| {
            let is_null = message.attributes.is_none();
            let attributes = object(message.attributes, "entity.attributes", &mut faults);
            if is_null || message.replace_attributes || mask.is_all() {
                Attributes::Replace(attributes)
            } else {
                Attributes::Merge(attributes)
            }
        });
        let components = given("components")
            .then(|| check_components(&message.components, "entity", &mut faults));
        let crosswalks = given("crosswalks")
            .then(|| check_crosswalks(message.crosswalks, "entity", &mut faults));
        faults.check()?;
        let type_ = given("type").then_some(message.r#type);
        let expected_version = message.expected_version;
        Ok((
            request.entity_id,
            EntityUpdate { type_, attributes, components, crosswalks, expected_version },
        ))
    }

    /// The changes of an entity that has these crosswalks, or `state_conflict` if it is at another version than was expected.
    pub fn changes(&self, entity: &Entity, crosswalks: &Objects) -> Result<Changes> {
        if let Some(expected) = self.expected_version.filter(|expected| *expected != entity.version)
        {
            return Err(another_version(entity, expected));
        }
        let attributes = self
            .attributes
            .as_ref()
            .map(|change| change.apply_to(&entity.attributes))
            .filter(|new| *new != entity.attributes);
        // The merged is not a deeper than the deeper of the two, but it may be larger.
        if attributes.as_ref().is_some_and(|attributes| attributes.json_size() > MAX_OBJECT_BYTES) {
            return Err(Error::invalid(
                "entity.attributes",
                "too_long",
                "must be at most 1 MiB of JSON, without blanks and with numbers written out, also once they are merged",
            ));
        }
        Ok(Changes {
            type_: self.type_.clone().filter(|new| *new != entity.type_),
            attributes,
            components: self.components.clone().filter(|new| *new != entity.components),
            crosswalks: self.crosswalks.clone().filter(|new| new != crosswalks),
        })
    }
}

impl Attributes {
    fn apply_to(&self, current: &Struct) -> Struct {
        match self {
            Attributes::Replace(new) => new.clone(),
            Attributes::Merge(patch) => current.merged(patch),
        }
    }
}

/// The members to change: those of the mask or, without one, those that are set. By REST `null` is named and not set.
fn mask(
    mask: Option<prost_types::FieldMask>,
    message: &v1::EntityUpdate,
    faults: &mut Violations,
) -> Mask {
    const NOT_UPDATABLE: &str = "cannot be updated; `type`, `attributes`, `components` and `crosswalks` can, and a mask names no part of one. Attributes are merged, so one \
                        of them is changed by a body that has it alone";
    let there = [
        !message.r#type.is_empty(),
        message.attributes.is_some(),
        !message.components.is_empty(),
        !message.crosswalks.is_empty(),
    ];
    let given = UPDATABLE
        .into_iter()
        .zip(there)
        .filter(|(_, there)| *there)
        .map(|(name, _)| name.to_owned());
    let is_known = |path: &str| UPDATABLE.contains(&path) || STEERING.contains(&path);
    let mask = Mask::check(mask, given, is_known, NOT_UPDATABLE, faults);
    if faults.as_slice().iter().all(|fault| fault.field != "update_mask")
        && !mask.is_of_any(&UPDATABLE)
    {
        faults.add(
            "entity",
            "required",
            "must have at least one of `type`, `attributes`, `components` and `crosswalks`",
        );
    }
    mask
}

fn another_version(entity: &Entity, expected: i64) -> Error {
    Error::new(
        Code::StateConflict,
        format!("The entity `{}` is at version {}, not {expected}.", entity.id, entity.version),
    )
    .with("entity_id", &entity.id)
    .with("expected_version", expected)
    .with("current_version", entity.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::new_entity::NewEntity;
    use serde_json::{Value as Json, json};

    fn entity() -> Entity {
        let message = v1::NewEntity {
            r#type: "T".to_owned(),
            attributes: Some(Struct::from_json(&json!({"a": {"b": 1, "c": [1]}, "d": null}))),
            ..Default::default()
        };
        NewEntity::check(message, "entity").unwrap().to_entity(chrono::Utc::now())
    }

    fn request(message: v1::EntityUpdate, paths: &[&str]) -> v1::UpdateEntityRequest {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        v1::UpdateEntityRequest {
            entity_id: "e".to_owned(),
            entity: Some(message),
            update_mask: Some(prost_types::FieldMask { paths }),
        }
    }

    fn attributes(value: Json) -> v1::EntityUpdate {
        v1::EntityUpdate { attributes: Some(Struct::from_json(&value)), ..Default::default() }
    }

    fn changes(message: v1::EntityUpdate, paths: &[&str]) -> Changes {
        let (_, update) = EntityUpdate::check(request(message, paths)).unwrap();
        update.changes(&entity(), &Objects::default()).unwrap()
    }

    #[test]
    fn attributes_are_merged_replaced_or_cleared() {
        let patch = || attributes(json!({"a": {"c": null, "x": 2}}));
        assert_eq!(
            changes(patch(), &[]).attributes,
            Some(Struct::from_json(&json!({"a": {"b": 1, "x": 2}, "d": null})))
        );
        let whole = v1::EntityUpdate { replace_attributes: true, ..patch() };
        assert_eq!(
            changes(whole, &["attributes"]).attributes,
            Some(Struct::from_json(&json!({"a": {"c": null, "x": 2}})))
        );
        assert_eq!(
            changes(v1::EntityUpdate::default(), &["attributes"]).attributes,
            Some(Struct::default())
        );
        let all = v1::EntityUpdate { r#type: "T".to_owned(), ..patch() };
        assert_eq!(
            changes(all, &["*"]).attributes,
            Some(Struct::from_json(&json!({"a": {"c": null, "x": 2}}))),
            "`*` replaces"
        );
    }

    #[test]
    fn what_stays_as_it_is_is_no_change() {
        let same = v1::EntityUpdate {
            r#type: "T".to_owned(),
            ..attributes(json!({"a": {"b": 1}, "gone": null}))
        };
        assert_eq!(
            changes(same, &["type", "attributes", "components", "crosswalks"]),
            Changes::default()
        );
    }

    #[test]
    fn the_mask_says_what_counts() {
        let message =
            v1::EntityUpdate { r#type: "New".to_owned(), ..attributes(json!({"new": 1})) };
        assert_eq!(changes(message.clone(), &["type"]).names(), ["type"]);
        assert_eq!(changes(message, &["attributes", "expected_version"]).names(), ["attributes"]);
    }

    #[test]
    fn every_fault_of_an_update_is_reported() {
        let message = v1::EntityUpdate {
            components: vec!["x".to_owned()],
            expected_version: Some(0),
            replace_attributes: true,
            ..Default::default()
        };
        let error = EntityUpdate::check(v1::UpdateEntityRequest {
            entity_id: "a b".to_owned(),
            ..request(message, &["type", "components", "state", "attributes.a"])
        });
        let error = error.unwrap_err();
        let fields: Vec<_> = error.violations().iter().map(|fault| fault.field.as_str()).collect();
        let expected = [
            "entity_id",
            "update_mask",
            "update_mask",
            "entity.expected_version",
            "entity.replace_attributes",
            "entity.type",
            "entity.components[0]",
        ];
        assert_eq!(fields, expected);
        for nothing in [
            request(v1::EntityUpdate::default(), &[]),
            request(v1::EntityUpdate::default(), &["expected_version"]),
        ] {
            assert_eq!(EntityUpdate::check(nothing).unwrap_err().violations()[0].field, "entity");
        }
    }

    #[test]
    fn another_version_and_attributes_that_grow_too_large_are_refused() {
        let expecting = v1::EntityUpdate {
            expected_version: Some(2),
            r#type: "New".to_owned(),
            ..Default::default()
        };
        let (_, update) = EntityUpdate::check(request(expecting, &[])).unwrap();
        assert_eq!(
            update.changes(&entity(), &Objects::default()).unwrap_err().code(),
            Code::StateConflict
        );

        let half = || "x".repeat(600_000);
        let (_, update) =
            EntityUpdate::check(request(attributes(json!({"second": half()})), &[])).unwrap();
        let large = Entity { attributes: Struct::from_json(&json!({"first": half()})), ..entity() };
        assert_eq!(
            update.changes(&large, &Objects::default()).unwrap_err().violations()[0].field,
            "entity.attributes"
        );
        let replaced =
            Entity { attributes: Struct::from_json(&json!({"second": half()})), ..entity() };
        assert_eq!(update.changes(&replaced, &Objects::default()).unwrap(), Changes::default());
    }
}
