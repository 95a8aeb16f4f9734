//! The calls that read tasks: one of them, lists, the failures of one, and a watch.

use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::db::{Db, Page, PageSize, paged};
use crate::error::{Result, Violations};
use crate::events::Watching;
use crate::filter::only_filter;
use crate::proto::{convert, v1};
use crate::task::answers::{self, check_tenant, no_task, parse_id, to_proto};
use crate::task::list::{Listing, Which};
use crate::task::list_queries;
use crate::task::queries::{self, Failure};
use crate::task::watch;

paged!(v1::ListTaskFailuresRequest, "TaskFailures", PageSize { default: 100, max: 1_000 });

/// Returns a task.
pub async fn get_task(
    db: &Db,
    request: Request<v1::GetTaskRequest>,
) -> Result<Response<v1::Task>, Status> {
    let realm = Caller::of(&request)?.realm;
    let v1::GetTaskRequest { tenant, task_id } = request.into_inner();
    check_tenant(&tenant, &realm)?;
    Ok(db.run(move |connection| answers::get(connection, &realm, &task_id)).await?)
}

/// The tasks of a page.
pub async fn list(
    db: &Db,
    which: Which,
    request: Request<v1::ListTasksRequest>,
) -> Result<Vec<v1::Task>> {
    let realm = Caller::of(&request)?.realm;
    let request = request.into_inner();
    check_tenant(&request.tenant, &realm)?;
    let listing = Listing::check(request)?;
    let found = db.run({
        let realm = realm.clone();
        move |connection| list_queries::list(connection, &realm, which, &listing)
    });
    Ok(found.await?.into_iter().map(|task| to_proto(task, &realm)).collect())
}

/// How many tasks there are.
pub async fn count(db: &Db, which: Which, request: Request<v1::CountTasksRequest>) -> Result<i64> {
    let realm = Caller::of(&request)?.realm;
    let request = request.into_inner();
    check_tenant(&request.tenant, &realm)?;
    let listing = Listing::check_count(request)?;
    db.run(move |connection| list_queries::count(connection, &realm, which, &listing)).await
}

/// Sends a task as it changes, until it has ended.
pub async fn watch_task(
    watching: &Watching,
    request: Request<v1::WatchTaskRequest>,
) -> Result<Response<BoxStream<'static, Result<v1::Task, Status>>>, Status> {
    let caller = Caller::of(&request)?;
    let realm = caller.realm.clone();
    let v1::WatchTaskRequest { tenant, task_id: id } = request.into_inner();
    check_tenant(&tenant, &realm)?;
    let task_id = parse_id(&id)?;
    // Before the first reading, so that nothing happens between the two unseen.
    let wake_up = watching.hub.subscribe(&realm);
    let of = realm.clone();
    let found = watching.db.run(move |connection| queries::get(connection, &of, task_id)).await?;
    let first = found.ok_or_else(|| no_task(&id))?;
    let tasks = watch::watch(watching, caller, wake_up, first);
    Ok(Response::new(tasks.map_ok(move |task| to_proto(task, &realm)).boxed()))
}

/// Returns a page of what a task could not do.
pub async fn list_task_failures(
    db: &Db,
    request: Request<v1::ListTaskFailuresRequest>,
) -> Result<Response<v1::ListTaskFailuresResponse>, Status> {
    let realm = Caller::of(&request)?.realm;
    let mut request = request.into_inner();
    check_tenant(&request.tenant, &realm)?;
    let id = parse_id(&request.task_id)?;
    // The same list, whether the path names the tenant or the call leaves it out.
    request.tenant.clear();
    let mut faults = Violations::new();
    let page: Page<String> = Page::check(db.seal().await?, &realm, &mut request, &mut faults);
    let filter = only_filter(&queries::FAILURE, &request.filter, faults)?;
    let (after, limit) = (page.after().cloned().unwrap_or_default(), page.limit());
    let found = db
        .run(move |connection| {
            queries::failures(connection, &realm, (id, filter.as_ref()), &after, limit)
        })
        .await?;
    let mut failures = found.ok_or_else(|| no_task(&request.task_id))?;
    let next_page_token = page.cut(&mut failures, |failure| failure.entity_id.clone())?;
    let failures = failures.into_iter().map(failure_to_proto).collect();
    Ok(Response::new(v1::ListTaskFailuresResponse { failures, next_page_token }))
}

fn failure_to_proto(failure: Failure) -> v1::TaskFailure {
    v1::TaskFailure {
        entity_id: failure.entity_id,
        reason: failure.reason.to_string(),
        message: failure.reason.message().to_owned(),
        time: Some(convert::timestamp(failure.occurred_at)),
    }
}
