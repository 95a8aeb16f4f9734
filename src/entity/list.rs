//! How lists are asked for: their orders. Pure.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::entity::model::Entity;
use crate::error::Violations;
pub use crate::filter::invalid_filter;

/// Sorts behind every id and every kind: they are of ASCII up to `~`.
pub const BEHIND_ALL: &str = "\u{7f}";

/// The orders of a list of entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Their ids.
    Id,
    /// When they were created, and of those of one moment their ids.
    CreatedAt,
}

/// The order of a list of entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub key: Key,
    /// From the last to the first.
    pub descending: bool,
}

/// Every order, as callers write it (AIP-132).
const ORDERS: [(&str, Key, bool); 4] = [
    ("id", Key::Id, false),
    ("id desc", Key::Id, true),
    ("created_at", Key::CreatedAt, false),
    ("created_at desc", Key::CreatedAt, true),
];

impl Order {
    /// Reads `order_by`. Spaces more or less do not count.
    pub fn check(text: &str, faults: &mut Violations) -> Order {
        let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let plain = if plain.is_empty() { "id" } else { plain.as_str() };
        if let Some((_, key, descending)) = ORDERS.into_iter().find(|(name, ..)| *name == plain) {
            return Order { key, descending };
        }
        let names = ORDERS.map(|(name, ..)| format!("`{name}`")).join(", ");
        faults.add("order_by", "invalid", format!("must be one of {names}"));
        Order { key: Key::Id, descending: false }
    }
}

/// The position of an entity in each of the orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntityPosition {
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// Its id.
    pub id: String,
}

impl EntityPosition {
    /// The position of this entity.
    pub fn of(entity: &Entity) -> EntityPosition {
        EntityPosition { created_at: entity.created_at, id: entity.id.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_one_of_four_and_others_are_refused_with_what_is_possible() {
        let mut faults = Violations::new();
        assert_eq!(Order::check("", &mut faults), Order { key: Key::Id, descending: false });
        assert_eq!(
            Order::check("  created_at   desc ", &mut faults),
            Order { key: Key::CreatedAt, descending: true }
        );
        assert!(faults.as_slice().is_empty());
        for bad in ["ID", "id asc", "id,created_at", "desc", "version", "id desc desc"] {
            let mut faults = Violations::new();
            Order::check(bad, &mut faults);
            let description = &faults.as_slice()[0].description;
            assert!(
                ORDERS.iter().all(|(name, ..)| description.contains(&format!("`{name}`"))),
                "{bad}: {description}"
            );
        }
    }
}
