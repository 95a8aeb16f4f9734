//! Changes of membership: an attach or a detach, alone or many at once, and why one was not made.

use diesel::PgConnection;

use crate::access::Caller;
use crate::db::{Work, id};
use crate::entity::model::{Action, State, refuse};
use crate::error::{Error, Result, Violations};
use crate::portfolio::answers::to_proto;
use crate::portfolio::batch::{self, Batch, Verdict};
use crate::portfolio::model::{Portfolio, View, in_another, missing, no_membership};
use crate::portfolio::queries::Change;
use crate::portfolio::{batch_queries, queries};
use crate::proto::v1;

/// How often a change that others keep undoing while it is checked is tried.
const TRIES: usize = 10;

/// A change of membership as a caller wants it, if it can be one.
pub(super) fn check_change(
    caller: &Caller,
    portfolio: String,
    entity: String,
    view: i32,
) -> Result<Change> {
    let mut faults = Violations::new();
    id::check_id(&portfolio, "portfolio_id", &mut faults);
    id::check_id(&entity, "entity_id", &mut faults);
    let view = View::check(view, &mut faults);
    faults.check()?;
    Ok(Change {
        realm: caller.realm.clone(),
        principal: caller.principal_id,
        portfolio,
        entity,
        view,
    })
}

/// Tries until there is a result: there is none if others changed the same rows between a change and the query for why it was not made.
pub(super) fn retried<T>(mut attempt: impl FnMut() -> Work<Option<T>>) -> Work<T> {
    for _ in 0..TRIES {
        if let Some(answer) = attempt()? {
            return Ok(answer);
        }
    }
    Err(Error::unavailable("Others are at work on the same thing; try again.").into())
}

/// Changes many memberships of a portfolio, in a transaction: what became of each, and the portfolio after it.
pub(super) fn change_many(
    connection: &mut PgConnection,
    caller: &Caller,
    batch: &Batch,
) -> Work<(Vec<v1::MembershipResult>, v1::Portfolio)> {
    let (realm, portfolio) = (&caller.realm, batch.portfolio_id.as_str());
    let verdicts = batch.judge(&batch_queries::lock(connection, realm, &batch.wanted())?);
    let changing = batch
        .entity_ids
        .iter()
        .zip(&verdicts)
        .filter(|(_, verdict)| matches!(verdict, Verdict::Changed));
    let changing: Vec<&str> = changing.map(|(entity_id, _)| entity_id.as_str()).collect();
    if !changing.is_empty() {
        let change = match batch.change {
            batch::MembershipChange::Attach => batch_queries::attach,
            batch::MembershipChange::Detach => batch_queries::detach,
        };
        change(connection, realm, caller.principal_id, portfolio, &changing)?;
    }
    let portfolio = queries::get(connection, realm, portfolio, batch.view)?
        .ok_or_else(|| missing(portfolio))?;
    Ok((batch.results(verdicts), to_proto(portfolio, realm)))
}

/// Detaches an entity: the portfolio after it, or none if others changed the same rows in between.
pub(super) fn detach(connection: &mut PgConnection, change: &Change) -> Work<Option<Portfolio>> {
    if let Some(changed) = queries::detach(connection, change)? {
        return Ok(Some(changed));
    }
    let Change { realm, portfolio, entity, view, .. } = change;
    let found = queries::membership(connection, realm, portfolio, entity)?;
    match found.current_portfolio_id {
        _ if !found.portfolio_exists || !found.entity_exists => {
            Err(no_membership(portfolio, entity).into())
        }
        Some(current) if current != *portfolio => Err(in_another(entity, &current).into()),
        // Attached again in between.
        Some(_) => Ok(None),
        None => queries::get(connection, realm, portfolio, *view),
    }
}

/// Attaches an entity: the portfolio after it, or none if others changed the same rows in between.
pub(super) fn attach(connection: &mut PgConnection, change: &Change) -> Work<Option<Portfolio>> {
    if let Some(changed) = queries::attach(connection, change)? {
        return Ok(Some(changed));
    }
    let Change { realm, portfolio, entity, view, .. } = change;
    let found = queries::membership(connection, realm, portfolio, entity)?;
    if !found.portfolio_exists || !found.entity_exists {
        return Err(no_membership(portfolio, entity).into());
    }
    if found.current_portfolio_id.as_ref() == Some(portfolio) {
        return queries::get(connection, realm, portfolio, *view);
    }
    match found.state {
        Some(state @ State::Offboarding) => {
            Err(refuse(state.as_str(), Action::Attach, &state.allowed()).into())
        }
        // Moved in between.
        _ => Ok(None),
    }
}
