//! The entities and dependents that responses of changing calls show.

use std::collections::HashMap;

use diesel::pg::PgConnection;

use crate::access::{Answer, Caller, Scope, Subject};
use crate::db::{Realm, Work};
use crate::entity::dependent::DependentKey;
use crate::entity::model::Entity;
use crate::entity::reads::MAX_BATCH_BYTES;
use crate::entity::{dependent_queries, dependent_service, list_queries, queries, to_proto};
use crate::proto::v1;

impl Answer for v1::Entity {
    fn shows(&self) -> Vec<Subject> {
        vec![Subject::Entity(self.id.clone())]
    }

    fn withhold(&mut self, caller: &Caller) {
        if caller.may(Scope::EntitiesRead) {
            return;
        }
        (self.attributes, self.portfolio_id) =
            (Some(crate::proto::object::Struct::default()), None);
        self.components.clear();
        if let Some(hold) =
            self.hold.as_mut().filter(|hold| hold.placed_by != caller.principal_id.to_string())
        {
            hold.reason.clear();
        }
    }

    fn again(
        connection: &mut PgConnection,
        realm: &Realm,
        shown: &[Subject],
    ) -> Work<Option<Self>> {
        let [Subject::Entity(id)] = shown else { return Ok(None) };
        Ok(queries::get(connection, realm, id)?.map(|entity| to_proto(entity, realm)))
    }

    const CAN_BE_READ_AGAIN: bool = true;
}

impl Answer for v1::BatchCreateEntitiesResponse {
    fn shows(&self) -> Vec<Subject> {
        self.entities.iter().map(|entity| Subject::Entity(entity.id.clone())).collect()
    }

    /// The caller has said all that it shows.
    fn withhold(&mut self, _caller: &Caller) {}

    fn again(
        connection: &mut PgConnection,
        realm: &Realm,
        shown: &[Subject],
    ) -> Work<Option<Self>> {
        let ids = shown.iter().filter_map(|subject| match subject {
            Subject::Entity(id) => Some(id.clone()),
            _ => None,
        });
        let ids: Vec<String> = ids.collect();
        let found = list_queries::get_many(connection, realm, &ids, MAX_BATCH_BYTES)?;
        let mut found: HashMap<String, Entity> =
            found.rows.into_iter().map(|entity| (entity.id.clone(), entity)).collect();
        let entities: Option<Vec<_>> =
            ids.iter().map(|id| Some(to_proto(found.remove(id)?, realm))).collect();
        Ok(entities.map(|entities| v1::BatchCreateEntitiesResponse { entities }))
    }

    const CAN_BE_READ_AGAIN: bool = true;
}

impl Answer for v1::Dependent {
    fn shows(&self) -> Vec<Subject> {
        vec![Subject::Dependent(self.entity_id.clone(), self.kind.clone(), self.id.clone())]
    }

    /// The caller has said all that it shows.
    fn withhold(&mut self, _caller: &Caller) {}

    fn again(
        connection: &mut PgConnection,
        realm: &Realm,
        shown: &[Subject],
    ) -> Work<Option<Self>> {
        let [Subject::Dependent(entity_id, kind, id)] = shown else { return Ok(None) };
        let key = DependentKey { entity_id: entity_id.clone(), kind: kind.clone(), id: id.clone() };
        Ok(dependent_queries::get(connection, realm, &key)?
            .map(|found| dependent_service::to_proto(found, entity_id)))
    }

    const CAN_BE_READ_AGAIN: bool = true;
}
