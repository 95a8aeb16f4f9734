//! `offboard.v1.BulkDeleteService`: the calls of tasks of every kind.

use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::bulk_delete::{excludes, start};
use crate::consistency;
use crate::db::Db;
use crate::events::Watching;
use crate::proto::v1;
use crate::proto::v1::bulk_delete_service_server::BulkDeleteService as Service;
use crate::task::list::Which;
use crate::task::{control, reads};

/// Deletion of many entities, and whatever else is done to many.
pub struct BulkDeleteService {
    db: Db,
    sends_mail: bool,
    watching: Watching,
}

impl BulkDeleteService {
    /// The service; `watching` has its database. `sends_mail` says whether there is a mail server, so that mails may be asked for.
    pub fn new(watching: Watching, sends_mail: bool) -> Self {
        BulkDeleteService { db: watching.db.clone(), sends_mail, watching }
    }
}

#[tonic::async_trait]
impl Service for BulkDeleteService {
    async fn start_bulk_delete(
        &self,
        request: Request<v1::StartBulkDeleteRequest>,
    ) -> Result<Response<v1::Task>, Status> {
        start::start_bulk_delete(&self.db, self.sends_mail, request).await
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::Task>, Status> {
        reads::get_task(&self.db, request).await
    }

    async fn check_consistency(
        &self,
        request: Request<v1::CheckConsistencyRequest>,
    ) -> Result<Response<v1::Task>, Status> {
        consistency::service::start(&self.db, self.sends_mail, request).await
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let tasks = reads::list(&self.db, Which::Active, request).await?;
        Ok(Response::new(v1::ListTasksResponse { tasks }))
    }

    async fn count_tasks(
        &self,
        request: Request<v1::CountTasksRequest>,
    ) -> Result<Response<v1::CountTasksResponse>, Status> {
        let total = reads::count(&self.db, Which::Active, request).await?;
        Ok(Response::new(v1::CountTasksResponse { total }))
    }

    async fn list_task_history(
        &self,
        request: Request<v1::ListTaskHistoryRequest>,
    ) -> Result<Response<v1::ListTaskHistoryResponse>, Status> {
        let tasks =
            reads::list(&self.db, Which::Ended, request.map(v1::ListTasksRequest::from)).await?;
        Ok(Response::new(v1::ListTaskHistoryResponse { tasks }))
    }

    async fn count_task_history(
        &self,
        request: Request<v1::CountTaskHistoryRequest>,
    ) -> Result<Response<v1::CountTaskHistoryResponse>, Status> {
        let total =
            reads::count(&self.db, Which::Ended, request.map(v1::CountTasksRequest::from)).await?;
        Ok(Response::new(v1::CountTaskHistoryResponse { total }))
    }

    async fn pause_task(
        &self,
        request: Request<v1::PauseTaskRequest>,
    ) -> Result<Response<v1::PauseTaskResponse>, Status> {
        control::pause_task(&self.db, request).await
    }

    async fn resume_task(
        &self,
        request: Request<v1::ResumeTaskRequest>,
    ) -> Result<Response<v1::ResumeTaskResponse>, Status> {
        control::resume_task(&self.db, request).await
    }

    async fn stop_task(
        &self,
        request: Request<v1::StopTaskRequest>,
    ) -> Result<Response<v1::StopTaskResponse>, Status> {
        control::stop_task(&self.db, request).await
    }

    async fn update_task(
        &self,
        request: Request<v1::UpdateTaskRequest>,
    ) -> Result<Response<v1::Task>, Status> {
        control::update_task(&self.db, request).await
    }

    async fn list_task_findings(
        &self,
        request: Request<v1::ListTaskFindingsRequest>,
    ) -> Result<Response<v1::ListTaskFindingsResponse>, Status> {
        consistency::service::list_findings(&self.db, request).await
    }

    type WatchTaskStream = BoxStream<'static, Result<v1::Task, Status>>;

    async fn watch_task(
        &self,
        request: Request<v1::WatchTaskRequest>,
    ) -> Result<Response<Self::WatchTaskStream>, Status> {
        reads::watch_task(&self.watching, request).await
    }

    async fn list_task_excludes(
        &self,
        request: Request<v1::ListTaskExcludesRequest>,
    ) -> Result<Response<v1::ListTaskExcludesResponse>, Status> {
        excludes::list_task_excludes(&self.db, request).await
    }

    async fn list_task_failures(
        &self,
        request: Request<v1::ListTaskFailuresRequest>,
    ) -> Result<Response<v1::ListTaskFailuresResponse>, Status> {
        reads::list_task_failures(&self.db, request).await
    }
}
