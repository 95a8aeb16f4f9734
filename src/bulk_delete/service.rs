//! `offboard.v1.BulkDeleteService`.

use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::access::Caller;
use crate::bulk_delete::consistency;
use crate::bulk_delete::control;
use crate::bulk_delete::excludes;
use crate::bulk_delete::list::{Listing, Which};
use crate::bulk_delete::list_queries;
use crate::bulk_delete::lists;
use crate::bulk_delete::mail;
use crate::bulk_delete::model::{Kind, Mode, Task, type_of};
use crate::bulk_delete::progress::Rates;
use crate::bulk_delete::queries::{self, Failure};
use crate::bulk_delete::watch::watch;
use crate::db::{Db, Page, PageSize, Realm, Work};
use crate::error::{Error, Result, Violations};
use crate::events::Watching;
use crate::filter::check_filter;
use crate::proto::v1::bulk_delete_service_server::BulkDeleteService as Service;
use crate::proto::{convert, v1};

/// The pages of failures, and of what is spared.
pub(super) const FAILURES: PageSize = PageSize { default: 100, max: 1_000 };

/// Deletion of many entities.
pub struct BulkDeleteService {
    pub(super) db: Db,
    pub(super) sends_mail: bool,
    watching: Watching,
}

impl BulkDeleteService {
    /// The service; `watching` has its database. `sends_mail` tells whether there is a mail server, so that mails may be asked for.
    pub fn new(watching: Watching, sends_mail: bool) -> Self {
        BulkDeleteService { db: watching.db.clone(), sends_mail, watching }
    }

    async fn tasks(&self, which: Which, request: Request<v1::ListTasksRequest>) -> Result<Vec<v1::Task>> {
        let realm = Caller::of(&request)?.realm;
        let request = request.into_inner();
        check_tenant(&request.tenant, &realm)?;
        let listing = Listing::check(request)?;
        let found = self.db.run({
            let realm = realm.clone();
            move |connection| list_queries::list(connection, &realm, which, &listing)
        });
        Ok(found.await?.into_iter().map(|task| to_proto(task, &realm)).collect())
    }

    async fn number_of_tasks(&self, which: Which, request: Request<v1::CountTasksRequest>) -> Result<i64> {
        let realm = Caller::of(&request)?.realm;
        let request = request.into_inner();
        check_tenant(&request.tenant, &realm)?;
        let listing = Listing::check_count(request)?;
        self.db.run(move |connection| list_queries::count(connection, &realm, which, &listing)).await
    }
}

#[tonic::async_trait]
impl Service for BulkDeleteService {
    async fn start_bulk_delete(&self, request: Request<v1::StartBulkDeleteRequest>) -> Result<Response<v1::Task>, Status> {
        self.start(request).await
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::Task>, Status> {
        let realm = Caller::of(&request)?.realm;
        let v1::GetTaskRequest { tenant, task_id } = request.into_inner();
        check_tenant(&tenant, &realm)?;
        Ok(self.db.run(move |connection| get(connection, &realm, &task_id)).await?)
    }

    async fn check_consistency(&self, request: Request<v1::CheckConsistencyRequest>) -> Result<Response<v1::Task>, Status> {
        consistency::service::start(&self.db, self.sends_mail, request).await
    }

    async fn list_tasks(&self, request: Request<v1::ListTasksRequest>) -> Result<Response<v1::ListTasksResponse>, Status> {
        let tasks = self.tasks(Which::Active, request).await?;
        Ok(Response::new(v1::ListTasksResponse { tasks }))
    }

    async fn count_tasks(&self, request: Request<v1::CountTasksRequest>) -> Result<Response<v1::CountTasksResponse>, Status> {
        let total = self.number_of_tasks(Which::Active, request).await?;
        Ok(Response::new(v1::CountTasksResponse { total }))
    }

    async fn list_task_history(
        &self,
        request: Request<v1::ListTaskHistoryRequest>,
    ) -> Result<Response<v1::ListTaskHistoryResponse>, Status> {
        let tasks = self.tasks(Which::Ended, request.map(v1::ListTasksRequest::from)).await?;
        Ok(Response::new(v1::ListTaskHistoryResponse { tasks }))
    }

    async fn count_task_history(
        &self,
        request: Request<v1::CountTaskHistoryRequest>,
    ) -> Result<Response<v1::CountTaskHistoryResponse>, Status> {
        let total = self.number_of_tasks(Which::Ended, request.map(v1::CountTasksRequest::from)).await?;
        Ok(Response::new(v1::CountTaskHistoryResponse { total }))
    }

    async fn pause_task(&self, request: Request<v1::PauseTaskRequest>) -> Result<Response<v1::PauseTaskResponse>, Status> {
        control::pause(&self.db, request).await
    }

    async fn resume_task(&self, request: Request<v1::ResumeTaskRequest>) -> Result<Response<v1::ResumeTaskResponse>, Status> {
        control::resume(&self.db, request).await
    }

    async fn stop_task(&self, request: Request<v1::StopTaskRequest>) -> Result<Response<v1::StopTaskResponse>, Status> {
        control::stop(&self.db, request).await
    }

    async fn update_task(&self, request: Request<v1::UpdateTaskRequest>) -> Result<Response<v1::Task>, Status> {
        control::update(&self.db, request).await
    }

    async fn list_task_findings(
        &self,
        request: Request<v1::ListTaskFindingsRequest>,
    ) -> Result<Response<v1::ListTaskFindingsResponse>, Status> {
        consistency::service::list_findings(&self.db, request).await
    }

    type WatchTaskStream = BoxStream<'static, Result<v1::Task, Status>>;

    async fn watch_task(&self, request: Request<v1::WatchTaskRequest>) -> Result<Response<Self::WatchTaskStream>, Status> {
        let caller = Caller::of(&request)?;
        let realm = caller.realm.clone();
        let v1::WatchTaskRequest { tenant, task_id: id } = request.into_inner();
        check_tenant(&tenant, &realm)?;
        let task_id = parse_id(&id)?;
        // Before the first look, so that nothing happens between the two unseen.
        let wake_up = self.watching.hub.subscribe(&realm);
        let world = realm.clone();
        let found = self.db.run(move |connection| queries::get(connection, &world, task_id)).await?;
        let first = found.ok_or_else(|| no_task(&id))?;
        let tasks = watch(&self.watching, caller, wake_up, first);
        Ok(Response::new(tasks.map_ok(move |task| to_proto(task, &realm)).boxed()))
    }

    async fn list_task_excludes(
        &self,
        request: Request<v1::ListTaskExcludesRequest>,
    ) -> Result<Response<v1::ListTaskExcludesResponse>, Status> {
        excludes::list(&self.db, request).await
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
        let filter = check_filter(&queries::FAILURE, &request.filter, &mut faults);
        let filter = faults.check_with(filter)?;
        let (after, limit) = (page.after().cloned().unwrap_or_default(), page.limit());
        let found = self.db.run(move |connection| queries::failures(connection, &realm, (id, filter.as_ref()), &after, limit)).await?;
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

fn whole_seconds(seconds: f64) -> prost_types::Duration {
    prost_types::Duration { seconds: seconds as i64, nanos: 0 }
}

fn to_proto(task: Task, realm: &Realm) -> v1::Task {
    let rates = Rates::of(&task);
    let (findings, mended) = consistency::model::tally(&task.findings);
    let current_state = v1::TaskProgress {
        objects_failed_to_delete: task.first_failures,
        entity_type: type_of(task.entity_type.as_deref(), &task.name),
        objects_failed_to_delete_count: task.failed,
        number_of_failed_to_publish_events: task.unpublished,
        last_hour_throughput: rates.last_hour,
        number_of_processed_objects: task.processed,
        last_execution_ec2_instances: task.instances.clone(),
        last_execution_instances: task.instances,
        status: task.state.word().to_owned(),
        number_of_matched_objects: task.matched,
        number_of_excluded_objects: task.excluded,
        number_of_skipped_objects: task.skipped,
        number_of_selected_objects: task.selected.unwrap_or_default(),
        current_throughput: rates.now,
        estimated_remaining: rates.remaining.map(whole_seconds),
        max_objects_per_second: task.max_objects_per_second,
        findings: findings.into_iter().collect(),
        number_of_mended_findings: mended,
    };
    let mode = task.parameters["mode"].as_str().and_then(Mode::parse);
    let undo = mode.filter(|_| task.kind == Kind::Delete).map(|mode| mode.undo().to_owned()).unwrap_or_default();
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
        throughput: rates.throughput,
        duration: Some(whole_seconds(task.worked)),
        created_time: Some(convert::timestamp(task.created_at)),
        start_time: task.started_at.map(convert::timestamp),
        end_time: task.ended_at.map(convert::timestamp),
        paused_time: task.paused_at.map(convert::timestamp),
        created_by: task.principal_id.to_string(),
        updated_by: task.updated_by.to_string(),
        preview: None,
        error_code: task.error_code,
        error_message: task.error_message,
        mail: task.mail.as_ref().map(mail::to_proto),
        realm_mode: v1::Mode::from(realm.mode()).into(),
        undo,
        lists: task.lists.as_ref().map(lists::to_proto),
        warnings: Vec::new(),
    }
}
