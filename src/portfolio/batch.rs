//! Many memberships at once: the result of each entity, whatever the results of the others. Pure.

use std::collections::{HashMap, HashSet};

use crate::db::id;
use crate::entity::model::{Action, State, refuse};
use crate::error::{Error, Result, Violations};
use crate::portfolio::batch_queries::Candidate;
use crate::portfolio::model::{View, in_another};
use crate::proto::v1;

/// The most entities of one call.
const MAX_ENTITIES: usize = 1_000;
/// How many faults of ids are listed; more would not fit into the headers that carry them.
const FAULTS_LISTED: usize = 20;

/// The change of the membership of each entity of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// It becomes a member.
    Attach,
    /// It is a member no more.
    Detach,
}

/// A valid batch.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The change.
    pub change: MembershipChange,
    /// The portfolio.
    pub portfolio_id: String,
    /// The entities, in the order of the request; one may be named more than once.
    pub entity_ids: Vec<String>,
    /// How much of the portfolio to show.
    pub view: View,
}

impl Batch {
    /// Checks a request.
    pub fn check(
        change: MembershipChange,
        portfolio_id: String,
        entity_ids: Vec<String>,
        view: i32,
    ) -> Result<Batch> {
        let mut faults = Violations::new();
        let view = View::check(view, &mut faults);
        id::check_id(&portfolio_id, "portfolio_id", &mut faults);
        match entity_ids.len() {
            0 => faults.add("entity_ids", "required", "must have at least one member"),
            1..=MAX_ENTITIES => {
                let wrong = entity_ids
                    .iter()
                    .enumerate()
                    .filter(|(_, entity_id)| !id::is_id(entity_id))
                    .take(FAULTS_LISTED);
                wrong.for_each(|(n, entity_id)| {
                    id::check_id(entity_id, &format!("entity_ids[{n}]"), &mut faults)
                });
            }
            _ => faults.add("entity_ids", "too_many", "must have at most 1,000 members"),
        }
        faults.check()?;
        Ok(Batch { change, portfolio_id, entity_ids, view })
    }

    /// The ids, each once.
    pub fn wanted(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        self.entity_ids
            .iter()
            .map(String::as_str)
            .filter(|entity_id| seen.insert(*entity_id))
            .collect()
    }

    /// The result of each item, given the entities that were found.
    pub fn judge(&self, found: &HashMap<String, Candidate>) -> Vec<Verdict> {
        let mut seen = HashSet::new();
        let verdicts = self.entity_ids.iter().map(|entity_id| {
            match self.judge_one(entity_id, found.get(entity_id)) {
                Ok(true) if seen.insert(entity_id) => Verdict::Changed,
                Ok(_) => Verdict::Unchanged,
                Err(error) => Verdict::Refused(error),
            }
        });
        verdicts.collect()
    }

    /// Returns whether an entity is to change, or why it cannot.
    fn judge_one(&self, entity_id: &str, candidate: Option<&Candidate>) -> Result<bool> {
        let Candidate { state, portfolio_id } =
            candidate.ok_or_else(|| Error::not_found("entity", entity_id))?;
        match (self.change, portfolio_id) {
            (MembershipChange::Attach, Some(current)) if *current == self.portfolio_id => Ok(false),
            (MembershipChange::Attach, _) if *state == State::Offboarding => {
                Err(refuse(state.as_str(), Action::Attach, &state.allowed()))
            }
            (MembershipChange::Detach, None) => Ok(false),
            (MembershipChange::Detach, Some(current)) if *current != self.portfolio_id => {
                Err(in_another(entity_id, current))
            }
            (MembershipChange::Attach | MembershipChange::Detach, _) => Ok(true),
        }
    }

    /// The items for the caller.
    pub fn results(&self, verdicts: Vec<Verdict>) -> Vec<v1::MembershipResult> {
        self.entity_ids
            .iter()
            .zip(verdicts)
            .map(|(entity_id, verdict)| verdict.into_result(entity_id.clone()))
            .collect()
    }
}

/// The result of one item.
#[derive(Debug)]
pub enum Verdict {
    /// It is attached, or detached.
    Changed,
    /// It was so already.
    Unchanged,
    /// It cannot be done.
    Refused(Error),
}

impl Verdict {
    fn into_result(self, entity_id: String) -> v1::MembershipResult {
        let (outcome, error) = match self {
            Verdict::Changed => (v1::MembershipOutcome::Ok, None),
            Verdict::Unchanged => (v1::MembershipOutcome::Unchanged, None),
            Verdict::Refused(error) => (v1::MembershipOutcome::Failed, Some(error)),
        };
        let error = error.map(|error| v1::MembershipError {
            code: error.code().name().to_owned(),
            message: error.message().to_owned(),
            current_portfolio_id: error.member("current_portfolio_id").map(str::to_owned),
            current_state: error.member("current_state").map(str::to_owned),
        });
        v1::MembershipResult { entity_id, outcome: outcome.into(), error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> HashMap<String, Candidate> {
        let candidate = |id: &str, state, portfolio: Option<&str>| {
            (id.to_owned(), Candidate { state, portfolio_id: portfolio.map(str::to_owned) })
        };
        HashMap::from([
            candidate("free", State::Active, None),
            candidate("here", State::Active, Some("p")),
            candidate("there", State::Onboarding, Some("q")),
            candidate("leaving", State::Offboarding, Some("q")),
            candidate("going", State::Offboarding, Some("p")),
        ])
    }

    fn judged(change: MembershipChange, ids: &[&str]) -> Vec<&'static str> {
        let batch =
            Batch::check(change, "p".to_owned(), ids.iter().map(ToString::to_string).collect(), 0)
                .unwrap();
        let verdicts = batch.judge(&found()).into_iter().map(|verdict| match verdict {
            Verdict::Changed => "changed",
            Verdict::Unchanged => "unchanged",
            Verdict::Refused(error) => error.code().name(),
        });
        verdicts.collect()
    }

    #[test]
    fn each_item_of_a_batch_is_judged_by_itself() {
        let ids = ["free", "here", "there", "leaving", "going", "none", "free"];
        let attached = [
            "changed",
            "unchanged",
            "changed",
            "invalid_state_transition",
            "unchanged",
            "not_found",
            "unchanged",
        ];
        assert_eq!(judged(MembershipChange::Attach, &ids), attached);
        let detached = [
            "unchanged",
            "changed",
            "state_conflict",
            "state_conflict",
            "changed",
            "not_found",
            "unchanged",
        ];
        assert_eq!(judged(MembershipChange::Detach, &ids), detached);
        assert_eq!(judged(MembershipChange::Detach, &["here", "here"]), ["changed", "unchanged"]);
    }

    #[test]
    fn a_batch_has_1_to_1000_ids() {
        let fields = |ids: Vec<String>| {
            let error = Batch::check(MembershipChange::Attach, "p".to_owned(), ids, 0).unwrap_err();
            error.violations().iter().map(|fault| fault.field.clone()).collect::<Vec<_>>()
        };
        assert_eq!(fields(Vec::new()), ["entity_ids"]);
        assert_eq!(fields(vec!["e".to_owned(); 1001]), ["entity_ids"]);
        assert_eq!(
            fields(vec!["e".to_owned(), "a b".to_owned(), String::new()]),
            ["entity_ids[1]", "entity_ids[2]"]
        );
        assert!(
            Batch::check(MembershipChange::Attach, "p".to_owned(), vec!["e".to_owned(); 1000], 0)
                .is_ok()
        );
    }
}
