//! The postmaster of a cluster as other processes see it: by its file `postmaster.pid`, its socket and its command line.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::failure;
use super::home::socket_path;
use crate::error::Error;

/// How long a fast shutdown may take, which writes memory to disk.
const FAST_PATIENCE: Duration = Duration::from_secs(120);
/// How long an immediate shutdown may take.
const IMMEDIATE_PATIENCE: Duration = Duration::from_secs(20);

/// The state of a postmaster.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none; a file that remains is stale.
    Absent,
    /// It is coming up, possibly by crash recovery.
    Starting(Pid),
    /// It takes connections, in this folder.
    Ready {
        /// Its process.
        pid: Pid,
        /// The folder of its socket.
        socket_dir: PathBuf,
    },
    /// It is going down.
    Stopping(Pid),
}

/// The postmaster of the cluster in a folder.
#[derive(Debug)]
pub(super) struct Postmaster {
    pgdata: PathBuf,
}

impl Postmaster {
    /// Of the cluster in `pgdata`, an absolute path.
    pub(super) fn of(pgdata: PathBuf) -> Postmaster {
        Postmaster { pgdata }
    }

    fn pid_file(&self) -> PathBuf {
        self.pgdata.join("postmaster.pid")
    }

    /// The state from its file. The lines are, by `miscadmin.h` of Postgres: pid, folder, start time, port, folder of the socket, listen
    /// address, shared memory, status.
    pub(super) fn state(&self) -> State {
        let Ok(text) = fs::read_to_string(self.pid_file()) else { return State::Absent };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        // A backend without postmaster writes its pid as a negative number.
        let Some(pid) =
            lines.first().and_then(|line| line.parse::<i32>().ok()).filter(|pid| *pid != 0)
        else {
            return State::Absent;
        };
        let pid = Pid::from_raw(pid.abs());
        let socket_dir = lines.get(4).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        if !self.is_ours(pid) && !socket_dir.as_deref().is_some_and(answers) {
            return State::Absent;
        }
        match (lines.get(7), socket_dir) {
            (Some(&"ready"), Some(socket_dir)) => State::Ready { pid, socket_dir },
            (Some(&"stopping"), _) => State::Stopping(pid),
            _ => State::Starting(pid),
        }
    }

    /// Returns whether the process runs and is a postmaster of this folder, and not one that was given the same number later.
    fn is_ours(&self, pid: Pid) -> bool {
        if kill(pid, None) == Err(Errno::ESRCH) {
            return false;
        }
        match fs::read(format!("/proc/{pid}/cmdline")) {
            Ok(command) => command
                .split(|byte| *byte == 0)
                .any(|argument| argument == self.pgdata.as_os_str().as_bytes()),
            // Without a `/proc`, the number has to do.
            Err(_) => !Path::new("/proc/self/cmdline").exists(),
        }
    }

    /// Removes the files of a postmaster that no longer runs, so that a process that has its number now does not prevent the next start.
    pub(super) fn clear(&self) -> Result<(), Error> {
        match fs::remove_file(self.pid_file()) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(failure(
                format!("The stale `{}` cannot be removed", self.pid_file().display()),
                cause,
            )),
            _ => Ok(()),
        }
    }

    /// Stops it, if it runs, and waits for its end: a fast shutdown first, and an immediate one if that takes too long.
    pub(super) async fn stop(&self) -> Result<(), Error> {
        let (State::Starting(pid) | State::Ready { pid, .. } | State::Stopping(pid)) = self.state()
        else {
            return Ok(());
        };
        for (how, patience) in
            [(Signal::SIGINT, FAST_PATIENCE), (Signal::SIGQUIT, IMMEDIATE_PATIENCE)]
        {
            let start = Instant::now();
            signal(pid, how);
            while start.elapsed() < patience {
                // Its file is removed a moment before its process ends.
                if self.state() == State::Absent && !self.is_ours(pid) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tracing::warn!(
                signal = how.as_str(),
                "embedded Postgres did not stop in {} s",
                patience.as_secs()
            );
        }
        Err(failure(
            "The embedded Postgres could not be stopped",
            format!("its postmaster in `{}` keeps running", self.pgdata.display()),
        ))
    }
}

/// Returns whether somebody listens on the socket in a folder.
pub(super) fn answers(socket_dir: &Path) -> bool {
    UnixStream::connect(socket_path(socket_dir)).is_ok()
}

/// Sends a signal. A process that has ended needs none.
pub(super) fn signal(pid: Pid, signal: Signal) {
    if let Err(cause) = kill(pid, signal)
        && cause != Errno::ESRCH
    {
        tracing::warn!(%pid, signal = signal.as_str(), %cause, "the postmaster cannot be signalled");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> (tempfile::TempDir, Postmaster) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("postmaster.pid"), text).unwrap();
        let postmaster = Postmaster::of(folder.path().to_owned());
        (folder, postmaster)
    }

    #[test]
    fn a_number_that_another_process_has_now_is_stale() {
        let own = std::process::id();
        let (folder, postmaster) =
            with_file(&format!("{own}\n/x\n0\n5432\n/nonexistent\n\n0 0\nready   \n"));
        assert_eq!(postmaster.state(), State::Absent);
        postmaster.clear().unwrap();
        assert!(!folder.path().join("postmaster.pid").exists());
        postmaster.clear().unwrap();
    }

    #[test]
    fn a_broken_file_is_stale() {
        for text in ["", "\n\n", "0\n", "postgres\n", "99999999\n"] {
            let (_folder, postmaster) = with_file(text);
            assert_eq!(postmaster.state(), State::Absent, "{text:?}");
        }
    }

    #[test]
    fn a_process_that_names_the_folder_is_its_postmaster() {
        let (folder, postmaster) = with_file("");
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", "read line", "-D"])
            .arg(folder.path())
            .stdin(std::process::Stdio::piped());
        let mut process = command.spawn().unwrap();
        let file =
            |status: &str| format!("{}\n/x\n0\n5432\n/run/x\n\n0 0\n{status}\n", process.id());
        let pid = Pid::from_raw(process.id().cast_signed());
        let has_command =
            || fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| !command.is_empty());
        while !has_command() {
            std::thread::yield_now();
        }
        let states = [
            ("ready   ", State::Ready { pid, socket_dir: "/run/x".into() }),
            ("stopping", State::Stopping(pid)),
            ("starting", State::Starting(pid)),
        ];
        for (status, expected) in states {
            fs::write(folder.path().join("postmaster.pid"), file(status)).unwrap();
            assert_eq!(postmaster.state(), expected);
        }
        process.kill().unwrap();
        // Dead but not waited for, it still has its number.
        while has_command() {
            std::thread::yield_now();
        }
        assert_eq!(postmaster.state(), State::Absent);
        process.wait().unwrap();
    }
}
