//! `offboard.v1.EntityService`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use crate::access::{Caller, Once};
use crate::db::{Db, Realm, id};
use crate::entity::model::{Entity, NewEntity, State};
use crate::entity::queries;
use crate::error::{Code, Error, Result, Violations};
use crate::proto::v1::entity_service_server::EntityService as Service;
use crate::proto::{answer, convert, v1};

/// How many entities an import writes in one transaction, and holds in memory.
const IMPORT_BATCH: usize = 500;
/// A batch also ends when its entities have this many bytes.
const IMPORT_BATCH_BYTES: usize = 4 << 20;
/// How many refused entities an import names.
const FAILURES_SHOWN: usize = 100;

/// The registry of entities.
pub struct EntityService {
    db: Db,
}

impl EntityService {
    /// The service on this database.
    pub fn new(db: Db) -> Self {
        EntityService { db }
    }

    async fn insert(&self, caller: &Caller, batch: Arc<[NewEntity]>) -> Result<queries::Inserted> {
        let (realm, principal_id) = (caller.realm.clone(), caller.principal_id);
        if batch.iter().all(|new| new.portfolio_id.is_none()) {
            return self.db.run(move |connection| queries::insert(connection, &realm, principal_id, &batch)).await;
        }
        self.db.transaction(move |connection| queries::insert(connection, &realm, principal_id, &batch)).await
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

    async fn import_entities(
        &self,
        request: Request<Streaming<v1::ImportEntitiesRequest>>,
    ) -> Result<Response<v1::ImportEntitiesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let mut stream = request.into_inner();
        let mut import = Import::default();
        while let Some(message) = stream.message().await? {
            import.take(message);
            if import.is_full() {
                self.flush(&caller, &mut import).await?;
            }
        }
        self.flush(&caller, &mut import).await?;
        import.account.failures.sort_by_key(|failure| failure.line);
        Ok(Response::new(import.account))
    }
}

impl EntityService {
    async fn flush(&self, caller: &Caller, import: &mut Import) -> Result<()> {
        let lines = std::mem::take(&mut import.lines);
        let batch = std::mem::take(&mut import.batch);
        import.bytes = 0;
        if batch.is_empty() {
            return Ok(());
        }
        let batch: Arc<[NewEntity]> = batch.into();
        let outcome = self.insert(caller, batch.clone()).await?;
        for (place, (line, new)) in lines.into_iter().zip(batch.iter()).enumerate() {
            if outcome.no_portfolio.contains(&place) {
                let portfolio_id = new.portfolio_id.as_deref().unwrap_or_default();
                import.refuse(line, new.id.clone(), &Error::not_found("portfolio", portfolio_id));
            } else if outcome.existing.contains(&place) {
                import.account.existing += 1;
            } else {
                import.account.created += 1;
            }
        }
        Ok(())
    }
}

/// An import on its way: the batch in hand and the account so far.
#[derive(Default)]
struct Import {
    lines: Vec<i64>,
    batch: Vec<NewEntity>,
    bytes: usize,
    account: v1::ImportEntitiesResponse,
}

impl Import {
    fn take(&mut self, message: v1::ImportEntitiesRequest) {
        self.account.received += 1;
        let line = self.account.received;
        let bytes = prost::Message::encoded_len(&message);
        let entity_id = message.entity.as_ref().map(|entity| entity.entity_id.clone()).unwrap_or_default();
        let checked = message.entity.ok_or_else(|| Error::invalid("entity", "required", "must be given"));
        match checked.and_then(|message| NewEntity::check(message, "entity")) {
            Ok(new) => {
                self.lines.push(line);
                self.batch.push(new);
                self.bytes += bytes;
            }
            Err(error) => self.refuse(line, entity_id, &error),
        }
    }

    fn is_full(&self) -> bool {
        self.batch.len() >= IMPORT_BATCH || self.bytes >= IMPORT_BATCH_BYTES
    }

    fn refuse(&mut self, line: i64, entity_id: String, error: &Error) {
        self.account.failed += 1;
        if self.account.failures.len() < FAILURES_SHOWN {
            let faults: Vec<_> = error.violations().iter().map(|fault| format!("{} {}", fault.field, fault.description)).collect();
            let message = if faults.is_empty() { error.message().to_owned() } else { faults.join("; ") };
            self.account.failures.push(v1::ImportFailure { line, entity_id, code: error.code().name().to_owned(), message });
        }
    }
}

fn taken(entity_id: &str) -> Error {
    Error::new(Code::AlreadyExists, format!("The id `{entity_id}` is taken by another entity, or by one that was soft-deleted."))
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
        attributes: Some(convert::to_struct(entity.attributes)),
        components: entity.components.iter().map(ToString::to_string).collect(),
        portfolio_id: entity.portfolio_id,
        hold,
        version: entity.version,
        created_at: Some(convert::timestamp(entity.created_at)),
        updated_at: Some(convert::timestamp(entity.updated_at)),
    }
}
