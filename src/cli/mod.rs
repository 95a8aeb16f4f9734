//! The command line: one file a subcommand.

mod access_policy;
mod allocator;
mod arguments;
mod ask;
mod bulk_delete;
mod client;
mod database;
mod demo;
mod events;
mod healthcheck;
mod http;
mod import;
mod key;
mod migrate;
mod output;
mod refusal;
mod removal_policy;
mod serve;
mod token;
mod wait_for_db;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::output::{note, print};
use crate::config::{LogFormat, Logging, roots_fault, unknown_variables};
use crate::error::{Error, Result};
use crate::telemetry::{self, StatementTracer, Telemetry};

/// Takes entities out of a multi-tenant portfolio safely: detach, offboard, bulk delete.
#[derive(Parser, Debug)]
#[command(name = "offboard", version, about, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve gRPC and REST, and do the work behind them
    Serve(Box<crate::config::Serve>),
    /// Bring the database's schema up to date
    Migrate(migrate::Arguments),
    /// Wait until the database responds
    WaitForDb(wait_for_db::Arguments),
    /// Ask a running service whether it is ready
    Healthcheck(healthcheck::Arguments),
    /// Make, list and revoke API keys
    Key(key::Arguments),
    /// Show what the service would make of a token
    Token(token::Arguments),
    /// Show and change where the keys of an organisation may be used from
    AccessPolicy(access_policy::Arguments),
    /// Create the entities of a file
    Import(import::Arguments),
    /// Show the histories of events, and begin a new one
    Events(events::Arguments),
    /// Show and change what an organisation has decided on removals, at a running service
    RemovalPolicy(removal_policy::Arguments),
    /// Delete many entities of a running service
    BulkDelete(bulk_delete::Arguments),
    /// Show what the service does, on real data
    Demo(demo::Arguments),
    /// Print the version
    Version,
}

impl Command {
    /// The filter of log lines, unless the command sets another one.
    fn default_log(&self) -> &'static str {
        match self {
            Command::Serve(_) => "info",
            _ => "warn",
        }
    }
}

/// The definition of the command line, for its documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line of this process. A failure is one sentence on stderr and exit code 1; wrong usage is exit code 2.
pub fn main() -> ExitCode {
    let cli = parse();
    if matches!(cli.command, Command::Serve(_)) {
        allocator::settle();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            note(format_args!("offboard: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(cli));
    // Threads that are at rest end now: one that ended while the process does would meet OpenSSL cleaning up. What still runs after an orderly
    // end, or after a second signal, is left behind.
    runtime.shutdown_timeout(LAST_GRACE);
    outcome.unwrap_or_else(|error| {
        note(format_args!("offboard: {}", sentence(&error)));
        ExitCode::FAILURE
    })
}

/// Returns the fault of arguments that are right each but not together, if there is one.
type Misuse = fn(&ArgMatches) -> Option<String>;

/// Reads the command line of this process. Ends it where that is wrong.
fn parse() -> Cli {
    let (mut command, matches) =
        arguments::read(Cli::command()).unwrap_or_else(|error| error.exit());
    let misuse: [(&str, Misuse, ErrorKind); 4] = [
        ("access-policy", access_policy::misuse, ErrorKind::ArgumentConflict),
        ("import", import::misuse, ErrorKind::ArgumentConflict),
        ("key", key::misuse, ErrorKind::ValueValidation),
        ("removal-policy", removal_policy::misuse, ErrorKind::ArgumentConflict),
    ];
    for (name, misuse, kind) in misuse {
        if let Some(fault) = matches.subcommand_matches(name).and_then(misuse) {
            let mut misused = command.find_subcommand_mut(name).cloned().unwrap_or(command);
            misused.error(kind, fault).exit();
        }
    }
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// How long spans and metrics that were not sent yet have, where nothing says otherwise; and lines of the log that were not written, at most.
const LAST_FLUSH: Duration = Duration::from_secs(5);

/// The time for the last lines of the log where none is left.
const LAST_LINES: Duration = Duration::from_millis(100);

/// How long what still runs at the very end is waited for.
const LAST_GRACE: Duration = Duration::from_millis(250);

/// A failure for the person at the terminal: unlike a caller of the service, they may know the cause.
fn sentence(error: &Error) -> String {
    let faults: Vec<_> = error
        .violations()
        .iter()
        .map(|fault| format!("{}: {}", fault.field, fault.description))
        .collect();
    let mut text = if faults.is_empty() { error.message().to_owned() } else { faults.join("; ") };
    if let Some(cause) = error.cause_chain() {
        text.push_str(&format!(" ({cause})"));
    }
    text
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let instance = instance_name();
    let telemetry = start_telemetry(&cli.logging, cli.command.default_log(), &instance)?;
    for (variable, meant) in unknown_variables(&command()) {
        match meant {
            Some(meant) => {
                tracing::warn!(variable, meant, "no setting has this variable; it is passed over")
            }
            // A terminal may have variables of scripts, too.
            None if matches!(cli.command, Command::Serve(_)) => {
                tracing::warn!(variable, "no setting has this variable; it is passed over")
            }
            None => {}
        }
    }
    let mut ends = None;
    let outcome = match cli.command {
        Command::Serve(settings) => {
            serve::run(*settings, instance, telemetry.prometheus()).await.map(|(code, by)| {
                ends = by;
                code
            })
        }
        Command::Migrate(arguments) => migrate::run(arguments).await,
        Command::WaitForDb(arguments) => wait_for_db::run(arguments).await,
        Command::Healthcheck(arguments) => healthcheck::run(arguments).await,
        Command::Key(arguments) => key::run(arguments).await,
        Command::Token(arguments) => token::run(arguments).await,
        Command::AccessPolicy(arguments) => access_policy::run(arguments).await,
        Command::Import(arguments) => import::run(arguments).await,
        Command::Events(arguments) => events::run(arguments).await,
        Command::RemovalPolicy(arguments) => removal_policy::run(arguments).await,
        Command::BulkDelete(arguments) => bulk_delete::run(arguments).await,
        Command::Demo(arguments) => demo::run(arguments, instance, telemetry.prometheus()).await,
        Command::Version => {
            print(format_args!("offboard {}", env!("CARGO_PKG_VERSION"))).map(|_| ExitCode::SUCCESS)
        }
    };
    let ends = ends.unwrap_or_else(|| Instant::now() + LAST_FLUSH);
    telemetry.shutdown(ends).await;
    telemetry::flush_log(
        ends.saturating_duration_since(Instant::now()).clamp(LAST_LINES, LAST_FLUSH),
    );
    outcome
}

fn start_telemetry(logging: &Logging, default_log: &str, instance: &str) -> Result<Telemetry> {
    let options = telemetry::Options {
        log_filter: logging.log.clone().unwrap_or_else(|| default_log.to_owned()),
        log_format: match logging.log_format {
            LogFormat::Json => telemetry::LogFormat::Json,
            LogFormat::Text => telemetry::LogFormat::Text,
        },
        log_queue_bytes: usize::try_from(logging.log_queue_bytes).unwrap_or(usize::MAX),
        otlp_endpoint: logging.otlp_endpoint.clone(),
        service_instance: instance.to_owned(),
    };
    let uses_roots = |endpoint: &String| {
        endpoint.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
    };
    if options.otlp_endpoint.as_ref().is_some_and(uses_roots)
        && let Some((variable, fault)) = roots_fault()
    {
        return Err(Error::invalid(
            variable,
            "invalid",
            format!("{fault}; the collector of --otlp-endpoint is checked by it"),
        ));
    }
    let telemetry = telemetry::init(&options).map_err(Error::internal)?;
    diesel::connection::set_default_instrumentation(|| Some(Box::new(StatementTracer::default())))
        .map_err(Error::internal)?;
    Ok(telemetry)
}

/// Names this process among the replicas: the host, and a part that no other process has.
fn instance_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let id = uuid::Uuid::now_v7().simple().to_string();
    format!("{}-{}", if host.trim().is_empty() { "offboard" } else { host.trim() }, &id[20..])
}

/// Reads a value that must not be empty: an unset variable of the shell leaves an empty one, which would select more, exclude less or
/// withdraw something.
fn not_blank(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("must not be blank".to_owned()) } else { Ok(text.to_owned()) }
}
