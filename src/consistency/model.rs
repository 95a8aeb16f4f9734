//! The parts and the findings of a check. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::db::text_enum;
use crate::error::{Result, Violations};
use crate::proto::v1;
use crate::task::pace::check_pace;

/// The name of every check, for people.
pub const NAME: &str = "Check Consistency";
/// How many findings of a check are kept. All of them are counted.
pub const MOST_KEPT: i64 = 10_000;

text_enum! {
    /// The kind of a finding.
    pub enum FindingKind {
        /// A dependent hangs on no entity.
        OrphanDependent = "orphan_dependent",
        /// A portfolio counts more or fewer members than it has.
        PortfolioCount = "portfolio_count",
        /// An entity is on its way out, and nothing is to remove it.
        StuckOffboarding = "stuck_offboarding",
        /// An entity is there that was removed.
        RemovedEntity = "removed_entity",
        /// A request is to remove an entity that is not on its way out, or removed one without a trace.
        OrphanRequest = "orphan_request",
        /// A removal has no event, or an event records a removal that was none.
        EventMismatch = "event_mismatch",
        /// An index over an attribute does not say what the entities say.
        AttributeIndex = "attribute_index",
    }
}

text_enum! {
    /// The part of a realm that a slice of a check walks, by its keys.
    pub enum Part {
        /// Dependents, by entity, kind and id.
        Dependents = "dependents",
        /// Entities, by id. Before portfolios: removed ones count no more.
        Entities = "entities",
        /// Portfolios, by id.
        Portfolios = "portfolios",
        /// Offboarding requests, by id.
        Requests = "requests",
        /// Tombstones, by entity and incarnation.
        Tombstones = "tombstones",
        /// Events of removals, by time.
        RemovalEvents = "removal_events",
        /// Rows of indexes over attributes, by attribute, value and entity.
        IndexRows = "index_rows",
        /// Entities as far as they are indexed, by id; none where no index is in use.
        IndexedEntities = "indexed_entities",
    }
}

impl Part {
    /// The parts that the first slice of every check walks.
    pub const FIRST: Part = Part::Dependents;

    /// Returns whether its keys begin with the id of an existing entity, so that it can be cut like the entities.
    pub fn is_cut_like_entities(self) -> bool {
        matches!(self, Part::Dependents | Part::Entities | Part::IndexedEntities)
    }
}

/// A valid request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCheck {
    /// True to repair the findings.
    pub fix: bool,
    /// How many rows it may read a second.
    pub max_objects_per_second: Option<i32>,
}

impl NewCheck {
    /// Checks a request of which these `faults` are known. Every fault is reported.
    pub fn check(
        request: &v1::CheckConsistencyRequest,
        mut faults: Violations,
    ) -> Result<NewCheck> {
        let max_objects_per_second = check_pace(request.max_objects_per_second, &mut faults);
        faults.check()?;
        Ok(NewCheck { fix: request.fix.unwrap_or(true), max_objects_per_second })
    }

    /// How the check was started, as the contract shows it.
    pub fn parameters(self, tenant: &str) -> BTreeMap<&'static str, String> {
        let mut parameters =
            BTreeMap::from([("tenantId", tenant.to_owned()), ("fix", self.fix.to_string())]);
        parameters.extend(
            self.max_objects_per_second.map(|most| ("maxObjectsPerSecond", most.to_string())),
        );
        parameters
    }
}

/// The result of checking the next rows of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedRows {
    /// How many rows it read.
    pub met: i64,
    /// The key of the last; none if there was none.
    pub cursor: Option<String>,
    /// True if there may be more rows after it.
    pub more: bool,
    /// The suspected contradictions.
    pub suspects: Vec<Suspect>,
}

/// Something that should not be, as one snapshot shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Distinguishes it from the others of its part.
    pub key: String,
    /// The kind of the finding.
    pub kind: FindingKind,
    /// The id of its subject.
    pub subject: String,
    /// The finding, as a sentence.
    pub detail: String,
    /// True if it can be repaired.
    pub repairable: bool,
}

/// A finding of a check.
#[derive(Clone, Debug, PartialEq, Eq, diesel::Queryable)]
pub struct Finding {
    /// The slice that came upon it.
    pub slice: i32,
    /// Its number among those of the slice.
    pub number: i64,
    /// The kind of the finding.
    pub kind: FindingKind,
    /// The id of its subject.
    pub subject: String,
    /// The finding, as a sentence.
    pub detail: String,
    /// True if it was repaired.
    pub mended: bool,
    /// When it was found.
    pub occurred_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_repairs_unless_it_is_asked_not_to() {
        let check = |fix| {
            NewCheck::check(
                &v1::CheckConsistencyRequest { fix, ..Default::default() },
                Violations::new(),
            )
            .unwrap()
            .fix
        };
        assert_eq!([check(None), check(Some(true)), check(Some(false))], [true, true, false]);
    }

    #[test]
    fn every_fault_of_a_request_is_reported() {
        let request =
            v1::CheckConsistencyRequest { max_objects_per_second: Some(0), ..Default::default() };
        let mut known = Violations::new();
        known.add("send_mail", "invalid", "must be left out");
        assert_eq!(NewCheck::check(&request, known).unwrap_err().violations().len(), 2);
    }
}
