//! `offboard.v1.EntityService`.

use tonic::{Request, Response, Status, Streaming};

use crate::access::{Caller, Once};
use crate::db::{Db, Realm, id};
use crate::entity::import;
use crate::entity::model::{Entity, NewEntity, State};
use crate::entity::queries;
use crate::error::{Code, Error, Result, Violations};
use crate::proto::v1::entity_service_server::EntityService as Service;
use crate::proto::{answer, convert, v1};

/// The registry of entities.
pub struct EntityService {
    db: Db,
}

impl EntityService {
    /// The service on this database.
    pub fn new(db: Db) -> Self {
        EntityService { db }
    }
}

#[tonic::async_trait]
impl Service for EntityService {
    async fn create_entity(&self, request: Request<v1::CreateEntityRequest>) -> Result<Response<v1::Entity>, Status> {
        let once = Once::of(&request)?;
        let message = request.into_inner().entity.ok_or_else(|| Error::invalid("entity", "required", "must be given"))?;
        let new = NewEntity::check(message, "entity")?;
        let caller = once.caller().clone();
        let create = move |connection: &mut diesel::PgConnection| {
            let outcome = queries::insert(connection, &caller.realm, caller.principal_id, std::slice::from_ref(&new))?;
            if !outcome.no_portfolio.is_empty() {
                return Err(Error::not_found("portfolio", new.portfolio_id.as_deref().unwrap_or_default()).into());
            }
            let created_at = outcome.created_at.ok_or_else(|| taken(&new.id))?;
            let location = format!("/v1/entities/{}", new.id);
            Ok(answer::created(to_proto(new.clone().into_entity(created_at), &caller.realm), &location))
        };
        once.transaction(&self.db, create).await
    }

    async fn get_entity(&self, request: Request<v1::GetEntityRequest>) -> Result<Response<v1::Entity>, Status> {
        let caller = Caller::of(&request)?;
        let entity_id = request.into_inner().entity_id;
        let mut faults = Violations::new();
        id::check_id(&entity_id, "entity_id", &mut faults);
        faults.check()?;
        let (realm, wanted) = (caller.realm.clone(), entity_id.clone());
        let found = self.db.run(move |connection| queries::get(connection, &realm, &wanted)).await?;
        let entity = found.ok_or_else(|| Error::not_found("entity", &entity_id))?;
        Ok(Response::new(to_proto(entity, &caller.realm)))
    }

    type ImportEntitiesStream = import::Answers;

    async fn import_entities(&self, request: Request<Streaming<v1::ImportEntitiesRequest>>) -> Result<Response<import::Answers>, Status> {
        let once = Once::of_stream(&request)?;
        Ok(Response::new(import::run(self.db.clone(), once, request.into_inner()).await?))
    }
}

fn taken(entity_id: &str) -> Error {
    Error::new(Code::AlreadyExists, format!("The id `{entity_id}` is taken by another entity, or by one that was soft-deleted."))
        .with("resource_type", "entity")
        .with("resource_name", entity_id)
}

fn to_proto(entity: Entity, realm: &Realm) -> v1::Entity {
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
        attributes: Some(convert::to_struct(entity.attributes)),
        components: entity.components.iter().map(ToString::to_string).collect(),
        portfolio_id: entity.portfolio_id,
        hold,
        version: entity.version,
        created_at: Some(convert::timestamp(entity.created_at)),
        updated_at: Some(convert::timestamp(entity.updated_at)),
    }
}
