//! `offboard.v1.RemovalService`: the same requests, in the form of jobs.

use http::StatusCode;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::access::{Caller, Once};
use crate::db::{Db, Group, Page, id, paged};
use crate::error::{Error, Violations};
use crate::offboarding::model::Offboarding;
use crate::offboarding::policy::Change;
use crate::offboarding::preview::preview;
use crate::offboarding::queries::{self, Ask};
use crate::offboarding::service::{Asked, PAGES, ask, check_selection, get};
use crate::offboarding::{group_queries, policy_queries, preview_queries};
use crate::proto::v1::removal_service_server::RemovalService as Service;
use crate::proto::{answer, convert, v1};

/// In how many seconds to check a new job again.
const RETRY_AFTER: u16 = 1;

paged!(v1::ListRemovalJobsRequest, "RemovalJobs", PAGES);

/// Removal of one entity as a job.
pub struct RemovalService {
    db: Db,
    requests: Group<group_queries::Request>,
    gets: Group<group_queries::Get>,
}

impl RemovalService {
    /// The service on this database.
    pub fn new(db: Db) -> Self {
        RemovalService { requests: Group::new(&db), gets: Group::new(&db), db }
    }
}

#[tonic::async_trait]
impl Service for RemovalService {
    async fn remove_entity(
        &self,
        request: Request<v1::RemoveEntityRequest>,
    ) -> Result<Response<v1::RemovalJob>, Status> {
        let once = Once::of(&request)?;
        let entity_id = request.into_inner().entity_id;
        let mut faults = Violations::new();
        id::check_id(&entity_id, "entity_id", &mut faults);
        faults.check()?;
        let asking = Ask::of(once.caller(), entity_id, None);
        if !once.has_key()
            && let Some(job) = self.requests.call(group_queries::Request(asking.clone())).await?
        {
            return Ok(once.seen(accepted(job)));
        }
        let request = move |connection: &mut diesel::PgConnection| match ask(connection, &asking)? {
            Asked::New(job) => Ok(accepted(job)),
            Asked::Known(job) => {
                let path = location(&job);
                Ok(answer::located(answer::with_status(to_proto(job), StatusCode::OK), &path))
            }
        };
        once.run(&self.db, request).await
    }

    async fn get_removal_job(
        &self,
        request: Request<v1::GetRemovalJobRequest>,
    ) -> Result<Response<v1::RemovalJob>, Status> {
        let realm = Caller::of(&request)?.realm;
        let id = request.into_inner().job_id;
        let no_job = || Error::not_found("job", &id);
        let job_id = Uuid::try_parse(&id).map_err(|_| no_job())?;
        let found = get(&self.db, &self.gets, &realm, job_id).await?;
        Ok(Response::new(to_proto(found.ok_or_else(no_job)?)))
    }

    async fn list_removal_jobs(
        &self,
        request: Request<v1::ListRemovalJobsRequest>,
    ) -> Result<Response<v1::ListRemovalJobsResponse>, Status> {
        let realm = Caller::of(&request)?.realm;
        let mut request = request.into_inner();
        let mut faults = Violations::new();
        let page = Page::check(self.db.seal().await?, &realm, &mut request, &mut faults);
        let selection =
            check_selection((request.status, &request.entity_id, &request.filter), faults)?;
        let (before, limit) = (page.after().copied(), page.limit());
        let mut found = self
            .db
            .run(move |connection| queries::list(connection, &realm, &selection, before, limit))
            .await?;
        let next_page_token = page.cut(&mut found, |job| job.id)?;
        Ok(Response::new(v1::ListRemovalJobsResponse {
            jobs: found.into_iter().map(to_proto).collect(),
            next_page_token,
        }))
    }

    async fn preview_removal(
        &self,
        request: Request<v1::PreviewRemovalRequest>,
    ) -> Result<Response<v1::RemovalPreview>, Status> {
        let realm = Caller::of(&request)?.realm;
        let entity_id = request.into_inner().entity_id;
        let mut faults = Violations::new();
        id::check_id(&entity_id, "entity_id", &mut faults);
        faults.check()?;
        let wanted = entity_id.clone();
        let outlook = self
            .db
            .run(move |connection| preview_queries::outlook(connection, &realm, &wanted))
            .await?;
        let outlook = outlook.ok_or_else(|| Error::not_found("entity", &entity_id))?;
        Ok(Response::new(preview(entity_id, outlook)))
    }

    async fn get_removal_policy(
        &self,
        request: Request<v1::GetRemovalPolicyRequest>,
    ) -> Result<Response<v1::RemovalPolicy>, Status> {
        let realm = Caller::of(&request)?.realm;
        Ok(self
            .db
            .run(move |connection| {
                Ok(Response::new(policy_queries::get(connection, &realm)?.to_proto(&realm)))
            })
            .await?)
    }

    async fn update_removal_policy(
        &self,
        request: Request<v1::UpdateRemovalPolicyRequest>,
    ) -> Result<Response<v1::RemovalPolicy>, Status> {
        let once = Once::of(&request)?;
        let v1::UpdateRemovalPolicyRequest { policy, update_mask } = request.into_inner();
        let Caller { realm, principal_id, .. } = once.caller().clone();
        let change = Change::check(policy, update_mask, &realm)?;
        let update = move |connection: &mut diesel::PgConnection| {
            let was = policy_queries::lock(connection, &realm)?;
            let policy = change.apply(was.clone())?;
            if policy != was {
                policy_queries::put(connection, &realm, principal_id, &policy)?;
            }
            Ok(Response::new(policy.to_proto(&realm)))
        };
        once.transaction(&self.db, update).await
    }
}

fn accepted(job: Offboarding) -> Response<v1::RemovalJob> {
    let path = location(&job);
    answer::accepted(to_proto(job), &path, RETRY_AFTER)
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
        attempts: job.attempts,
        last_error: job.last_error(),
        next_attempt: job.next_attempt().map(convert::timestamp),
        error: job.error(),
        entity_id: job.entity_id,
    }
}
