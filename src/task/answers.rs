//! Tasks as messages, and the parts of them that responses of changing calls show.

use diesel::pg::PgConnection;
use serde_json::Value as Json;
use tonic::Response;
use uuid::Uuid;

use crate::access::{Answer, Caller, Scope, Subject, shows_nothing};
use crate::db::{Realm, Work};
use crate::error::{Error, Result};
use crate::proto::{convert, v1};
use crate::task::model::{DeleteMode, Task, TaskKind, tally, type_of};
use crate::task::progress::Rates;
use crate::task::{mail, queries};

shows_nothing!(v1::PauseTaskResponse, v1::ResumeTaskResponse, v1::StopTaskResponse);

impl Answer for v1::Task {
    /// A task outlives the entities that it removes. The removal policy decides how long its filter is kept.
    fn shows(&self) -> Vec<Subject> {
        Vec::new()
    }

    /// Reading the tasks of other callers takes the scope that reads tasks.
    fn withhold(&mut self, caller: &Caller) {
        if caller.may(Scope::EntitiesRead) || self.created_by == caller.principal_id.to_string() {
            return;
        }
        self.name.clear();
        self.parameters.clear();
        if let Some(progress) = &mut self.current_state {
            progress.objects_failed_to_delete.clear();
            progress.entity_type.clear();
        }
    }
}

/// The response that shows a task.
pub fn get(connection: &mut PgConnection, realm: &Realm, id: &str) -> Work<Response<v1::Task>> {
    let found = queries::get(connection, realm, parse_id(id)?)?;
    Ok(Response::new(to_proto(found.ok_or_else(|| no_task(id))?, realm)))
}

/// The tenant of the path is the caller's own organisation; any other looks like a missing one.
pub fn check_tenant(tenant: &str, realm: &Realm) -> Result<()> {
    if tenant.is_empty() || tenant == realm.org() {
        Ok(())
    } else {
        Err(Error::not_found("tenant", tenant))
    }
}

/// The refusal of a missing task.
pub fn no_task(id: &str) -> Error {
    Error::not_found("task", id)
}

/// An id that is not a UUID is the id of nothing.
pub fn parse_id(id: &str) -> Result<Uuid> {
    Uuid::try_parse(id).map_err(|_| no_task(id))
}

fn whole_seconds(seconds: f64) -> prost_types::Duration {
    prost_types::Duration { seconds: seconds as i64, nanos: 0 }
}

/// A task with its account, as a message.
pub fn to_proto(task: Task, realm: &Realm) -> v1::Task {
    let rates = Rates::of(&task);
    let (findings, mended) = tally(&task.findings);
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
    let mode = task.parameters["mode"].as_str().and_then(DeleteMode::parse);
    let undo = mode
        .filter(|_| task.kind == TaskKind::Delete)
        .map(|mode| mode.undo().to_owned())
        .unwrap_or_default();
    let parameters = match task.parameters {
        serde_json::Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned()))
            .collect(),
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
        lists: task.lists.as_ref().map(lists_to_proto),
        warnings: Vec::new(),
    }
}

/// The accounts of the lists of the task's request, as they are stored.
pub fn lists_to_proto(stored: &Json) -> v1::TaskLists {
    let count = |name: &str| stored[name].as_i64().unwrap_or_default();
    let ids = |name: &str| {
        stored[name]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect()
    };
    v1::TaskLists {
        excluded_count: count("excluded_count"),
        excluded: ids("excluded"),
        missing_excluded_count: count("missing_excluded_count"),
        missing_excluded: ids("missing_excluded"),
        missing_uri_count: count("missing_uri_count"),
        missing_uris: ids("missing_uris"),
        unselected_excluded_count: count("unselected_excluded_count"),
        unselected_excluded: ids("unselected_excluded"),
    }
}
