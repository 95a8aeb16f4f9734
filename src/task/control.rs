//! Pausing, resuming, stopping, and changing the pace of a task.

use diesel::pg::PgConnection;
use prost::Message;
use tonic::{Request, Response, Status};

use crate::access::{Answer, Caller, Once};
use crate::db::Db;
use crate::error::{Result, Violations};
use crate::proto::v1;
use crate::task::answers::{check_tenant, get, no_task, parse_id};
use crate::task::control_queries;
use crate::task::state::TaskAction;

/// The response of the contract when a task has taken the request.
const SUCCESS: &str = "success";

/// Has a task pause.
pub async fn pause_task(
    db: &Db,
    request: Request<v1::PauseTaskRequest>,
) -> Result<Response<v1::PauseTaskResponse>, Status> {
    let answer = v1::PauseTaskResponse { status: SUCCESS.to_owned() };
    apply(db, request, TaskAction::Pause, |request| (request.tenant, request.task_id), answer).await
}

/// Has a task continue.
pub async fn resume_task(
    db: &Db,
    request: Request<v1::ResumeTaskRequest>,
) -> Result<Response<v1::ResumeTaskResponse>, Status> {
    let answer = v1::ResumeTaskResponse { status: SUCCESS.to_owned() };
    apply(db, request, TaskAction::Resume, |request| (request.tenant, request.task_id), answer)
        .await
}

/// Has a task stop for good.
pub async fn stop_task(
    db: &Db,
    request: Request<v1::StopTaskRequest>,
) -> Result<Response<v1::StopTaskResponse>, Status> {
    let answer = v1::StopTaskResponse { status: SUCCESS.to_owned() };
    apply(db, request, TaskAction::Stop, |request| (request.tenant, request.task_id), answer).await
}

async fn apply<M: Message, A: Answer + Clone>(
    db: &Db,
    request: Request<M>,
    action: TaskAction,
    place: fn(M) -> (String, String),
    answer: A,
) -> Result<Response<A>, Status> {
    let once = Once::of(&request)?;
    let (tenant, id) = place(request.into_inner());
    let caller = caller(&once, &tenant)?;
    let task = parse_id(&id)?;
    let apply = move |connection: &mut PgConnection| {
        control_queries::apply(connection, &caller, task, action)?.ok_or_else(|| no_task(&id))?;
        Ok(Response::new(answer.clone()))
    };
    once.transaction(db, apply).await
}

/// Changes the pace of a task.
pub async fn update_task(
    db: &Db,
    request: Request<v1::UpdateTaskRequest>,
) -> Result<Response<v1::Task>, Status> {
    let once = Once::of(&request)?;
    let v1::UpdateTaskRequest { tenant, task_id: id, max_objects_per_second: most } =
        request.into_inner();
    let caller = caller(&once, &tenant)?;
    let mut faults = Violations::new();
    match most {
        None => {
            faults.add("max_objects_per_second", "required", "must be given; 0 lifts the limit")
        }
        Some(..0) => faults.add("max_objects_per_second", "out_of_range", "must be at least 0"),
        Some(_) => {}
    }
    faults.check()?;
    let most = most.filter(|pace| *pace > 0);
    let task = parse_id(&id)?;
    let update = move |connection: &mut PgConnection| {
        control_queries::set_pace(connection, &caller, task, most)?.ok_or_else(|| no_task(&id))?;
        get(connection, &caller.realm, &id)
    };
    once.transaction(db, update).await
}

fn caller(once: &Once, tenant: &str) -> Result<Caller> {
    let caller = once.caller().clone();
    check_tenant(tenant, &caller.realm)?;
    Ok(caller)
}
