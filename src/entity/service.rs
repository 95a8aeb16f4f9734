//! `offboard.v1.EntityService`.

use std::sync::Arc;

use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::access::{Authenticator, Caller, Once};
use crate::db::{Db, Group, PageSize, Realm, id};
use crate::entity::get::Get;
use crate::entity::group_queries::Create;
use crate::entity::import;
use crate::entity::model::{Entity, State};
use crate::entity::new_entity::NewEntity;
use crate::entity::queries;
use crate::error::{Code, Error, Form, Result, Violations};
use crate::limits::memory::Account;
use crate::proto::v1::entity_service_server::EntityService as Service;
use crate::proto::{answer, convert, v1};

/// The pages of every list.
pub(super) const PAGES: PageSize = PageSize { default: 100, max: 1_000 };
/// The most members of a batch.
pub(super) const MAX_BATCH: usize = 1_000;

/// The largest entity that may be created together with others.
const SMALL_BYTES: usize = 16 << 10;
const SMALL_DEPENDENTS: usize = 100;

/// The registry of entities.
pub struct EntityService {
    pub(super) db: Db,
    gets: Group<Get>,
    creations: Group<Create>,
    authenticator: Authenticator,
    closing: CancellationToken,
}

impl EntityService {
    /// The service on this database. The authenticator knows when the key of an import ends; `closing` is cancelled when the process takes no
    /// more calls.
    pub fn new(db: Db, authenticator: Authenticator, closing: CancellationToken) -> Self {
        EntityService {
            gets: Group::new(&db),
            creations: Group::new(&db),
            db,
            authenticator,
            closing,
        }
    }
}

#[tonic::async_trait]
impl Service for EntityService {
    async fn create_entity(
        &self,
        request: Request<v1::CreateEntityRequest>,
    ) -> Result<Response<v1::Entity>, Status> {
        let once = Once::of(&request)?;
        let message = request
            .into_inner()
            .entity
            .ok_or_else(|| Error::invalid("entity", "required", "must be given"))?;
        let is_small =
            message.encoded_len() <= SMALL_BYTES && message.dependents.len() <= SMALL_DEPENDENTS;
        let new = Arc::new(NewEntity::check(message, "entity")?);
        let caller = once.caller().clone();
        new.check_scope(&caller)?;
        let realm = caller.realm.clone();
        let response = move |new: &NewEntity, created_at| {
            answer::created(
                to_proto(new.to_entity(created_at), &realm),
                &format!("/v1/entities/{}", new.id),
            )
        };
        if is_small && new.portfolio_id.is_none() && !once.has_key() {
            let create = Create {
                realm: caller.realm.id(),
                principal: caller.principal_id,
                new: new.clone(),
            };
            if let Some(created_at) = self.creations.call(create).await? {
                let response = response(&new, created_at);
                return Ok(once.seen(response));
            }
        }
        let create = move |connection: &mut diesel::PgConnection| {
            let outcome = queries::insert(
                connection,
                &caller.realm,
                caller.principal_id,
                std::slice::from_ref(new.as_ref()),
            )?;
            if !outcome.no_portfolio.is_empty() {
                return Err(Error::not_found(
                    "portfolio",
                    new.portfolio_id.as_deref().unwrap_or_default(),
                )
                .into());
            }
            let created_at = outcome.created_at.ok_or_else(|| taken(&new.id))?;
            Ok(response(&new, created_at))
        };
        once.transaction(&self.db, create).await
    }

    async fn get_entity(
        &self,
        request: Request<v1::GetEntityRequest>,
    ) -> Result<Response<v1::Entity>, Status> {
        let caller = Caller::of(&request)?;
        let entity_id = request.into_inner().entity_id;
        let mut faults = Violations::new();
        id::check_id(&entity_id, "entity_id", &mut faults);
        faults.check()?;
        let (realm, wanted) = (caller.realm.clone(), entity_id.clone());
        let found = match self.gets.call(Get { realm: realm.clone(), id: wanted.clone() }).await? {
            Some(found) => found,
            None => {
                self.db.run(move |connection| queries::get(connection, &realm, &wanted)).await?
            }
        };
        let entity = found.ok_or_else(|| Error::not_found("entity", &entity_id))?;
        Ok(Response::new(to_proto(entity, &caller.realm)))
    }

    async fn batch_create_entities(
        &self,
        request: Request<v1::BatchCreateEntitiesRequest>,
    ) -> Result<Response<v1::BatchCreateEntitiesResponse>, Status> {
        self.batch_create_entities(request).await
    }

    async fn batch_get_entities(
        &self,
        request: Request<v1::BatchGetEntitiesRequest>,
    ) -> Result<Response<v1::BatchGetEntitiesResponse>, Status> {
        self.batch_get_entities(request).await
    }

    async fn list_entities(
        &self,
        request: Request<v1::ListEntitiesRequest>,
    ) -> Result<Response<v1::ListEntitiesResponse>, Status> {
        self.list_entities(request).await
    }

    async fn update_entity(
        &self,
        request: Request<v1::UpdateEntityRequest>,
    ) -> Result<Response<v1::Entity>, Status> {
        self.update_entity(request).await
    }

    async fn complete_onboarding(
        &self,
        request: Request<v1::CompleteOnboardingRequest>,
    ) -> Result<Response<v1::Entity>, Status> {
        self.complete_onboarding(request).await
    }

    async fn place_hold(
        &self,
        request: Request<v1::PlaceHoldRequest>,
    ) -> Result<Response<v1::Entity>, Status> {
        self.place_hold(request).await
    }

    async fn release_hold(
        &self,
        request: Request<v1::ReleaseHoldRequest>,
    ) -> Result<Response<v1::Entity>, Status> {
        self.release_hold(request).await
    }

    async fn put_dependent(
        &self,
        request: Request<v1::PutDependentRequest>,
    ) -> Result<Response<v1::Dependent>, Status> {
        self.put_dependent(request).await
    }

    async fn get_dependent(
        &self,
        request: Request<v1::GetDependentRequest>,
    ) -> Result<Response<v1::Dependent>, Status> {
        self.get_dependent(request).await
    }

    async fn list_dependents(
        &self,
        request: Request<v1::ListDependentsRequest>,
    ) -> Result<Response<v1::ListDependentsResponse>, Status> {
        self.list_dependents(request).await
    }

    async fn delete_dependent(
        &self,
        request: Request<v1::DeleteDependentRequest>,
    ) -> Result<Response<()>, Status> {
        self.delete_dependent(request).await
    }

    async fn list_tombstones(
        &self,
        request: Request<v1::ListTombstonesRequest>,
    ) -> Result<Response<v1::ListTombstonesResponse>, Status> {
        self.list_tombstones(request).await
    }

    type ImportEntitiesStream = import::Answers;

    async fn import_entities(
        &self,
        request: Request<Streaming<v1::ImportEntitiesRequest>>,
    ) -> Result<Response<import::Answers>, Status> {
        let once = Once::of_stream(&request)?;
        let (account, form) = (
            request.extensions().get::<Account>().cloned(),
            request.extensions().get::<Form>().cloned(),
        );
        let source = import::Source::new(request.into_inner(), form.unwrap_or_default());
        let last_call = import::last_call(
            self.authenticator.clone(),
            once.caller().clone(),
            self.closing.clone(),
        );
        import::run(self.db.clone(), last_call, once, account, source).await
    }
}

fn taken(entity_id: &str) -> Error {
    Error::new(
        Code::AlreadyExists,
        format!(
            "The id `{entity_id}` is taken by another entity, or by one that was soft-deleted."
        ),
    )
    .with("resource_type", "entity")
    .with("resource_name", entity_id)
}

/// An entity as a message.
pub(crate) fn to_proto(entity: Entity, realm: &Realm) -> v1::Entity {
    let hold = entity.hold_reason.map(|reason| v1::Hold {
        reason,
        placed_by: entity.hold_placed_by.map(|id| id.to_string()).unwrap_or_default(),
        placed_at: entity.hold_placed_at.map(convert::timestamp),
    });
    v1::Entity {
        id: entity.id,
        object: "entity".to_owned(),
        mode: v1::Mode::from(realm.mode()).into(),
        r#type: entity.type_,
        state: match entity.state {
            State::Onboarding => v1::EntityState::Onboarding,
            State::Active => v1::EntityState::Active,
            State::Offboarding => v1::EntityState::Offboarding,
        }
        .into(),
        attributes: Some(entity.attributes),
        components: entity.components.iter().map(ToString::to_string).collect(),
        portfolio_id: entity.portfolio_id,
        hold,
        version: entity.version,
        created_at: Some(convert::timestamp(entity.created_at)),
        updated_at: Some(convert::timestamp(entity.updated_at)),
    }
}
