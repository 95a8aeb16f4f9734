//! `offboard.v1.PortfolioService`.

use diesel::PgConnection;
use http::StatusCode;
use tonic::{Request, Response, Status};

use crate::access::{Authenticator, Caller, Once, Scope, Subject, erasure_queries};
use crate::db::{Db, Group, Page, PageSize, Work, id, paged};
use crate::entity;
use crate::entity::warning_queries;
use crate::error::{Code, Error, Result, Violations};
use crate::filter::{ENTITY, only_filter};
use crate::portfolio::answers::to_proto;
use crate::portfolio::batch::{self, Batch};
use crate::portfolio::export::{Exports, Messages};
use crate::portfolio::group_queries::{Attach, Detach, Get};
use crate::portfolio::membership::{attach, change_many, check_change, detach, retried};
use crate::portfolio::model::{
    NewPortfolio, Portfolio, PortfolioUpdate, View, at_another_version, missing, not_empty,
};
use crate::portfolio::queries::{Change, Changed};
use crate::portfolio::{export_queries, queries, registry_queries};
use crate::proto::v1::portfolio_service_server::PortfolioService as Service;
use crate::proto::{answer, v1};

paged!(
    v1::ListPortfoliosRequest,
    "PortfolioService/ListPortfolios",
    PageSize { default: 50, max: 100 }
);
paged!(
    v1::ListPortfolioEntitiesRequest,
    "PortfolioService/ListPortfolioEntities",
    PageSize { default: 50, max: 1_000 }
);

/// Portfolios and their members.
pub struct PortfolioService {
    db: Db,
    gets: Group<Get>,
    attaches: Group<Attach>,
    detaches: Group<Detach>,
    exports: Exports,
    authenticator: Authenticator,
}

impl PortfolioService {
    /// The service on this database. The authenticator knows when the key of an export ends.
    pub fn new(db: Db, authenticator: Authenticator) -> Self {
        PortfolioService {
            gets: Group::new(&db),
            attaches: Group::new(&db),
            detaches: Group::new(&db),
            exports: Exports::new(&db),
            db,
            authenticator,
        }
    }
}

#[tonic::async_trait]
impl Service for PortfolioService {
    async fn create_portfolio(
        &self,
        request: Request<v1::CreatePortfolioRequest>,
    ) -> Result<Response<v1::Portfolio>, Status> {
        let once = Once::of(&request)?;
        let new = NewPortfolio::check(request.into_inner())?;
        let Caller { realm, principal_id, .. } = once.caller().clone();
        let create = move |connection: &mut PgConnection| {
            let created = queries::create(connection, &realm, principal_id, &new)?
                .ok_or_else(|| taken(&new.id))?;
            Ok(answer::created(to_proto(created, &realm), &format!("/v1/portfolios/{}", new.id)))
        };
        once.run(&self.db, create).await
    }

    async fn get_portfolio(
        &self,
        request: Request<v1::GetPortfolioRequest>,
    ) -> Result<Response<v1::Portfolio>, Status> {
        let caller = Caller::of(&request)?;
        let v1::GetPortfolioRequest { portfolio_id, view } = request.into_inner();
        let (portfolio_id, view) = checked(portfolio_id, view)?;
        let (realm, wanted) = (caller.realm.clone(), portfolio_id.clone());
        let found =
            match self.gets.call(Get { realm: realm.clone(), id: wanted.clone(), view }).await? {
                Some(found) => found,
                None => {
                    self.db
                        .run(move |connection| queries::get(connection, &realm, &wanted, view))
                        .await?
                }
            };
        let portfolio = found.ok_or_else(|| missing(&portfolio_id))?;
        Ok(Response::new(to_proto(portfolio, &caller.realm)))
    }

    async fn list_portfolios(
        &self,
        request: Request<v1::ListPortfoliosRequest>,
    ) -> Result<Response<v1::ListPortfoliosResponse>, Status> {
        let realm = Caller::of(&request)?.realm;
        let mut request = request.into_inner();
        let mut faults = Violations::new();
        // A token continues with the same list, however much of it is shown.
        let view = View::check(std::mem::take(&mut request.view), &mut faults);
        let page: Page<String> =
            Page::check(self.db.seal().await?, &realm, &mut request, &mut faults);
        let filter = only_filter(&registry_queries::PORTFOLIO, &request.filter, faults)?;
        let (after, limit, own) =
            (page.after().cloned().unwrap_or_default(), page.limit(), realm.clone());
        let read = self.db.run(move |connection| {
            registry_queries::list(connection, &own, filter.as_ref(), &after, limit, view)
        });
        let (mut portfolios, more) = read.await?;
        let next_page_token =
            page.cut_short(&mut portfolios, more, |portfolio| portfolio.id.clone())?;
        let portfolios =
            portfolios.into_iter().map(|portfolio| to_proto(portfolio, &realm)).collect();
        Ok(Response::new(v1::ListPortfoliosResponse { portfolios, next_page_token }))
    }

    async fn update_portfolio(
        &self,
        request: Request<v1::UpdatePortfolioRequest>,
    ) -> Result<Response<v1::Portfolio>, Status> {
        let once = Once::of(&request)?;
        let request = request.into_inner();
        let portfolio_id = request.portfolio_id.clone();
        let update = PortfolioUpdate::check(request)?;
        let Caller { realm, principal_id, .. } = once.caller().clone();
        let work = move |connection: &mut PgConnection| {
            retried(|| {
                if let Some(updated) = registry_queries::update(
                    connection,
                    &realm,
                    principal_id,
                    &portfolio_id,
                    &update,
                )? {
                    return Ok(Some(Response::new(to_proto(updated, &realm))));
                }
                let current = queries::get(connection, &realm, &portfolio_id, View::Basic)?
                    .ok_or_else(|| missing(&portfolio_id))?
                    .version;
                match update.expected_version {
                    Some(expected) if expected != current => {
                        Err(at_another_version(&portfolio_id, expected, current).into())
                    }
                    // It was made, or came to that version, in between.
                    _ => Ok(None),
                }
            })
        };
        once.run(&self.db, work).await
    }

    async fn delete_portfolio(
        &self,
        request: Request<v1::DeletePortfolioRequest>,
    ) -> Result<Response<()>, Status> {
        let once = Once::of(&request)?;
        let (portfolio_id, _) = checked(request.into_inner().portfolio_id, 0)?;
        let may_count = once.caller().may(Scope::PortfoliosRead);
        let Caller { realm, principal_id, .. } = once.caller().clone();
        let delete = move |connection: &mut PgConnection| {
            retried(|| {
                if registry_queries::delete(connection, &realm, principal_id, &portfolio_id)? {
                    erasure_queries::erase(
                        connection,
                        &realm,
                        &[Subject::Portfolio(portfolio_id.clone())],
                    )?;
                    return Ok(Some(answer::with_status((), StatusCode::NO_CONTENT)));
                }
                match queries::get(connection, &realm, &portfolio_id, View::Basic)?
                    .ok_or_else(|| missing(&portfolio_id))?
                    .entity_count
                {
                    // The last member left in between.
                    0 => Ok(None),
                    members => Err(not_empty(&portfolio_id, may_count.then_some(members)).into()),
                }
            })
        };
        once.transaction(&self.db, delete).await
    }

    async fn attach_entity(
        &self,
        request: Request<v1::AttachEntityRequest>,
    ) -> Result<Response<v1::Portfolio>, Status> {
        let once = Once::of(&request)?;
        let v1::AttachEntityRequest { portfolio_id, entity_id, view } = request.into_inner();
        let change = check_change(once.caller(), portfolio_id, entity_id, view)?;
        let together =
            if once.has_key() { None } else { self.attaches.call(Attach(change.clone())).await? };
        self.change(once, change, together, attach).await
    }

    async fn detach_entity(
        &self,
        request: Request<v1::DetachEntityRequest>,
    ) -> Result<Response<v1::Portfolio>, Status> {
        let once = Once::of(&request)?;
        let v1::DetachEntityRequest { portfolio_id, entity_id, view } = request.into_inner();
        let change = check_change(once.caller(), portfolio_id, entity_id, view)?;
        let together =
            if once.has_key() { None } else { self.detaches.call(Detach(change.clone())).await? };
        self.change(once, change, together, detach).await
    }

    async fn batch_attach_entities(
        &self,
        request: Request<v1::BatchAttachEntitiesRequest>,
    ) -> Result<Response<v1::BatchAttachEntitiesResponse>, Status> {
        let once = Once::of(&request)?;
        let v1::BatchAttachEntitiesRequest { portfolio_id, entity_ids, view } =
            request.into_inner();
        let batch = Batch::check(batch::MembershipChange::Attach, portfolio_id, entity_ids, view)?;
        let caller = once.caller().clone();
        let attach = move |connection: &mut PgConnection| {
            let (results, portfolio) = change_many(connection, &caller, &batch)?;
            Ok(Response::new(v1::BatchAttachEntitiesResponse {
                results,
                portfolio: Some(portfolio),
            }))
        };
        once.transaction(&self.db, attach).await
    }

    async fn batch_detach_entities(
        &self,
        request: Request<v1::BatchDetachEntitiesRequest>,
    ) -> Result<Response<v1::BatchDetachEntitiesResponse>, Status> {
        let once = Once::of(&request)?;
        let v1::BatchDetachEntitiesRequest { portfolio_id, entity_ids, view } =
            request.into_inner();
        let batch = Batch::check(batch::MembershipChange::Detach, portfolio_id, entity_ids, view)?;
        let caller = once.caller().clone();
        let detach = move |connection: &mut PgConnection| {
            let (results, portfolio) = change_many(connection, &caller, &batch)?;
            Ok(Response::new(v1::BatchDetachEntitiesResponse {
                results,
                portfolio: Some(portfolio),
            }))
        };
        once.transaction(&self.db, detach).await
    }

    async fn list_portfolio_entities(
        &self,
        request: Request<v1::ListPortfolioEntitiesRequest>,
    ) -> Result<Response<v1::ListPortfolioEntitiesResponse>, Status> {
        let caller = Caller::of(&request)?;
        // The entities are shown as `GetEntity` shows them.
        caller.require(Scope::EntitiesRead)?;
        let sees_portfolios = caller.may(Scope::PortfoliosRead);
        let realm = caller.realm;
        let mut request = request.into_inner();
        let mut faults = Violations::new();
        id::check_id(&request.portfolio_id, "portfolio_id", &mut faults);
        let page: Page<export_queries::MemberPosition> =
            Page::check(self.db.seal().await?, &realm, &mut request, &mut faults);
        let filter = only_filter(&ENTITY, &request.filter, faults)?;
        let (after, is_first, limit) = (
            page.after().cloned().unwrap_or_else(export_queries::start),
            page.after().is_none(),
            page.limit(),
        );
        let (own, portfolio_id) = (realm.clone(), request.portfolio_id.clone());
        let read = self.db.run(move |connection| {
            let members = export_queries::members(
                connection,
                &own,
                (&portfolio_id, filter.as_ref()),
                &after,
                limit,
            )?;
            let is_empty = members.as_ref().is_none_or(|(rows, _)| rows.is_empty());
            let filter = (filter.as_ref(), sees_portfolios);
            Ok((
                members,
                warning_queries::warnings(connection, &own, filter, (is_first, is_empty))?,
            ))
        });
        let (members, warnings) = read.await?;
        let (mut members, more) = members.ok_or_else(|| missing(&request.portfolio_id))?;
        let next_page_token =
            page.cut_short(&mut members, more, |(_, position)| position.clone())?;
        let entities =
            members.into_iter().map(|(member, _)| entity::to_proto(member, &realm)).collect();
        Ok(Response::new(v1::ListPortfolioEntitiesResponse { entities, next_page_token, warnings }))
    }

    type ExportPortfolioStream = Messages;

    async fn export_portfolio(
        &self,
        request: Request<v1::ExportPortfolioRequest>,
    ) -> Result<Response<Messages>, Status> {
        let caller = Caller::of(&request)?;
        let (portfolio_id, _) = checked(request.into_inner().portfolio_id, 0)?;
        let messages =
            self.exports.begin(self.db.clone(), caller.realm.clone(), portfolio_id).await?;
        Ok(Response::new(self.authenticator.while_admitted(caller, messages)))
    }
}

/// Makes a change of membership: the portfolio after it, or none if others changed the same things in between.
type MakeChange = fn(&mut PgConnection, &Change) -> Work<Option<Portfolio>>;

impl PortfolioService {
    /// The response to a change that was made `together` with others, or is made now.
    async fn change(
        &self,
        once: Once,
        change: Change,
        together: Option<Changed>,
        make: MakeChange,
    ) -> Result<Response<v1::Portfolio>, Status> {
        if let Some(changed) = together {
            let realm = change.realm.clone();
            let portfolio = match changed {
                (portfolio, true) => portfolio,
                changed => {
                    self.db
                        .run(move |connection| {
                            queries::settle(connection, &change.realm, change.view, changed.clone())
                        })
                        .await?
                }
            };
            return Ok(once.seen(Response::new(to_proto(portfolio, &realm))));
        }
        let work = move |connection: &mut PgConnection| {
            let portfolio = retried(|| make(connection, &change))?;
            Ok(Response::new(to_proto(portfolio, &change.realm)))
        };
        once.run(&self.db, work).await
    }
}

/// The id of a portfolio, if it is one, and how much of it to show.
fn checked(portfolio_id: String, view: i32) -> Result<(String, View)> {
    let mut faults = Violations::new();
    id::check_id(&portfolio_id, "portfolio_id", &mut faults);
    let view = View::check(view, &mut faults);
    faults.check()?;
    Ok((portfolio_id, view))
}

fn taken(portfolio_id: &str) -> Error {
    Error::new(
        Code::AlreadyExists,
        format!("The id `{portfolio_id}` is taken by another portfolio."),
    )
    .with("resource_type", "portfolio")
    .with("resource_name", portfolio_id)
}
