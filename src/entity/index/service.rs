//! `offboard.v1.AttributeIndexService`.

use http::StatusCode;
use percent_encoding::utf8_percent_encode;
use tonic::{Request, Response, Status};

use crate::access::{Caller, Once, shows_nothing};
use crate::db::{Db, Page, RESERVED, paged};
use crate::entity::index::model::{AttributeIndex, IndexState, MAX_INDEXES, check_attribute};
use crate::entity::index::queries;
use crate::entity::service::PAGES;
use crate::error::{Code, Error, Result, Violations};
use crate::filter::{AttributePath, only_filter};
use crate::proto::v1::attribute_index_service_server::AttributeIndexService as Service;
use crate::proto::{answer, convert, v1};

/// In how many seconds to check again an index that is being built.
const RETRY_AFTER: u16 = 1;

paged!(v1::ListAttributeIndexesRequest, "AttributeIndexes", PAGES);

shows_nothing!(v1::AttributeIndex);

/// The indexes that a realm has declared.
pub struct AttributeIndexService {
    db: Db,
}

impl AttributeIndexService {
    /// The service on this database.
    pub fn new(db: Db) -> Self {
        AttributeIndexService { db }
    }
}

#[tonic::async_trait]
impl Service for AttributeIndexService {
    async fn create_attribute_index(
        &self,
        request: Request<v1::CreateAttributeIndexRequest>,
    ) -> Result<Response<v1::AttributeIndex>, Status> {
        let once = Once::of(&request)?;
        let path = check(&request.into_inner().attribute)?;
        let caller = once.caller().clone();
        let create = move |connection: &mut diesel::PgConnection| {
            let count = queries::lock_count(connection, &caller.realm)?;
            if let Some(known) = queries::get(connection, &caller.realm, &path.canonical)? {
                return Err(declared(&known).into());
            }
            if count >= MAX_INDEXES {
                let message = format!(
                    "The realm has {MAX_INDEXES} indexes, those that are being dropped among them; delete one first."
                );
                return Err(Error::new(Code::LimitReached, message)
                    .with("limit", MAX_INDEXES)
                    .into());
            }
            let created = queries::create(connection, &caller, &path)?;
            let created = created
                .ok_or_else(|| Error::internal("an attribute was declared in spite of the lock"))?;
            let location = format!(
                "/v1/attribute-indexes/{}",
                utf8_percent_encode(&created.attribute, RESERVED)
            );
            Ok(answer::accepted(to_proto(created), &location, RETRY_AFTER))
        };
        once.transaction(&self.db, create).await
    }

    async fn get_attribute_index(
        &self,
        request: Request<v1::GetAttributeIndexRequest>,
    ) -> Result<Response<v1::AttributeIndex>, Status> {
        let realm = Caller::of(&request)?.realm;
        let path = check(&request.into_inner().attribute)?;
        let wanted = path.canonical.clone();
        let found =
            self.db.run(move |connection| queries::get(connection, &realm, &wanted)).await?;
        Ok(Response::new(to_proto(found.ok_or_else(|| not_declared(&path))?)))
    }

    async fn list_attribute_indexes(
        &self,
        request: Request<v1::ListAttributeIndexesRequest>,
    ) -> Result<Response<v1::ListAttributeIndexesResponse>, Status> {
        let realm = Caller::of(&request)?.realm;
        let mut request = request.into_inner();
        let mut faults = Violations::new();
        let page: Page<String> =
            Page::check(self.db.seal().await?, &realm, &mut request, &mut faults);
        let filter = only_filter(&queries::ATTRIBUTE_INDEX, &request.filter, faults)?;
        let (after, limit) = (page.after().cloned().unwrap_or_default(), page.limit());
        let mut found = self
            .db
            .run(move |connection| {
                queries::list(connection, &realm, filter.as_ref(), &after, limit)
            })
            .await?;
        let next_page_token = page.cut(&mut found, |last| last.attribute.clone())?;
        let attribute_indexes = found.into_iter().map(to_proto).collect();
        Ok(Response::new(v1::ListAttributeIndexesResponse { attribute_indexes, next_page_token }))
    }

    async fn delete_attribute_index(
        &self,
        request: Request<v1::DeleteAttributeIndexRequest>,
    ) -> Result<Response<v1::AttributeIndex>, Status> {
        let once = Once::of(&request)?;
        let path = check(&request.into_inner().attribute)?;
        let caller = once.caller().clone();
        let delete = move |connection: &mut diesel::PgConnection| {
            let dropped = queries::drop_index(connection, &caller, &path.canonical)?;
            let dropped = dropped.ok_or_else(|| not_declared(&path))?;
            Ok(answer::with_status(to_proto(dropped), StatusCode::ACCEPTED))
        };
        once.transaction(&self.db, delete).await
    }
}

fn check(attribute: &str) -> Result<AttributePath> {
    let mut faults = Violations::new();
    let path = check_attribute(attribute, &mut faults);
    faults.check()?;
    path.ok_or_else(|| Error::internal("what is not a path is a fault"))
}

fn not_declared(path: &AttributePath) -> Error {
    Error::not_found("attribute_index", &path.canonical)
}

fn declared(known: &AttributeIndex) -> Error {
    let attribute = &known.attribute;
    let message = match known.state {
        IndexState::Dropping => format!(
            "The index of `{attribute}` is still being dropped; try again when that is done."
        ),
        _ => format!("The attribute `{attribute}` is declared already."),
    };
    Error::new(Code::AlreadyExists, message)
        .with("resource_type", "attribute_index")
        .with("resource_name", attribute)
}

fn to_proto(index: AttributeIndex) -> v1::AttributeIndex {
    let state = match index.state {
        IndexState::Building => v1::AttributeIndexState::Building,
        IndexState::Ready => v1::AttributeIndexState::Ready,
        IndexState::Failed => v1::AttributeIndexState::Failed,
        IndexState::Dropping => v1::AttributeIndexState::Dropping,
    };
    v1::AttributeIndex {
        attribute: index.attribute,
        state: state.into(),
        entities_done: index.entities_done,
        entities_total: index.entities_total,
        rows_written: index.rows_written,
        created_at: Some(convert::timestamp(index.created_at)),
        ready_at: index.ready_at.map(convert::timestamp),
        error: index.error.map(|(code, message)| v1::JobError { code, message }),
    }
}
