//! A Postgres cluster of a test's own, to be copied, restored and promoted.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use nix::unistd::{Uid, User, chown};
use tempfile::TempDir;

/// A place where clusters live and are reached: one of them at a time listens there, and another one may beside it. Removed at the end, with the
/// clusters that run.
pub struct ClusterHome {
    folder: TempDir,
    running: Option<PathBuf>,
    beside: Option<PathBuf>,
}

/// The port of a cluster that runs beside the one that is reached as usual.
const BESIDE: &str = "5433";

impl ClusterHome {
    /// An empty one.
    pub fn new() -> ClusterHome {
        let folder = TempDir::new().unwrap();
        if let Some(account) = account() {
            chown(folder.path(), Some(account.uid), Some(account.gid)).unwrap();
        }
        ClusterHome { folder, running: None, beside: None }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The URL of a database of the cluster that runs.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@/{database}?host={}", self.folder.path().display())
    }

    /// The same of the cluster that runs beside it.
    pub fn url_beside(&self, database: &str) -> String {
        format!("{}&port={BESIDE}", self.url(database))
    }

    /// Makes a cluster, which archives its WAL in `archive`. It does not run yet.
    pub fn initdb(&self, name: &str) {
        self.run(
            "initdb",
            &[
                "-D",
                &self.text(name),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
                "--no-instructions",
            ],
        );
        let archive = self.path("archive");
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\nfull_page_writes = off\nmax_connections = 60\n\
             wal_level = logical\nmax_worker_processes = 24\nmax_logical_replication_workers = 12\nmax_sync_workers_per_subscription = 8\n\
             wal_retrieve_retry_interval = 50\nwal_receiver_status_interval = 1\narchive_mode = on\narchive_command = 'mkdir -p {archive} && cp %p {archive}/%f'\n",
            self.folder.path().display(),
            archive = archive.display(),
        );
        self.append(name, "postgresql.conf", &settings);
    }

    /// Adds to a file of a cluster; makes it if need be.
    pub fn append(&self, name: &str, file: &str, text: &str) {
        use std::io::Write;
        let path = self.path(name).join(file);
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        if let Some(account) = account() {
            chown(&path, Some(account.uid), Some(account.gid)).unwrap();
        }
    }

    /// Starts a cluster and waits until it takes statements.
    pub fn start(&mut self, name: &str) {
        assert!(self.running.is_none(), "another cluster listens here");
        let data = self.text(name);
        self.run(
            "pg_ctl",
            &["-D", &data, "-l", &self.text(&format!("{name}.log")), "-w", "-t", "60", "start"],
        );
        self.running = Some(self.path(name));
    }

    /// Starts another cluster beside it.
    pub fn start_beside(&mut self, name: &str) {
        let (data, port) = (self.text(name), format!("-p {BESIDE}"));
        self.run(
            "pg_ctl",
            &[
                "-D",
                &data,
                "-l",
                &self.text(&format!("{name}.log")),
                "-w",
                "-t",
                "60",
                "-o",
                &port,
                "start",
            ],
        );
        self.beside = Some(self.path(name));
    }

    /// Stops that one.
    pub fn stop_beside(&mut self) {
        let data = self.beside.take().expect("a cluster runs beside");
        self.run("pg_ctl", &["-D", data.to_str().unwrap(), "-m", "fast", "-w", "stop"]);
    }

    /// Stops the cluster that runs: in order, or at once as a crash does.
    pub fn stop(&mut self, mode: &str) {
        let data = self.running.take().expect("a cluster runs");
        self.run("pg_ctl", &["-D", data.to_str().unwrap(), "-m", mode, "-w", "stop"]);
    }

    /// Copies the cluster that runs, as it is now.
    pub fn copy(&self, name: &str) {
        let host = self.folder.path().to_str().unwrap().to_owned();
        self.run(
            "pg_basebackup",
            &[
                "-D",
                &self.text(name),
                "-h",
                &host,
                "-U",
                "postgres",
                "-c",
                "fast",
                "-X",
                "stream",
                "--no-sync",
            ],
        );
    }

    /// Runs a program of Postgres to its end and returns what it printed; fails if it does.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(bin().join(program));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        if let Some(account) = account() {
            command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
        }
        // To a file: a server that it starts keeps what it is given open.
        let out = self.path(&format!("{program}.out"));
        let file = std::fs::File::create(&out).unwrap();
        let status = command.stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
        let printed = String::from_utf8_lossy(&std::fs::read(&out).unwrap()).into_owned();
        assert!(status.success(), "{program} {arguments:?} ended with {status}:\n{printed}");
        printed
    }

    /// Runs statements in a database of the cluster that runs.
    pub fn sql(&self, database: &str, statements: &str) {
        sql(&self.url(database), statements);
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

impl Drop for ClusterHome {
    fn drop(&mut self) {
        if self.beside.is_some() {
            self.stop_beside();
        }
        if self.running.is_some() {
            self.stop("immediate");
        }
    }
}

/// Runs statements, in one transaction if they are several.
pub fn sql(url: &str, statements: &str) {
    let mut connection = PgConnection::establish(url).unwrap();
    connection.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// The recipient the server runs as: it refuses to run as root.
fn account() -> Option<User> {
    Uid::effective()
        .is_root()
        .then(|| User::from_name("postgres").unwrap().expect("there is a user `postgres`"))
}

/// Where the newest of the machine's servers has its programs.
fn bin() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    match found.pop() {
        Some(version) => version.join("bin"),
        None => Path::new(
            Command::new("pg_config")
                .arg("--bindir")
                .output()
                .map(|out| String::from_utf8(out.stdout).unwrap())
                .unwrap()
                .trim(),
        )
        .to_owned(),
    }
}
