//! Whole answers for snapshots: what differs from run to run is taken out, and what is the same in it stays the same.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::{Answer, Failure, Reply};

static ID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap()
});
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z").unwrap()
});

static REQUEST: LazyLock<Regex> = LazyLock::new(|| Regex::new("req_[0-9a-f]{32}").unwrap());
static PORT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("port [0-9]+|127.0.0.1:[0-9]+").unwrap());

/// How UUIDs begin that tests have written down.
const OWN: &str = "0190a";

/// Milliseconds since the Unix epoch, of the years in which tests run.
const TIMES: std::ops::Range<i64> = 1_700_000_000_000..4_100_000_000_000;

/// Members, in either spelling, whose values are measured.
const MEASURED: &[&str] = &[
    "currentThroughput",
    "current_throughput",
    "duration",
    "estimatedRemaining",
    "estimated_remaining",
    "lastHourThroughput",
    "last_hour_throughput",
    "throughput",
];

/// Members that name replicas.
const REPLICAS: &[&str] = &[
    "lastExecutionEC2Instances",
    "lastExecutionInstances",
    "last_execution_ec2_instances",
    "last_execution_instances",
];

/// What a snapshot shows: all that is shown, but for what no two runs have in common. A UUID is `[id 1]`, another one `[id 2]`, and the same one has
/// its number again; a time is `[time]`, a token or a cursor `[token]`, the id of a request `[request]`, what was measured `[measured]`.
pub trait Seen {
    /// It.
    fn seen(&self) -> Value;
}

impl Seen for Value {
    fn seen(&self) -> Value {
        plain("", self, &mut Vec::new())
    }
}

impl Seen for Answer {
    /// The message, with members in the order of the alphabet: by gRPC the keys of data have none.
    fn seen(&self) -> Value {
        sorted(&self.json).seen()
    }
}

impl Seen for Failure {
    /// All of it that is the same by both protocols.
    fn seen(&self) -> Value {
        let faults: Vec<String> = self
            .faults
            .iter()
            // By REST a failure without faults is among `errors` too, as it is said above.
            .filter(|fault| !(fault.field.is_empty() && fault.description == self.message))
            .map(|fault| format!("{}: {}: {}", fault.field, fault.code, fault.description))
            .collect();
        let members = Value::Object(self.members.clone());
        json!({
            "code": self.code, "message": self.message, "members": sorted(&members), "faults": faults,
        })
        .seen()
    }
}

impl Seen for Reply {
    /// Status, type, location and body, with members in the order in which they came.
    fn seen(&self) -> Value {
        let body = if self.body.is_empty() { Value::Null } else { self.json() };
        json!({
            "status": self.status, "content-type": self.header("content-type"), "location": self.header("location"), "body": body,
        })
        .seen()
    }
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            let members = names.into_iter().map(|name| (name.clone(), sorted(&members[name])));
            Value::Object(members.collect())
        }
        other => other.clone(),
    }
}

fn plain(name: &str, value: &Value, ids: &mut Vec<String>) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| plain(name, item, ids)).collect(),
        Value::Object(members) => Value::Object(
            members.iter().map(|(name, value)| (name.clone(), plain(name, value, ids))).collect(),
        ),
        Value::Number(_) | Value::String(_) if MEASURED.contains(&name) => json!("[measured]"),
        Value::Number(number) if number.as_i64().is_some_and(|it| TIMES.contains(&it)) => {
            json!("[time]")
        }
        Value::String(_) if REPLICAS.contains(&name) => json!("[replica]"),
        Value::String(text) if !text.is_empty() && is_opaque(name) => json!("[token]"),
        Value::String(text) => json!(text_of(text, ids)),
        other => other.clone(),
    }
}

fn text_of(text: &str, ids: &mut Vec<String>) -> String {
    let text = TIME.replace_all(text, "[time]");
    let text = PORT.replace_all(&text, "[port]");
    let text = REQUEST.replace_all(&text, "[request]");
    let text = ID.replace_all(&text, |found: &regex::Captures<'_>| {
        if found[0].starts_with(OWN) {
            return found[0].to_owned();
        }
        let known = ids.iter().position(|id| *id == found[0]);
        let number = known.unwrap_or_else(|| {
            ids.push(found[0].to_owned());
            ids.len() - 1
        });
        format!("[id {}]", number + 1)
    });
    text.into_owned()
}

fn is_opaque(name: &str) -> bool {
    name.ends_with("_token") || name.ends_with("Token") || name == "cursor"
}
