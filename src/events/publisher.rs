//! A publisher and its messages.

use std::collections::HashSet;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use crate::db::Mode;
use crate::events::model::{Event, Row};
use crate::events::taken::Taken;
use crate::proto::object::Struct;

/// The media type of an event as one JSON text: the structured mode of CloudEvents.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// A way to the outside. It keeps no position of its own: [`run`](crate::events::publish_loop::run) sees to that, to retries and to order.
#[tonic::async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// Names the publisher's row in the database, and its metrics.
    fn name(&self) -> &'static str;

    /// Publishes messages and returns how many of them, from the first on, were acknowledged. Messages after the first failure may have
    /// arrived too, and are sent again.
    ///
    /// No two of the messages are of the same subject, so they may be on their way side by side. May be dropped at any await.
    async fn publish(&self, messages: &[Message]) -> Published;

    /// The messages that the other side has taken since this time and still has, from the oldest on.
    async fn taken_since(&self, time: DateTime<Utc>) -> Result<Taken, Failure>;
}

/// The outcome of messages.
#[derive(Debug)]
pub struct Published {
    /// How many, from the first on, were acknowledged.
    pub acknowledged: usize,
    /// Why not all were.
    pub failure: Option<Failure>,
}

/// Why a message was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In a word, for metrics and records: `disconnected`, `timeout`, ...
    pub code: &'static str,
    /// For the log.
    pub cause: String,
}

/// An event on its way to the outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The event's id: the same whenever it is sent again.
    pub id: String,
    /// The realm's organisation.
    pub org: String,
    /// The mode of the realm.
    pub mode: Mode,
    /// The event's type, such as `entity.created`.
    pub event_type: String,
    /// The realm and the subject: messages that are equal here stay in order.
    order: (i32, String),
    /// All members of the event but its data.
    event: Map<String, Value>,
    data: Struct,
}

impl Message {
    /// The message of an event of this row.
    pub fn new(row: &Row, event: Event) -> Self {
        let members = json!({
            "specversion": "1.0",
            "id": event.id,
            "source": event.source,
            "type": event.event_type,
            "subject": event.subject,
            "time": event.time.to_rfc3339_opts(SecondsFormat::Micros, true),
        });
        let Value::Object(members) = members else { unreachable!("the literal is an object") };
        Message {
            id: event.id,
            org: row.org.clone(),
            mode: row.mode,
            event_type: event.event_type,
            order: (row.realm_id, event.subject),
            event: members,
            data: event.data,
        }
    }

    /// The event as a CloudEvent 1.0 in the JSON format.
    pub fn body(&self) -> Bytes {
        let mut members = self.event.clone();
        members.insert("datacontenttype".to_owned(), "application/json".into());
        let members = Value::Object(members).to_string();
        // The data are JSON text of their own, to the last digit.
        format!(
            "{},\"data\":{}}}",
            members.strip_suffix('}').unwrap_or_default(),
            self.data.to_text()
        )
        .into()
    }

    /// The same without `data`, where a broker takes no message as large as the whole. The extension attribute `dataomitted` says so.
    pub fn body_without_data(&self) -> Bytes {
        let mut members = self.event.clone();
        members.insert("dataomitted".to_owned(), Value::Bool(true));
        Value::Object(members).to_string().into()
    }
}

/// Cuts messages into runs in which no subject comes twice. One run is sent when the one before is acknowledged, so that whatever is lost or
/// refused on the way, nothing overtakes an earlier event of its own subject.
pub fn runs(messages: &[Message]) -> Vec<&[Message]> {
    let mut runs = Vec::new();
    let mut seen = HashSet::new();
    let mut start = 0;
    for (at, message) in messages.iter().enumerate() {
        if !seen.insert(&message.order) {
            runs.push(&messages[start..at]);
            start = at;
            seen.clear();
            seen.insert(&message.order);
        }
    }
    if start < messages.len() {
        runs.push(&messages[start..]);
    }
    runs
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Map, Value, json};

    use super::{Message, runs};
    use crate::db::Mode;
    use crate::proto::object::Struct;

    fn message(realm: i32, subject: &str, data: Value) -> Message {
        let event: Map<String, Value> =
            serde_json::from_value(json!({"id": "1"})).expect("an object");
        Message {
            id: "1".to_owned(),
            org: "acme".to_owned(),
            mode: Mode::Test,
            event_type: "entity.created".to_owned(),
            order: (realm, subject.to_owned()),
            event,
            data: Struct::from_json(&data),
        }
    }

    #[test]
    fn a_subject_comes_once_in_a_run_and_nothing_is_lost_between_runs() {
        let order = [(1, "a"), (1, "b"), (2, "a"), (1, "b"), (1, "b"), (1, "c")];
        let messages: Vec<_> =
            order.iter().map(|(realm, subject)| message(*realm, subject, json!({}))).collect();
        let lengths: Vec<_> = runs(&messages).iter().map(|run| run.len()).collect();
        assert_eq!(lengths, [3, 1, 2]);
        assert_eq!(runs(&messages).concat(), messages);
        assert!(runs(&[]).is_empty());
    }

    #[test]
    fn what_is_too_large_is_reported_without_its_data() {
        let large = message(1, "a", json!({"text": "x".repeat(100)}));
        let body: Value = serde_json::from_slice(&large.body_without_data()).expect("JSON");
        assert_eq!(body, json!({"id": "1", "dataomitted": true}));
        let body: Value = serde_json::from_slice(&large.body()).expect("JSON");
        assert_eq!(
            body,
            json!({"id": "1", "datacontenttype": "application/json", "data": {"text": "x".repeat(100)}})
        );
    }
}
