//! The bound up to which a task takes entities, and the passes of a chunk over them.

use chrono::{DateTime, Utc};

/// Up to where, in the order in which entities were created, a task means them. See `docs/adr/0031-ordinals-as-bounds-of-tasks.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// All existing ones.
    None,
    /// Those with a lower number, and those without one.
    Ordinal(i64),
    /// Those that have no number and were created up to then, by the clock: of a task that was asked for before there were numbers.
    Moment(DateTime<Utc>),
}

impl Bound {
    /// The condition on `entity e`, behind an `AND`.
    pub(super) fn condition(self) -> &'static str {
        match self {
            Bound::None => "",
            Bound::Ordinal(_) => " AND (e.ordinal IS NULL OR e.ordinal < {ordinal})",
            Bound::Moment(_) => " AND e.ordinal IS NULL AND e.created_at <= {as_of}",
        }
    }
}

/// The rows of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The next rows by key.
    First,
    /// Rows that others had changed meanwhile.
    Retry,
    /// The next row by key, which cannot be deleted: it is counted as failed.
    RefusedRow,
}
