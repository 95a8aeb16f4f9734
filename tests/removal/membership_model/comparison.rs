//! Whether the responses of a round are what was so at some moment of their calls, and whether the changes are those that were asked for.

use std::collections::BTreeSet;

use super::calls::{Call, Harm, Made, Round};
use super::rules::RecordedChange;
use super::{CALLERS, ENTITIES, Outcome, PORTFOLIOS, Play};

impl Play<'_> {
    /// Returns whether the response is what was so at some moment since these versions.
    pub fn compare(
        &self,
        made: Made,
        answer: &Outcome,
        harm: Harm,
        before: &(Vec<usize>, Vec<usize>),
    ) {
        let realm = CALLERS[made.caller];
        let rules = &self.rules[realm];
        let what = || {
            format!("{made:?} after {before:?} returned {answer:#?} with {harm:?}, in {rules:?}")
        };
        let (portfolio, entity, attaches, full) = match made.call {
            Call::Get { entity } => (None, entity, false, false),
            Call::Attach { portfolio, entity, full } => (Some(portfolio), entity, true, full),
            Call::Detach { portfolio, entity, full } => (Some(portfolio), entity, false, full),
        };
        let code = answer.as_ref().err().map(|failure| failure.code.as_str());
        self.stage.count(format!(
            "{} {}",
            ["get", "detach", "attach"][portfolio.map_or(0, |_| 1 + usize::from(attaches))],
            code.unwrap_or("done")
        ));
        match code {
            Some("refused_by_database") => {
                assert!(
                    matches!(harm, Harm::Entity { realm: of, entity: harmed } if (of, harmed) == (realm, entity))
                        && portfolio.is_some(),
                    "{}",
                    what()
                );
                return;
            }
            Some("unavailable") => {
                assert!(harm == Harm::Session && portfolio.is_some(), "{}", what());
                return;
            }
            _ => {}
        }
        if entity == ENTITIES || portfolio == Some(PORTFOLIOS) {
            assert_eq!(code, Some("not_found"), "{}", what());
            return;
        }
        // Where the entity was since the round began.
        let places = &rules.entities[entity][before.1[entity] - 1..];
        let Some(portfolio) = portfolio else {
            let answer = answer.as_ref().unwrap_or_else(|_| panic!("{}", what()));
            let version = answer.get("version").as_u64().unwrap() as usize;
            assert!(
                (before.1[entity]..=rules.entities[entity].len()).contains(&version),
                "{}",
                what()
            );
            let place =
                rules.entities[entity][version - 1].map(|portfolio| self.id('p', portfolio));
            assert_eq!(
                answer.json["portfolio_id"].as_str().filter(|id| !id.is_empty()),
                place.as_deref(),
                "{}",
                what()
            );
            return;
        };
        let Ok(answer) = answer else {
            let elsewhere =
                places.iter().any(|place| place.is_some_and(|place| place != portfolio));
            assert!(code == Some("state_conflict") && !attaches && elsewhere, "{}", what());
            return;
        };
        let version = answer.get("version").as_u64().unwrap() as usize;
        let (from, states) = (before.0[portfolio], &rules.portfolios[portfolio]);
        assert!((from..=states.len()).contains(&version), "{}", what());
        let members = &states[version - 1];
        assert_eq!(
            answer.json["entity_count"].as_u64().unwrap_or_default() as usize,
            members.len(),
            "{}",
            what()
        );
        if full {
            let shown = answer.json["entity_ids"].as_array().cloned().unwrap_or_default();
            let numbers: BTreeSet<usize> =
                shown.iter().map(|id| self.number(id.as_str().unwrap())).collect();
            assert_eq!((shown.len(), &numbers), (members.len(), members), "{}", what());
        }
        assert!(
            states[from - 1..version].iter().any(|members| members.contains(&entity) == attaches),
            "{}",
            what()
        );
    }

    /// Every change was asked for by a call that was done, each by another one, and shown to who has asked.
    pub fn match_up(&self, round: &Round, answers: &[Outcome], reported: &[RecordedChange]) {
        let mut left: Vec<(Made, i64)> = round
            .calls
            .iter()
            .zip(answers)
            .filter_map(|(made, answer)| {
                Some((*made, answer.as_ref().ok()?.json["version"].as_i64()?))
            })
            .collect();
        // The later half of a move stands for the whole.
        let asked = reported.iter().enumerate().filter(|(place, change)| {
            let moves = |next: &RecordedChange| {
                next.attached
                    && (&next.xid, &next.realm, &next.entity)
                        == (&change.xid, &change.realm, &change.entity)
            };
            change.attached || !reported[place + 1..].iter().any(moves)
        });
        for (_, change) in asked {
            let (portfolio, entity) = (self.number(&change.portfolio), self.number(&change.entity));
            let fits = |(made, version): &(Made, i64)| {
                let full = match made.call {
                    Call::Attach { portfolio: of, entity: what, full }
                        if change.attached && (of, what) == (portfolio, entity) =>
                    {
                        full
                    }
                    Call::Detach { portfolio: of, entity: what, full }
                        if !change.attached && (of, what) == (portfolio, entity) =>
                    {
                        full
                    }
                    _ => return false,
                };
                // Members are read anew where others have changed the same portfolio.
                self.stage.principals[made.caller] == change.principal
                    && (*version == change.version || full && *version > change.version)
            };
            let found = left
                .iter()
                .position(|call| fits(call) && call.1 == change.version)
                .or_else(|| left.iter().position(fits));
            let found = found.unwrap_or_else(|| {
                panic!("nobody was recorded {change:?}: {round:?} {answers:#?}")
            });
            left.swap_remove(found);
        }
    }
}
