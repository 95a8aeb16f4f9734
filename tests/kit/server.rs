//! The real binary: as a server, and for one command.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::Database;

/// Every scope.
pub const SCOPES: &[&str] = offboard::access::Scope::SPELLINGS;

/// The lines at the end of its log that a test that fails shows whatever their level.
const LAST_LINES: usize = 40;

/// The binary, without what this process's environment says to it.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offboard"));
    for (name, _) in std::env::vars_os() {
        let name_bytes = name.as_encoded_bytes();
        if name_bytes.starts_with(b"OFFBOARD_")
            || name_bytes.starts_with(b"OTEL_")
            || name_bytes == b"RUST_LOG"
        {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the binary with arguments to its end and returns what it wrote to its standard output; fails if it does.
pub fn offboard(arguments: &[&str]) -> String {
    let output = command().args(arguments).output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "offboard {arguments:?} ended with {}:\n{stdout}{stderr}",
        output.status
    );
    stdout.into_owned()
}

/// The result of a command.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs the binary with arguments to its end, be it good or bad.
pub fn run(arguments: &[&str]) -> Ended {
    run_with(arguments, &[])
}

/// The same with environment variables.
pub fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let output = command().args(arguments).envs(environment.iter().copied()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Runs the binary with arguments to its end, with both of its outputs leading to a closed reader. Returns its exit code.
pub fn run_unread(arguments: &[&str]) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command()
        .args(arguments)
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .status()
        .unwrap()
        .code()
}

/// Starts the binary with arguments, to be dealt with while it runs.
pub fn spawn(arguments: &[&str]) -> Child {
    command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// An API key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// The secret that callers send.
    pub secret: String,
    /// Its organisation.
    pub org: String,
}

impl Key {
    /// Makes a key by `offboard key create`.
    pub fn create(database: &Database, org: &str, mode: &str, scopes: &[&str]) -> Key {
        Key::create_with(database, org, mode, scopes, &[])
    }

    /// Makes a key by `offboard key create` with more arguments.
    pub fn create_with(
        database: &Database,
        org: &str,
        mode: &str,
        scopes: &[&str],
        more: &[&str],
    ) -> Key {
        #[derive(Deserialize)]
        struct Created {
            id: String,
            secret: String,
        }
        let mut arguments = vec![
            "key",
            "create",
            "--database-url",
            &database.url,
            "--org",
            org,
            "--mode",
            mode,
            "--json",
        ];
        for scope in scopes {
            arguments.extend(["--scope", scope]);
        }
        arguments.extend(more);
        let printed = offboard(&arguments);
        let Created { id, secret } =
            serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error} in {printed:?}"));
        Key { id, secret, org: org.to_owned() }
    }
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Addresses {
    /// gRPC.
    #[serde(rename = "grpc_addr")]
    pub grpc: SocketAddr,
    /// REST.
    #[serde(rename = "http_addr")]
    pub http: SocketAddr,
    /// Probes and metrics.
    #[serde(rename = "admin_addr")]
    pub admin: SocketAddr,
}

impl Addresses {
    /// Reads a line of the JSON log that says where the server listens, or that it is ready there; `None` for any other line.
    pub fn of_line(line: &str) -> Option<Addresses> {
        let line: Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields").unwrap_or(&line);
        ["listening", "ready"]
            .contains(&fields.get("message")?.as_str()?)
            .then(|| Addresses::deserialize(fields).unwrap())
    }
}

/// A running `offboard serve`, killed at the end. Its log is printed if the test fails.
pub struct Server {
    /// Where it listens.
    pub addresses: Addresses,
    process: Child,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a server on a database.
    pub async fn start(database: &Database) -> Server {
        Server::start_with(database, &[], &[]).await
    }

    /// Starts a server with more arguments and environment variables.
    pub async fn start_with(
        database: &Database,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Server {
        Server::start_on(&database.url, arguments, environment).await
    }

    /// Starts a server on whatever is, or is not, at a database URL. Its start is over, and it may be ready or not.
    pub async fn start_on(
        database_url: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Server {
        let mut server = Server::begin_on(database_url, arguments, environment).await;
        let begun = std::time::Instant::now();
        loop {
            let reported = get(server.addresses.admin, "/readyz").await.unwrap_or_default();
            if reported.contains("\"checks\"")
                && !reported.contains("\"starting\"")
                && !reported.contains("\"migrating\"")
            {
                return server;
            }
            if let Some(status) = server.process.try_wait().unwrap() {
                panic!("offboard serve ended ({status})");
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "the start of offboard serve is not over: {reported}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The same of one whose start may not be over yet.
    pub async fn begin_on(
        database_url: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Server {
        let mut command = command();
        command.args(["serve", "--database-url", database_url, "--log-format", "json"]);
        for listener in ["--grpc-addr", "--http-addr", "--admin-addr"] {
            // Only what the test does not say itself: an argument may be given once.
            if !arguments.iter().any(|argument| argument.starts_with(listener)) {
                command.args([listener, "127.0.0.1:0"]);
            }
        }
        // How many workers there are is the test's to say, and not how often it happens to call.
        command
            .env("OFFBOARD_BULK_IDLE_WORKERS", "0")
            .args(arguments)
            .envs(environment.iter().copied());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, mut lines) = mpsc::unbounded_channel();
        keep(process.stdout.take().unwrap(), log.clone(), sender.clone());
        keep(process.stderr.take().unwrap(), log.clone(), sender);
        let ready = async {
            while let Some(line) = lines.recv().await {
                if let Some(addresses) = Addresses::of_line(&line) {
                    return Some(addresses);
                }
            }
            None
        };
        let ready = tokio::time::timeout(Duration::from_secs(60), ready).await;
        let Ok(Some(addresses)) = ready else {
            let _ = process.kill();
            let status = process.wait().unwrap();
            panic!("offboard serve does not listen ({status}):\n{}", log.lock().unwrap());
        };
        Server { addresses, process, log }
    }

    /// Its log so far, and its output.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks it to end by SIGTERM and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }

    /// Waits until it has ended; fails after a minute.
    pub async fn ended(&mut self) -> ExitStatus {
        for _ in 0..6000 {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("offboard serve does not end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let (before, last) = lines.split_at(lines.len().saturating_sub(LAST_LINES));
            let telling = before.iter().filter(|line| !line.contains(r#""level":"INFO""#));
            eprintln!(
                "--- log of the server: what is not INFO, and the last {} of {} lines",
                last.len(),
                lines.len()
            );
            telling.chain(last).for_each(|line| eprintln!("{line}"));
            eprintln!("---");
        }
    }
}

/// The answer of a probe, head and body, if there is one within a second.
pub async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let asked = async {
        let mut connection = tokio::net::TcpStream::connect(address).await.ok()?;
        connection
            .write_all(
                format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes(),
            )
            .await
            .ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    tokio::time::timeout(Duration::from_secs(1), asked).await.ok().flatten()
}

/// Reads lines to the end, keeps them, and passes them on.
fn keep(
    source: impl Read + Send + 'static,
    log: Arc<Mutex<String>>,
    sender: mpsc::UnboundedSender<String>,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines() {
            let Ok(line) = line else { return };
            {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
            // Nobody listens any more once the server is ready.
            let _ = sender.send(line);
        }
    });
}
