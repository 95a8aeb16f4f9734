//! Clusters whose postmaster or process was killed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Uid;
use offboard::db::embedded::EmbeddedPostgres;
use tempfile::TempDir;

use super::{connect, lives, number, postmaster, start_helper, until};

#[tokio::test]
async fn a_postmaster_whose_process_was_killed_is_adopted_and_stopped_at_the_end() {
    let folder = TempDir::new().unwrap();
    let mut helper = start_helper(folder.path());
    let pid = postmaster(folder.path()).unwrap();
    helper.kill().unwrap();
    helper.wait().unwrap();
    assert!(
        lives(pid),
        "the postmaster outlives its parent, so that open transactions end in order"
    );

    let postgres = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    assert!(postgres.is_owner());
    assert_eq!(postmaster(folder.path()), Some(pid), "it is the same postmaster");
    assert_eq!(number(&mut connect(&postgres), "SELECT 1 AS value"), 1);
    postgres.stop().await.unwrap();
    assert!(!lives(pid));
}

#[tokio::test]
async fn a_killed_postmaster_does_not_block_the_next_start() {
    let folder = TempDir::new().unwrap();
    let postgres = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    connect(&postgres).batch_execute("CREATE TABLE kept AS SELECT 7 AS value").unwrap();
    let pid = postmaster(folder.path()).unwrap();
    kill(pid, Signal::SIGKILL).unwrap();
    until("the postmaster is dead", || !lives(pid)).await;

    // While the other use continues, as another process would.
    let next = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    assert!(!next.is_owner());
    assert_eq!(number(&mut connect(&next), "SELECT value FROM kept"), 7);
    assert_eq!(number(&mut connect(&postgres), "SELECT value FROM kept"), 7);
    postgres.stop().await.unwrap();
    next.stop().await.unwrap();
    assert_eq!(postmaster(folder.path()), None);
}

#[tokio::test]
async fn a_cluster_in_use_that_is_killed_comes_up_again_by_itself() {
    let folder = TempDir::new().unwrap();
    let postgres = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    connect(&postgres).batch_execute("CREATE TABLE kept AS SELECT 7 AS value").unwrap();
    let mut supervised = Box::pin(postgres.supervise());
    for _ in 0..2 {
        let killed = postmaster(folder.path()).unwrap();
        kill(killed, Signal::SIGKILL).unwrap();
        let back = || {
            PgConnection::establish(postgres.database_url()).is_ok()
                && postmaster(folder.path()) != Some(killed)
        };
        tokio::select! {
            () = &mut supervised => {}
            () = until("it is back", back) => {}
        }
        assert_eq!(number(&mut connect(&postgres), "SELECT value FROM kept"), 7);
    }
    drop(supervised);
    postgres.stop().await.unwrap();
    assert_eq!(postmaster(folder.path()), None);
}

#[tokio::test]
async fn a_stale_file_whose_number_another_process_has_does_not_block_the_next_start() {
    let folder = TempDir::new().unwrap();
    EmbeddedPostgres::start_or_join(folder.path()).await.unwrap().stop().await.unwrap();
    let file = folder.path().join("postgres/postmaster.pid");
    // A process of the cluster's own user, which Postgres by itself would take for a postmaster.
    let owner = fs::metadata(folder.path().join("postgres")).unwrap();
    let mut command = Command::new("sleep");
    command.arg("600");
    if Uid::effective().is_root() {
        use std::os::unix::process::CommandExt;
        command.uid(owner.uid()).gid(owner.gid());
    }
    let mut other = command.spawn().unwrap();
    let pgdata = folder.path().join("postgres");
    fs::write(
        &file,
        format!(
            "{}\n{}\n1700000000\n5432\n/nonexistent\n\n  1 1\nready   \n",
            other.id(),
            pgdata.display()
        ),
    )
    .unwrap();
    std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();

    let postgres = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
    assert_eq!(number(&mut connect(&postgres), "SELECT 1 AS value"), 1);
    postgres.stop().await.unwrap();
    assert!(other.try_wait().unwrap().is_none(), "the other process was left alone");
    other.kill().unwrap();
    other.wait().unwrap();
}
