//! `offboard key`.

mod by_database;
mod by_service;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use uuid::Uuid;

pub use by_database::{issue, note_new_org};
pub use by_service::{as_json, read};

use super::client::{self, Server};
use super::database::Opened;
use super::{ask, not_blank};
use crate::access::{Scope, network};
use crate::config::Database;
use crate::db::{Mode, id};
use crate::error::{Error, Result, nearest};
use crate::mail;

/// The word that takes a value back.
const NONE: &str = "none";

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
    /// Make a key; its secret is shown once. With --org in the database itself, as the first key of an organisation is made; with --server by a call, for the organisation of --key
    Create(Create),
    /// Show a key of the organisation of --key, at a running service
    Get(Get),
    /// List keys; secrets are not kept, so they are not shown. In the database itself, or with --server by a call
    List(List),
    /// Change what is named of a key and leave the rest, at a running service; `none` takes a value back
    Update(Box<Update>),
    /// Give a key another secret, at a running service; it is shown once, and the one before it stays valid for --overlap
    Rotate(Rotate),
    /// End a key at once. In the database itself, or with --server by a call
    Revoke(Revoke),
}

/// A running service, for what is done in the database without one.
#[derive(Args, Debug)]
pub struct Remote {
    /// Where a running service speaks gRPC, which is to do it; at an https URL by TLS. No variable sets it
    #[arg(long, value_name = "URL", value_parser = client::url)]
    server: Option<String>,

    /// File with root certificates that the service is checked by at an https URL, instead of those of the system
    #[arg(long, env = "OFFBOARD_SERVER_CA_FILE", value_name = "FILE")]
    server_ca_file: Option<PathBuf>,

    /// Secret of the key that calls the service of --server; it needs the scope `keys:write`, or `keys:read` to see; for the access policy `admin`, or `keys:read` to see
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: Option<String>,
}

impl Remote {
    /// The service and the secret of the caller's key, if it is to be done by a call.
    pub fn take(&mut self) -> Result<Option<(Server, String)>> {
        let Some(server) = self.server.take() else { return Ok(None) };
        let key = self.key.take().ok_or_else(|| {
            Error::invalid("--key", "required", "must be given where --server is")
        })?;
        Ok(Some((Server::at(server, self.server_ca_file.take()), key)))
    }
}

#[derive(Args, Debug)]
struct Create {
    /// Organisation that the key belongs to; the key is made in the database
    #[arg(long, value_parser = org, required_unless_present = "server", conflicts_with = "server")]
    org: Option<String>,

    /// Which of the organisation's two modes the key opens; with --server that of --key
    #[arg(long, value_enum, default_value = "test", conflicts_with = "server")]
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
    #[arg(long = "allow", value_name = "CIDR", value_parser = network)]
    allowed: Vec<IpNet>,

    /// Days after which the key ends [default: never]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    expires_in_days: Option<u32>,

    #[command(flatten)]
    remote: Remote,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Get {
    /// The key's id
    #[arg(value_parser = key_id)]
    id: Uuid,

    #[command(flatten)]
    server: Server,

    /// Secret of a key with the scope `keys:read`
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct List {
    /// Only those of this organisation
    #[arg(long, conflicts_with = "server")]
    org: Option<String>,

    /// Only those that match this filter
    #[arg(long, value_name = "EXPRESSION", value_parser = not_blank, requires = "server")]
    filter: Option<String>,

    #[command(flatten)]
    remote: Remote,

    /// Print JSON, a key a line
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Update {
    /// The key's id
    #[arg(value_parser = key_id)]
    id: Uuid,

    #[command(flatten)]
    values: Values,

    /// Let the networks of --allow exclude the address that the call comes from, though it is made by the same key
    #[arg(long)]
    allow_lockout: bool,

    /// Version that the key must be at
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(1..))]
    expected_version: Option<i64>,

    #[command(flatten)]
    server: Server,

    /// Secret of a key with the scope `keys:write` and those of the key that is changed
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct Values {
    /// Name for people; may be empty
    #[arg(long)]
    name: Option<String>,

    /// Where the owner gets mail, or `none`
    #[arg(long, value_parser = not_blank)]
    email: Option<String>,

    /// Scope of the key; repeat it, or separate by commas. Those so far are replaced
    #[arg(long = "scope", value_delimiter = ',')]
    scopes: Vec<String>,

    /// Network from which the key may be used; repeat it for more, or `none` for from anywhere. Those so far are replaced
    #[arg(long = "allow", value_name = "CIDR", value_parser = not_blank)]
    allowed: Vec<String>,

    /// Days from now after which the key ends, or `none`
    #[arg(long, value_name = "DAYS", value_parser = days)]
    expires_in_days: Option<Days>,

    /// Version of the API that the key speaks where a call names none, such as 2026-11-01
    #[arg(long, value_name = "VERSION", value_parser = not_blank)]
    api_version: Option<String>,
}

/// Days from now; none for ever.
#[derive(Clone, Copy, Debug)]
struct Days(Option<u32>);

#[derive(Args, Debug)]
struct Rotate {
    /// The key's id
    #[arg(value_parser = key_id)]
    id: Uuid,

    /// How long the secret that the key has stays valid beside the new one, such as 0s, 3600s, 24h or P7D; 30 days at most
    #[arg(long, value_name = "DURATION", value_parser = not_blank)]
    overlap: String,

    /// Version that the key must be at
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(1..))]
    expected_version: Option<i64>,

    #[command(flatten)]
    server: Server,

    /// Secret of a key with the scope `keys:write` and those of the key that is rotated; it may be that one
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Revoke {
    /// The key's id
    #[arg(value_parser = key_id)]
    id: Uuid,

    #[command(flatten)]
    remote: Remote,

    /// Revoke without asking
    #[arg(long)]
    yes: bool,
}

/// One of the two modes of an organisation.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeyMode {
    Test,
    Live,
}

impl From<KeyMode> for Mode {
    fn from(mode: KeyMode) -> Mode {
        match mode {
            KeyMode::Test => Mode::Test,
            KeyMode::Live => Mode::Live,
        }
    }
}

/// Returns all faults of the scopes of `key create` and `key update`.
pub fn misuse(matches: &ArgMatches) -> Option<String> {
    let (name, matches) = matches.subcommand()?;
    if !matches!(name, "create" | "update") {
        return None;
    }
    let scopes = matches.get_many::<String>("scopes")?;
    let unknown: Vec<_> = scopes
        .filter(|scope| Scope::parse(scope).is_none())
        .map(|scope| match nearest(scope, Scope::SPELLINGS.iter().copied()) {
            Some(meant) => format!("`{scope}` (did you mean `{meant}`?)"),
            None => format!("`{scope}`"),
        })
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

fn days(text: &str) -> Result<Days, String> {
    if text == NONE {
        return Ok(Days(None));
    }
    let days = text.parse().ok().filter(|days| (1..=36_500).contains(days));
    days.map(|days| Days(Some(days)))
        .ok_or_else(|| format!("must be a whole number from 1 to 36500, or `{NONE}`"))
}

fn key_id(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| "must be the id of a key, as `offboard key list` shows it".to_owned())
}

/// Reads the name of an organisation, which becomes a part of paths.
pub fn org(text: &str) -> Result<String, String> {
    let fault = "must be 1 to 128 characters from A-Z a-z 0-9 . _ ~ -, and not `.` or `..`";
    id::is_new_id(text).then(|| text.to_owned()).ok_or_else(|| fault.to_owned())
}

/// Works on keys: by calls of a service, or in a database.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { database, action } = arguments;
    if matches!(action, Action::Revoke(Revoke { yes: false, .. })) && !ask::can_ask() {
        return Ok(ask::unasked("revokes the key"));
    }
    match action {
        Action::Get(get) => by_service::get(get).await,
        Action::Update(update) => by_service::update(*update).await,
        Action::Rotate(rotate) => by_service::rotate(rotate).await,
        Action::Create(mut create) => match create.remote.take()? {
            Some(service) => by_service::create(service, create).await,
            None => {
                in_database(&database, async |opened| by_database::make(opened, create).await).await
            }
        },
        Action::List(mut list) => match list.remote.take()? {
            Some(service) => by_service::list(service, list).await,
            None => {
                in_database(&database, async |opened| by_database::show(opened, list).await).await
            }
        },
        Action::Revoke(mut revoke) => match revoke.remote.take()? {
            Some(service) => by_service::revoke(service, revoke).await,
            None => {
                in_database(&database, async |opened| by_database::revoke(opened, revoke).await)
                    .await
            }
        },
    }
}

/// Does work in the database of the settings.
pub async fn in_database(
    database: &Database,
    work: impl AsyncFnOnce(&Opened) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let opened = Opened::existing(database).await?;
    let done = async {
        opened.migrate_embedded().await?;
        work(&opened).await
    };
    let done = done.await;
    opened.close().await?;
    done
}
