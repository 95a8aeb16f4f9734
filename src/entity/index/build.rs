//! One step of building or removing an index: a transaction that moves its cursor.

use std::time::Duration;

use diesel::Connection;
use diesel::pg::PgConnection;

use crate::db::Work;
use crate::entity::index::build_queries as sql;
use crate::entity::index::lease_queries::{self, ClaimedIndex, IndexProgress, Move};
use crate::entity::index::model::{Phase, Rows};
use crate::entity::index::queries;

/// How many entities, or rows, a step reads.
const CHUNK: i64 = 5_000;

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexStepEnd {
    /// There is more to do in this phase.
    More(Phase),
    /// Somebody has to come to an end first.
    Waits,
    /// The index is ready, or dropped.
    Done,
    /// The index is another worker's, or is not wanted any more.
    LeaseLost,
}

/// Does the next step in a transaction of its own.
pub fn step(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    lease: Duration,
) -> Work<IndexStepEnd> {
    let step = |connection: &mut PgConnection| {
        let Some(progress) = lease_queries::lock(connection, claim)? else {
            return Ok(IndexStepEnd::LeaseLost);
        };
        match claim.phase {
            Phase::Waiting | Phase::Settling | Phase::Retiring => {
                wait(connection, claim, &progress, lease)
            }
            Phase::Walking => walk(connection, claim, &progress, lease),
            Phase::Checking => check(connection, claim, &progress, lease),
            Phase::Clearing => clear(connection, claim, &progress, lease),
        }
    };
    if claim.phase == Phase::Checking {
        // A transaction that writes a row which is about to be removed as stale makes this fail, and be done again.
        connection.build_transaction().repeatable_read().run(step)
    } else {
        connection.transaction(step)
    }
}

fn next(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    progress: &IndexProgress,
    done: Move<'_>,
    lease: Duration,
) -> Work<IndexStepEnd> {
    let Some(phase) = claim.phase.next() else {
        lease_queries::finish(connection, claim, progress.state)?;
        return Ok(IndexStepEnd::Done);
    };
    let total =
        if phase == Phase::Walking { sql::count_entities(connection, claim)? } else { None };
    lease_queries::advance(
        connection,
        claim,
        Move { phase: Some(phase), total, position: ("", ""), ..done },
        lease,
    )?;
    Ok(IndexStepEnd::More(phase))
}

/// Waits for every transaction that runs when this is first asked: later ones see everything committed before.
fn wait(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    progress: &IndexProgress,
    lease: Duration,
) -> Work<IndexStepEnd> {
    let running = sql::running(connection)?;
    let left: Vec<String> = match &progress.waits_for {
        None => running,
        Some(known) => known.iter().filter(|one| running.contains(one)).cloned().collect(),
    };
    if left.is_empty() {
        return next(connection, claim, progress, Move::default(), lease);
    }
    lease_queries::advance(
        connection,
        claim,
        Move { waits_for: Some(&left), ..Move::default() },
        lease,
    )?;
    Ok(IndexStepEnd::Waits)
}

/// Writes the rows of the next entities in this snapshot. Transactions that change an entity write its new rows themselves, so none is
/// missing; a row of its earlier values may be left, and is found by `check`.
fn walk(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    progress: &IndexProgress,
    lease: Duration,
) -> Work<IndexStepEnd> {
    let found = sql::walk(connection, claim, &progress.id, CHUNK)?;
    let mut rows = Rows::default();
    for (id, attributes) in &found.rows {
        let keys = attributes.iter().flat_map(|attributes| claim.declared.keys(attributes.view()));
        rows.extend(&claim.declared.attribute, id, keys);
    }
    let entities = found.rows.len() as i64;
    let done =
        Move { entities, rows: sql::add(connection, &claim.realm, rows)?, ..Move::default() };
    match found.rows.last() {
        Some((last, _)) if found.more || entities == CHUNK => {
            lease_queries::advance(
                connection,
                claim,
                Move { position: ("", last), ..done },
                lease,
            )?;
            Ok(IndexStepEnd::More(Phase::Walking))
        }
        _ => next(connection, claim, progress, done, lease),
    }
}

/// Removes rows that are not true: of entities that were changed or removed while they were walked.
fn check(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    progress: &IndexProgress,
    lease: Duration,
) -> Work<IndexStepEnd> {
    let Some(end) = sql::span(connection, claim, &progress.id, CHUNK)? else {
        return next(connection, claim, progress, Move::default(), lease);
    };
    let suspects = sql::suspects(connection, claim, progress.created_at, &progress.id, &end)?;
    let ids: Vec<&str> = suspects.rows.iter().map(|(id, _)| id.as_str()).collect();
    if !ids.is_empty() {
        let mut stale = sql::rows_of(connection, claim, &ids)?;
        for (id, attributes) in &suspects.rows {
            for key in
                attributes.iter().flat_map(|attributes| claim.declared.keys(attributes.view()))
            {
                stale.remove(&(key, id.clone()));
            }
        }
        let mut rows = Rows::default();
        for (key, id) in &stale {
            rows.extend(&claim.declared.attribute, id, [key.clone()]);
        }
        queries::remove(connection, &claim.realm, rows)?;
    }
    let end = if suspects.more { ids.last().copied().unwrap_or(&end) } else { &end };
    lease_queries::advance(
        connection,
        claim,
        Move { position: ("", end), ..Move::default() },
        lease,
    )?;
    Ok(IndexStepEnd::More(Phase::Checking))
}

fn clear(
    connection: &mut PgConnection,
    claim: &ClaimedIndex,
    progress: &IndexProgress,
    lease: Duration,
) -> Work<IndexStepEnd> {
    match sql::clear(connection, claim, (&progress.value, &progress.id), CHUNK)? {
        Some((value, id)) => {
            lease_queries::advance(
                connection,
                claim,
                Move { position: (&value, &id), ..Move::default() },
                lease,
            )?;
            Ok(IndexStepEnd::More(Phase::Clearing))
        }
        None => next(connection, claim, progress, Move::default(), lease),
    }
}
