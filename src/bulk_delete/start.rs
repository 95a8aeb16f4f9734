//! Starting a bulk delete, or only looking at what it would do.

use std::time::Instant;

use diesel::pg::PgConnection;
use tonic::{Request, Response, Status};

use crate::access::{Once, Scope};
use crate::bulk_delete::model::{Mode, NewTask};
use crate::bulk_delete::queries::{self, Starter};
use crate::bulk_delete::service::{BulkDeleteService, check_tenant, get};
use crate::bulk_delete::{guards, mail, mail_queries, preview, preview_queries};
use crate::db::{Realm, Work};
use crate::error::Violations;
use crate::proto::v1;

impl BulkDeleteService {
    pub(super) async fn start(&self, request: Request<v1::StartBulkDeleteRequest>) -> Result<Response<v1::Task>, Status> {
        let once = Once::of(&request)?;
        let caller = once.caller().clone();
        let request = request.into_inner();
        check_tenant(&request.tenant, &caller.realm)?;
        let mut faults = Violations::new();
        let recipient = mail::recipient(&self.db, self.sends_mail, &caller, &request.send_mail, &mut faults).await?;
        let dry_run = request.dry_run;
        let task = NewTask::check(request, faults)?;
        if task.mode == Mode::Hard {
            caller.require(Scope::EntitiesDeleteHard)?;
        }
        if dry_run {
            // It shows entities and deletes none, so it is a way to read them.
            caller.require(Scope::EntitiesRead)?;
        }
        let starter = Starter { realm: caller.realm, principal_id: caller.principal_id, key_id: caller.key_id };
        if dry_run {
            // It changes nothing, so it takes no idempotency key.
            return Ok(self.db.transaction(move |connection| look(connection, &starter.realm, &task)).await?);
        }
        let start = move |connection: &mut PgConnection| {
            let ordinal = guard(connection, &starter.realm, &task)?;
            let task_id = queries::start(connection, &starter, &task, ordinal)?;
            if let Some(recipient) = &recipient {
                mail_queries::ask(connection, &starter.realm, task_id, recipient)?;
            }
            get(connection, &starter.realm, &task_id.to_string())
        };
        once.transaction(&self.db, start).await
    }
}

/// Holds the task to its guards. Returns its number if it was needed: what is counted is what the task will mean.
fn guard(connection: &mut PgConnection, realm: &Realm, task: &NewTask) -> Work<Option<i64>> {
    let mut ordinal = None;
    if task.guards.need_a_count() {
        let drawn = queries::next_ordinal(connection)?;
        task.guards.hold(preview_queries::count(connection, realm, task, drawn)?)?;
        ordinal = Some(drawn);
    }
    ask_for_a_report(connection, realm, task)?;
    Ok(ordinal)
}

fn ask_for_a_report(connection: &mut PgConnection, realm: &Realm, task: &NewTask) -> Work<()> {
    match task.guards.clean_report_within {
        Some(within) if !queries::has_clean_report(connection, realm, within)? => Err(guards::report_required(within).into()),
        _ => Ok(()),
    }
}

/// Tells what the task would do, or why it would not start.
fn look(connection: &mut PgConnection, realm: &Realm, task: &NewTask) -> Work<Response<v1::Task>> {
    let started = Instant::now();
    let look = preview_queries::look(connection, realm, task)?;
    let took = started.elapsed();
    task.guards.hold(look.matched)?;
    ask_for_a_report(connection, realm, task)?;
    let rate = preview_queries::measured_rate(connection, realm, task.mode)?;
    Ok(Response::new(preview::to_proto(look, realm, task, rate, took)))
}
