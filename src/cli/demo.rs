//! `offboard demo`: every operation, done by a client of a real service on real data, and checked.

mod bulk;
mod caller;
mod cast;
mod invitation;
mod stage;
mod steps;
mod witness;

use std::cell::Cell;
use std::fmt::Debug;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use uuid::Uuid;

use self::caller::Caller;
use self::cast::Cast;
use self::stage::Stage;
use super::database::Opened;
use super::output::note;
use crate::access::Scope;
use crate::access::queries::NewKey;
use crate::config::{Database, Serve};
use crate::db::Mode;
use crate::error::{Error, Result};
use crate::server::drain::Signals;
use crate::server::{self, Addresses, Bound, Opening};

/// The entities that the demo works on: packages of two public registries.
const ENTITIES: &[u8] = include_bytes!("../../demo/entities.ndjson");
/// The exit code after a signal, as a shell has it.
const INTERRUPTED: u8 = 130;

/// Arguments of `demo`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Folder of the embedded Postgres; each run makes an organisation of its own in it [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// File of entities to work on instead of the built-in ones, one JSON object a line; it needs the same attributes and types
    #[arg(long, value_name = "FILE")]
    entities: Option<PathBuf>,

    /// Import, print lines to try, and serve until a signal, on the default ports if they are free
    #[arg(long)]
    serve: bool,
}

/// A result that differs from the expected one.
#[derive(Debug)]
struct Surprise(String);

impl Surprise {
    fn new(what: impl Into<String>) -> Surprise {
        Surprise(what.into())
    }
}

impl From<Error> for Surprise {
    fn from(error: Error) -> Surprise {
        Surprise(super::sentence(&error))
    }
}

/// Compares a result with the expected one.
fn same<T: PartialEq + Debug>(what: &str, found: &T, due: &T) -> Result<(), Surprise> {
    if found == due {
        Ok(())
    } else {
        Err(Surprise(format!("{what}: {found:?}, where {due:?} was due")))
    }
}

/// Shows every operation; with `--serve`, stays up for others to try. The exit code is 0 when all results were as expected, 130 when a
/// signal came before that, else 1.
pub async fn run(
    arguments: Arguments,
    instance: String,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Result<ExitCode> {
    let mut signals = Signals::install().map_err(Error::internal)?;
    let (folder, temporary) = match &arguments.data_dir {
        Some(folder) => (folder.clone(), false),
        None => (make_temporary()?, true),
    };
    let outcome = show(&arguments, &folder, &mut signals, instance, metrics).await;
    if temporary && let Err(error) = std::fs::remove_dir_all(&folder) {
        tracing::warn!(%error, folder = %folder.display(), "the temporary folder cannot be removed");
    }
    Ok(match outcome {
        Ok(Ending::Done) => {
            Stage::new().line("\ndemo: ok");
            ExitCode::SUCCESS
        }
        Ok(Ending::Interrupted) => {
            note("demo: interrupted");
            ExitCode::from(INTERRUPTED)
        }
        Err(Surprise(what)) => {
            note(format_args!("demo: failed: {what}"));
            ExitCode::FAILURE
        }
    })
}

enum Ending {
    Done,
    Interrupted,
}

fn make_temporary() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("offboard-demo-{}", Uuid::now_v7().simple()));
    let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
    made.map_err(|error| {
        Error::unavailable(format!("{} cannot be made.", folder.display())).caused_by(error)
    })?;
    Ok(folder)
}

/// Starts the service, plays, and ends it in order, whatever happened in between.
async fn show(
    arguments: &Arguments,
    folder: &Path,
    signals: &mut Signals,
    instance: String,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Result<Ending, Surprise> {
    let file = match &arguments.entities {
        None => ENTITIES.to_vec(),
        Some(path) => std::fs::read(path)
            .map_err(|error| Surprise(format!("{} cannot be read: {error}", path.display())))?,
    };
    let cast = Cast::choose(&file)?;
    let stage = Stage::new();
    stage.line(format_args!(
        "offboard {} starts, with a Postgres of its own in {}",
        env!("CARGO_PKG_VERSION"),
        folder.display()
    ));

    let settings = settings(folder, arguments.serve);
    let opening = Opening::of(Bound::of(&settings).await?, &settings, metrics)?;
    let database = Opened::open(&settings.database).await?;
    let ended = async {
        database.migrate(false).await?;
        let running = server::start(&settings, opening, database.pool(), instance).await?;
        // Once it serves, a signal is what it waits for.
        let serving = Cell::new(false);
        let reported = arguments.serve.then_some(&serving);
        let ending = tokio::select! {
            played = play(stage, &database, running.addresses(), &cast, file, reported) => played.map(|()| Ending::Done),
            () = signals.first_signal() => Ok(if serving.get() { Ending::Done } else { Ending::Interrupted }),
        };
        running.drain().await;
        ending
    };
    let ended = ended.await;
    database.close().await?;
    ended
}

/// The settings of the demo's own service.
fn settings(folder: &Path, on_default_ports: bool) -> Serve {
    let database = Database { database_url: None, data_dir: folder.to_owned() };
    let mut settings = Serve::on_free_ports("grpc,gateway,worker").with_database(database);
    if on_default_ports {
        let listeners = [
            (&mut settings.grpc_addr, 50051),
            (&mut settings.http_addr, 8080),
            (&mut settings.admin_addr, 9464),
        ];
        for (address, port) in listeners {
            let default = SocketAddr::from(([127, 0, 0, 1], port));
            if TcpListener::bind(default).is_ok() {
                *address = default;
            }
        }
    }
    // Small chunks, so that a few hundred entities take long enough for their progress to be seen.
    settings.worker.bulk_chunk_size = 20;
    settings
}

/// Imports, and does every operation; or, with an address to announce, shows how to call the service and serves until it is stopped.
async fn play(
    stage: Stage,
    database: &Opened,
    addresses: Addresses,
    cast: &Cast,
    file: Vec<u8>,
    serving: Option<&Cell<bool>>,
) -> Result<(), Surprise> {
    let org = format!("demo-{:08x}", rand::random::<u32>());
    let new = NewKey {
        org: org.clone(),
        mode: Mode::Test,
        name: "demo".to_owned(),
        email: None,
        scopes: Scope::ALL.iter().copied().filter(|scope| *scope != Scope::Admin).collect(),
        allowed: Vec::new(),
        expires_at: None,
    };
    let (_, secret) = super::key::issue(database, new).await?;
    let caller = Caller::connect(stage, addresses, &org, secret.reveal()).await?;
    stage.say(format_args!("gRPC    {}", caller.grpc_addr));
    stage.say(format_args!("REST    {}", caller.http_url));
    stage.say(format_args!("admin   http://{}", addresses.admin));
    match serving {
        Some(_) => {
            stage.say(format_args!("key     {}, of the organisation {org} (test)", caller.secret))
        }
        None => stage
            .say(format_args!("key     {}..., of the organisation {org} (test)", secret.prefix())),
    }

    stage.step(
        1,
        &format!("Import {} packages of two public registries", stage::count(cast.all.len())),
    );
    steps::import(&caller, cast, file).await?;
    stage.step(2, "Make two portfolios and attach entities");
    steps::make_portfolios(&caller, cast).await?;
    match serving {
        Some(serving) => {
            invite(&caller, cast);
            serving.set(true);
            std::future::pending().await
        }
        None => remove(&caller, cast).await,
    }
}

fn invite(caller: &Caller, cast: &Cast) {
    let stage = caller.stage;
    stage.line(
        "\nIt serves until Ctrl-C. To try from another terminal: see a portfolio, describe a service, detach, offboard, bulk-delete.\n",
    );
    for line in invitation::lines(caller, cast) {
        stage.line(format_args!("{line}\n"));
    }
}

/// Everything that takes entities out.
async fn remove(caller: &Caller, cast: &Cast) -> Result<(), Surprise> {
    let stage = caller.stage;
    stage.step(3, "Export a portfolio before anything leaves it");
    witness::export(caller).await?;
    stage.step(4, "Detach: only the link is removed");
    steps::detach(caller, cast).await?;
    stage.step(5, "Refused: in another portfolio, and still onboarding");
    steps::refusals(caller, cast).await?;
    stage.step(6, "Offboard: one entity is removed, with all that hangs on it");
    steps::offboard(caller, cast).await?;
    stage.step(7, "Change one's mind within the grace period");
    steps::cancel(caller, cast).await?;
    stage.step(8, "Refused: a bulk delete with a misspelt function");
    bulk::wrong_filter(caller).await?;
    stage.step(9, "Bulk delete, hard: what a filter selects, but for two");
    bulk::hard(caller, cast).await?;
    stage.step(10, "Bulk delete, soft: all of a type");
    bulk::soft(caller, cast).await?;
    stage.step(11, "What is left");
    bulk::balance(caller, cast).await
}
