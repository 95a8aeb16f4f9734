//! The work of a check: reading the next rows, repairing findings, and the account of both.

use std::collections::HashMap;
use std::sync::Arc;

use diesel::Connection;
use diesel::pg::PgConnection;

use crate::consistency::model::{CheckedRows, Part, Suspect};
use crate::consistency::queries::{self, Found};
use crate::consistency::{
    dependent_queries, entity_queries, event_queries, index_queries, offboarding_queries,
    portfolio_queries,
};
use crate::db::{Fail, Fault, Work, fault};
use crate::error::{Error, Result};
use crate::task::model::TaskKind;
use crate::task::planning::Planning;
use crate::task::slice_queries::{self, Advance};
use crate::task::work::{ClaimedSlice, Locked, Moved, Plan, Range, Span, Step, TaskWork, WorkKind};

/// Consistency checks, as a kind of work.
pub const CHECKS: WorkKind = WorkKind {
    kind: TaskKind::CheckConsistency,
    parts: Part::SPELLINGS,
    of: |claim| Ok(Arc::new(Check::of(claim)?)),
};

/// Above this many entities what follows their ids is cut into slices, so that several workers can share it.
const CUT_ABOVE: i64 = 50_000;
const SLICES: usize = 4;

/// The check of one slice.
#[derive(Clone, Copy, Debug)]
struct Check {
    part: Part,
}

impl Check {
    /// The check of a claimed slice. A slice that was claimed before the task was planned is the first.
    fn of(claim: &ClaimedSlice) -> Result<Check> {
        let part = claim.part.as_deref().map_or(Some(Part::FIRST), Part::parse);
        part.map(|part| Check { part }).ok_or_else(|| {
            Error::internal(format!("this version does not know the part {:?}", claim.part))
        })
    }

    fn check(
        self,
        connection: &mut PgConnection,
        claim: &ClaimedSlice,
        span: &Span<'_>,
    ) -> Work<CheckedRows> {
        let realm = &claim.realm;
        match self.part {
            Part::Dependents => dependent_queries::check(connection, realm, span),
            Part::Portfolios => portfolio_queries::check(connection, realm, span),
            Part::Entities => entity_queries::check(connection, realm, span),
            Part::Requests => offboarding_queries::check_requests(connection, realm, span),
            Part::Tombstones => event_queries::check_tombstones(connection, realm, span),
            Part::RemovalEvents => event_queries::check_events(connection, realm, span),
            Part::IndexRows => index_queries::check_rows(connection, realm, span),
            Part::IndexedEntities => index_queries::check_entities(connection, realm, span),
        }
    }

    /// Repairs the findings with these keys, and returns by key whether each was repaired. A key that is not returned is consistent by now.
    fn repair(
        self,
        connection: &mut PgConnection,
        claim: &ClaimedSlice,
        keys: &[&str],
    ) -> Work<HashMap<String, bool>> {
        let mended = match self.part {
            Part::Dependents => dependent_queries::repair(connection, &claim.realm, keys)?,
            Part::Entities => {
                return Ok(entity_queries::repair(connection, &claim.realm, claim.task_id, keys)?
                    .into_iter()
                    .collect());
            }
            Part::Portfolios => {
                portfolio_queries::repair(connection, &claim.realm, claim.task_id, keys)?
            }
            Part::Requests => {
                offboarding_queries::repair_requests(connection, &claim.realm, claim.task_id, keys)?
            }
            Part::IndexRows => index_queries::repair_rows(connection, &claim.realm, keys)?,
            Part::IndexedEntities => {
                index_queries::repair_entities(connection, &claim.realm, claim.task_id, keys)?
            }
            // An event that was sent cannot be withdrawn, and a missing one is not sent late: see `docs/consistency.md`.
            Part::Tombstones | Part::RemovalEvents => Vec::new(),
        };
        Ok(mended.into_iter().map(|key| (key, true)).collect())
    }

    /// Repairs all of these at once. If others have locked some of them for too long, the chunk is done again with [`Check::repair_each`].
    fn repair_all(
        self,
        connection: &mut PgConnection,
        claim: &ClaimedSlice,
        suspects: Vec<Suspect>,
    ) -> Work<Vec<Found>> {
        let keys: Vec<&str> = suspects
            .iter()
            .filter(|suspect| suspect.repairable)
            .map(|suspect| suspect.key.as_str())
            .collect();
        let mended =
            if keys.is_empty() { HashMap::new() } else { self.repair(connection, claim, &keys)? };
        let found = suspects.into_iter().filter_map(|suspect| {
            match (suspect.repairable, mended.get(&suspect.key)) {
                (true, None) => None,
                (_, mended) => Some(Found { mended: mended == Some(&true), suspect }),
            }
        });
        Ok(found.collect())
    }

    /// Repairs these one by one. Rows that others have locked are left as they are, and cost only themselves.
    fn repair_each(
        self,
        connection: &mut PgConnection,
        claim: &ClaimedSlice,
        suspects: Vec<Suspect>,
    ) -> Work<Vec<Found>> {
        queries::hurry(connection, |connection| {
            let mut found = Vec::new();
            for suspect in suspects {
                let alone = vec![suspect.clone()];
                match connection.transaction(|connection| self.repair_all(connection, claim, alone))
                {
                    Ok(mended) => found.extend(mended),
                    Err(Fail::Database(error)) if fault(&error) == Fault::Locked => {
                        found.push(Found { suspect, mended: false })
                    }
                    Err(fail) => return Err(fail),
                }
            }
            Ok(found)
        })
    }
}

impl TaskWork for Check {
    fn plan(&self, connection: &mut PgConnection, claim: &ClaimedSlice) -> Work<Plan> {
        let extent = queries::extent(connection, &claim.realm)?;
        let cuts = match extent.entities > CUT_ABOVE {
            true => queries::cuts(connection, &claim.realm, extent.entities, SLICES)?,
            false => Vec::new(),
        };
        let slices = Part::ALL.iter().flat_map(|part| {
            Range::cut(Some(part.as_str()), if part.is_cut_like_entities() { &cuts } else { &[] })
        });
        Ok(Plan { selected: extent.rows, slices: slices.collect() })
    }

    /// Each part is counted by an index, and no filter makes that slow: it is not done in parts, but has more time.
    fn planning(&self, _claim: &ClaimedSlice) -> Planning {
        Planning::whole()
    }

    fn plan_on(
        &self,
        connection: &mut PgConnection,
        claim: &ClaimedSlice,
        _planning: &mut Planning,
    ) -> Work<Option<Plan>> {
        self.plan(connection, claim).map(Some)
    }

    fn chunk(
        &self,
        connection: &mut PgConnection,
        claim: &ClaimedSlice,
        span: &Span<'_>,
    ) -> Step<Moved> {
        let CheckedRows { met, cursor, more, suspects } = self.check(connection, claim, span)?;
        // A row that the database refuses to change stays as it is, and is a finding.
        let found = match (claim.fix && span.refused.is_none(), span.locked) {
            (false, _) => {
                suspects.into_iter().map(|suspect| Found { suspect, mended: false }).collect()
            }
            (true, Locked::Await) => self.repair_all(connection, claim, suspects)?,
            (true, Locked::CountAsFailed) => self.repair_each(connection, claim, suspects)?,
        };
        if !found.is_empty() {
            queries::record(connection, claim, &found)?;
        }
        slice_queries::advance(
            connection,
            claim,
            span.lease,
            &Advance { cursor, done: !more, processed: met, ..Advance::default() },
        )?;
        Ok(Moved { met, processed: met, done: !more, reached_limit: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_slice_walks_the_first_part() {
        assert_eq!(Part::ALL[0], Part::FIRST);
    }
}
