//! Making a cluster and bringing it up.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use percent_encoding::{PercentEncode, percent_encode};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::binaries::{Binaries, Search};
use super::failure;
use super::home::{Home, random_name};
use super::memory;
use super::postmaster::{Postmaster, State, answers, signal};
use crate::db::address::RESERVED;
use crate::error::Error;

/// The database user and the database.
const NAME: &str = "offboard";

/// The prefix of the name of a folder in which a cluster is being made; a random name follows.
const UNFINISHED: &str = "postgres.new-";

/// Above this size in bytes, the log is renamed at the next start.
const LOG_LIMIT: u64 = 16 << 20;

/// How long a cluster may be on its way up or down: crash recovery replays at most what a checkpoint interval has written.
const CHANGE_PATIENCE: Duration = Duration::from_secs(600);

/// How long a postmaster that is ready may fail to answer on its socket.
const SILENCE_PATIENCE: Duration = Duration::from_secs(10);

/// How long processes of a killed postmaster may live on: until they notice, at the end of their statement at the latest.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(60);

/// Settings written after those of `initdb`. An operator may change them; the rest is given at each start.
const SETTINGS: &str = "
# Settings of the embedded cluster.
max_connections = 100
fsync = on
synchronous_commit = on
full_page_writes = on
# A checkpoint in the middle of a large delete delays every commit.
max_wal_size = 8GB
password_encryption = scram-sha-256
unix_socket_permissions = 0700
log_line_prefix = '%m [%p] '
log_timezone = 'UTC'
timezone = 'UTC'
";

/// Less of the log to wait for at a commit. Not every build of Postgres can.
const COMPRESSION: &str = "wal_compression=lz4";

/// A cluster that exists, with the binaries of its version.
#[derive(Debug)]
pub(super) struct Cluster {
    home: Home,
    binaries: Binaries,
    password: String,
}

impl Cluster {
    /// The cluster of a home; the first time, makes it. Only for the holder of the gate.
    pub(super) async fn open_or_create(home: Home, search: &Search) -> Result<Cluster, Error> {
        if home.pgdata().exists() {
            return Cluster::open(home, search).await;
        }
        let binaries = search.find(None).await?;
        let password = new_password(&home)?;
        let cluster = Cluster { home, binaries, password };
        cluster.create().await?;
        Ok(cluster)
    }

    async fn open(home: Home, search: &Search) -> Result<Cluster, Error> {
        let version_file = home.pgdata().join("PG_VERSION");
        let version = fs::read_to_string(&version_file).map_err(|cause| {
            failure(
                format!("`{}` is not a readable Postgres cluster", home.pgdata().display()),
                cause,
            )
        })?;
        let major = version.trim().parse().map_err(|_| {
            failure(
                format!("`{}` contains no version", version_file.display()),
                format!("{:?}", version.trim()),
            )
        })?;
        let binaries = search.find(Some(major)).await?;
        let password = fs::read_to_string(home.password_file()).map_err(|cause| {
            failure(
                format!("The password file `{}` cannot be read", home.password_file().display()),
                cause,
            )
        })?;
        Ok(Cluster { home, binaries, password: password.trim().to_owned() })
    }

    /// Makes the cluster in a folder of its own, which gets its name only when it is complete: a killed process leaves nothing that could
    /// be taken for a cluster.
    async fn create(&self) -> Result<(), Error> {
        self.remove_unfinished();
        let unfinished = self.home.folder.join(format!("{UNFINISHED}{}", random_name()));
        self.home.make_private(&unfinished)?;
        tracing::info!(folder = %self.home.pgdata().display(), user = self.home.account.name(), "making the embedded Postgres");

        let mut initdb = self.command("initdb");
        initdb.arg("--pgdata").arg(&unfinished).arg("--pwfile").arg(self.home.password_file());
        initdb.args([
            "--username",
            NAME,
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--data-checksums",
        ]);
        run("initdb", initdb, "").await?;

        let conf = unfinished.join("postgresql.conf");
        let problem = |cause| failure(format!("`{}` cannot be written", conf.display()), cause);
        let mut settings = OpenOptions::new().append(true).open(&conf).map_err(problem)?;
        let mut text = format!("{SETTINGS}shared_buffers = {}MB\n", memory::shared_buffers());
        if self.takes(&unfinished, COMPRESSION).await {
            text.push_str(COMPRESSION);
            text.push('\n');
        }
        settings.write_all(text.as_bytes()).and_then(|()| settings.sync_all()).map_err(problem)?;

        let mut single = self.command("postgres");
        single.arg("--single").arg("-D").arg(&unfinished).args([
            "-c",
            "exit_on_error=on",
            "template1",
        ]);
        run("postgres", single, &format!("CREATE DATABASE {NAME};\n")).await?;

        fs::rename(&unfinished, self.home.pgdata())
            .and_then(|()| File::open(&self.home.folder)?.sync_all())
            .map_err(|cause| {
                failure(format!("`{}` cannot be made", self.home.pgdata().display()), cause)
            })
    }

    /// Returns whether these binaries know a setting, written `NAME=VALUE`.
    async fn takes(&self, pgdata: &Path, setting: &str) -> bool {
        let name = setting.split('=').next().unwrap_or(setting);
        let mut asked = self.command("postgres");
        asked.arg("-D").arg(pgdata).args(["-c", setting, "-C", name]);
        run("postgres", asked, "").await.is_ok()
    }

    /// Removes what interrupted starts have left. A process of theirs may still write there, so that it may take another start to succeed.
    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.home.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED)
                && let Err(cause) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(folder = %entry.path().display(), %cause, "an unfinished cluster cannot be removed");
            }
        }
    }

    fn command(&self, program: &str) -> Command {
        self.home.account.command(&self.binaries.path(program), &self.home.folder)
    }

    /// The cluster's postmaster.
    pub(super) fn postmaster(&self) -> Postmaster {
        Postmaster::of(self.home.pgdata())
    }

    /// The database as a libpq URL over the socket in a folder.
    pub(super) fn database_url(&self, socket_dir: &Path) -> String {
        format!("postgresql://{NAME}:{}@{}:5432/{NAME}", self.password, as_host(socket_dir))
    }

    /// Has the postmaster run and take connections, whatever state it is in now, and returns the folder of its socket. `alone` says that
    /// no other process uses the cluster, so that a postmaster that does not respond may be replaced. Only for the holder of the gate.
    pub(super) async fn bring_up(&self, alone: bool) -> Result<PathBuf, Error> {
        let postmaster = self.postmaster();
        let start = Instant::now();
        loop {
            match postmaster.state() {
                State::Ready { socket_dir, .. } if answers(&socket_dir) => return Ok(socket_dir),
                State::Absent => {
                    postmaster.clear()?;
                    return self.start(&postmaster).await;
                }
                // Its socket was removed, for instance with the folder for temporary files.
                State::Ready { .. } if alone && start.elapsed() > SILENCE_PATIENCE => {
                    postmaster.stop().await?
                }
                _ if start.elapsed() > CHANGE_PATIENCE => {
                    return Err(failure(
                        "The embedded Postgres does not come up",
                        format!("see `{}`", self.home.log_file().display()),
                    ));
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn start(&self, postmaster: &Postmaster) -> Result<PathBuf, Error> {
        let socket_dir = self.home.socket_dir()?;
        let start = Instant::now();
        loop {
            let (child, log) = self.spawn(&socket_dir)?;
            match wait_until_ready(child, postmaster).await? {
                None => return Ok(socket_dir),
                Some(status) => {
                    let said = said_since(&self.home.log_file(), log);
                    // A postmaster that was killed leaves processes that take a moment to notice.
                    let leftover = said.contains("pre-existing shared memory block");
                    if !leftover || start.elapsed() > LEFTOVER_PATIENCE {
                        return Err(failure(
                            format!("The embedded Postgres did not start ({status})"),
                            said,
                        ));
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Starts a postmaster, and returns how long the log was before. The process outlives this one if it must.
    fn spawn(&self, socket_dir: &Path) -> Result<(Child, u64), Error> {
        let path = self.home.log_file();
        let problem =
            |cause| failure(format!("The log `{}` cannot be written", path.display()), cause);
        if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_LIMIT) {
            fs::rename(&path, path.with_extension("log.1")).map_err(problem)?;
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(problem)?;
        let length = log.metadata().map_err(problem)?.len();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.home.pgdata()).arg("-k").arg(socket_dir).args([
            "-p",
            "5432",
            "-c",
            "listen_addresses=",
        ]);
        command.stdout(log.try_clone().map_err(problem)?).stderr(log);
        let child = command.spawn().map_err(|cause| failure("Postgres cannot be run", cause))?;
        Ok((child, length))
    }
}

/// A postmaster that comes up. Dropping it asks it to stop: nobody waits for it any more, and its file may not be there yet for others to see.
struct ComingUp(Option<Child>);

impl Drop for ComingUp {
    fn drop(&mut self) {
        if let Some(pid) =
            self.0.as_ref().and_then(Child::id).and_then(|pid| i32::try_from(pid).ok())
        {
            signal(Pid::from_raw(pid), Signal::SIGINT);
        }
    }
}

/// Waits until the postmaster takes connections; returns its exit status if it ends before.
async fn wait_until_ready(
    child: Child,
    postmaster: &Postmaster,
) -> Result<Option<std::process::ExitStatus>, Error> {
    let mut coming_up = ComingUp(Some(child));
    loop {
        let Some(child) = &mut coming_up.0 else { return Ok(None) };
        if let Some(status) = child.try_wait().map_err(Error::internal)? {
            return Ok(Some(status));
        }
        if let State::Ready { pid, .. } = postmaster.state()
            && u32::try_from(pid.as_raw()).ok() == child.id()
        {
            coming_up.0 = None;
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs a program to its end with this input; fails with its output.
async fn run(name: &str, mut command: Command, input: &str) -> Result<(), Error> {
    let problem = |cause: std::io::Error| failure(format!("`{name}` cannot be run"), cause);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(problem)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ended early says why by its status.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(problem)?;
    if output.status.success() {
        return Ok(());
    }
    Err(failure(
        format!("`{name}` failed ({})", output.status),
        last_lines(&String::from_utf8_lossy(&output.stderr)),
    ))
}

/// Writes a new random password to its file, for the cluster's user alone.
fn new_password(home: &Home) -> Result<String, Error> {
    let path = home.password_file();
    let password: String =
        rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let write = || {
        // An existing file is of a start that was interrupted; it may belong to another user.
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
        file.write_all(password.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|cause| {
        failure(format!("The password file `{}` cannot be written", path.display()), cause)
    })?;
    home.account.give(&path)?;
    Ok(password)
}

/// The end of a log since it had this length.
fn said_since(log: &Path, length: u64) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(length))?;
        file.take(1 << 20).read_to_end(&mut text)
    });
    match read {
        Ok(_) => last_lines(&String::from_utf8_lossy(&text)),
        Err(cause) => format!("its log cannot be read: {cause}"),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(5)..].join("; ")
}

/// A path as the host of a URL.
fn as_host(path: &Path) -> PercentEncode<'_> {
    percent_encode(path.as_os_str().as_bytes(), RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_folder_is_a_host_that_url_parsers_read() {
        let encoded = as_host(Path::new("/data dir/ä@b/run")).to_string();
        assert_eq!(encoded, "%2Fdata%20dir%2F%C3%A4%40b%2Frun");
        let url = url::Url::parse(&format!("postgresql://offboard:secret@{encoded}:5432/offboard"))
            .unwrap();
        assert_eq!(url.host_str(), Some(encoded.as_str()));
    }

    #[test]
    fn of_a_long_account_the_end_is_reported() {
        assert_eq!(last_lines("1\n2\n\n3\n4\n5\n6\n"), "2; 3; 4; 5; 6");
        assert_eq!(last_lines(""), "");
    }
}
