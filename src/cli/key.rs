//! `offboard key`.

use std::process::ExitCode;

use chrono::TimeDelta;
use clap::{ArgMatches, Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde_json::json;
use uuid::Uuid;

use super::ask;
use super::database::Opened;
use super::output::{note, print};
use crate::access::queries::{self, KeySummary, NewKey};
use crate::access::{Scope, Secret};
use crate::config::Database;
use crate::db::{Mode, clock, id};
use crate::error::{Code, Error, Result, nearest_of};
use crate::limits::requests::{MAX_ORGANISATIONS, ORGANISATIONS};
use crate::mail;

/// How many of them are named.
const ORGS_SHOWN: usize = 5;

/// Arguments of `key`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    database: Database,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Make a key; its secret is shown once
    Create(Create),
    /// List keys; secrets are not kept, so they are not shown
    List(List),
    /// End a key at once
    Revoke(Revoke),
}

#[derive(Args, Debug)]
struct Create {
    /// Organisation that the key belongs to
    #[arg(long, value_parser = org)]
    org: String,

    /// Which of the organisation's two modes the key opens
    #[arg(long, value_enum, default_value = "test")]
    mode: KeyMode,

    /// Scope of the key; repeat it, or separate by commas
    #[arg(long = "scope", required = true, value_delimiter = ',')]
    scopes: Vec<String>,

    /// Name for people
    #[arg(long, default_value = "")]
    name: String,

    /// Where the owner gets mail
    #[arg(long, value_parser = email)]
    email: Option<String>,

    /// Network from which the key may be used, such as 10.0.0.0/8; repeat it for more [default: from anywhere]
    #[arg(long = "allow", value_name = "CIDR")]
    allowed: Vec<IpNet>,

    /// Days after which the key ends [default: never]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    expires_in_days: Option<u32>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct List {
    /// Only those of this organisation
    #[arg(long)]
    org: Option<String>,

    /// Print JSON, a key a line
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Revoke {
    /// The key's id
    #[arg(value_parser = key_id)]
    id: Uuid,

    /// Revoke without asking
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyMode {
    Test,
    Live,
}

/// Returns all faults of the scopes of `key create`.
pub fn misuse(matches: &ArgMatches) -> Option<String> {
    let scopes = matches.subcommand_matches("create")?.get_many::<String>("scopes")?;
    let unknown: Vec<_> = scopes
        .filter(|scope| Scope::parse(scope).is_none())
        .map(|scope| format!("`{scope}`"))
        .collect();
    let known: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
    let are = if unknown.len() == 1 { "is not a scope" } else { "are not scopes" };
    (!unknown.is_empty())
        .then(|| format!("{} {are}; the scopes are {}", unknown.join(", "), known.join(", ")))
}

fn email(text: &str) -> Result<String, String> {
    mail::is_address(text)
        .then(|| text.to_owned())
        .ok_or_else(|| "must be an address, such as someone@example.com".to_owned())
}

fn key_id(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| "must be the id of a key, as `offboard key list` shows it".to_owned())
}

/// Reads the name of an organisation, which becomes a part of paths.
pub fn org(text: &str) -> Result<String, String> {
    let fault = "must be 1 to 128 characters from A-Z a-z 0-9 . _ ~ -, and not `.` or `..`";
    id::is_new_id(text).then(|| text.to_owned()).ok_or_else(|| fault.to_owned())
}

/// Works on the keys of a database.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    if matches!(arguments.action, Action::Revoke(Revoke { yes: false, .. })) && !ask::can_ask() {
        return Ok(ask::unasked("revokes the key"));
    }
    let database = Opened::existing(&arguments.database).await?;
    let done = async {
        database.migrate_embedded().await?;
        match arguments.action {
            Action::Create(create) => make(&database, create).await,
            Action::List(list) => show(&database, list).await,
            Action::Revoke(arguments) => revoke(&database, arguments).await,
        }
    };
    let done = done.await;
    database.close().await?;
    done
}

async fn make(database: &Opened, create: Create) -> Result<ExitCode> {
    let mode = match create.mode {
        KeyMode::Test => Mode::Test,
        KeyMode::Live => Mode::Live,
    };
    let new = NewKey {
        org: create.org,
        mode,
        name: create.name,
        email: create.email,
        // Others were refused before.
        scopes: create.scopes.iter().filter_map(|scope| Scope::parse(scope)).collect(),
        allowed: create.allowed,
        expires_at: create.expires_in_days.map(|days| clock::now() + TimeDelta::days(days.into())),
    };
    report_new_org(database, &new.org).await?;
    let (id, secret) = issue(database, new.clone()).await?;
    let scopes: Vec<_> = new.scopes.iter().map(|scope| scope.as_str()).collect();
    if create.json {
        let key = json!({
            "id": id, "org": new.org, "mode": mode.as_str(), "scopes": scopes, "expires_at": new.expires_at, "secret": secret.reveal(),
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
pub async fn report_new_org(database: &Opened, org: &str) -> Result<()> {
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

async fn show(database: &Opened, list: List) -> Result<ExitCode> {
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
            created_at,
            expires_at,
            revoked_at,
        } = key;
        let line = if list.json {
            let key = json!({
                "id": id, "org": org, "mode": mode.as_str(), "name": name, "secret_prefix": secret_prefix, "scopes": scopes,
                "created_at": created_at, "expires_at": expires_at, "revoked_at": revoked_at,
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
            format!(
                "{id}  {secret_prefix}…  {state:7}  {org} ({mode})  {}  {name}",
                scopes.join(",")
            )
        };
        if !print(line)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn revoke(database: &Opened, Revoke { id, yes }: Revoke) -> Result<ExitCode> {
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
            created_at: time,
            expires_at: None,
            revoked_at: None,
        };
        let reported = format!(
            "Revoke key {id}, etl, of acme (live)? Whoever uses it is refused at once. This cannot be undone. [y/N] "
        );
        assert_eq!(question(&key), reported);
    }
}
