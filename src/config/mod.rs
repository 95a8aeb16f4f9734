//! Every setting: its flag, its `OFFBOARD_*` variable, its default and its purpose.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, ValueEnum};

mod blank;
mod bodies;
mod kept;
mod listeners;
mod parse;
mod proxies;
mod rates;
mod shares;
mod tokens;
mod unknown;

pub use blank::{is_blank, without_blank_variables};
pub use bodies::Bodies;
pub use kept::Kept;
pub use listeners::{Listeners, Reflection};
pub use parse::{address, roots_fault};
pub use proxies::{ForwardedHeader, Proxies};
pub use rates::{ClassRates, Rates};
pub use shares::Shares;
pub use tokens::Tokens;
pub use unknown::unknown_variables;

use parse::{
    MANY, certificates, file, log_filter, origin, otlp_url, public_url, seconds, seconds_from,
    some_seconds, stream_name, subject_prefix, whole,
};

/// The database: a URL, or the folder of the embedded one.
#[derive(Args, Clone, Debug)]
pub struct Database {
    /// Postgres to use, as a libpq URL. Without it the embedded Postgres of the data folder is used
    #[arg(
        long,
        env = "OFFBOARD_DATABASE_URL",
        hide_env_values = true,
        global = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,

    /// Folder of the embedded Postgres; `serve` and `demo` make one where there is none, and no other command does
    #[arg(
        long,
        env = "OFFBOARD_DATA_DIR",
        default_value = "./.offboard",
        global = true,
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,
}

/// How the process uses its database.
#[derive(Args, Clone, Debug)]
pub struct Pool {
    /// Connections that this process may have
    #[arg(long, env = "OFFBOARD_DB_POOL_SIZE", default_value_t = 10, value_parser = whole(2..=1000_u32))]
    pub db_pool_size: u32,

    /// Calls that may wait for a connection; further ones are refused
    #[arg(long, env = "OFFBOARD_DB_QUEUE_LIMIT", default_value_t = 1000, value_parser = whole(1..=MANY))]
    pub db_queue_limit: usize,

    /// Seconds that a call may wait for a connection
    #[arg(long, env = "OFFBOARD_DB_ACQUIRE_TIMEOUT", default_value = "5", value_parser = some_seconds, value_name = "SECONDS")]
    pub db_acquire_timeout: Duration,

    /// Seconds that a statement may run; 0 is not a limit
    #[arg(long, env = "OFFBOARD_DB_STATEMENT_TIMEOUT", default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    pub db_statement_timeout: Duration,

    /// Seconds that a statement may wait for a lock; 0 is not a limit [default: 5 seconds, or --db-statement-timeout where that is less]
    #[arg(long, env = "OFFBOARD_DB_LOCK_TIMEOUT", value_parser = seconds, value_name = "SECONDS")]
    pub db_lock_timeout: Option<Duration>,
}

impl Pool {
    /// How long a statement may wait for a lock; 0 is not a limit.
    pub fn lock_timeout(&self) -> Duration {
        const UNLESS_SAID: Duration = Duration::from_secs(5);
        let most = if self.db_statement_timeout.is_zero() {
            UNLESS_SAID
        } else {
            self.db_statement_timeout
        };
        self.db_lock_timeout.unwrap_or(UNLESS_SAID.min(most))
    }
}

/// The logs and the telemetry of a process.
#[derive(Args, Clone, Debug)]
pub struct Logging {
    /// Which log lines are written: `info`, `debug`, `info,offboard::jobs=debug`, ... [default: info for serve, else warn]
    #[arg(long, env = "OFFBOARD_LOG", global = true, value_parser = log_filter, value_name = "FILTER")]
    pub log: Option<String>,

    /// How a log line looks
    #[arg(long, env = "OFFBOARD_LOG_FORMAT", default_value = "text", global = true, value_enum)]
    pub log_format: LogFormat,

    /// How many bytes of log lines wait while nobody reads standard error; further lines are dropped and counted
    #[arg(long, env = "OFFBOARD_LOG_QUEUE_BYTES", default_value_t = 4 << 20, global = true, value_parser = whole(64 << 10..=1_u64 << 30), value_name = "BYTES")]
    pub log_queue_bytes: u64,

    /// Where to send traces and metrics by OTLP over gRPC, such as http://localhost:4317 or, by TLS with the roots of the system, https://collector:4317
    #[arg(long, env = "OFFBOARD_OTLP_ENDPOINT", global = true, value_parser = otlp_url, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line
    Json,
    /// Readable text
    Text,
}

/// The work of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Role {
    /// Serves gRPC
    Grpc,
    /// Serves REST
    Gateway,
    /// Removes what is to be removed
    Worker,
}

/// The settings of `serve`.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// The database.
    #[command(flatten)]
    pub database: Database,

    /// Its use.
    #[command(flatten)]
    pub pool: Pool,

    /// Bring the schema of `--database-url` up to date first; that of the embedded Postgres always is
    #[arg(long, env = "OFFBOARD_MIGRATE")]
    pub migrate: bool,

    /// Use a schema that contains tables of others, and make ours among them
    #[arg(long, env = "OFFBOARD_INTO_EXISTING")]
    pub into_existing: bool,

    /// Where gRPC is served
    #[arg(long, env = "OFFBOARD_GRPC_ADDR", default_value = "127.0.0.1:50051", value_parser = address, value_name = "ADDR")]
    pub grpc_addr: SocketAddr,

    /// Where REST is served
    #[arg(long, env = "OFFBOARD_HTTP_ADDR", default_value = "127.0.0.1:8080", value_parser = address, value_name = "ADDR")]
    pub http_addr: SocketAddr,

    /// Where probes and metrics are served; needs no key, so it is not for the public
    #[arg(long, env = "OFFBOARD_ADMIN_ADDR", default_value = "127.0.0.1:9464", value_parser = address, value_name = "ADDR")]
    pub admin_addr: SocketAddr,

    /// The work of this process
    #[arg(
        long,
        env = "OFFBOARD_ROLES",
        value_enum,
        value_delimiter = ',',
        default_value = "grpc,gateway,worker"
    )]
    pub roles: Vec<Role>,

    /// The public URL of the service, such as https://api.example.com/offboard: the start of the links in problem documents, in
    /// `google.rpc.Help` and in mails. Its path is prepended to every path in REST responses: `Location`, `Link`, `links.next`
    #[arg(long, env = "OFFBOARD_PUBLIC_URL", value_parser = public_url, value_name = "URL")]
    pub public_url: Option<String>,

    /// Origins whose pages may call REST and gRPC-Web from a browser, such as https://app.example.com, or `*`; several with commas. By default none
    #[arg(long, env = "OFFBOARD_CORS_ORIGINS", value_delimiter = ',', value_parser = origin, value_name = "ORIGIN")]
    pub cors_origins: Vec<String>,

    /// Largest message and largest body, in bytes
    #[arg(long, env = "OFFBOARD_MAX_BODY_BYTES", default_value_t = 4 << 20, value_parser = whole(1024..=1_usize << 30), value_name = "BYTES")]
    pub max_body_bytes: usize,

    /// The memory and the times of bodies.
    #[command(flatten)]
    pub bodies: Bodies,

    /// Calls at once; further ones are refused
    #[arg(long, env = "OFFBOARD_MAX_CONCURRENT_CALLS", default_value_t = 1024, value_parser = whole(1..=MANY))]
    pub max_concurrent_calls: usize,

    /// How often one key, one realm and one address may call.
    #[command(flatten)]
    pub rates: Rates,

    /// Seconds that a call may take, unless its caller gives it less
    #[arg(long, env = "OFFBOARD_REQUEST_TIMEOUT", default_value = "60", value_parser = some_seconds, value_name = "SECONDS")]
    pub request_timeout: Duration,

    /// Seconds between the first signal to end and the closing of the listeners, for load balancers to notice; 0 closes them at once
    #[arg(long, env = "OFFBOARD_DRAIN_DELAY", default_value = "0", value_parser = seconds, value_name = "SECONDS")]
    pub drain_delay: Duration,

    /// Seconds that the rest of the end may take in all: calls in hand, then workers, then the last spans and metrics; 0 waits for nothing
    #[arg(long, env = "OFFBOARD_DRAIN_TIMEOUT", default_value = "30", value_parser = seconds, value_name = "SECONDS")]
    pub drain_timeout: Duration,

    /// The shares of one realm and one key.
    #[command(flatten)]
    pub shares: Shares,

    /// The connections of all listeners.
    #[command(flatten)]
    pub listeners: Listeners,

    /// The proxies before the listeners.
    #[command(flatten)]
    pub proxies: Proxies,

    /// The connections of gRPC.
    #[command(flatten)]
    pub grpc: Grpc,

    /// The workers.
    #[command(flatten)]
    pub worker: Worker,

    /// Where events are published to.
    #[command(flatten)]
    pub nats: Nats,

    /// Where mails are given to.
    #[command(flatten)]
    pub mail: Mail,

    /// How much of calls is kept.
    #[command(flatten)]
    pub kept: Kept,

    /// Callers with tokens.
    #[command(flatten)]
    pub tokens: Tokens,
}

impl Serve {
    /// The defaults, with these roles, on free ports of the loopback address: for a service that a command runs for itself.
    pub fn on_free_ports(roles: &str) -> Serve {
        #[derive(clap::Parser)]
        struct Defaults {
            #[command(flatten)]
            serve: Serve,
        }
        let free = "127.0.0.1:0";
        let flags = [
            "offboard",
            "--grpc-addr",
            free,
            "--http-addr",
            free,
            "--admin-addr",
            free,
            "--roles",
            roles,
        ];
        let matches = without_blank_variables(Defaults::command()).get_matches_from(flags);
        Defaults::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).serve
    }

    /// The same on another database.
    pub fn with_database(mut self, database: Database) -> Serve {
        self.database = database;
        self
    }
}

/// How long the connections of gRPC last.
#[derive(Args, Clone, Debug)]
pub struct Grpc {
    /// Seconds after which a silent connection is asked whether anyone is there; 0 asks never
    #[arg(long, env = "OFFBOARD_GRPC_KEEPALIVE_INTERVAL", default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    pub grpc_keepalive_interval: Duration,

    /// Seconds after which a connection that was asked and kept silent is closed
    #[arg(long, env = "OFFBOARD_GRPC_KEEPALIVE_TIMEOUT", default_value = "20", value_parser = some_seconds, value_name = "SECONDS")]
    pub grpc_keepalive_timeout: Duration,

    /// Seconds after which a connection takes no new calls, so that its client makes another, perhaps to another replica; 0 is never
    #[arg(long, env = "OFFBOARD_GRPC_MAX_CONNECTION_AGE", default_value = "3600", value_parser = seconds, value_name = "SECONDS")]
    pub grpc_max_connection_age: Duration,

    /// Seconds that the calls of such a connection then have to end; 0 is as long as they want
    #[arg(long, env = "OFFBOARD_GRPC_MAX_CONNECTION_AGE_GRACE", default_value = "0", value_parser = seconds, value_name = "SECONDS")]
    pub grpc_max_connection_age_grace: Duration,
}

/// The settings of workers.
#[derive(Args, Clone, Debug)]
pub struct Worker {
    /// Seconds for which work is claimed; another worker takes over unfinished work that was not renewed by then
    #[arg(long, env = "OFFBOARD_LEASE", default_value = "15", value_parser = seconds_from(1000), value_name = "SECONDS")]
    pub lease: Duration,

    /// Seconds between checks for work when nothing wakes the workers
    #[arg(long, env = "OFFBOARD_POLL_INTERVAL", default_value = "1", value_parser = seconds_from(10), value_name = "SECONDS")]
    pub poll_interval: Duration,

    /// Slices of bulk deletes that this process works on at once
    #[arg(long, env = "OFFBOARD_BULK_WORKERS", default_value_t = 1, value_parser = whole(1..=64_u32))]
    pub bulk_workers: u32,

    /// Slices more that it works on at once while hardly anyone calls it
    #[arg(long, env = "OFFBOARD_BULK_IDLE_WORKERS", default_value_t = 1, value_parser = whole(0..=64_u32))]
    pub bulk_idle_workers: u32,

    /// Most entities that a bulk delete deletes in one transaction
    #[arg(long, env = "OFFBOARD_BULK_CHUNK_SIZE", default_value_t = 10_000, value_parser = whole(1..=100_000_i64))]
    pub bulk_chunk_size: i64,

    /// Seconds that one transaction of a bulk delete shall take: as many entities as fit go into it
    #[arg(long, env = "OFFBOARD_BULK_CHUNK_TARGET", default_value = "0.1", value_parser = some_seconds, value_name = "SECONDS")]
    pub bulk_chunk_target: Duration,

    /// Seconds after which a worker turns from one bulk delete to another that waits; 0 is behind each transaction
    #[arg(long, env = "OFFBOARD_BULK_TURN", default_value = "2", value_parser = seconds, value_name = "SECONDS")]
    pub bulk_turn: Duration,
}

/// Where workers give mails to.
#[derive(Args, Clone, Debug)]
pub struct Mail {
    /// SMTP server that mails are given to: smtp://host:25, smtp://user:password@host:587?tls=required (STARTTLS) or smtps://user:password@host:465. Without it nobody may ask for a mail
    #[arg(
        long,
        env = "OFFBOARD_SMTP_URL",
        hide_env_values = true,
        requires = "mail_from",
        value_name = "URL"
    )]
    pub smtp_url: Option<String>,

    /// File with root certificates that the SMTP server is checked by, instead of those of the system
    #[arg(long, env = "OFFBOARD_SMTP_CA_FILE", value_parser = certificates, value_name = "FILE")]
    pub smtp_ca_file: Option<PathBuf>,

    /// Mails about tasks that each realm may send within an hour; those beyond are not sent, and their tasks say so
    #[arg(long, env = "OFFBOARD_MAILS_PER_HOUR", default_value_t = 60, value_parser = whole(1..=1_000_000_i64), value_name = "MAILS")]
    pub mails_per_hour: i64,

    /// Sender of mails, such as `Offboard <offboard@example.com>`
    #[arg(long, env = "OFFBOARD_MAIL_FROM", requires = "smtp_url", value_name = "ADDRESS")]
    pub mail_from: Option<String>,
}

/// Where workers publish events to.
#[derive(Args, Clone, Debug)]
pub struct Nats {
    /// NATS server to publish events to, such as nats://user:password@host:4222 or tls://host:4222; several with commas. Without it nothing is published
    #[arg(long, env = "OFFBOARD_NATS_URL", hide_env_values = true, value_name = "URL")]
    pub nats_url: Option<String>,

    /// File with a NATS user's JWT and seed
    #[arg(long, env = "OFFBOARD_NATS_CREDENTIALS_FILE", value_parser = file, value_name = "FILE")]
    pub nats_credentials_file: Option<PathBuf>,

    /// File with root certificates that NATS servers are checked by, instead of those of the system
    #[arg(long, env = "OFFBOARD_NATS_CA_FILE", value_parser = certificates, value_name = "FILE")]
    pub nats_ca_file: Option<PathBuf>,

    /// How the subject of every event begins; organisation, mode and type follow
    #[arg(long, env = "OFFBOARD_NATS_SUBJECT_PREFIX", default_value = "offboard", value_parser = subject_prefix, value_name = "SUBJECT")]
    pub nats_subject_prefix: String,

    /// JetStream stream that takes the events
    #[arg(long, env = "OFFBOARD_NATS_STREAM", default_value = "OFFBOARD", value_parser = stream_name, value_name = "NAME")]
    pub nats_stream: String,

    /// Create the stream if it does not exist; an existing one is left as it is
    #[arg(long, env = "OFFBOARD_NATS_CREATE_STREAM", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub nats_create_stream: bool,
}
