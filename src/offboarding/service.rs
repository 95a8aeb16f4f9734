//! `offboard.v1.OffboardingService`.

use std::mem::take;

use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::access::{Caller, Once};
use crate::db::{Db, Group, Page, PageAsked, PageRequest, PageSize, Realm, Work, id};
use crate::entity::model::{Action, State};
use crate::error::{Error, Result, Violations};
use crate::events::Watching;
use crate::filter::only_filter;
use crate::offboarding::group_queries;
use crate::offboarding::model::{
    Offboarding, OffboardingAction, OffboardingState, check_grace, too_long, too_short,
};
use crate::offboarding::policy_queries;
use crate::offboarding::queries::{self, Ask, Selection};
use crate::offboarding::watch::watch;
use crate::proto::v1::offboarding_service_server::OffboardingService as Service;
use crate::proto::{answer, convert, v1};

/// How often an entity that others keep changing while it is read is tried.
const TRIES: usize = 10;

/// The sizes of the pages of requests.
pub(super) const PAGES: PageSize = PageSize { default: 100, max: 1_000 };

impl PageRequest for v1::ListOffboardingRequestsRequest {
    const LIST: &'static str = "OffboardingRequests";
    const SIZES: PageSize = PAGES;

    /// The token has another name beside that of all lists.
    fn take_page(&mut self) -> PageAsked {
        let (page_size, token, other) = (
            take(&mut self.page_size),
            take(&mut self.continuation_token),
            take(&mut self.page_token),
        );
        let (name, page_token) =
            if token.is_empty() { ("page_token", other) } else { ("continuation_token", token) };
        PageAsked { page_size, name, page_token }
    }
}

/// Offboarding as a request that can be canceled while it waits.
pub struct OffboardingService {
    db: Db,
    watching: Watching,
    requests: Group<group_queries::Request>,
    gets: Group<group_queries::Get>,
    cancels: Group<group_queries::Cancel>,
}

impl OffboardingService {
    /// The service on the database of `watching`.
    pub fn new(watching: Watching) -> Self {
        OffboardingService {
            db: watching.db.clone(),
            requests: Group::new(&watching.db),
            gets: Group::new(&watching.db),
            cancels: Group::new(&watching.db),
            watching,
        }
    }
}

/// The outcome of the asking.
pub(super) enum Asked {
    /// A request was made.
    New(Offboarding),
    /// There was one already: open, or done with the entity removed.
    Known(Offboarding),
}

/// Asks for an offboarding. An open request for the entity is returned, and so is one that has removed it.
pub(super) fn ask(connection: &mut diesel::PgConnection, ask: &Ask) -> Work<Asked> {
    for _ in 0..TRIES {
        if let Some(new) = queries::request(connection, ask)? {
            return Ok(Asked::New(new));
        }
        let policy = policy_queries::get(connection, &ask.realm)?;
        if ask.grace.is_some_and(|grace| grace > policy.max_grace) {
            return Err(too_long(policy.max_grace).into());
        }
        if ask.grace.is_some_and(|grace| grace < policy.min_grace) {
            return Err(too_short(policy.min_grace).into());
        }
        let (eligibility, request) = queries::eligibility(connection, &ask.realm, &ask.entity_id)?;
        match (eligibility.state, request) {
            (Some(State::Offboarding), Some(open)) if open.state.is_open() => {
                return Ok(Asked::Known(open));
            }
            (None, Some(done)) if done.state == OffboardingState::Succeeded => {
                return Ok(Asked::Known(done));
            }
            (None, Some(open)) if open.state.is_open() => {}
            (None, _) => return Err(Error::not_found("entity", &ask.entity_id).into()),
            (Some(state @ State::Active), _) if eligibility.on_hold => {
                state.transition_on_hold(Action::RequestOffboarding)?;
            }
            (Some(State::Active | State::Offboarding), _) => {}
            (Some(state), _) => {
                state.transition(Action::RequestOffboarding)?;
            }
        }
    }
    Err(Error::unavailable("Others are at work on the same thing; try again.").into())
}

#[tonic::async_trait]
impl Service for OffboardingService {
    async fn request_offboarding(
        &self,
        request: Request<v1::RequestOffboardingRequest>,
    ) -> Result<Response<v1::OffboardingRequest>, Status> {
        let once = Once::of(&request)?;
        let v1::RequestOffboardingRequest { entity_id, grace_period } = request.into_inner();
        let mut faults = Violations::new();
        id::check_id(&entity_id, "entity_id", &mut faults);
        let grace = check_grace(grace_period, "grace_period", &mut faults);
        faults.check()?;
        let asking = Ask::of(once.caller(), entity_id, grace);
        if !once.has_key()
            && let Some(new) = self.requests.call(group_queries::Request(asking.clone())).await?
        {
            return Ok(once.seen(created(new)));
        }
        let request = move |connection: &mut diesel::PgConnection| match still_there(
            ask(connection, &asking)?,
            &asking,
        )? {
            Asked::New(new) => Ok(created(new)),
            Asked::Known(known) => Ok(answer::with_status(to_proto(known), StatusCode::OK)),
        };
        once.run(&self.db, request).await
    }

    async fn get_offboarding_request(
        &self,
        request: Request<v1::GetOffboardingRequestRequest>,
    ) -> Result<Response<v1::OffboardingRequest>, Status> {
        let realm = Caller::of(&request)?.realm;
        let id = request.into_inner().offboarding_request_id;
        let request_id = parse_id(&id)?;
        let found = get(&self.db, &self.gets, &realm, request_id).await?;
        Ok(Response::new(to_proto(found.ok_or_else(|| no_request(&id))?)))
    }

    async fn list_offboarding_requests(
        &self,
        request: Request<v1::ListOffboardingRequestsRequest>,
    ) -> Result<Response<v1::ListOffboardingRequestsResponse>, Status> {
        let realm = Caller::of(&request)?.realm;
        let mut request = request.into_inner();
        let mut faults = Violations::new();
        if !request.continuation_token.is_empty() && !request.page_token.is_empty() {
            faults.add(
                "page_token",
                "conflict",
                "is another name of `continuation_token`; give one of the two",
            );
        }
        let page = Page::check(self.db.seal().await?, &realm, &mut request, &mut faults);
        let selection =
            check_selection((request.status, &request.entity_id, &request.filter), faults)?;
        let (before, limit, named) = (page.after().copied(), page.limit(), selection.clone());
        let mut found = self
            .db
            .run(move |connection| queries::list(connection, &realm, &named, before, limit))
            .await?;
        let token =
            Some(page.cut(&mut found, |request| request.id)?).filter(|token| !token.is_empty());
        let page_size = page.size() as i32;
        Ok(Response::new(v1::ListOffboardingRequestsResponse {
            data: found.into_iter().map(to_proto).collect(),
            links: Some(v1::PageLinks {
                next: token
                    .as_deref()
                    .map(|token| link(&selection, &request.filter, page_size, token)),
            }),
            meta: Some(v1::PageMeta { continuation_token: token, page_size }),
        }))
    }

    type WatchOffboardingRequestStream = BoxStream<'static, Result<v1::OffboardingRequest, Status>>;

    async fn watch_offboarding_request(
        &self,
        request: Request<v1::WatchOffboardingRequestRequest>,
    ) -> Result<Response<Self::WatchOffboardingRequestStream>, Status> {
        let caller = Caller::of(&request)?;
        let id = request.into_inner().offboarding_request_id;
        let request_id = parse_id(&id)?;
        // Before the first reading, so that nothing happens between the two unseen.
        let wake_up = self.watching.hub.subscribe(&caller.realm);
        let realm = caller.realm.clone();
        let found =
            self.db.run(move |connection| queries::get(connection, &realm, request_id)).await?;
        let first = found.ok_or_else(|| no_request(&id))?;
        let requests = watch(&self.watching, caller, wake_up, first);
        Ok(Response::new(requests.map_ok(to_proto).boxed()))
    }

    async fn cancel_offboarding_request(
        &self,
        request: Request<v1::CancelOffboardingRequestRequest>,
    ) -> Result<Response<v1::OffboardingRequest>, Status> {
        let once = Once::of(&request)?;
        let id = request.into_inner().offboarding_request_id;
        let request_id = parse_id(&id)?;
        let caller = once.caller().clone();
        if !once.has_key() {
            let (realm, principal) = (caller.realm.clone(), caller.principal_id);
            let cancel = group_queries::Cancel { realm, principal, id: request_id };
            if let Some(canceled) = self.cancels.call(cancel).await? {
                return Ok(once.seen(Response::new(to_proto(canceled))));
            }
        }
        let cancel = move |connection: &mut diesel::PgConnection| {
            if let Some(canceled) =
                queries::cancel(connection, &caller.realm, caller.principal_id, request_id)?
            {
                return Ok(Response::new(to_proto(canceled)));
            }
            // A pending request is never found here: nothing leads back to that state.
            let found = queries::get(connection, &caller.realm, request_id)?
                .ok_or_else(|| no_request(&id))?;
            found.state.transition(OffboardingAction::Cancel)?;
            Err(Error::internal("a pending request could not be canceled").into())
        };
        once.run(&self.db, cancel).await
    }
}

/// The arguments of a list. `faults` are those of the request so far.
pub(super) fn check_selection(
    (status, entity_id, filter): (i32, &str, &str),
    mut faults: Violations,
) -> Result<Selection> {
    let state = match v1::OffboardingStatus::try_from(status) {
        Ok(status) => OffboardingState::ALL
            .iter()
            .copied()
            .find(|state| v1::OffboardingStatus::from(*state) == status),
        Err(_) => {
            faults.add("status", "invalid", "must be a status of an offboarding request");
            None
        }
    };
    if !entity_id.is_empty() {
        id::check_id(entity_id, "entity_id", &mut faults);
    }
    let filter = only_filter(&queries::OFFBOARDING, filter, faults)?;
    Ok(Selection {
        state,
        entity_id: (!entity_id.is_empty()).then(|| entity_id.to_owned()),
        filter,
    })
}

/// The path of the next page. Ids, words and tokens are made of characters that need no encoding.
fn link(of: &Selection, filter: &str, page_size: i32, token: &str) -> String {
    let mut path =
        format!("/v1/offboarding/entities?pageSize={page_size}&continuationToken={token}");
    if let Some(state) = of.state {
        path.push_str(&format!("&status={}", state.word()));
    }
    if let Some(entity_id) = &of.entity_id {
        path.push_str(&format!("&entityId={entity_id}"));
    }
    if !filter.is_empty() {
        path.push_str(&format!("&filter={}", utf8_percent_encode(filter, NON_ALPHANUMERIC)));
    }
    path
}

/// The request with this id, read with others that are asked for at once.
pub(super) async fn get(
    db: &Db,
    gets: &Group<group_queries::Get>,
    realm: &Realm,
    id: Uuid,
) -> Result<Option<Offboarding>> {
    if let Some(found) = gets.call(group_queries::Get { realm: realm.clone(), id }).await? {
        return Ok(found);
    }
    let realm = realm.clone();
    db.run(move |connection| queries::get(connection, &realm, id)).await
}

fn created(new: Offboarding) -> Response<v1::OffboardingRequest> {
    let path = format!("/v1/offboarding/entities/{}", new.id);
    answer::created(to_proto(new), &path)
}

/// This contract has no request for an entity that is removed.
fn still_there(asked: Asked, ask: &Ask) -> Work<Asked> {
    match asked {
        Asked::Known(done) if !done.state.is_open() => {
            Err(Error::not_found("entity", &ask.entity_id).into())
        }
        asked => Ok(asked),
    }
}

fn no_request(id: &str) -> Error {
    Error::not_found("offboarding_request", id)
}

/// An id that is not a UUID is the id of nothing.
fn parse_id(id: &str) -> Result<Uuid> {
    Uuid::try_parse(id).map_err(|_| no_request(id))
}

fn to_proto(request: Offboarding) -> v1::OffboardingRequest {
    v1::OffboardingRequest {
        id: request.id.to_string(),
        principal_id: request.principal_id.to_string(),
        status: v1::OffboardingStatus::from(request.state).into(),
        error: request.error(),
        attempts: request.attempts,
        last_error: request.last_error(),
        next_attempt: request.next_attempt().map(convert::timestamp),
        data: Some(v1::OffboardingData {
            id: request.entity_id,
            components: request.components.iter().map(ToString::to_string).collect(),
        }),
        created: Some(convert::timestamp(request.created_at)),
        execute_after: Some(convert::timestamp(request.execute_after)),
        started: request.started_at.map(convert::timestamp),
        finished: request.finished_at.map(convert::timestamp),
    }
}
