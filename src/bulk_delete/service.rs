//! `offboard.v1.BulkDeleteService`.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::access::{Caller, Once, Scope};
use crate::bulk_delete::consistency;
use crate::bulk_delete::model::{Mode, NewTask, Task, full_type};
use crate::bulk_delete::queries::{self, Failure, Starter};
use crate::db::{Db, Page, PageSize, Realm, Work};
use crate::error::{Error, Result, Violations};
use crate::proto::v1::bulk_delete_service_server::BulkDeleteService as Service;
use crate::proto::{convert, v1};

const FAILURES: PageSize = PageSize { default: 100, max: 1_000 };

/// Deletion of many entities.
pub struct BulkDeleteService {
    db: Db,
}

impl BulkDeleteService {
    /// The service on this database.
    pub fn new(db: Db) -> Self {
        BulkDeleteService { db }
    }
}

#[tonic::async_trait]
impl Service for BulkDeleteService {
    async fn start_bulk_delete(&self, request: Request<v1::StartBulkDeleteRequest>) -> Result<Response<v1::Task>, Status> {
        let once = Once::of(&request)?;
        let caller = once.caller().clone();
        let request = request.into_inner();
        check_tenant(&request.tenant, &caller.realm)?;
        let task = NewTask::check(request)?;
        if task.mode == Mode::Hard {
            caller.require(Scope::EntitiesDeleteHard)?;
        }
        let starter = Starter { realm: caller.realm, principal_id: caller.principal_id, key_id: caller.key_id };
        let start = move |connection: &mut diesel::PgConnection| {
            let task_id = queries::start(connection, &starter, &task)?;
            get(connection, &starter.realm, &task_id.to_string())
        };
        once.run(&self.db, start).await
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::Task>, Status> {
        let realm = Caller::of(&request)?.realm;
        let v1::GetTaskRequest { tenant, task_id } = request.into_inner();
        check_tenant(&tenant, &realm)?;
        Ok(self.db.run(move |connection| get(connection, &realm, &task_id)).await?)
    }

    async fn check_consistency(&self, request: Request<v1::CheckConsistencyRequest>) -> Result<Response<v1::Task>, Status> {
        consistency::service::start(&self.db, request).await
    }

    async fn list_tasks(&self, _request: Request<v1::ListTasksRequest>) -> Result<Response<v1::ListTasksResponse>, Status> {
        Err(Status::unimplemented("list_tasks"))
    }

    async fn count_tasks(&self, _request: Request<v1::CountTasksRequest>) -> Result<Response<v1::CountTasksResponse>, Status> {
        Err(Status::unimplemented("count_tasks"))
    }

    async fn list_task_history(
        &self,
        _request: Request<v1::ListTaskHistoryRequest>,
    ) -> Result<Response<v1::ListTaskHistoryResponse>, Status> {
        Err(Status::unimplemented("list_task_history"))
    }

    async fn count_task_history(
        &self,
        _request: Request<v1::CountTaskHistoryRequest>,
    ) -> Result<Response<v1::CountTaskHistoryResponse>, Status> {
        Err(Status::unimplemented("count_task_history"))
    }

    async fn pause_task(&self, _request: Request<v1::PauseTaskRequest>) -> Result<Response<v1::PauseTaskResponse>, Status> {
        Err(Status::unimplemented("pause_task"))
    }

    async fn resume_task(&self, _request: Request<v1::ResumeTaskRequest>) -> Result<Response<v1::ResumeTaskResponse>, Status> {
        Err(Status::unimplemented("resume_task"))
    }

    async fn stop_task(&self, _request: Request<v1::StopTaskRequest>) -> Result<Response<v1::StopTaskResponse>, Status> {
        Err(Status::unimplemented("stop_task"))
    }

    async fn update_task(&self, _request: Request<v1::UpdateTaskRequest>) -> Result<Response<v1::Task>, Status> {
        Err(Status::unimplemented("update_task"))
    }

    async fn list_task_findings(
        &self,
        request: Request<v1::ListTaskFindingsRequest>,
    ) -> Result<Response<v1::ListTaskFindingsResponse>, Status> {
        consistency::service::list_findings(&self.db, request).await
    }

    type WatchTaskStream = tokio_stream::wrappers::ReceiverStream<Result<v1::Task, Status>>;

    async fn watch_task(&self, _request: Request<v1::WatchTaskRequest>) -> Result<Response<Self::WatchTaskStream>, Status> {
        Err(Status::unimplemented("watch_task"))
    }

    async fn list_task_failures(
        &self,
        request: Request<v1::ListTaskFailuresRequest>,
    ) -> Result<Response<v1::ListTaskFailuresResponse>, Status> {
        let realm = Caller::of(&request)?.realm;
        let mut request = request.into_inner();
        check_tenant(&request.tenant, &realm)?;
        let id = parse_id(&request.task_id)?;
        let (size, token) = (std::mem::take(&mut request.page_size), std::mem::take(&mut request.page_token));
        // The same list, whether the path names the tenant or the call leaves it out.
        request.tenant.clear();
        let mut faults = Violations::new();
        let seal = self.db.seal().await?;
        let page: Page<String> = Page::check(seal, &realm, "TaskFailures", &request, (size, &token), FAILURES, &mut faults);
        faults.check()?;
        let (after, limit) = (page.after().cloned().unwrap_or_default(), page.limit());
        let found = self.db.run(move |connection| queries::failures(connection, &realm, id, &after, limit)).await?;
        let mut failures = found.ok_or_else(|| no_task(&request.task_id))?;
        let next_page_token = page.cut(&mut failures, |failure| failure.entity_id.clone())?;
        let failures = failures.into_iter().map(failure_to_proto).collect();
        Ok(Response::new(v1::ListTaskFailuresResponse { failures, next_page_token }))
    }
}

pub(super) fn get(connection: &mut diesel::PgConnection, realm: &Realm, id: &str) -> Work<Response<v1::Task>> {
    let found = queries::get(connection, realm, parse_id(id)?)?;
    Ok(Response::new(to_proto(found.ok_or_else(|| no_task(id))?, realm)))
}

/// The tenant of the path is the caller's own organisation; any other looks like one that is not there.
pub(super) fn check_tenant(tenant: &str, realm: &Realm) -> Result<()> {
    if tenant.is_empty() || tenant == realm.org() { Ok(()) } else { Err(Error::not_found("tenant", tenant)) }
}

pub(super) fn no_task(id: &str) -> Error {
    Error::not_found("task", id)
}

/// An id that is no UUID is the id of nothing.
pub(super) fn parse_id(id: &str) -> Result<Uuid> {
    Uuid::try_parse(id).map_err(|_| no_task(id))
}

fn failure_to_proto(failure: Failure) -> v1::TaskFailure {
    v1::TaskFailure {
        entity_id: failure.entity_id,
        reason: failure.reason.to_string(),
        message: failure.reason.message().to_owned(),
        time: Some(convert::timestamp(failure.occurred_at)),
    }
}

fn to_proto(task: Task, realm: &Realm) -> v1::Task {
    let until = task.ended_at.or(task.paused_at).unwrap_or(task.now);
    let worked = task.started_at.map(|started| (until - started).max(chrono::TimeDelta::zero())).unwrap_or_default();
    let seconds = worked.as_seconds_f64();
    let throughput = if seconds > 0.0 { task.processed as f64 / seconds } else { 0.0 };
    let (findings, mended) = consistency::model::tally(&task.findings);
    let recent = (task.now - until) < chrono::TimeDelta::hours(1);
    let current_state = v1::TaskProgress {
        objects_failed_to_delete: task.first_failures,
        entity_type: task.entity_type.as_deref().map(full_type).unwrap_or_default(),
        objects_failed_to_delete_count: task.failed,
        number_of_failed_to_publish_events: task.unpublished,
        last_hour_throughput: if recent { throughput } else { 0.0 },
        number_of_processed_objects: task.processed,
        last_execution_instances: task.instances,
        status: task.state.word().to_owned(),
        number_of_matched_objects: task.matched,
        number_of_excluded_objects: task.excluded,
        number_of_skipped_objects: task.skipped,
        number_of_selected_objects: task.selected.unwrap_or_default(),
        current_throughput: 0.0,
        estimated_remaining: None,
        max_objects_per_second: None,
        findings: findings.into_iter().collect(),
        number_of_mended_findings: mended,
    };
    let parameters = match task.parameters {
        serde_json::Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned())).collect()
        }
        _ => Default::default(),
    };
    v1::Task {
        id: task.id.to_string(),
        name: task.name,
        r#type: task.kind.word().to_owned(),
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
        preview: None,
    }
}
