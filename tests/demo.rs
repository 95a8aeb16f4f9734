//! `offboard demo`, as a person would run it.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A folder with a short path, where a temporary folder of the demo may be made.
fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The binary, with `folder` for its temporary files and without what this process's environment says to it.
fn demo(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offboard"));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"OFFBOARD_") {
            command.env_remove(name);
        }
    }
    command.arg("demo").env("TMPDIR", folder).stdin(Stdio::null());
    command
}

/// A demo that runs, killed at the end if it still does.
struct Running {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Running { process, lines }
    }

    /// Reads until a line that begins so, and returns what came before it.
    fn read_until(&mut self, beginning: &str) -> Vec<String> {
        let mut before = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if line.starts_with(beginning) {
                return before;
            }
            before.push(line);
        }
        panic!("no line begins with {beginning:?} in:\n{}", before.join("\n"));
    }

    async fn end_by(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
        for _ in 0..6000 {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the demo does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns whether any process has the folder in its command line, as a postmaster has.
fn is_in_use(folder: &Path) -> bool {
    let folder = folder.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .any(|command| String::from_utf8_lossy(&command).contains(folder))
}

#[test]
fn every_act_is_shown_and_works_in_a_folder_that_was_used_before() {
    let folder = folder();
    let data_dir = folder.path().join("data");
    for _ in 0..2 {
        let output = demo(folder.path()).arg("--data-dir").arg(&data_dir).output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{stdout}{stderr}", output.status);
        assert_eq!(stdout.lines().last(), Some("demo: ok"));
        assert!(!stdout.contains('\u{1b}'), "no terminal reads this:\n{stdout}");
        for step in 1..=11 {
            assert!(stdout.contains(&format!("\n{step}. ")), "step {step} is missing:\n{stdout}");
        }
        assert_eq!(stderr, "");
    }
    assert!(data_dir.join("postgres").exists());
    assert!(!is_in_use(&data_dir));
}

#[test]
fn a_surprise_is_reported_and_nothing_is_left() {
    let folder = folder();
    let entities = folder.path().join("entities.ndjson");
    let file =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/entities.ndjson"))
            .unwrap();
    let twice = file.lines().next().unwrap();
    fs::write(&entities, format!("{file}{twice}\n")).unwrap();
    let temporary = folder.path().join("temporary");
    fs::create_dir(&temporary).unwrap();

    let output = demo(&temporary).arg("--entities").arg(&entities).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.trim_end(), "demo: failed: entities created: 2000, where 2001 was due");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
    assert!(!is_in_use(&temporary));
}

#[tokio::test]
async fn a_signal_ends_it_and_nothing_is_left() {
    let folder = folder();
    let mut running = Running::start(demo(folder.path()));
    running.read_until("1. ");
    assert_eq!(running.end_by(Signal::SIGINT).await.code(), Some(130));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(!is_in_use(folder.path()));
}

#[tokio::test]
async fn the_lines_that_it_prints_work_when_pasted() {
    let folder = folder();
    let mut command = demo(folder.path());
    command.arg("--serve");
    let mut running = Running::start(command);
    running.read_until("It serves until Ctrl-C.");
    let lines: Vec<String> = running
        .lines
        .by_ref()
        .map(Result::unwrap)
        .filter(|line| !line.is_empty())
        .take(5)
        .collect();
    let has_grpcurl = Command::new("grpcurl")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    // Twice, since nobody remembers what was pasted already.
    for line in lines.iter().chain(&lines) {
        if line.starts_with("grpcurl ") && !has_grpcurl {
            eprintln!("not run, for grpcurl is not installed: {line}");
            continue;
        }
        let output = Command::new("bash").args(["-c", line]).output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{line}\n{stdout}{stderr}");
        assert!(!stdout.trim().is_empty(), "{line} shows nothing");
    }
    assert!(is_in_use(folder.path()));
    assert!(running.end_by(Signal::SIGTERM).await.success());
    assert_eq!(running.lines.by_ref().map(Result::unwrap).last().as_deref(), Some("demo: ok"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(!is_in_use(folder.path()));
}
