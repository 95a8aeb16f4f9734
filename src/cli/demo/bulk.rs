//! The operations on many entities, and the account at the end.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde_json::{Value, json};

use super::caller::{Caller, until};
use super::cast::{CLOUDS, Cast, SOFT_TYPE, Selected};
use super::cast::{FUND, OTHER_FUND};
use super::stage::count;
use super::steps::portfolio;
use super::{Surprise, same};
use crate::proto::v1;

/// How many entities are asked for at once.
const AT_ONCE: usize = 16;

/// Has a filter refused that cannot be read.
pub async fn wrong_filter(caller: &Caller) -> Result<(), Surprise> {
    let filter = "equals(attributes.Registry, pypi) and startWith(attributes.Name, 'azure')";
    let path = format!("/api/{}/entities/_delete?mode=hard", caller.org);
    let problem = caller
        .refused(
            Method::POST,
            &path,
            Some(json!({"objects": {"filter": filter}})),
            400,
            "invalid_filter",
        )
        .await?;
    caller.stage.document(&problem);
    for line in problem["detail"].as_str().unwrap_or_default().lines() {
        caller.stage.say(line);
    }
    same("the position of the fault", &problem["position"], &json!(filter.find("startWith")))
}

/// Erases what a filter selects, but for an exclude list.
pub async fn hard(caller: &Caller, cast: &Cast) -> Result<(), Surprise> {
    let exclude_list: Vec<_> = cast.excluded.iter().map(|id| format!("entities/{id}")).collect();
    let objects = v1::Selection {
        filter: Some(CLOUDS.to_owned()),
        exclude_list: exclude_list.clone(),
        ..v1::Selection::default()
    };
    let request = v1::StartBulkDeleteRequest {
        mode: v1::DeleteMode::Hard.into(),
        spec: Some(v1::BulkDeleteSpec { objects: Some(objects), ..Default::default() }),
        ..v1::StartBulkDeleteRequest::default()
    };
    let shown = json!({"mode": "DELETE_MODE_HARD", "spec": {"objects": {"filter": CLOUDS, "exclude_list": exclude_list}}});
    caller.stage.call("gRPC", format_args!("BulkDeleteService/StartBulkDelete {shown}"));
    let task = caller.bulk_deletes().start_bulk_delete(caller.request(request)).await?.into_inner();
    caller.stage.answer("OK", format_args!("task {}, {}", task.id, status_word(&task)));
    let task = follow(caller, &task.id).await?;
    account(caller, &task, &cast.clouds, cast.excluded.len()).await
}

/// Marks the entities of a type as deleted.
pub async fn soft(caller: &Caller, cast: &Cast) -> Result<(), Surprise> {
    let path = format!("/api/{}/entities?entityType={SOFT_TYPE}&mode=soft", caller.org);
    let task = caller.rest(Method::DELETE, &path, None, 200).await?.json();
    let id = task["id"].as_str().unwrap_or_default();
    caller
        .stage
        .answer(200, format_args!("task {id}, {}", task["status"].as_str().unwrap_or_default()));
    let task = follow(caller, id).await?;
    account(caller, &task, &cast.soft, 0).await
}

/// Follows a task to its end.
async fn follow(caller: &Caller, id: &str) -> Result<v1::Task, Surprise> {
    let mut progress = None;
    let task = until("the task has ended", async || {
        let request = v1::GetTaskRequest { tenant: String::new(), task_id: id.to_owned() };
        let task = caller.bulk_deletes().get_task(caller.request(request)).await?.into_inner();
        let state = task.current_state.clone().unwrap_or_default();
        if state.number_of_selected_objects > 0 {
            let bar = progress.get_or_insert_with(|| {
                caller.stage.progress(state.number_of_selected_objects.unsigned_abs())
            });
            let failed = state.objects_failed_to_delete_count;
            bar.at(state.number_of_matched_objects.unsigned_abs(), &format!("{failed} failed"));
        }
        Ok(task.end_time.is_some().then_some(task))
    });
    let task = task.await?;
    if let Some(progress) = progress {
        progress.end();
    }
    Ok(task)
}

/// Shows what a task came to, and checks it against what the file says.
async fn account(
    caller: &Caller,
    task: &v1::Task,
    selected: &Selected,
    excluded: usize,
) -> Result<(), Surprise> {
    let state = task.current_state.clone().unwrap_or_default();
    let counts = [
        state.number_of_processed_objects,
        state.objects_failed_to_delete_count,
        state.number_of_excluded_objects,
        state.number_of_skipped_objects,
    ];
    let [processed, failed, left_out, skipped] = counts;
    let matched = state.number_of_matched_objects;
    caller.stage.answer(
        status_word(task),
        format_args!("matched {matched} = {processed} processed + {failed} failed + {left_out} excluded + {skipped} skipped",),
    );
    let expected = [
        selected.ids.len() - selected.onboarding.len() - excluded,
        selected.onboarding.len(),
        excluded,
        0,
    ]
    .map(|number| number as i64);
    same("processed, failed, excluded and skipped", &counts, &expected)?;
    same("matched", &matched, &expected.iter().sum())?;
    let status =
        if failed > 0 { v1::TaskStatus::CompletedWithErrors } else { v1::TaskStatus::Completed };
    same("the status of the task", &task.status(), &status)?;
    failures(caller, &task.id, &selected.onboarding).await
}

/// Shows which entities could not be deleted, and why.
async fn failures(caller: &Caller, task_id: &str, due: &BTreeSet<String>) -> Result<(), Surprise> {
    let path = format!("/api/{}/tasks/{task_id}/failures?pageSize=1000", caller.org);
    let page = caller.rest(Method::GET, &path, None, 200).await?.json();
    let failures = page["failures"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text =
        |failure: &Value, member: &str| failure[member].as_str().unwrap_or_default().to_owned();
    caller.stage.answer(200, format_args!("{} failures", failures.len()));
    for failure in failures.iter().take(3) {
        let [id, reason, message] =
            ["entityId", "reason", "message"].map(|member| text(failure, member));
        caller.stage.say(format_args!("       {id}: {reason}. {message}"));
    }
    if failures.len() > 3 {
        caller.stage.say(format_args!("       and {} more", failures.len() - 3));
    }
    let ids: BTreeSet<_> = failures.iter().map(|failure| text(failure, "entityId")).collect();
    same("the entities that could not be deleted", &ids, due)
}

/// Gets every entity of the file, and checks that exactly those that were removed are missing.
pub async fn balance(caller: &Caller, cast: &Cast) -> Result<(), Surprise> {
    caller.stage.call(
        "gRPC",
        format_args!("EntityService/GetEntity, for each of the {} ids", count(cast.all.len())),
    );
    let there: BTreeSet<String> = stream::iter(cast.all.clone())
        .map(|id| async move {
            let request = caller.request(v1::GetEntityRequest { entity_id: id.clone() });
            match caller.entities().get_entity(request).await {
                Ok(_) => Ok(Some(id)),
                Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
                Err(status) => Err(Surprise::from(status)),
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_filter_map(async |id| Ok(id))
        .try_collect()
        .await?;
    let erased: BTreeSet<_> = cast
        .clouds
        .ids
        .iter()
        .filter(|id| !cast.clouds.onboarding.contains(*id) && !cast.excluded.contains(id))
        .collect();
    let marked: BTreeSet<_> = cast.soft.ids.difference(&cast.soft.onboarding).collect();
    let removed =
        |id: &String| *id == cast.offboarded || erased.contains(id) || marked.contains(id);
    let due: BTreeSet<_> = cast.all.iter().filter(|id| !removed(id)).cloned().collect();
    caller.stage.answer(
        "OK",
        format_args!(
            "{} are there = {} imported - 1 offboarded - {} erased - {} marked as deleted",
            count(there.len()),
            count(cast.all.len()),
            erased.len(),
            marked.len(),
        ),
    );
    same(
        "the entities that are there",
        &there.len(),
        &(cast.all.len() - 1 - erased.len() - marked.len()),
    )?;
    if let Some(id) = there.symmetric_difference(&due).next() {
        return Err(Surprise::new(format!("{id} exists and should not, or the other way round")));
    }
    for (fund, members) in
        [(FUND, cast.excluded.to_vec()), (OTHER_FUND, vec![cast.elsewhere.clone()])]
    {
        let portfolio = portfolio(caller, fund).await?;
        caller.stage.say(format_args!(
            "{fund} is at version {} and contains {}.",
            portfolio.version,
            portfolio.entity_ids.join(" and ")
        ));
        same("the members of the portfolio", &portfolio.entity_ids, &members)?;
    }
    Ok(())
}

/// The status of a task as REST spells it.
fn status_word(task: &v1::Task) -> &'static str {
    task.status().as_str_name().trim_start_matches("TASK_STATUS_")
}
