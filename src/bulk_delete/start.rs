//! Starts a bulk delete, or makes its dry run.

use std::time::Instant;

use diesel::pg::PgConnection;
use tonic::{Request, Response, Status};

use crate::access::{Once, Scope};
use crate::bulk_delete::admission::May;
use crate::bulk_delete::model::{FILTER, NewTask};
use crate::bulk_delete::preview::Beside;
use crate::bulk_delete::shown::Shown;
use crate::bulk_delete::{admission, preview, preview_queries, queries, void};
use crate::db::{Db, Fail, Fault, Realm, Seal, Work, clock, fault};
use crate::error::{Error, Form, Violations};
use crate::proto::v1;
use crate::task::answers::{check_tenant, get};
use crate::task::model::DeleteMode;
use crate::task::{mail, mail_queries};

/// Starts a task, or returns its preview. `sends_mail` is whether there is a mail server.
pub async fn start_bulk_delete(
    db: &Db,
    sends_mail: bool,
    request: Request<v1::StartBulkDeleteRequest>,
) -> Result<Response<v1::Task>, Status> {
    let once = Once::of(&request)?;
    let caller = once.caller().clone();
    let request = request.into_inner();
    check_tenant(&request.tenant, &caller.realm)?;
    let mut faults = Violations::new();
    let recipient =
        mail::recipient(db, sends_mail, &caller, &request.send_mail, &mut faults).await?;
    if let Some(form) = Form::current() {
        void::check(form.void(), &request, &mut faults);
    }
    let dry_run = request.dry_run;
    let task = NewTask::check(request, faults)?;
    if task.mode == DeleteMode::Hard {
        caller.require(Scope::EntitiesDeleteHard)?;
    }
    if dry_run {
        // It shows entities and deletes none, so it is a way to read them.
        caller.require(Scope::EntitiesRead)?;
    }
    let may = May::of(&caller);
    let seal = db.seal().await?;
    if dry_run {
        // It changes nothing, so it takes no idempotency key.
        let preview = move |connection: &mut PgConnection| {
            preview(connection, &caller.realm, &task, &seal, may).map_err(in_filter)
        };
        return Ok(db.transaction(preview).await?);
    }
    let start = move |connection: &mut PgConnection| {
        let admission =
            admission::admit(connection, &caller.realm, &task, &seal, may).map_err(in_filter)?;
        let task_id = queries::start(connection, &caller, &task, &admission)?;
        if let Some(recipient) = &recipient {
            mail_queries::ask(connection, &caller.realm, task_id, recipient)?;
        }
        let mut task = get(connection, &caller.realm, &task_id.to_string())?;
        task.get_mut().warnings = admission.warnings;
        Ok(task)
    };
    once.transaction(db, start).await
}

/// A fault of the filter that the database alone finds, with its place in this request.
fn in_filter(fail: Fail) -> Fail {
    match fail {
        Fail::Database(error) if fault(&error) == Fault::Expression => {
            Error::from(error).moved_to(FILTER).into()
        }
        other => other,
    }
}

/// Returns what the task would do, or why it would not start.
fn preview(
    connection: &mut PgConnection,
    realm: &Realm,
    task: &NewTask,
    seal: &Seal,
    may: May,
) -> Work<Response<v1::Task>> {
    let started = Instant::now();
    let found = preview_queries::preview(connection, realm, task)?;
    let took = started.elapsed();
    task.guards.compare(found.matched)?;
    admission::ask_for_a_report(connection, realm, task)?;
    let rate = preview_queries::measured_rate(connection, realm, task.mode)?;
    let (warnings, lists) = admission::warnings(connection, realm, task, seal, found.matched, may)?;
    let shown = Shown { matched: found.matched, digest: found.digest, at: clock::now() };
    let token = shown.token(seal, realm, task)?;
    Ok(Response::new(preview::to_proto(
        found,
        realm,
        task,
        Beside { rate, took, warnings, lists, token },
    )))
}
