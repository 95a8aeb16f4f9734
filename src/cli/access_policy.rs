//! `offboard access-policy`.

use std::process::ExitCode;

use clap::{ArgMatches, Args, Subcommand};
use ipnet::IpNet;
use serde_json::Value;

use super::client::{Server, realm_of, request};
use super::key::{KeyMode, Remote, as_json, in_database, org, read};
use super::output::print;
use super::refusal::refused;
use crate::access::keys::policy::AccessPolicy;
use crate::access::{keys, network};
use crate::config::Database;
use crate::db::Realm;
use crate::error::{Code, Error, Result};
use crate::proto::v1;
use crate::proto::v1::access_service_client::AccessServiceClient;

/// The word for no network.
const NONE: &str = "none";

/// Arguments of `access-policy`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    database: Database,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show where keys may be used from. With --org in the database itself, with --server by a call, for the organisation of --key
    Get(Get),
    /// Change where keys may be used from. With --org in the database itself, which also lets those in again who have locked themselves out; with --server by a call, for the organisation of --key
    Set(Set),
}

#[derive(Args, Debug)]
struct Of {
    /// Organisation whose policy it is, in the database
    #[arg(long, value_parser = org, required_unless_present = "server", conflicts_with = "server")]
    org: Option<String>,

    /// Which of the organisation's two modes; with --server that of --key
    #[arg(long, value_enum, default_value = "test", conflicts_with = "server")]
    mode: KeyMode,

    #[command(flatten)]
    remote: Remote,
}

#[derive(Args, Debug)]
struct Get {
    #[command(flatten)]
    of: Of,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Set {
    /// Network from which every key of the organisation may be used, such as 10.0.0.0/8; repeat it for more, or `none` for from anywhere. Those so far are replaced
    #[arg(long = "allow", value_name = "CIDR", required = true, value_parser = network_or_none)]
    allowed: Vec<Allowed>,

    /// Exclude the address that the call comes from, too
    #[arg(long, requires = "server")]
    allow_lockout: bool,

    /// Version that the policy must be at
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(1..), requires = "server")]
    expected_version: Option<i64>,

    #[command(flatten)]
    of: Of,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A network, or none for from anywhere.
#[derive(Clone, Copy, Debug)]
struct Allowed(Option<IpNet>);

fn network_or_none(text: &str) -> Result<Allowed, String> {
    if text == NONE { Ok(Allowed(None)) } else { network(text).map(|found| Allowed(Some(found))) }
}

/// Returns the faults of the flags in combination.
pub fn misuse(matches: &ArgMatches) -> Option<String> {
    let mut allowed = matches.subcommand_matches("set")?.get_many::<Allowed>("allowed")?;
    let is_mixed = allowed.len() > 1 && allowed.any(|network| network.0.is_none());
    is_mixed.then(|| {
        format!("--allow {NONE} removes all networks, so it cannot be combined with others")
    })
}

/// Shows the policy, or changes it and shows the result: by a call of a service, or in a database.
pub async fn run(Arguments { database, action }: Arguments) -> Result<ExitCode> {
    match action {
        Action::Get(Get { mut of, json }) => match of.remote.take()? {
            Some(service) => get(service, json).await,
            None => in_realm(&database, of, json, None).await,
        },
        Action::Set(mut set) => match set.of.remote.take()? {
            Some(service) => change(service, set).await,
            None => {
                let allowed = set.allowed.iter().filter_map(|network| network.0).collect();
                in_realm(&database, set.of, set.json, Some(allowed)).await
            }
        },
    }
}

async fn get((server, key): (Server, String), json: bool) -> Result<ExitCode> {
    let mut client = AccessServiceClient::new(server.connect().await?);
    let message = v1::GetAccessPolicyRequest {};
    let answer = client.get_access_policy(request(message, &key)?).await.map_err(refused)?;
    let realm = realm_of(answer.metadata()).unwrap_or_default();
    show(answer.get_ref(), &realm, json)
}

async fn change((server, key): (Server, String), set: Set) -> Result<ExitCode> {
    let networks: Vec<String> =
        set.allowed.iter().filter_map(|network| Some(network.0?.to_string())).collect();
    // An empty list is a change too: the members of the body say what is changed.
    let body = serde_json::json!({ "allowed": networks });
    let mut message: v1::UpdateAccessPolicyRequest = read("UpdateAccessPolicy", body)?;
    message.expected_version = set.expected_version;
    message.allow_lockout = set.allow_lockout;
    let mut client = AccessServiceClient::new(server.connect().await?);
    let answer = client.update_access_policy(request(message, &key)?).await.map_err(refused)?;
    let realm = realm_of(answer.metadata()).unwrap_or_default();
    show(answer.get_ref(), &realm, set.json)
}

/// Shows the policy of a realm in the database, once it is this one, if one is given.
async fn in_realm(
    database: &Database,
    of: Of,
    json: bool,
    allowed: Option<Vec<IpNet>>,
) -> Result<ExitCode> {
    let (org, mode) = (of.org.unwrap_or_default(), of.mode.into());
    in_database(database, async |opened| {
        let name = org.clone();
        let found = opened.with_connection(move |connection| {
            Ok(keys::policy_queries::in_realm(connection, (&name, mode), allowed.as_deref())?)
        });
        let none =
            || Error::new(Code::NotFound, format!("No key was ever made of `{org}` ({mode})."));
        let (realm, policy): (Realm, AccessPolicy) = found.await?.ok_or_else(none)?;
        show(&policy.to_proto(&realm), &format!("{org}/{mode}"), json)
    })
    .await
}

fn show(policy: &v1::AccessPolicy, realm: &str, json: bool) -> Result<ExitCode> {
    let members: Value = as_json(policy)?;
    if json {
        print(members)?;
        return Ok(ExitCode::SUCCESS);
    }
    let networks = match policy.allowed.as_slice() {
        [] => "anywhere".to_owned(),
        networks => networks.join(", "),
    };
    print(format_args!(
        "Keys of {realm} may be used from {networks}. The access policy is at version {}.",
        policy.version
    ))?;
    Ok(ExitCode::SUCCESS)
}
