//! Reads: an export of a portfolio before anything leaves it, and the events of an entity that is removed.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tonic::Streaming;

use super::caller::Caller;
use super::cast::FUND;
use super::{Surprise, same};
use crate::proto::v1;

/// How long an event may take to be sent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Exports a portfolio, as a caller would that wants to know what is about to leave.
pub async fn export(caller: &Caller) -> Result<(), Surprise> {
    let path = format!("/v1/portfolios/{FUND}/export");
    let answer = caller.rest(Method::GET, &path, None, 200).await?;
    let lines: Vec<Value> = answer
        .body
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let [head, members @ .., end] = lines.as_slice() else {
        return Err(Surprise::new("an export has a beginning and an end"));
    };
    let ids: Vec<&str> = members
        .iter()
        .filter_map(|line| line["entity_ids"].as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    caller.stage.answer(
        200,
        format_args!(
            "{} at version {}, with {}",
            FUND, head["portfolio"]["version"], head["dependents"]
        ),
    );
    caller.stage.say(format_args!("     members: {}", ids.join(", ")));
    caller.stage.say(format_args!("     end: {}", end["summary"]));
    same(
        "the members that the summary counts",
        &end["summary"]["entity_count"],
        &json!(ids.len()),
    )?;
    same("the version of the export", &end["summary"]["version"], &head["portfolio"]["version"])
}

/// Watches one entity.
pub struct Witness {
    events: Streaming<v1::WatchEventsResponse>,
}

impl Witness {
    /// Begins to watch; what happens from now on is seen.
    pub async fn of(caller: &Caller, subject: &str) -> Result<Witness, Surprise> {
        caller
            .stage
            .call("gRPC", format_args!("EventService/WatchEvents {}", json!({"subject": subject})));
        let request = v1::WatchEventsRequest {
            subject: subject.to_owned(),
            ..v1::WatchEventsRequest::default()
        };
        let mut events = caller.events().watch_events(caller.request(request)).await?.into_inner();
        // The first message says that it has begun.
        events.message().await?;
        caller.stage.answer("OK", "watching");
        Ok(Witness { events })
    }

    /// Shows the received events, which must be these in this order.
    pub async fn shows(mut self, caller: &Caller, types: &[&str]) -> Result<(), Surprise> {
        for expected in types {
            let event = tokio::time::timeout(PATIENCE, self.next()).await;
            let event = event
                .map_err(|_| Surprise::new(format!("waited in vain for the event {expected}")))??;
            caller
                .stage
                .answer("event", format_args!("{} {} ({})", event.r#type, event.subject, event.id));
            same("the type of the event", &event.r#type.as_str(), expected)?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<v1::Event, Surprise> {
        loop {
            let message = self
                .events
                .message()
                .await?
                .ok_or_else(|| Surprise::new("the stream of events has ended"))?;
            // A message without an event is a sign of life.
            if let Some(event) = message.event {
                return Ok(event);
            }
        }
    }
}
