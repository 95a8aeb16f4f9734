//! Calls about dependents.

use diesel::pg::PgConnection;
use http::StatusCode;
use tonic::{Request, Response, Status};

use crate::access::{Caller, Once, Subject, erasure_queries};
use crate::db::{Page, Realm, Work, id, paged};
use crate::entity::change_queries::lock_state;
use crate::entity::dependent::{Dependent, DependentChange, DependentKey, too_many};
use crate::entity::dependent_queries::{self as queries, Spot};
use crate::entity::fields::{check_kind, object};
use crate::entity::model::Action;
use crate::entity::service::{EntityService, PAGES};
use crate::error::{Error, Result, Violations};
use crate::filter::only_filter;
use crate::proto::{answer, convert, v1};

paged!(v1::ListDependentsRequest, "Dependents", PAGES);

impl EntityService {
    pub(super) async fn put_dependent(
        &self,
        request: Request<v1::PutDependentRequest>,
    ) -> Result<Response<v1::Dependent>, Status> {
        let once = Once::of(&request)?;
        let v1::PutDependentRequest { entity_id, kind, dependent_id, data } = request.into_inner();
        let key = DependentKey { entity_id, kind, id: dependent_id };
        let mut faults = Violations::new();
        key.check(&mut faults);
        let data = object(data, "data", &mut faults);
        faults.check()?;
        let caller = once.caller().clone();
        let put = move |connection: &mut PgConnection| {
            lock(connection, &caller.realm, &key.entity_id, || {
                Error::not_found("entity", &key.entity_id)
            })?;
            let change = match queries::spot(connection, &caller.realm, &key)? {
                Spot { is_full: true, .. } => return Err(too_many(&key.entity_id).into()),
                Spot {
                    data: Some(there),
                    created_at: Some(created_at),
                    updated_at: Some(updated_at),
                    ..
                } if there == data => {
                    let (kind, id) = (key.kind.clone(), key.id.clone());
                    let unchanged = Dependent { kind, id, data: there, created_at, updated_at };
                    return Ok(Response::new(to_proto(unchanged, &key.entity_id)));
                }
                Spot { data: Some(_), .. } => DependentChange::Replaced,
                Spot { data: None, .. } => {
                    // An existing one stays reachable, whatever its id.
                    let mut faults = Violations::new();
                    id::check_new_id(&key.id, "dependent_id", &mut faults);
                    faults.check()?;
                    DependentChange::Created
                }
            };
            let put =
                to_proto(queries::put(connection, &caller, &key, &data, change)?, &key.entity_id);
            Ok(match change {
                DependentChange::Created => answer::created(
                    put,
                    &format!("/v1/entities/{}/dependents/{}/{}", key.entity_id, key.kind, key.id),
                ),
                _ => Response::new(put),
            })
        };
        once.transaction(&self.db, put).await
    }

    pub(super) async fn get_dependent(
        &self,
        request: Request<v1::GetDependentRequest>,
    ) -> Result<Response<v1::Dependent>, Status> {
        let realm = Caller::of(&request)?.realm;
        let v1::GetDependentRequest { entity_id, kind, dependent_id } = request.into_inner();
        let key = DependentKey { entity_id, kind, id: dependent_id };
        let mut faults = Violations::new();
        key.check(&mut faults);
        faults.check()?;
        let wanted = key.clone();
        let found =
            self.db.run(move |connection| queries::get(connection, &realm, &wanted)).await?;
        Ok(Response::new(to_proto(found.ok_or_else(|| key.not_found())?, &key.entity_id)))
    }

    pub(super) async fn list_dependents(
        &self,
        request: Request<v1::ListDependentsRequest>,
    ) -> Result<Response<v1::ListDependentsResponse>, Status> {
        let realm = Caller::of(&request)?.realm;
        let mut request = request.into_inner();
        let mut faults = Violations::new();
        id::check_id(&request.entity_id, "entity_id", &mut faults);
        if !request.kind.is_empty() {
            check_kind(&request.kind, "kind", &mut faults);
        }
        let page: Page<(String, String)> =
            Page::check(self.db.seal().await?, &realm, &mut request, &mut faults);
        let filter = only_filter(&queries::DEPENDENT, &request.filter, faults)?;
        let v1::ListDependentsRequest { entity_id, kind, .. } = request;
        let (after, limit, wanted) = (page.after().cloned(), page.limit(), entity_id.clone());
        let read = move |connection: &mut PgConnection| {
            let after = after.as_ref().map(|(kind, id)| (kind.as_str(), id.as_str()));
            queries::list(connection, &realm, (&wanted, &kind, filter.as_ref()), after, limit)
        };
        let found = self.db.run(read).await?;
        let mut found = found.ok_or_else(|| Error::not_found("entity", &entity_id))?;
        let next_page_token = page
            .cut_short(&mut found.rows, found.more, |last| (last.kind.clone(), last.id.clone()))?;
        let dependents =
            found.rows.into_iter().map(|dependent| to_proto(dependent, &entity_id)).collect();
        Ok(Response::new(v1::ListDependentsResponse { dependents, next_page_token }))
    }

    pub(super) async fn delete_dependent(
        &self,
        request: Request<v1::DeleteDependentRequest>,
    ) -> Result<Response<()>, Status> {
        let once = Once::of(&request)?;
        let v1::DeleteDependentRequest { entity_id, kind, dependent_id } = request.into_inner();
        let key = DependentKey { entity_id, kind, id: dependent_id };
        let mut faults = Violations::new();
        key.check(&mut faults);
        faults.check()?;
        let caller = once.caller().clone();
        let delete = move |connection: &mut PgConnection| {
            lock(connection, &caller.realm, &key.entity_id, || key.not_found())?;
            if !queries::delete(connection, &caller, &key)? {
                return Err(key.not_found().into());
            }
            let DependentKey { entity_id, kind, id } = key.clone();
            erasure_queries::erase(
                connection,
                &caller.realm,
                &[Subject::Dependent(entity_id, kind, id)],
            )?;
            Ok(answer::with_status((), StatusCode::NO_CONTENT))
        };
        once.transaction(&self.db, delete).await
    }
}

/// Locks an entity whose dependents are to be changed, and fails if it is missing, or in a state in which they cannot be changed.
fn lock(
    connection: &mut PgConnection,
    realm: &Realm,
    entity_id: &str,
    not_found: impl FnOnce() -> Error,
) -> Work<()> {
    let state = lock_state(connection, realm, entity_id)?.ok_or_else(not_found)?;
    state.transition(Action::Update)?;
    Ok(())
}

pub(super) fn to_proto(dependent: Dependent, entity_id: &str) -> v1::Dependent {
    v1::Dependent {
        entity_id: entity_id.to_owned(),
        kind: dependent.kind,
        id: dependent.id,
        data: Some(dependent.data),
        created_at: Some(convert::timestamp(dependent.created_at)),
        updated_at: Some(convert::timestamp(dependent.updated_at)),
    }
}
