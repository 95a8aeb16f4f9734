//! `offboard key` in the database itself: for whoever operates the service, and for the first key of an organisation.

use std::process::ExitCode;

use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;
use serde_json::json;
use uuid::Uuid;

use super::{Create, List, Revoke};
use crate::access::queries::{self, KeySummary, NewKey};
use crate::access::{Scope, Secret};
use crate::cli::ask;
use crate::cli::database::Opened;
use crate::cli::output::{note, print};
use crate::db::{Mode, clock};
use crate::error::{Code, Error, Result, nearest_of};
use crate::limits::requests::{MAX_ORGANISATIONS, ORGANISATIONS};

/// How many of them are named.
const ORGS_SHOWN: usize = 5;

pub(super) async fn make(database: &Opened, create: Create) -> Result<ExitCode> {
    let mode = Mode::from(create.mode);
    let new = NewKey {
        org: create.org.unwrap_or_default(),
        mode,
        name: create.name,
        email: create.email,
        // Others were refused before.
        scopes: create.scopes.iter().filter_map(|scope| Scope::parse(scope)).collect(),
        allowed: create.allowed,
        expires_at: create.expires_in_days.map(|days| clock::now() + TimeDelta::days(days.into())),
    };
    note_new_org(database, &new.org).await?;
    let (id, secret) = issue(database, new.clone()).await?;
    let scopes: Vec<_> = new.scopes.iter().map(|scope| scope.as_str()).collect();
    if create.json {
        let key = json!({
            "id": id, "org": new.org, "mode": mode.as_str(), "scopes": scopes, "allowed": texts(&new.allowed), "expires_at": new.expires_at,
            "secret": secret.reveal(),
        });
        print(key)?;
    } else {
        let (org, scopes, secret) = (&new.org, scopes.join(", "), secret.reveal());
        print(format_args!(
            "Key {id} of {org} ({mode}), scopes {scopes}.\nIts secret is shown only now:\n\n  {secret}\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says so where a key is the first of its organisation, and which others have much the same name: that is how a slip shows.
pub async fn note_new_org(database: &Opened, org: &str) -> Result<()> {
    let wanted = org.to_owned();
    let others = database.with_connection(move |connection| {
        Ok(if queries::has_org(connection, &wanted)? {
            None
        } else {
            Some(queries::list_orgs(connection, MAX_ORGANISATIONS as i64)?)
        })
    });
    if let Some(others) = others.await? {
        if others.len() == MAX_ORGANISATIONS {
            ORGANISATIONS.reached();
        }
        note(new_org(org, &others));
    }
    Ok(())
}

fn new_org(org: &str, orgs: &[String]) -> String {
    let near = nearest_of(org, orgs.iter().map(String::as_str), ORGS_SHOWN);
    let list = |names: Vec<&str>| {
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    };
    let others = match (near.is_empty(), orgs.len()) {
        (_, 0) => "; it is the first.".to_owned(),
        (false, _) => format!(". There is {}, with much the same name.", list(near)),
        (true, count) => {
            let shown = orgs.iter().map(String::as_str).take(ORGS_SHOWN).collect();
            let more = if count > ORGS_SHOWN { ", ..." } else { "" };
            format!(". There are {}{more}.", list(shown))
        }
    };
    format!("Making the new organisation `{org}`{others}")
}

/// Makes a key and returns its id and its secret.
pub async fn issue(database: &Opened, new: NewKey) -> Result<(Uuid, Secret)> {
    let secret = Secret::generate(new.mode)?;
    database
        .with_connection(move |connection| {
            let id = queries::create_key(connection, &new, &secret)?;
            Ok((id, secret))
        })
        .await
}

pub(super) async fn show(database: &Opened, list: List) -> Result<ExitCode> {
    let keys = database
        .with_connection(move |connection| Ok(queries::list_keys(connection, list.org.as_deref())?))
        .await?;
    for key in keys {
        let KeySummary {
            id,
            org,
            mode,
            name,
            secret_prefix,
            scopes,
            allowed,
            created_at,
            expires_at,
            revoked_at,
            last_used_at,
        } = key;
        let line = if list.json {
            let key = json!({
                "id": id, "org": org, "mode": mode.as_str(), "name": name, "secret_prefix": secret_prefix, "scopes": scopes, "allowed": texts(&allowed),
                "created_at": created_at, "expires_at": expires_at, "revoked_at": revoked_at, "last_used_at": last_used_at,
            });
            key.to_string()
        } else {
            let state = if revoked_at.is_some() {
                "revoked"
            } else if expires_at.is_some_and(|end| end <= clock::now()) {
                "expired"
            } else {
                "active"
            };
            let used = used(last_used_at);
            format!(
                "{id}  {secret_prefix}…  {state:7}  {used}  {org} ({mode})  {}  {name}",
                scopes.join(",")
            )
        };
        if !print(line)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn revoke(database: &Opened, Revoke { id, yes, .. }: Revoke) -> Result<ExitCode> {
    let none =
        || Error::new(Code::NotFound, format!("There is no key {id}, or it is revoked already."));
    let keys =
        database.with_connection(|connection| Ok(queries::list_keys(connection, None)?)).await?;
    let key =
        keys.into_iter().find(|key| key.id == id && key.revoked_at.is_none()).ok_or_else(none)?;
    if !yes && !ask::is_yes(&ask::ask(&question(&key))?) {
        note("Nothing was revoked.");
        return Ok(ExitCode::FAILURE);
    }
    if !database.with_connection(move |connection| Ok(queries::revoke_key(connection, id)?)).await?
    {
        return Err(none());
    }
    print(format_args!("Key {id} of {} ({}) is revoked.", key.org, key.mode))?;
    Ok(ExitCode::SUCCESS)
}

fn texts(networks: &[IpNet]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

/// When a key was last used, for people.
pub(super) fn used(last: Option<DateTime<Utc>>) -> String {
    match last {
        Some(minute) => format!("used {}", minute.format("%Y-%m-%d %H:%MZ")),
        None => "never used".to_owned(),
    }
}

fn question(KeySummary { id, org, mode, name, .. }: &KeySummary) -> String {
    let named = if name.is_empty() { String::new() } else { format!(", {name},") };
    format!(
        "Revoke key {id}{named} of {org} ({mode})? Whoever uses it is refused at once. This cannot be undone. [y/N] "
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_organisation_is_reported_with_those_that_may_have_been_meant() {
        let orgs = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(new_org("acme", &[]), "Making the new organisation `acme`; it is the first.");
        let reported = new_org("acmee", &orgs(&["acme", "globex"]));
        assert_eq!(
            reported,
            "Making the new organisation `acmee`. There is `acme`, with much the same name."
        );
        assert_eq!(
            new_org("initech", &orgs(&["acme", "globex"])),
            "Making the new organisation `initech`. There are `acme`, `globex`."
        );
        assert!(
            new_org("x", &orgs(&["aaaa", "bbbb", "cccc", "dddd", "eeee", "ffff"]))
                .ends_with("`eeee`, ....")
        );
    }

    #[test]
    fn a_question_names_whose_key_ends_and_that_it_is_for_good() {
        let (id, time) = (Uuid::nil(), chrono::DateTime::UNIX_EPOCH);
        let key = KeySummary {
            id,
            org: "acme".to_owned(),
            mode: Mode::Live,
            name: "etl".to_owned(),
            secret_prefix: String::new(),
            scopes: Vec::new(),
            allowed: Vec::new(),
            created_at: time,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        };
        let reported = format!(
            "Revoke key {id}, etl, of acme (live)? Whoever uses it is refused at once. This cannot be undone. [y/N] "
        );
        assert_eq!(question(&key), reported);
    }
}
