//! `offboard key` by calls of a running service, for the organisation of the caller's key.

use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use prost::{Message, Name};
use prost_types::Timestamp;
use serde_json::{Map, Value, json};
use tonic::transport::Channel;

use super::by_database::used;
use super::{Create, Get, List, NONE, Revoke, Rotate, Update, Values};
use crate::cli::ask;
use crate::cli::client::{Server, bodies_of, realm_of, request};
use crate::cli::output::{Spelling, note, print};
use crate::cli::refusal::{refused, refused_here};
use crate::db::clock;
use crate::error::Result;
use crate::proto::convert::timestamp;
use crate::proto::v1;
use crate::proto::v1::access_service_client::AccessServiceClient;

async fn connect(server: &Server) -> Result<AccessServiceClient<Channel>> {
    Ok(AccessServiceClient::new(server.connect().await?))
}

pub(super) async fn create((server, key): (Server, String), create: Create) -> Result<ExitCode> {
    let message = v1::CreateKeyRequest {
        name: create.name,
        email: create.email,
        scopes: create.scopes,
        allowed: create.allowed.iter().map(ToString::to_string).collect(),
        expires_at: create.expires_in_days.map(|days| timestamp(in_days(days))),
        api_version: String::new(),
    };
    let answer =
        connect(&server).await?.create_key(request(message, &key)?).await.map_err(refused)?;
    let realm = realm_of(answer.metadata()).unwrap_or_default();
    show_secret(&answer.into_inner(), &realm, create.json)
}

pub(super) async fn get(Get { id, server, key, json }: Get) -> Result<ExitCode> {
    let message = v1::GetKeyRequest { key_id: id.to_string() };
    let answer = connect(&server).await?.get_key(request(message, &key)?).await.map_err(refused)?;
    let realm = realm_of(answer.metadata()).unwrap_or_default();
    show(answer.get_ref(), &realm, json)
}

pub(super) async fn list((server, key): (Server, String), list: List) -> Result<ExitCode> {
    let mut client = connect(&server).await?;
    let filter = list.filter.unwrap_or_default();
    let mut page_token = String::new();
    loop {
        let message =
            v1::ListKeysRequest { page_token, filter: filter.clone(), ..Default::default() };
        let answer = client.list_keys(request(message, &key)?).await.map_err(refused)?;
        let realm = realm_of(answer.metadata()).unwrap_or_default();
        let page = answer.into_inner();
        for found in &page.keys {
            let line = if list.json { as_json(found)?.to_string() } else { line(found, &realm) };
            if !print(line)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        page_token = page.next_page_token;
    }
}

pub(super) async fn update(update: Update) -> Result<ExitCode> {
    let Update { id, values, allow_lockout, expected_version, server, key, json } = update;
    let mut message: v1::UpdateKeyRequest = read("UpdateKey", values.body())?;
    (message.key_id, message.expected_version) = (id.to_string(), expected_version);
    message.allow_lockout = allow_lockout;
    let answer =
        connect(&server).await?.update_key(request(message, &key)?).await.map_err(refused)?;
    let realm = realm_of(answer.metadata()).unwrap_or_default();
    show(answer.get_ref(), &realm, json)
}

pub(super) async fn rotate(rotate: Rotate) -> Result<ExitCode> {
    let Rotate { id, overlap, expected_version, server, key, json } = rotate;
    let mut message: v1::RotateKeyRequest = read("RotateKey", json!({ "overlap": overlap }))?;
    (message.key_id, message.expected_version) = (id.to_string(), expected_version);
    let answer =
        connect(&server).await?.rotate_key(request(message, &key)?).await.map_err(refused)?;
    let realm = realm_of(answer.metadata()).unwrap_or_default();
    show_secret(&answer.into_inner(), &realm, json)
}

pub(super) async fn revoke(
    (server, key): (Server, String),
    Revoke { id, yes, .. }: Revoke,
) -> Result<ExitCode> {
    let mut client = connect(&server).await?;
    let question = format!(
        "Revoke key {id}? Whoever uses it is refused at once. This cannot be undone. [y/N] "
    );
    if !yes && !ask::is_yes(&ask::ask(&question)?) {
        note("Nothing was revoked.");
        return Ok(ExitCode::FAILURE);
    }
    let message = v1::RevokeKeyRequest { key_id: id.to_string(), expected_version: None };
    let answer = client.revoke_key(request(message, &key)?).await.map_err(refused)?;
    let realm = realm_of(answer.metadata()).unwrap_or_default();
    print(format_args!("Key {id} of {realm} is revoked."))?;
    if answer.get_ref().is_caller {
        note("It is the key that made this call, which was its last.");
    }
    Ok(ExitCode::SUCCESS)
}

impl Values {
    /// The body of the change, as REST has it.
    fn body(self) -> Value {
        let list = |texts: Vec<String>| {
            let given = !texts.is_empty();
            given.then(|| {
                Value::from(texts.into_iter().filter(|text| text != NONE).collect::<Vec<_>>())
            })
        };
        let end = self.expires_in_days.map(|days| match days.0 {
            Some(days) => in_days(days).to_rfc3339_opts(SecondsFormat::Secs, true).into(),
            None => Value::Null,
        });
        let members = [
            ("name", self.name.map(Value::from)),
            ("email", self.email.map(|text| if text == NONE { Value::Null } else { text.into() })),
            ("scopes", list(self.scopes)),
            ("allowed", list(self.allowed)),
            ("expires_at", end),
            ("api_version", self.api_version.map(Value::from)),
        ];
        let given: Map<String, Value> = members
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        Value::Object(given)
    }
}

/// The request message of an RPC with this body of its route.
pub fn read<M: Message + Default>(rpc: &str, body: Value) -> Result<M> {
    let bodies = bodies_of(&format!("offboard.v1.AccessService.{rpc}"))?;
    bodies.read_sound(body.to_string().as_bytes()).map_err(|error| refused_here(error, ""))
}

fn in_days(days: u32) -> DateTime<Utc> {
    clock::now() + TimeDelta::days(days.into())
}

fn show_secret(answer: &v1::KeyWithSecret, realm: &str, json: bool) -> Result<ExitCode> {
    if json {
        print(as_json(answer)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let key = answer.key.clone().unwrap_or_default();
    let secret = answer.secret.as_deref().unwrap_or_default();
    let mut text = format!(
        "Key {} of {realm}, scopes {}.\nIts secret is shown only now:\n\n  {secret}\n",
        key.id,
        key.scopes.join(", ")
    );
    if let Some(end) = key.previous_secret_expires_at {
        text.push_str(&format!("\nThe secret that it had is valid until {}.\n", moment(&end)));
    }
    print(text)?;
    Ok(ExitCode::SUCCESS)
}

fn show(key: &v1::Key, realm: &str, json: bool) -> Result<ExitCode> {
    if json {
        print(as_json(key)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("Key {} of {realm}:", key.id);
    for (name, value) in as_json(key)?.as_object().into_iter().flatten() {
        let value = match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        if !matches!(name.as_str(), "id" | "object" | "mode") {
            text.push_str(&format!("\n  {name:<26}  {value}"));
        }
    }
    print(text)?;
    Ok(ExitCode::SUCCESS)
}

fn line(key: &v1::Key, realm: &str) -> String {
    let used = used(key.last_used_at.as_ref().and_then(to_time));
    let v1::Key { id, secret_prefix, name, scopes, .. } = key;
    let (state, scopes) = (state(key), scopes.join(","));
    format!("{id}  {secret_prefix}…  {state:7}  {used}  {realm}  {scopes}  {name}")
}

fn state(key: &v1::Key) -> &'static str {
    match key.state() {
        v1::KeyState::Active => "active",
        v1::KeyState::Expired => "expired",
        v1::KeyState::Revoked => "revoked",
        v1::KeyState::Unspecified => "",
    }
}

fn to_time(moment: &Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(moment.seconds, moment.nanos.try_into().ok()?)
}

fn moment(moment: &Timestamp) -> String {
    to_time(moment)
        .map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
        .unwrap_or_default()
}

/// A message of the service as REST shows it.
pub fn as_json(message: &impl Name) -> Result<Value> {
    static SPELLING: Spelling = Spelling::of("offboard.v1.AccessService");
    SPELLING.value(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::key::Days;

    #[test]
    fn what_is_named_is_changed_and_none_takes_back() {
        let values = Values {
            name: None,
            email: Some("none".to_owned()),
            scopes: vec!["events:read".to_owned()],
            allowed: vec!["none".to_owned()],
            expires_in_days: Some(Days(None)),
            api_version: None,
        };
        let message: v1::UpdateKeyRequest = read("UpdateKey", values.body()).unwrap();
        let mut paths = message.update_mask.unwrap().paths;
        paths.sort();
        assert_eq!(paths, ["allowed", "email", "expires_at", "scopes"]);
        assert_eq!((message.scopes, message.email), (vec!["events:read".to_owned()], None));
        assert!(message.allowed.is_empty() && message.expires_at.is_none());
    }

    #[test]
    fn an_overlap_is_a_duration_in_one_of_the_forms_of_the_service() {
        for text in ["3600s", "1h", "PT1H"] {
            let message: v1::RotateKeyRequest =
                read("RotateKey", json!({ "overlap": text })).unwrap();
            assert_eq!(message.overlap.unwrap().seconds, 3_600, "{text}");
        }
        let refused = read::<v1::RotateKeyRequest>("RotateKey", json!({"overlap": "soon"}));
        assert_eq!(refused.unwrap_err().violations()[0].field, "--overlap");
    }
}
