//! The rules of memberships, without a service or a database: what the members are at each version.

use std::collections::BTreeSet;

use super::{ENTITIES, PORTFOLIOS};

/// The members of a realm, at each version of each portfolio.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The members of each portfolio, from its version 1 on.
    pub portfolios: Vec<Vec<BTreeSet<usize>>>,
    /// The portfolio of each entity, from its version 1 on.
    pub entities: Vec<Vec<Option<usize>>>,
}

/// A change that is reported.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct RecordedChange {
    pub seq: i64,
    pub realm: String,
    pub xid: String,
    pub attached: bool,
    pub portfolio: String,
    pub entity: String,
    pub principal: String,
    pub version: i64,
}

impl Rules {
    pub fn new() -> Rules {
        Rules {
            portfolios: vec![vec![BTreeSet::new()]; PORTFOLIOS],
            entities: vec![vec![None]; ENTITIES],
        }
    }

    /// Which versions there are, as those of the rows begin with 1.
    pub fn versions(&self) -> (Vec<usize>, Vec<usize>) {
        (
            self.portfolios.iter().map(Vec::len).collect(),
            self.entities.iter().map(Vec::len).collect(),
        )
    }

    /// Makes a change. One that follows on the other half of a move is the same step of the entity.
    pub fn change(
        &mut self,
        reported: &RecordedChange,
        portfolio: usize,
        entity: usize,
        moves: bool,
    ) {
        let mut members = self.portfolios[portfolio].last().expect("there is a first").clone();
        let now = *self.entities[entity].last().expect("there is a first");
        let (changed, before, after) = if reported.attached {
            (members.insert(entity), None, Some(portfolio))
        } else {
            (members.remove(&entity), Some(portfolio), None)
        };
        assert!(changed && now == before, "{reported:?} is not a change of {self:?}");
        self.portfolios[portfolio].push(members);
        assert_eq!(
            reported.version,
            self.portfolios[portfolio].len() as i64,
            "{reported:?} is not the next version of {self:?}"
        );
        if moves {
            *self.entities[entity].last_mut().expect("there is a first") = after;
        } else {
            self.entities[entity].push(after);
        }
    }
}
