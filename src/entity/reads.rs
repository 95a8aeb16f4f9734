//! Calls that read entities and tombstones.

use std::collections::HashMap;

use diesel::pg::PgConnection;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::access::{Caller, Scope};
use crate::db::{Page, id, paged};
use crate::entity::bounded::PAGE_BYTES;
use crate::entity::list::{EntityPosition, Order};
use crate::entity::list_queries::{self, Listing};
use crate::entity::model::Entity;
use crate::entity::service::{EntityService, MAX_BATCH, PAGES, to_proto};
use crate::entity::tombstone_queries::{self, JobKind, Tombstone};
use crate::error::{Code, Error, Result, Violations};
use crate::filter::{ENTITY, only_filter};
use crate::limits::responses::Responding;
use crate::proto::{convert, v1};

/// The most bytes that entities which are asked for together may have.
pub(super) const MAX_BATCH_BYTES: usize = 16 << 20;

paged!(v1::ListEntitiesRequest, "Entities", PAGES);
paged!(v1::ListTombstonesRequest, "Tombstones", PAGES);

impl EntityService {
    pub(super) async fn list_entities(
        &self,
        request: Request<v1::ListEntitiesRequest>,
    ) -> Result<Response<v1::ListEntitiesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (realm, sees_portfolios) = (caller.realm.clone(), caller.may(Scope::PortfoliosRead));
        let mut request = request.into_inner();
        let mut faults = Violations::new();
        let page: Page<EntityPosition> =
            Page::check(self.db.seal().await?, &realm, &mut request, &mut faults);
        let order = Order::check(&request.order_by, &mut faults);
        let filter = only_filter(&ENTITY, &request.filter, faults)?;
        let filtered = filter.is_some();
        let listing = Listing::new(order, filter, page.after().cloned(), page.limit());
        let wanted = realm.clone();
        let read = move |connection: &mut PgConnection| {
            let found = list_queries::list(connection, &wanted, &listing)?;
            let warnings =
                list_queries::warnings(connection, &wanted, (&listing, sees_portfolios), &found)?;
            Ok((found, warnings))
        };
        let (mut found, warnings) =
            if filtered { self.db.transaction(read).await? } else { self.db.run(read).await? };
        let next_page_token = page.cut_short(&mut found.rows, found.more, EntityPosition::of)?;
        let entities = found.rows.into_iter().map(|entity| to_proto(entity, &realm)).collect();
        Ok(Response::new(v1::ListEntitiesResponse { entities, next_page_token, warnings }))
    }

    pub(super) async fn batch_get_entities(
        &self,
        request: Request<v1::BatchGetEntitiesRequest>,
    ) -> Result<Response<v1::BatchGetEntitiesResponse>, Status> {
        let realm = Caller::of(&request)?.realm;
        let responding = request.extensions().get::<Responding>().cloned();
        let ids = request.into_inner().entity_ids;
        check_ids(&ids)?;
        let read = async |bytes: usize| {
            let (scope, wanted) = (realm.clone(), ids.clone());
            self.db
                .run(move |connection| list_queries::get_many(connection, &scope, &wanted, bytes))
                .await
        };
        let mut found = read(PAGE_BYTES).await?;
        if found.more {
            // It is paid for before it is read, since as many may read at once as there are connections.
            drop(std::mem::take(&mut found.rows));
            if let Some(responding) = responding {
                responding.expect(MAX_BATCH_BYTES).await?;
            }
            found = read(MAX_BATCH_BYTES).await?;
        }
        if found.more {
            let message = format!(
                "The entities have more than {MAX_BATCH_BYTES} bytes together; ask for fewer at once."
            );
            return Err(Error::new(Code::PayloadTooLarge, message)
                .with("limit_bytes", MAX_BATCH_BYTES)
                .into());
        }
        let mut found: HashMap<String, Entity> =
            found.rows.into_iter().map(|entity| (entity.id.clone(), entity)).collect();
        let mut missing = Violations::new();
        let mut entities = Vec::with_capacity(ids.len());
        for (n, id) in ids.iter().enumerate() {
            match found.remove(id) {
                Some(entity) => entities.push(to_proto(entity, &realm)),
                None => missing.add(
                    format!("entity_ids[{n}]"),
                    "not_found",
                    format!("no entity with id `{id}` is visible to this token"),
                ),
            }
        }
        if !missing.as_slice().is_empty() {
            let count = missing.count();
            let message = format!(
                "{count} of these entities {} not visible to this token.",
                if count == 1 { "is" } else { "are" }
            );
            return Err(Error::new(Code::NotFound, message)
                .with("resource_type", "entity")
                .with("missing_count", count)
                .at(missing)
                .into());
        }
        Ok(Response::new(v1::BatchGetEntitiesResponse { entities }))
    }

    pub(super) async fn list_tombstones(
        &self,
        request: Request<v1::ListTombstonesRequest>,
    ) -> Result<Response<v1::ListTombstonesResponse>, Status> {
        let realm = Caller::of(&request)?.realm;
        let mut request = request.into_inner();
        let mut faults = Violations::new();
        if !request.entity_id.is_empty() {
            id::check_id(&request.entity_id, "entity_id", &mut faults);
        }
        let page: Page<(String, Uuid)> =
            Page::check(self.db.seal().await?, &realm, &mut request, &mut faults);
        let filter = only_filter(&tombstone_queries::TOMBSTONE, &request.filter, faults)?;
        let (after, limit) = (page.after().cloned(), page.limit());
        let read = move |connection: &mut PgConnection| {
            let after = after.as_ref().map(|(entity, incarnation)| (entity.as_str(), *incarnation));
            tombstone_queries::list(
                connection,
                &realm,
                (&request.entity_id, filter.as_ref()),
                after,
                limit,
            )
        };
        let mut found = self.db.run(read).await?;
        let next_page_token =
            page.cut(&mut found, |last| (last.entity_id.clone(), last.incarnation))?;
        let tombstones = found.into_iter().map(tombstone_to_proto).collect();
        Ok(Response::new(v1::ListTombstonesResponse { tombstones, next_page_token }))
    }
}

fn check_ids(ids: &[String]) -> Result<()> {
    let mut faults = Violations::new();
    if ids.is_empty() {
        faults.add("entity_ids", "required", "must have at least one member");
    }
    if ids.len() > MAX_BATCH {
        faults.add("entity_ids", "too_many", "must have at most 1,000 members");
        return faults.check();
    }
    let mut seen = std::collections::HashSet::new();
    for (n, id) in ids.iter().enumerate() {
        id::check_id(id, &format!("entity_ids[{n}]"), &mut faults);
        if !seen.insert(id) {
            faults.add(format!("entity_ids[{n}]"), "duplicate", "is given twice");
        }
    }
    faults.check()
}

fn tombstone_to_proto(tombstone: Tombstone) -> v1::Tombstone {
    let job_kind = match tombstone.job_kind {
        JobKind::Offboarding => v1::RemovalKind::Offboarding,
        JobKind::BulkDelete => v1::RemovalKind::BulkDelete,
    };
    v1::Tombstone {
        entity_id: tombstone.entity_id,
        incarnation: tombstone.incarnation.to_string(),
        r#type: tombstone.type_,
        version: tombstone.version,
        created_at: Some(convert::timestamp(tombstone.created_at)),
        updated_at: Some(convert::timestamp(tombstone.updated_at)),
        removed_at: Some(convert::timestamp(tombstone.removed_at)),
        removed_by: tombstone.removed_by.to_string(),
        job_kind: job_kind.into(),
        job_id: tombstone.job_id.to_string(),
    }
}
