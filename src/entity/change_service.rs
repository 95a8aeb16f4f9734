//! Calls that change one entity.

use diesel::pg::PgConnection;
use tonic::{Request, Response, Status};

use crate::access::{Caller, Once, Scope};
use crate::db::{Work, id};
use crate::entity::change_queries::{self as queries, Locked};
use crate::entity::entity_update::EntityUpdate;
use crate::entity::model::{Action, Entity};
use crate::entity::service::{EntityService, to_proto};
use crate::error::{Error, Result, Violations};
use crate::proto::v1;

const MAX_REASON_CHARACTERS: usize = 1_024;

impl EntityService {
    /// Has an entity changed while it is locked. `change` returns the entity as it is then.
    async fn change<C>(
        &self,
        once: Once,
        entity_id: String,
        mut change: C,
    ) -> Result<Response<v1::Entity>, Status>
    where
        C: FnMut(&mut PgConnection, &Caller, Locked) -> Work<Entity> + Send + 'static,
    {
        let caller = once.caller().clone();
        let work = move |connection: &mut PgConnection| {
            let locked = queries::lock(connection, &caller.realm, &entity_id)?;
            let locked = locked.ok_or_else(|| Error::not_found("entity", &entity_id))?;
            let entity = change(connection, &caller, locked)?;
            Ok(Response::new(to_proto(entity, &caller.realm)))
        };
        once.transaction(&self.db, work).await
    }

    pub(super) async fn update_entity(
        &self,
        request: Request<v1::UpdateEntityRequest>,
    ) -> Result<Response<v1::Entity>, Status> {
        let once = Once::of(&request)?;
        let (entity_id, update) = EntityUpdate::check(request.into_inner())?;
        let change = move |connection: &mut PgConnection,
                           caller: &Caller,
                           Locked { mut entity, crosswalks, .. }: Locked| {
            entity.transition(Action::Update)?;
            let changes = update.changes(&entity, &crosswalks)?;
            if !changes.names().is_empty() {
                queries::update(connection, caller, &entity, &changes)?.apply(&mut entity);
                changes.apply(&mut entity);
            }
            Ok(entity)
        };
        self.change(once, entity_id, change).await
    }

    pub(super) async fn complete_onboarding(
        &self,
        request: Request<v1::CompleteOnboardingRequest>,
    ) -> Result<Response<v1::Entity>, Status> {
        let once = Once::of(&request)?;
        let entity_id = check_id(request.into_inner().entity_id)?;
        let change =
            |connection: &mut PgConnection, caller: &Caller, Locked { mut entity, .. }: Locked| {
                entity.state = entity.transition(Action::CompleteOnboarding)?;
                queries::complete_onboarding(connection, caller, &entity.id, entity.state)?
                    .apply(&mut entity);
                Ok(entity)
            };
        self.change(once, entity_id, change).await
    }

    pub(super) async fn place_hold(
        &self,
        request: Request<v1::PlaceHoldRequest>,
    ) -> Result<Response<v1::Entity>, Status> {
        let once = Once::of(&request)?;
        let v1::PlaceHoldRequest { entity_id, reason } = request.into_inner();
        let mut faults = Violations::new();
        id::check_id(&entity_id, "entity_id", &mut faults);
        check_reason(&reason, &mut faults);
        faults.check()?;
        let change = move |connection: &mut PgConnection,
                           caller: &Caller,
                           Locked { mut entity, .. }: Locked| {
            entity.transition(Action::PlaceHold)?;
            let placed_at =
                queries::place_hold(connection, caller, &entity.id, &reason)?.apply(&mut entity);
            entity.hold_reason = Some(reason.clone());
            entity.hold_placed_by = Some(caller.principal_id);
            entity.hold_placed_at = Some(placed_at);
            Ok(entity)
        };
        self.change(once, entity_id, change).await
    }

    pub(super) async fn release_hold(
        &self,
        request: Request<v1::ReleaseHoldRequest>,
    ) -> Result<Response<v1::Entity>, Status> {
        let once = Once::of(&request)?;
        let entity_id = check_id(request.into_inner().entity_id)?;
        let change = |connection: &mut PgConnection,
                      caller: &Caller,
                      Locked { mut entity, hold_by_admin, .. }: Locked| {
            entity.transition(Action::ReleaseHold)?;
            if entity.hold_reason.is_some() && hold_by_admin {
                caller.require(Scope::Admin)?;
            }
            if entity.hold_reason.take().is_some() {
                queries::release_hold(connection, caller, &entity.id)?.apply(&mut entity);
                (entity.hold_placed_by, entity.hold_placed_at) = (None, None);
            }
            Ok(entity)
        };
        self.change(once, entity_id, change).await
    }
}

fn check_id(entity_id: String) -> Result<String> {
    let mut faults = Violations::new();
    id::check_id(&entity_id, "entity_id", &mut faults);
    faults.check()?;
    Ok(entity_id)
}

fn check_reason(reason: &str, faults: &mut Violations) {
    if reason.trim().is_empty() {
        faults.add("reason", "required", "must be given");
    } else if reason.chars().count() > MAX_REASON_CHARACTERS || reason.contains('\0') {
        faults.add("reason", "invalid", "must be 1 to 1,024 characters, none of them U+0000");
    }
}
