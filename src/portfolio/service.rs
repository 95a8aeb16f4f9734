//! `offboard.v1.PortfolioService`.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::access::{Caller, Once};
use crate::db::{Db, Realm, Work, id};
use crate::entity::model::{Action, State, refuse};
use crate::error::{Code, Error, Result, Violations};
use crate::portfolio::model::{NewPortfolio, Portfolio, in_another, no_membership};
use crate::portfolio::queries;
use crate::proto::v1::portfolio_service_server::PortfolioService as Service;
use crate::proto::{answer, convert, v1};

/// How often a change that others keep undoing while it is looked at is tried.
const TRIES: usize = 10;

/// Portfolios and who is in them.
pub struct PortfolioService {
    db: Db,
}

impl PortfolioService {
    /// The service on this database.
    pub fn new(db: Db) -> Self {
        PortfolioService { db }
    }
}

#[tonic::async_trait]
impl Service for PortfolioService {
    async fn create_portfolio(&self, request: Request<v1::CreatePortfolioRequest>) -> Result<Response<v1::Portfolio>, Status> {
        let once = Once::of(&request)?;
        let new = NewPortfolio::check(request.into_inner())?;
        let Caller { realm, principal_id, .. } = once.caller().clone();
        let create = move |connection: &mut diesel::PgConnection| {
            let created = queries::create(connection, &realm, principal_id, &new)?.ok_or_else(|| taken(&new.id))?;
            Ok(answer::created(to_proto(created, &realm), &format!("/v1/portfolios/{}", new.id)))
        };
        once.run(&self.db, create).await
    }

    async fn get_portfolio(&self, request: Request<v1::GetPortfolioRequest>) -> Result<Response<v1::Portfolio>, Status> {
        let caller = Caller::of(&request)?;
        let portfolio_id = request.into_inner().portfolio_id;
        let mut faults = Violations::new();
        id::check_id(&portfolio_id, "portfolio_id", &mut faults);
        faults.check()?;
        let (realm, wanted) = (caller.realm.clone(), portfolio_id.clone());
        let found = self.db.run(move |connection| queries::get(connection, &realm, &wanted)).await?;
        let portfolio = found.ok_or_else(|| Error::not_found("portfolio", &portfolio_id))?;
        Ok(Response::new(to_proto(portfolio, &caller.realm)))
    }

    async fn attach_entity(&self, request: Request<v1::AttachEntityRequest>) -> Result<Response<v1::Portfolio>, Status> {
        let once = Once::of(&request)?;
        let v1::AttachEntityRequest { portfolio_id, entity_id } = request.into_inner();
        self.change(once, portfolio_id, entity_id, attach).await
    }

    async fn detach_entity(&self, request: Request<v1::DetachEntityRequest>) -> Result<Response<v1::Portfolio>, Status> {
        let once = Once::of(&request)?;
        let v1::DetachEntityRequest { portfolio_id, entity_id } = request.into_inner();
        self.change(once, portfolio_id, entity_id, detach).await
    }
}

/// A change of membership: the portfolio after it, or none if others changed the same things in between.
type Change = fn(&mut diesel::PgConnection, &Realm, Uuid, &str, &str) -> Work<Option<Portfolio>>;

impl PortfolioService {
    async fn change(&self, once: Once, portfolio_id: String, entity_id: String, change: Change) -> Result<Response<v1::Portfolio>, Status> {
        let mut faults = Violations::new();
        id::check_id(&portfolio_id, "portfolio_id", &mut faults);
        id::check_id(&entity_id, "entity_id", &mut faults);
        faults.check()?;
        let Caller { realm, principal_id, .. } = once.caller().clone();
        let change = move |connection: &mut diesel::PgConnection| {
            for _ in 0..TRIES {
                if let Some(portfolio) = change(connection, &realm, principal_id, &portfolio_id, &entity_id)? {
                    return Ok(Response::new(to_proto(portfolio, &realm)));
                }
            }
            Err(Error::unavailable("Others are at work on the same thing; try again.").into())
        };
        once.run(&self.db, change).await
    }
}

fn detach(connection: &mut diesel::PgConnection, realm: &Realm, principal: Uuid, portfolio: &str, entity: &str) -> Work<Option<Portfolio>> {
    if let Some(changed) = queries::detach(connection, realm, principal, portfolio, entity)? {
        return Ok(Some(changed));
    }
    let found = queries::membership(connection, realm, portfolio, entity)?;
    match found.current_portfolio_id {
        _ if !found.portfolio_exists || !found.entity_exists => Err(no_membership(portfolio, entity).into()),
        Some(current) if current != portfolio => Err(in_another(entity, &current).into()),
        // Attached again in between.
        Some(_) => Ok(None),
        None => queries::get(connection, realm, portfolio),
    }
}

fn attach(connection: &mut diesel::PgConnection, realm: &Realm, principal: Uuid, portfolio: &str, entity: &str) -> Work<Option<Portfolio>> {
    if let Some(changed) = queries::attach(connection, realm, principal, portfolio, entity)? {
        return Ok(Some(changed));
    }
    let found = queries::membership(connection, realm, portfolio, entity)?;
    if !found.portfolio_exists || !found.entity_exists {
        return Err(no_membership(portfolio, entity).into());
    }
    if found.current_portfolio_id.as_deref() == Some(portfolio) {
        return queries::get(connection, realm, portfolio);
    }
    match found.state {
        Some(state @ State::Offboarding) => Err(refuse(state.as_str(), Action::Attach, &state.allowed()).into()),
        // Moved in between.
        _ => Ok(None),
    }
}

fn taken(portfolio_id: &str) -> Error {
    Error::new(Code::AlreadyExists, format!("The id `{portfolio_id}` is taken by another portfolio."))
        .with("resource_type", "portfolio")
        .with("resource_name", portfolio_id)
}

fn to_proto(portfolio: Portfolio, realm: &Realm) -> v1::Portfolio {
    v1::Portfolio {
        id: portfolio.id,
        object: "portfolio".to_owned(),
        mode: v1::Mode::from(realm.mode()).into(),
        name: portfolio.name,
        shared_registered_agent_id: portfolio.shared_registered_agent_id,
        shared_compliance_calendar: portfolio.shared_compliance_calendar,
        entity_ids: portfolio.entity_ids,
        entity_count: portfolio.entity_count,
        version: portfolio.version,
        metadata: Some(convert::to_struct(portfolio.metadata)),
        created_at: Some(convert::timestamp(portfolio.created_at)),
        updated_at: Some(convert::timestamp(portfolio.updated_at)),
    }
}
