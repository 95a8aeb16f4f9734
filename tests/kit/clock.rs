//! A Postgres of the test's own whose clock the test sets: libfaketime, preloaded into it and into nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use offboard::db::embedded::{EmbeddedPostgres, Search};
use tempfile::TempDir;

/// Where Debian's package has it, and others.
const LIBRARIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib/faketime",
    "/usr/lib64/faketime",
    "/usr/local/lib/faketime",
];

/// A Postgres with a clock that can be set. Its time continues from where it was set to; what measures how long something takes is left
/// alone.
pub struct SteppingPostgres {
    /// The server.
    pub postgres: EmbeddedPostgres,
    offset: PathBuf,
    _folder: TempDir,
}

impl SteppingPostgres {
    /// Starts one whose clock is right.
    pub async fn start() -> SteppingPostgres {
        let library = LIBRARIES
            .iter()
            .map(|folder| Path::new(folder).join("libfaketime.so.1"))
            .find(|library| library.exists());
        let library = library.expect("libfaketime is installed: script/bootstrap does that");
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let binaries = folder.path().join("bin");
        fs::create_dir(&binaries).unwrap();
        let offset = folder.path().join("offset");
        set(&offset, 0);
        let real = server_binaries();
        script(&binaries.join("initdb"), &format!("exec {}/initdb \"$@\"", real.display()));
        script(
            &binaries.join("postgres"),
            &format!(
                "export LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 \
                 FAKETIME_DONT_RESET=1\nexec {}/postgres \"$@\"",
                library.display(),
                offset.display(),
                real.display()
            ),
        );
        let postgres = EmbeddedPostgres::start_or_join_with(
            &folder.path().join("data"),
            &Search::in_folders(vec![binaries]),
        )
        .await
        .unwrap();
        SteppingPostgres { postgres, offset, _folder: folder }
    }

    /// Sets the clock to so many seconds from the right time.
    pub fn set(&self, seconds: i64) {
        set(&self.offset, seconds);
    }
}

/// In one step: a reader finds the one or the other.
fn set(offset: &Path, seconds: i64) {
    let next = offset.with_extension("next");
    fs::write(&next, format!("{seconds:+}s\n")).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(&next, offset).unwrap();
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The folder of the machine's Postgres.
fn server_binaries() -> PathBuf {
    let reported = Command::new("pg_config")
        .arg("--bindir")
        .output()
        .ok()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let debian = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default();
    let mut folders = reported.map(PathBuf::from).into_iter().chain(debian).chain(path);
    folders
        .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        .expect("Postgres is installed")
}
