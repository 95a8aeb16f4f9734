//! The embedded Postgres against the real binaries of this machine.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::sql_types::{Integer, Text};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query};
use nix::unistd::{Pid, Uid};
use offboard::db::embedded::{EmbeddedPostgres, Search};
use tempfile::TempDir;

#[path = "embedded_postgres/killed.rs"]
mod killed;

/// The variable that makes [`helper`] run, with the data folder as its value.
const HELPER: &str = "OFFBOARD_TEST_EMBEDDED_HELPER";

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    value: i32,
}

fn connect(postgres: &EmbeddedPostgres) -> PgConnection {
    PgConnection::establish(postgres.database_url()).unwrap()
}

fn setting(connection: &mut PgConnection, name: &str) -> String {
    sql_query(format!("SELECT current_setting('{name}') AS value"))
        .get_result::<Setting>(connection)
        .unwrap()
        .value
}

fn number(connection: &mut PgConnection, sql: &str) -> i32 {
    sql_query(sql).get_result::<Number>(connection).unwrap().value
}

/// The process id of the postmaster, if its file is there.
fn postmaster(data_dir: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok().map(Pid::from_raw)
}

fn lives(pid: Pid) -> bool {
    // A process that has ended, and is not waited for yet, has no command line any more.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| !command.is_empty())
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain until {what}");
}

/// Starts this test binary once more, as a process that uses the cluster until it is killed, and waits until it says that it does.
fn start_helper(data_dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper", "--ignored", "--nocapture"])
        .env(HELPER, data_dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .any(|line| line.unwrap().contains("helper is ready"));
    assert!(ready, "the helper ended early");
    child
}

#[tokio::test]
#[ignore = "a process for other tests to kill"]
async fn helper() {
    let Some(data_dir) = std::env::var_os(HELPER) else { return };
    let _postgres = EmbeddedPostgres::start_or_join(Path::new(&data_dir)).await.unwrap();
    println!("helper is ready");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_first_start_makes_a_durable_and_private_cluster() {
    let folder = TempDir::new().unwrap();
    let data_dir = folder.path().join("data");
    let postgres = EmbeddedPostgres::start_or_join(&data_dir).await.unwrap();
    assert!(postgres.is_owner());
    let mut connection = connect(&postgres);
    for (name, expected) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("listen_addresses", ""),
        ("max_connections", "100"),
        ("wal_compression", "lz4"),
    ] {
        assert_eq!(setting(&mut connection, name), expected, "{name}");
    }
    let buffers = number(
        &mut connection,
        "SELECT (pg_size_bytes(current_setting('shared_buffers')) >> 20)::int4 AS value",
    );
    assert!((128..=1024).contains(&buffers), "{buffers} MB");
    let locales = "SELECT count(*)::int4 AS value FROM pg_database WHERE datcollate <> 'C' OR datctype <> 'C'";
    assert_eq!(number(&mut connection, locales), 0);
    let cluster = fs::metadata(data_dir.join("postgres")).unwrap();
    assert_eq!(cluster.permissions().mode() & 0o777, 0o700);
    assert_ne!(cluster.uid(), 0);
    let password = fs::metadata(data_dir.join("password")).unwrap();
    assert_eq!(password.permissions().mode() & 0o777, 0o600);
    assert!(
        fs::read_to_string(data_dir.join("postgres.log"))
            .unwrap()
            .contains("ready to accept connections")
    );
    let pid = postmaster(&data_dir).unwrap();
    assert_ne!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 0);
    assert_ne!(
        nix::unistd::getpgid(Some(pid)).unwrap(),
        nix::unistd::getpgrp(),
        "Ctrl-C would reach it"
    );
    postgres.stop().await.unwrap();
    assert!(!lives(pid));
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let folder = TempDir::new().unwrap();
    let postgres = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    let password = fs::read_to_string(folder.path().join("password")).unwrap();
    assert_eq!(password.len(), 64);
    let Err(error) =
        PgConnection::establish(&postgres.database_url().replace(&password, "guessed"))
    else {
        panic!("a guessed password was taken");
    };
    assert!(error.to_string().contains("password authentication failed"), "{error}");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_start_finds_the_data() {
    let folder = TempDir::new().unwrap();
    let postgres = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    connect(&postgres).batch_execute("CREATE TABLE kept AS SELECT 7 AS value").unwrap();
    postgres.stop().await.unwrap();
    assert_eq!(postmaster(folder.path()), None);

    let postgres = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    assert!(postgres.is_owner());
    assert_eq!(number(&mut connect(&postgres), "SELECT value FROM kept"), 7);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn starts_at_the_same_moment_share_one_cluster_and_the_last_to_leave_stops_it() {
    let folder = TempDir::new().unwrap();
    let start = || EmbeddedPostgres::start_or_join(folder.path());
    let (first, second, third) = tokio::join!(start(), start(), start());
    let all = [first.unwrap(), second.unwrap(), third.unwrap()];
    assert_eq!(all.iter().filter(|postgres| postgres.is_owner()).count(), 1);
    assert!(all.iter().all(|postgres| postgres.database_url() == all[0].database_url()));
    let pid = postmaster(folder.path()).unwrap();
    let [first, second, third] = all;
    first.stop().await.unwrap();
    drop(second);
    assert_eq!(number(&mut connect(&third), "SELECT 1 AS value"), 1);
    third.stop().await.unwrap();
    assert!(!lives(pid));
}

#[tokio::test]
async fn two_processes_that_start_at_the_same_moment_share_one_cluster() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_owned();
    let starting = std::thread::spawn(move || start_helper(&path));
    let postgres = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    let mut helper = tokio::task::spawn_blocking(move || starting.join().unwrap()).await.unwrap();
    assert_eq!(number(&mut connect(&postgres), "SELECT 1 AS value"), 1);
    helper.kill().unwrap();
    helper.wait().unwrap();
    postgres.stop().await.unwrap();
    assert_eq!(
        postmaster(folder.path()),
        None,
        "the last to leave stops what the other may have started"
    );
}

#[tokio::test]
async fn an_interrupted_initdb_leaves_nothing_that_is_taken_for_a_cluster() {
    let folder = TempDir::new().unwrap();
    let unfinished = || -> Vec<PathBuf> {
        let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        entries
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("postgres.new-"))
            .collect()
    };
    let mut helper = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper", "--ignored"])
        .env(HELPER, folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("initdb is at work", || {
        unfinished().iter().any(|folder| folder.join("PG_VERSION").exists())
    })
    .await;
    helper.kill().unwrap();
    helper.wait().unwrap();
    assert!(!folder.path().join("postgres").exists());

    let postgres = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    assert_eq!(number(&mut connect(&postgres), "SELECT 1 AS value"), 1);
    postgres.stop().await.unwrap();
    // The orphaned initdb may have put files back that the start had removed; the next start that makes a cluster would remove them.
    assert!(folder.path().join("postgres/PG_VERSION").exists());
}

#[tokio::test]
async fn a_use_that_is_dropped_stops_the_cluster() {
    let folder = TempDir::new().unwrap();
    let postgres = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    let pid = postmaster(folder.path()).unwrap();
    drop(postgres);
    until("the postmaster has ended", || !lives(pid)).await;

    let postgres = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    drop(postgres);
    // It is on its way down now, which the next start waits out.
    let postgres = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    assert_eq!(number(&mut connect(&postgres), "SELECT 1 AS value"), 1);
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn a_long_data_folder_works() {
    let folder = TempDir::new().unwrap();
    let data_dir = folder.path().join("long ".repeat(30)).join("data");
    let postgres = EmbeddedPostgres::start_or_join(&data_dir).await.unwrap();
    assert_eq!(number(&mut connect(&postgres), "SELECT 1 AS value"), 1);
    let socket_dir = fs::read_link(data_dir.join("socket")).unwrap();

    // Whoever cleans /tmp does not lock us out.
    fs::remove_dir_all(&socket_dir).unwrap();
    drop(postgres);
    let postgres = EmbeddedPostgres::start_or_join(&data_dir).await.unwrap();
    assert_eq!(number(&mut connect(&postgres), "SELECT 1 AS value"), 1);
    postgres.stop().await.unwrap();
    fs::remove_dir_all(fs::read_link(data_dir.join("socket")).unwrap()).unwrap();
}

#[tokio::test]
async fn without_binaries_one_sentence_says_what_to_install() {
    let folder = TempDir::new().unwrap();
    let error =
        EmbeddedPostgres::start_or_join_with(folder.path(), &Search::in_folders(Vec::new()))
            .await
            .unwrap_err();
    assert_eq!(
        error.message(),
        "No Postgres server was found on this machine: install Postgres 15 to 18 (on Debian and Ubuntu: apt-get install postgresql), or give \
         a --database-url"
    );
    assert!(!folder.path().join("postgres").exists());
}

#[tokio::test]
async fn a_cluster_of_another_major_version_is_reported_by_name() {
    let folder = TempDir::new().unwrap();
    EmbeddedPostgres::start_or_join(folder.path()).await.unwrap().stop().await.unwrap();
    fs::write(folder.path().join("postgres/PG_VERSION"), "12\n").unwrap();
    let error = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap_err();
    assert!(
        error.message().contains("a cluster of Postgres 12, and this machine has Postgres"),
        "{error}"
    );
}

#[tokio::test]
async fn a_start_that_fails_reports_what_postgres_said() {
    let folder = TempDir::new().unwrap();
    EmbeddedPostgres::start_or_join(folder.path()).await.unwrap().stop().await.unwrap();
    let conf = folder.path().join("postgres/postgresql.conf");
    let mut text = fs::read_to_string(&conf).unwrap();
    text.push_str("max_connections = many\n");
    fs::write(&conf, text).unwrap();
    let error = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap_err();
    assert!(error.message().contains("max_connections"), "{error}");
}

#[tokio::test]
async fn below_a_folder_that_its_user_cannot_enter_the_cluster_is_kept_elsewhere() {
    if !Uid::effective().is_root() {
        // Only root runs Postgres as somebody else.
        return;
    }
    let closed = TempDir::new().unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let data_dir = closed.path().join("data");
    let postgres = EmbeddedPostgres::start_or_join(&data_dir).await.unwrap();
    connect(&postgres).batch_execute("CREATE TABLE kept AS SELECT 7 AS value").unwrap();
    postgres.stop().await.unwrap();
    let home = fs::read_link(data_dir.join("home")).unwrap();
    assert!(home.starts_with("/var/lib/offboard") && home.join("postgres/PG_VERSION").exists());
    assert_eq!(
        fs::metadata(closed.path()).unwrap().permissions().mode() & 0o777,
        0o700,
        "the folder stays closed"
    );

    let postgres = EmbeddedPostgres::start_or_join(&data_dir).await.unwrap();
    assert_eq!(number(&mut connect(&postgres), "SELECT value FROM kept"), 7);
    postgres.stop().await.unwrap();
    fs::remove_dir_all(home).unwrap();
}
