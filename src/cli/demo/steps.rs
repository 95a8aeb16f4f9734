//! The operations on single entities: import, attach, detach, refusals, offboard, cancel.

use std::io::Cursor;
use std::time::Instant;

use http::Method;
use serde_json::{Value, json};

use super::caller::{Caller, until};
use super::cast::{Cast, FUND, OTHER_FUND};
use super::stage::count;
use super::witness::Witness;
use super::{Surprise, same};
use crate::cli::client::Server;
use crate::cli::import;
use crate::proto::v1;

/// Imports the file by one stream.
pub async fn import(caller: &Caller, cast: &Cast, file: Vec<u8>) -> Result<(), Surprise> {
    let number = cast.all.len();
    caller.stage.call(
        "gRPC",
        format_args!("EntityService/ImportEntities (a stream of {} entities)", count(number)),
    );
    let begun = Instant::now();
    let import::Account { summary, lines, .. } =
        import::send(&Server::here(caller.grpc_addr), &caller.secret, Cursor::new(file)).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let shown = format!(
        "{} created, {} there before, {} refused",
        count(summary.created),
        count(summary.existing),
        count(summary.failed)
    );
    caller.stage.answer(
        "OK",
        format_args!("{shown}, in {seconds:.2} s, with {} dependents", count(cast.dependents)),
    );
    same("lines that cannot be read", &lines.bad, &0)?;
    same("entities created", &summary.created, &(number as i64))?;
    same("entities refused", &summary.failed, &0)
}

/// Makes two portfolios and attaches entities.
pub async fn make_portfolios(caller: &Caller, cast: &Cast) -> Result<(), Surprise> {
    for (id, name) in [(FUND, "Fund I"), (OTHER_FUND, "Fund II")] {
        let made = caller
            .rest(
                Method::POST,
                "/v1/portfolios",
                Some(json!({"portfolio_id": id, "name": name})),
                201,
            )
            .await?
            .json();
        caller.stage.answer(
            201,
            format_args!("version {}, entity_count {}", made["version"], made["entity_count"]),
        );
    }
    let [a, b] = &cast.excluded;
    for entity_id in [a, b, &cast.bulk_deleted, &cast.detached, &cast.offboarded] {
        attach(caller, FUND, entity_id).await?;
    }
    attach(caller, OTHER_FUND, &cast.elsewhere).await
}

async fn attach(caller: &Caller, portfolio_id: &str, entity_id: &str) -> Result<(), Surprise> {
    let request = v1::AttachEntityRequest {
        portfolio_id: portfolio_id.to_owned(),
        entity_id: entity_id.to_owned(),
        ..Default::default()
    };
    caller.stage.call(
        "gRPC",
        format_args!(
            "PortfolioService/AttachEntity {}",
            json!({"portfolio_id": portfolio_id, "entity_id": entity_id})
        ),
    );
    let portfolio = caller.portfolios().attach_entity(caller.request(request)).await?.into_inner();
    caller.stage.answer(
        "OK",
        format_args!(
            "{portfolio_id}: version {}, entity_count {}",
            portfolio.version, portfolio.entity_count
        ),
    );
    same("the newest member", &portfolio.entity_ids.last().map(String::as_str), &Some(entity_id))
}

/// Takes one entity off its portfolio, and once more to no effect.
pub async fn detach(caller: &Caller, cast: &Cast) -> Result<(), Surprise> {
    let entity_id = &cast.detached;
    let (fund, entity) = (portfolio(caller, FUND).await?, entity(caller, entity_id).await?);
    caller.stage.say(format_args!(
        "Before: {entity_id} is at version {} in {FUND}, and {FUND} at version {} with {} entities.",
        entity.version, fund.version, fund.entity_count
    ));
    same("the portfolio of the entity", &entity.portfolio_id.as_deref(), &Some(FUND))?;

    let detached = detach_once(caller, entity_id).await?;
    let after = self::entity(caller, entity_id).await?;
    caller.stage.say(format_args!(
        "After: {entity_id} is at version {} in no portfolio, and otherwise as it was.",
        after.version
    ));
    same("the version of the portfolio", &detached.version, &(fund.version + 1))?;
    same("the count of the portfolio", &detached.entity_count, &(fund.entity_count - 1))?;
    same("the version of the entity", &after.version, &(entity.version + 1))?;
    let unlinked = v1::Entity {
        portfolio_id: None,
        version: after.version,
        updated_at: after.updated_at,
        ..entity
    };
    same("the entity", &after, &unlinked)?;

    caller.stage.say("Once more, which changes nothing:");
    let again = detach_once(caller, entity_id).await?;
    same("the version of the portfolio", &again.version, &detached.version)
}

async fn detach_once(caller: &Caller, entity_id: &str) -> Result<v1::Portfolio, Surprise> {
    let request = v1::DetachEntityRequest {
        portfolio_id: FUND.to_owned(),
        entity_id: entity_id.to_owned(),
        ..Default::default()
    };
    caller.stage.call(
        "gRPC",
        format_args!(
            "PortfolioService/DetachEntity {}",
            json!({"portfolio_id": FUND, "entity_id": entity_id})
        ),
    );
    let portfolio = caller.portfolios().detach_entity(caller.request(request)).await?.into_inner();
    caller.stage.answer(
        "OK",
        format_args!(
            "{FUND}: version {}, entity_count {}",
            portfolio.version, portfolio.entity_count
        ),
    );
    Ok(portfolio)
}

/// Shows two refused operations: detaching from a portfolio that the entity is not in, and removing one that is still onboarding.
pub async fn refusals(caller: &Caller, cast: &Cast) -> Result<(), Surprise> {
    let path = format!("/v1/portfolios/{FUND}/entities/{}", cast.elsewhere);
    let problem = caller.refused(Method::DELETE, &path, None, 409, "state_conflict").await?;
    caller.stage.document(&problem);
    same(
        "the portfolio that the entity is in",
        &problem["current_portfolio_id"],
        &json!(OTHER_FUND),
    )?;

    let path = format!("/v5/entities/{}", cast.onboarding);
    let problem =
        caller.refused(Method::DELETE, &path, None, 409, "invalid_state_transition").await?;
    caller.stage.document(&problem);
    same("the state of the entity", &problem["current_state"], &json!("onboarding"))
}

/// Removes one entity with everything that hangs on it, and follows the job.
pub async fn offboard(caller: &Caller, cast: &Cast) -> Result<(), Surprise> {
    let fund = portfolio(caller, FUND).await?;
    let witness = Witness::of(caller, &cast.offboarded).await?;
    let path = format!("/v5/entities/{}", cast.offboarded);
    let answer = caller.rest(Method::DELETE, &path, None, 202).await?;
    let job = answer.json();
    let id = job["id"].as_str().unwrap_or_default().to_owned();
    caller.stage.answer(202, format_args!("job {id}, {}", word(&job["status"])));

    // The service says where to look.
    let job_path = answer
        .headers
        .get(http::header::LOCATION)
        .and_then(|location| location.to_str().ok())
        .unwrap_or_default();
    let job = until("the job has ended", async || {
        let job = caller.quietly(Method::GET, job_path, None).await?.json();
        Ok(matches!(job["status"].as_str(), Some("succeeded" | "failed" | "canceled"))
            .then_some(job))
    });
    let job = job.await?;
    caller.stage.call("REST", format_args!("GET {job_path}"));
    caller
        .stage
        .answer(200, format_args!("{}; removed with it: {}", word(&job["status"]), job["removed"]));
    same("the status of the job", &job["status"], &json!("succeeded"))?;
    if job["removed"].as_object().is_none_or(|removed| removed.values().all(|number| number == 0)) {
        return Err(Surprise::new("the entity had dependents, and none was removed"));
    }
    witness.shows(caller, &["entity.offboarding_requested", "entity.offboarded"]).await?;

    let again = caller.rest(Method::DELETE, &path, None, 200).await?.json();
    caller.stage.answer(200, format_args!("the same job, {}", word(&again["status"])));
    same("the id of the job", &again["id"], &json!(id))?;
    caller
        .refused(Method::GET, &format!("/v1/entities/{}", cast.offboarded), None, 404, "not_found")
        .await?;
    let left = portfolio(caller, FUND).await?;
    caller.stage.say(format_args!(
        "{FUND} is at version {} now, with {} entities.",
        left.version, left.entity_count
    ));
    same("the version of the portfolio", &left.version, &(fund.version + 1))?;
    same("the count of the portfolio", &left.entity_count, &(fund.entity_count - 1))
}

/// Asks for a removal with an hour's grace, and takes it back.
pub async fn cancel(caller: &Caller, cast: &Cast) -> Result<(), Surprise> {
    let wish = json!({"entityId": cast.canceled, "gracePeriod": "3600s"});
    let request =
        caller.rest(Method::POST, "/v1/offboarding/entities", Some(wish), 201).await?.json();
    let id = word(&request["id"]);
    caller.stage.answer(
        201,
        format_args!(
            "request {id}, {}, executeAfter {}",
            word(&request["status"]),
            word(&request["executeAfter"])
        ),
    );
    same("the status of the request", &request["status"], &json!("Pending"))?;
    let entity_before = entity(caller, &cast.canceled).await?;
    same("the state of the entity", &entity_before.state(), &v1::EntityState::Offboarding)?;

    let path = format!("/v1/offboarding/entities/{id}/cancel");
    let canceled = caller.rest(Method::PATCH, &path, None, 200).await?.json();
    let entity_after = entity(caller, &cast.canceled).await?;
    let state =
        entity_after.state().as_str_name().rsplit('_').next().unwrap_or_default().to_lowercase();
    caller.stage.answer(
        200,
        format_args!("{}; {} is {state} again", word(&canceled["status"]), cast.canceled),
    );
    same("the status of the request", &canceled["status"], &json!("Canceled"))?;
    same("the state of the entity", &entity_after.state(), &v1::EntityState::Active)?;
    caller.stage.say("Once more, which is too late:");
    caller.refused(Method::PATCH, &path, None, 400, "not_cancelable").await.map(drop)
}

/// A portfolio, by gRPC.
pub async fn portfolio(caller: &Caller, id: &str) -> Result<v1::Portfolio, Surprise> {
    let request = v1::GetPortfolioRequest { portfolio_id: id.to_owned(), ..Default::default() };
    Ok(caller.portfolios().get_portfolio(caller.request(request)).await?.into_inner())
}

async fn entity(caller: &Caller, id: &str) -> Result<v1::Entity, Surprise> {
    let request = v1::GetEntityRequest { entity_id: id.to_owned() };
    Ok(caller.entities().get_entity(caller.request(request)).await?.into_inner())
}

/// A JSON text without its quotes.
fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
