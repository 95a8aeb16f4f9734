//! `offboard.v1.RemovalService`: the same requests, seen as jobs.

use std::time::Duration;

use http::StatusCode;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::access::{Caller, Once};
use crate::db::{Db, id};
use crate::error::{Error, Violations};
use crate::offboarding::model::Offboarding;
use crate::offboarding::queries::{self, Ask};
use crate::offboarding::service::{Asked, ask};
use crate::proto::v1::removal_service_server::RemovalService as Service;
use crate::proto::{answer, convert, v1};

/// In how many seconds to look at a new job again.
const RETRY_AFTER: u16 = 1;

/// Removal of one entity as a job.
pub struct RemovalService {
    db: Db,
}

impl RemovalService {
    /// The service on this database.
    pub fn new(db: Db) -> Self {
        RemovalService { db }
    }
}

#[tonic::async_trait]
impl Service for RemovalService {
    async fn remove_entity(&self, request: Request<v1::RemoveEntityRequest>) -> Result<Response<v1::RemovalJob>, Status> {
        let once = Once::of(&request)?;
        let entity_id = request.into_inner().entity_id;
        let mut faults = Violations::new();
        id::check_id(&entity_id, "entity_id", &mut faults);
        faults.check()?;
        let asking = Ask::of(once.caller(), entity_id, Duration::ZERO);
        let request = move |connection: &mut diesel::PgConnection| match ask(connection, &asking)? {
            Asked::New(job) => {
                let path = location(&job);
                Ok(answer::accepted(to_proto(job), &path, RETRY_AFTER))
            }
            Asked::Known(job) => {
                let path = location(&job);
                Ok(answer::located(answer::with_status(to_proto(job), StatusCode::OK), &path))
            }
        };
        once.run(&self.db, request).await
    }

    async fn get_removal_job(&self, request: Request<v1::GetRemovalJobRequest>) -> Result<Response<v1::RemovalJob>, Status> {
        let realm = Caller::of(&request)?.realm;
        let id = request.into_inner().job_id;
        let no_job = || Error::not_found("job", &id);
        let job_id = Uuid::try_parse(&id).map_err(|_| no_job())?;
        let found = self.db.run(move |connection| queries::get(connection, &realm, job_id)).await?;
        Ok(Response::new(to_proto(found.ok_or_else(no_job)?)))
    }
}

fn location(job: &Offboarding) -> String {
    format!("/v5/entities/jobs/{}", job.id)
}

fn to_proto(job: Offboarding) -> v1::RemovalJob {
    v1::RemovalJob {
        id: job.id.to_string(),
        status: v1::OffboardingStatus::from(job.state).into(),
        created_at: Some(convert::timestamp(job.created_at)),
        started_at: job.started_at.map(convert::timestamp),
        finished_at: job.finished_at.map(convert::timestamp),
        removed: job.removed_by_plural().into_iter().collect(),
        error: job.error(),
        entity_id: job.entity_id,
    }
}
