//! The list of the ids that a task excludes.

use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::bulk_delete::exclude_queries;
use crate::db::{Db, Page, PageSize, paged};
use crate::error::Violations;
use crate::proto::v1;
use crate::task::answers::{check_tenant, no_task, parse_id};

paged!(v1::ListTaskExcludesRequest, "TaskExcludes", PageSize { default: 100, max: 1_000 });

/// Returns a page of it.
pub async fn list_task_excludes(
    db: &Db,
    request: Request<v1::ListTaskExcludesRequest>,
) -> Result<Response<v1::ListTaskExcludesResponse>, Status> {
    let realm = Caller::of(&request)?.realm;
    let mut request = request.into_inner();
    check_tenant(&request.tenant, &realm)?;
    let id = parse_id(&request.task_id)?;
    // The same list, whether the path names the tenant or the call leaves it out.
    request.tenant.clear();
    let mut faults = Violations::new();
    let page: Page<String> = Page::check(db.seal().await?, &realm, &mut request, &mut faults);
    faults.check()?;
    let (after, limit) = (page.after().cloned().unwrap_or_default(), page.limit());
    let found = db
        .run(move |connection| exclude_queries::list(connection, &realm, id, &after, limit))
        .await?;
    let mut entity_ids = found.ok_or_else(|| no_task(&request.task_id))?;
    let next_page_token = page.cut(&mut entity_ids, Clone::clone)?;
    Ok(Response::new(v1::ListTaskExcludesResponse { entity_ids, next_page_token }))
}
