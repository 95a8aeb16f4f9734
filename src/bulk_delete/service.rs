//! `offboard.v1.BulkDeleteService`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::access::{Caller, Scope};
use crate::bulk_delete::model::{Mode, NewTask, Task, full_type};
use crate::bulk_delete::queries::{self, Failure, Starter};
use crate::db::{Db, Realm, id};
use crate::error::{Error, Result};
use crate::proto::v1::bulk_delete_service_server::BulkDeleteService as Service;
use crate::proto::{convert, v1};

const PAGE_SIZE: i32 = 100;
const MAX_PAGE_SIZE: i32 = 1_000;

/// Deletion of many entities.
pub struct BulkDeleteService {
    db: Db,
}

impl BulkDeleteService {
    /// The service on this database.
    pub fn new(db: Db) -> Self {
        BulkDeleteService { db }
    }

    async fn get(&self, realm: Realm, id: &str) -> Result<v1::BulkDeleteTask> {
        let task_id = parse_id(id)?;
        let named = realm.clone();
        let found = self.db.run(move |connection| queries::get(connection, &named, task_id)).await?;
        Ok(to_proto(found.ok_or_else(|| no_task(id))?, &realm))
    }
}

#[tonic::async_trait]
impl Service for BulkDeleteService {
    async fn start_bulk_delete(&self, request: Request<v1::StartBulkDeleteRequest>) -> Result<Response<v1::BulkDeleteTask>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        check_tenant(&request.tenant, &caller.realm)?;
        let task = NewTask::check(request)?;
        if task.mode == Mode::Hard {
            caller.require(Scope::EntitiesDeleteHard)?;
        }
        let starter = Starter { realm: caller.realm, principal_id: caller.principal_id, key_id: caller.key_id };
        let realm = starter.realm.clone();
        let task_id = self.db.run(move |connection| queries::start(connection, &starter, &task)).await?;
        Ok(Response::new(self.get(realm, &task_id.to_string()).await?))
    }

    async fn get_bulk_delete(&self, request: Request<v1::GetBulkDeleteRequest>) -> Result<Response<v1::BulkDeleteTask>, Status> {
        let realm = Caller::of(&request)?.realm;
        let v1::GetBulkDeleteRequest { tenant, task_id } = request.into_inner();
        check_tenant(&tenant, &realm)?;
        Ok(Response::new(self.get(realm, &task_id).await?))
    }

    async fn list_bulk_delete_failures(
        &self,
        request: Request<v1::ListBulkDeleteFailuresRequest>,
    ) -> Result<Response<v1::ListBulkDeleteFailuresResponse>, Status> {
        let realm = Caller::of(&request)?.realm;
        let v1::ListBulkDeleteFailuresRequest { tenant, task_id, page_size, page_token } = request.into_inner();
        check_tenant(&tenant, &realm)?;
        let size = match page_size {
            0 => PAGE_SIZE,
            1..=MAX_PAGE_SIZE => page_size,
            _ => return Err(Error::invalid("page_size", "out_of_range", "must be from 1 to 1,000").into()),
        };
        let after = read_token(&page_token)?;
        let id = parse_id(&task_id)?;
        // One more than asked for tells whether there is another page.
        let found = self.db.run(move |connection| queries::failures(connection, &realm, id, &after, i64::from(size) + 1)).await?;
        let mut failures = found.ok_or_else(|| no_task(&task_id))?;
        let more = failures.len() > size as usize;
        failures.truncate(size as usize);
        let last = failures.last().filter(|_| more);
        let next_page_token = last.map(|failure| URL_SAFE_NO_PAD.encode(&failure.entity_id)).unwrap_or_default();
        let failures = failures.into_iter().map(failure_to_proto).collect();
        Ok(Response::new(v1::ListBulkDeleteFailuresResponse { failures, next_page_token }))
    }
}

/// The tenant of the path is the caller's own organisation; any other looks like one that is not there.
fn check_tenant(tenant: &str, realm: &Realm) -> Result<()> {
    if tenant.is_empty() || tenant == realm.org() { Ok(()) } else { Err(Error::not_found("tenant", tenant)) }
}

fn no_task(id: &str) -> Error {
    Error::not_found("task", id)
}

/// An id that is no UUID is the id of nothing.
fn parse_id(id: &str) -> Result<Uuid> {
    Uuid::try_parse(id).map_err(|_| no_task(id))
}

/// The id behind which the page starts.
fn read_token(token: &str) -> Result<String> {
    if token.is_empty() {
        return Ok(String::new());
    }
    let decoded = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok()).filter(|text| id::is_id(text));
    decoded.ok_or_else(|| Error::invalid("page_token", "invalid", "must be the `next_page_token` of the page before"))
}

fn failure_to_proto(failure: Failure) -> v1::BulkDeleteFailure {
    v1::BulkDeleteFailure {
        entity_id: failure.entity_id,
        reason: failure.reason.to_string(),
        message: failure.reason.message().to_owned(),
        time: Some(convert::timestamp(failure.occurred_at)),
    }
}

fn to_proto(task: Task, realm: &Realm) -> v1::BulkDeleteTask {
    let until = task.ended_at.or(task.paused_at).unwrap_or(task.now);
    let worked = task.started_at.map(|started| (until - started).max(chrono::TimeDelta::zero())).unwrap_or_default();
    let seconds = worked.as_seconds_f64();
    let throughput = if seconds > 0.0 { task.processed as f64 / seconds } else { 0.0 };
    let recent = (task.now - until) < chrono::TimeDelta::hours(1);
    let current_state = v1::BulkDeleteState {
        objects_failed_to_delete: task.first_failures,
        entity_type: task.entity_type.as_deref().map(full_type).unwrap_or_default(),
        objects_failed_to_delete_count: task.failed,
        number_of_failed_to_publish_events: 0,
        last_hour_throughput: if recent { throughput } else { 0.0 },
        number_of_processed_objects: task.processed,
        last_execution_instances: task.instances,
        status: task.state.word().to_owned(),
        number_of_matched_objects: task.matched,
        number_of_excluded_objects: task.excluded,
        number_of_skipped_objects: task.skipped,
        number_of_selected_objects: task.selected.unwrap_or_default(),
    };
    let parameters = match task.parameters {
        serde_json::Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned())).collect()
        }
        _ => Default::default(),
    };
    v1::BulkDeleteTask {
        id: task.id.to_string(),
        name: task.name,
        r#type: "DeleteEntitiesTask".to_owned(),
        tenant: realm.org().to_owned(),
        status: v1::TaskStatus::from(task.state).into(),
        parameters,
        current_state: Some(current_state),
        started: task.started_at.map(convert::timestamp),
        current: Some(convert::timestamp(task.now)),
        throughput,
        duration: Some(prost_types::Duration { seconds: worked.num_seconds(), nanos: 0 }),
        created_time: Some(convert::timestamp(task.created_at)),
        start_time: task.started_at.map(convert::timestamp),
        end_time: task.ended_at.map(convert::timestamp),
        paused_time: task.paused_at.map(convert::timestamp),
        created_by: task.principal_id.to_string(),
        updated_by: task.updated_by.to_string(),
    }
}
