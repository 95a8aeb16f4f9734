//! `offboard import`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use super::client::{Server, bodies_of, credential, failure_text, realm};
use super::database::Opened;
use super::output::{note, print};
use crate::access::Scope;
use crate::access::queries::NewKey;
use crate::config::{Database, Serve};
use crate::db::Mode;
use crate::entity::NewEntity;
use crate::error::{Error, Result, Violations, with_others};
use crate::gateway::Bodies;
use crate::proto::object::Struct;
use crate::proto::v1;
use crate::proto::v1::entity_service_client::EntityServiceClient;
use crate::proto::v1::import_entities_response::Answer;
use crate::server::{Bound, Opening};

/// How many lines are on their way to the service.
const IN_FLIGHT: usize = 256;

/// Arguments of `import`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// File of entities, one JSON object a line, in the form of `POST /v1/entities`; `-` is standard input
    file: PathBuf,

    #[command(flatten)]
    server: Server,

    /// Secret of a key with the scope `entities:write`, and `portfolios:write` where lines have a `portfolio_id`
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true, required_unless_present = "offline")]
    key: Option<String>,

    /// Work on the database itself, without a running service
    #[arg(long, requires = "org")]
    offline: bool,

    /// Organisation that the entities belong to, with --offline
    #[arg(long, requires = "offline", value_parser = super::key::org)]
    org: Option<String>,

    /// Import them in the mode live, with --offline
    #[arg(long, requires = "offline")]
    live: bool,

    #[command(flatten)]
    database: Database,

    /// Print the account as JSON
    #[arg(long)]
    json: bool,
}

/// The results of the lines.
#[derive(Default)]
pub struct Account {
    /// How many that were sent.
    pub summary: v1::ImportSummary,
    /// The first of those that were refused.
    pub failures: Vec<v1::ImportResult>,
    /// The result of reading the file.
    pub lines: Lines,
    /// The realm of the entities: the organisation and its mode.
    pub realm: Option<(String, String)>,
}

/// Returns the faults of the flags in combination: flags of one way to import, given with the other, which would be ignored. Variables do
/// not count.
pub fn misuse(matches: &ArgMatches) -> Option<String> {
    let offline = matches.get_flag("offline");
    let flags: &[&str] =
        if offline { &["server", "server_ca_file", "key"] } else { &["database_url", "data_dir"] };
    let given =
        flags.iter().find(|flag| matches.value_source(flag) == Some(ValueSource::CommandLine))?;
    let flag = given.replace('_', "-");
    Some(match offline {
        true => format!("--{flag} is of a running service, which --offline does without"),
        false => format!(
            "--{flag} has no effect without --offline: the service at --server has its own database"
        ),
    })
}

/// The result of reading the file.
#[derive(Default)]
pub struct Lines {
    /// How many could not be sent.
    pub bad: i64,
    /// The first of those, by their number in the file.
    first_bad: Vec<(i64, String)>,
    /// How many of those that were sent have no `entity_id`.
    pub without_id: i64,
}

/// How many lines of each kind are printed.
const LINES_SHOWN: usize = 100;

/// Sends the lines of a file to the service and prints the results.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let input: Box<dyn AsyncBufRead + Send + Unpin> = if arguments.file.as_os_str() == "-" {
        Box::new(BufReader::new(tokio::io::stdin()))
    } else {
        let unreadable = |error| {
            Error::invalid(
                "FILE",
                "invalid",
                format!("{} cannot be read: {error}", arguments.file.display()),
            )
        };
        Box::new(BufReader::new(tokio::fs::File::open(&arguments.file).await.map_err(unreadable)?))
    };
    let account = match (&arguments.org, arguments.offline) {
        (Some(org), true) => offline(&arguments, org, input).await?,
        _ => send(&arguments.server, arguments.key.as_deref().unwrap_or_default(), input).await?,
    };
    show(&account, arguments.json)?;
    Ok(if account.summary.failed == 0 && account.lines.bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn show(Account { summary, failures, lines, realm }: &Account, json: bool) -> Result<()> {
    let received = summary.received + lines.bad;
    let failed = summary.failed + lines.bad;
    if json {
        let counts = serde_json::json!({
            "received": received, "created": summary.created, "existing": summary.existing, "soft_deleted": summary.soft_deleted,
            "different": summary.different, "failed": failed, "without_entity_id": lines.without_id,
            "org": realm.as_ref().map(|(org, _)| org), "mode": realm.as_ref().map(|(_, mode)| mode),
        });
        print(counts)?;
    } else {
        let prefix =
            realm.as_ref().map(|(org, mode)| format!("{org} ({mode}): ")).unwrap_or_default();
        let there = there_before(summary);
        print(format_args!(
            "{prefix}{received} read, {} created, {there}, {failed} refused.",
            summary.created
        ))?;
    }
    if lines.without_id > 0 {
        note(without_id(lines.without_id));
    }
    for (line, fault) in &lines.first_bad {
        note(format_args!("line {line}: {fault}"));
    }
    for failure in failures {
        let why = failure.error.as_ref().map(|error| error.message.as_str()).unwrap_or_default();
        let prefix = if failure.entity_id.is_empty() {
            String::new()
        } else {
            format!(" ({})", failure.entity_id)
        };
        note(format_args!("line {}{prefix}: {why}", failure.line));
    }
    let left_out = failed - (lines.first_bad.len() + failures.len()) as i64;
    if left_out > 0 {
        note(format_args!("and {left_out} more that were refused"));
    }
    Ok(())
}

fn without_id(count: i64) -> String {
    match count {
        1 => "1 line had no `entity_id`; importing it again creates it again".to_owned(),
        _ => format!("{count} lines had no `entity_id`; importing them again creates them again"),
    }
}

/// How many were there before, for people. What was soft-deleted nobody sees, though its id is taken, and what is not as the file has it stays so.
fn there_before(summary: &v1::ImportSummary) -> String {
    let kinds = [
        (summary.soft_deleted, "soft-deleted"),
        (summary.different, "with other contents, which stay as they are"),
    ];
    let reported: Vec<_> = kinds
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} of them {what}"))
        .collect();
    let reported =
        if reported.is_empty() { String::new() } else { format!(" ({})", reported.join(", ")) };
    format!("{} there before{reported}", summary.existing)
}

/// Imports over a service of its own, with a key that ends with it: the one way in, also without a server.
async fn offline(
    arguments: &Arguments,
    org: &str,
    input: Box<dyn AsyncBufRead + Send + Unpin>,
) -> Result<Account> {
    let database = Opened::existing(&arguments.database).await?;
    let imported = async {
        database.migrate_embedded().await?;
        let settings = Serve::on_free_ports("grpc").with_database(arguments.database.clone());
        let running = crate::server::start(
            &settings,
            Opening::of(Bound::of(&settings).await?, &settings, String::new)?,
            database.pool(),
            "import".to_owned(),
        )
        .await?;
        let new = NewKey {
            org: org.to_owned(),
            mode: if arguments.live { Mode::Live } else { Mode::Test },
            name: "offline import".to_owned(),
            email: None,
            scopes: vec![Scope::EntitiesWrite, Scope::PortfoliosWrite],
            allowed: vec![std::net::IpAddr::from([127, 0, 0, 1]).into()],
            expires_at: None,
        };
        super::key::note_new_org(&database, org).await?;
        let (key_id, secret) = super::key::issue(&database, new).await?;
        let address =
            running.addresses().grpc.ok_or_else(|| Error::internal("the gRPC listener is open"))?;
        let sent = send(&Server::here(address), secret.reveal(), input).await;
        running.drain().await;
        database
            .with_connection(move |connection| {
                Ok(crate::access::queries::revoke_key(connection, key_id)?)
            })
            .await?;
        sent
    };
    let imported = imported.await;
    database.close().await?;
    imported
}

/// Streams the lines to the service.
pub async fn send(
    server: &Server,
    secret: &str,
    input: impl AsyncBufRead + Send + Unpin + 'static,
) -> Result<Account> {
    let credential = credential(secret)?;
    let channel = server.connect().await?;
    if secret.starts_with("sk_live_") {
        name_realm(channel.clone(), credential.clone()).await?;
    }
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let reading = tokio::spawn(read(input, bodies()?, sender));
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    request.metadata_mut().insert("authorization", credential);
    let answers =
        EntityServiceClient::new(channel).import_entities(request).await.map_err(refused)?;
    let realm = realm(answers.metadata()).map(|(org, mode)| (org.to_owned(), mode.to_owned()));
    let (mut answers, mut account) =
        (answers.into_inner(), Account { realm, ..Account::default() });
    while let Some(v1::ImportEntitiesResponse { answer: Some(answer) }) =
        answers.message().await.map_err(refused)?
    {
        match answer {
            Answer::Result(failure) if account.failures.len() < LINES_SHOWN => {
                account.failures.push(failure)
            }
            Answer::Result(_) => {}
            Answer::Summary(summary) => account.summary = summary,
        }
    }
    account.lines = reading.await.map_err(Error::internal)??;
    Ok(account)
}

/// Names the realm before anything is sent: the response to an import of nothing has it.
async fn name_realm(channel: Channel, credential: MetadataValue<Ascii>) -> Result<()> {
    let mut request = tonic::Request::new(tokio_stream::empty());
    request.metadata_mut().insert("authorization", credential);
    let answer =
        EntityServiceClient::new(channel).import_entities(request).await.map_err(refused)?;
    if let Some((org, mode)) = realm(answer.metadata()) {
        note(format_args!("Importing into {org} ({mode})."));
    }
    Ok(())
}

fn refused(status: tonic::Status) -> Error {
    Error::unavailable(format!("The service refused: {}", failure_text(&status)))
}

/// Reads a line as the REST gateway does.
fn bodies() -> Result<Bodies> {
    bodies_of("offboard.v1.EntityService.ImportEntities")
}

/// All that is wrong with a line.
fn faults_of(error: &Error) -> String {
    let faults: Vec<_> = error
        .violations()
        .iter()
        .map(|fault| format!("{}: {}", fault.field, fault.description))
        .collect();
    if faults.is_empty() { error.message().to_owned() } else { faults.join("; ") }
}

/// The request of a line, with its number; or all that is wrong with it, also by the rules of the service, where anything is that no message can say.
fn read_line(bodies: &Bodies, text: &[u8], number: i64) -> Result<v1::ImportEntitiesRequest> {
    let (mut request, mut faults) =
        bodies.read::<v1::ImportEntitiesRequest>(text).map_err(|error| bodies.spelled(error))?;
    add_objects_lost(&request, &mut faults);
    if faults.is_empty() {
        (request.failures_only, request.line) = (true, number);
        return Ok(request);
    }
    let others = request.entity.and_then(|entity| NewEntity::check(entity, "entity").err());
    Err(bodies.spelled(with_others(faults, others)))
}

/// Objects that no message carries: they would arrive empty.
fn add_objects_lost(request: &v1::ImportEntitiesRequest, faults: &mut Violations) {
    let mut check = |field: String, object: &Struct| {
        if let Some(fault) = object.fault() {
            faults.add(format!("entity.{field}"), fault.code(), fault.description());
        }
    };
    if let Some(entity) = &request.entity {
        entity.attributes.iter().for_each(|attributes| check("attributes".to_owned(), attributes));
        entity
            .crosswalks
            .iter()
            .enumerate()
            .for_each(|(n, crosswalk)| check(format!("crosswalks[{n}]"), crosswalk));
        let data = entity
            .dependents
            .iter()
            .enumerate()
            .filter_map(|(n, dependent)| Some((n, dependent.data.as_ref()?)));
        data.for_each(|(n, data)| check(format!("dependents[{n}].data"), data));
    }
}

/// Reads the file to its end, and returns what it found.
async fn read(
    mut input: impl AsyncBufRead + Unpin,
    bodies: Bodies,
    sender: mpsc::Sender<v1::ImportEntitiesRequest>,
) -> Result<Lines> {
    let mut lines = Lines::default();
    let mut line = Vec::new();
    let (mut number, mut is_first) = (0, true);
    loop {
        line.clear();
        number += 1;
        let read = input.read_until(b'\n', &mut line).await;
        if read.map_err(|error| {
            Error::invalid("FILE", "invalid", format!("cannot be read: {error}"))
        })? == 0
        {
            return Ok(lines);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if std::mem::replace(&mut is_first, false) {
            check_begin(&line)?;
        }
        match read_line(&bodies, &line, number) {
            Ok(message) => {
                lines.without_id += i64::from(
                    message.entity.as_ref().is_none_or(|entity| entity.entity_id.is_empty()),
                );
                if sender.send(message).await.is_err() {
                    // The service has ended the stream; its response says why.
                    return Ok(lines);
                }
            }
            Err(error) => {
                lines.bad += 1;
                if lines.first_bad.len() < LINES_SHOWN {
                    lines.first_bad.push((number, faults_of(&error)));
                }
            }
        }
    }
}

/// Fails where the first line is the beginning of a document of several lines, of which no line is an entity.
fn check_begin(line: &[u8]) -> Result<()> {
    let description = match line.trim_ascii() {
        [b'[', ..] => "must have one entity a line, not an array: `jq -c '.[]'` makes lines of one",
        b"{" => {
            "must have one entity a line, each whole: `jq -c .` makes lines of entities that span several"
        }
        _ => return Ok(()),
    };
    Err(Error::invalid("FILE", "invalid", description))
}
