//! `offboard bulk-delete watch`: who leaves, connections that are lost, and the codes that it ends with.

use std::io::{BufRead, BufReader};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bulk_delete_cli::{bulk_delete, given};
use crate::given::text;
use crate::kit::*;

/// Ctrl-C leaves; the task continues.
#[tokio::test]
async fn whoever_leaves_does_not_stop_the_task() {
    let world = given().await;
    let task = world.bulk_delete(json!({"uris": ["e-000001"]})).await;
    let task = text(task.get("id"));
    world.database.sql(&format!("UPDATE bulk_delete SET status = 'paused', ended_at = NULL, paused_at = now() WHERE id = '{task}'"));
    let server = format!("http://{}", world.server.addresses.grpc);
    let mut watching =
        spawn(&["bulk-delete", "watch", &task, "--server", &server, "--key", &world.key.secret]);
    let mut reported = BufReader::new(watching.stdout.take().unwrap()).lines();
    let first =
        tokio::task::spawn_blocking(move || reported.next()).await.unwrap().unwrap().unwrap();
    assert!(first.contains("paused"), "{first}");
    kill(Pid::from_raw(watching.id().cast_signed()), Signal::SIGINT).unwrap();
    let ended =
        tokio::task::spawn_blocking(move || watching.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    let reported = String::from_utf8(ended.stderr).unwrap();
    assert!(
        reported.contains("The task continues.")
            && reported.contains(&format!("offboard bulk-delete watch {task}")),
        "{reported}"
    );
    assert_eq!(world.database.rows("bulk_delete WHERE status = 'paused'"), 1);
}

/// A service that was never there is not waited for.
#[test]
fn a_first_connection_that_fails_ends_the_watching() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // Nobody here speaks TLS, so that no connection comes about.
    let server = format!("https://{}", listener.local_addr().unwrap());
    let attempts = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = attempts.clone();
    std::thread::spawn(move || {
        while listener.accept().is_ok() {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    });
    let ended = run(&[
        "bulk-delete",
        "watch",
        "0190a1b2-0000-7000-8000-000000000001",
        "--server",
        &server,
        "--server-ca-file",
        TlsFront::CA_FILE,
        "--key",
        "k",
    ]);
    assert_eq!(
        (ended.code, ended.stdout.as_str(), ended.stderr.lines().count()),
        (Some(1), "", 1),
        "{ended:?}"
    );
    assert_eq!(attempts.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// A service that restarts is found again, and one line says so.
#[tokio::test]
async fn a_connection_that_is_lost_is_tried_again() {
    let mut world = given().await;
    let task = world.bulk_delete(json!({"uris": ["e-000001"]})).await;
    let task = text(task.get("id"));
    world.database.sql(&format!("UPDATE bulk_delete SET status = 'paused', ended_at = NULL, paused_at = now() WHERE id = '{task}'"));
    let address = world.server.addresses.grpc.to_string();
    let mut watching = spawn(&[
        "bulk-delete",
        "watch",
        &task,
        "--server",
        &format!("http://{address}"),
        "--key",
        &world.key.secret,
    ]);
    let mut reported = BufReader::new(watching.stdout.take().unwrap()).lines();
    let (first, reported) =
        tokio::task::spawn_blocking(move || (reported.next().unwrap().unwrap(), reported))
            .await
            .unwrap();
    assert!(first.contains("paused"), "{first}");
    world.server.kill();
    // Long enough for it to be tried more than once.
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    world.database.sql(&format!("UPDATE bulk_delete SET status = 'canceled', paused_at = NULL, ended_at = now() WHERE id = '{task}'"));
    let _again = Server::start_with(&world.database, &["--grpc-addr", &address], &[]).await;
    let ended = tokio::task::spawn_blocking(move || (reported.last(), watching.wait_with_output()))
        .await
        .unwrap();
    let (last, ended) = (ended.0.unwrap().unwrap(), ended.1.unwrap());
    assert!(last.starts_with("canceled: "), "{last}");
    assert_eq!(ended.status.code(), Some(4));
    assert_eq!(
        String::from_utf8(ended.stderr).unwrap(),
        "The connection to the service was lost; it is tried again.\n"
    );
}

/// Runs to the end with the code of the end.
#[tokio::test]
async fn watching_ends_as_the_task_does() {
    let world = given().await;
    let ended = bulk_delete(&world, &["start", "--filter", "in(attributes.n, '1,2')", "--yes"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stdout
            .lines()
            .last()
            .is_some_and(|line| line.starts_with("completed: 2 entities deleted in ")),
        "{}",
        ended.stdout
    );
    let ended = bulk_delete(&world, &["start", "--type", "HCP", "--hard", "--yes", "--json"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let lines: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines.last().unwrap()["status"], &lines[0]["id"]),
        (&json!("COMPLETED_WITH_ERRORS"), &lines.last().unwrap()["id"])
    );
    let task = lines[0]["id"].as_str().unwrap();
    assert_eq!(
        bulk_delete(&world, &["watch", task]).code,
        Some(3),
        "a task that is over is reported at once"
    );
    world.database.sql(&format!("UPDATE bulk_delete SET status = 'canceled' WHERE id = '{task}'"));
    assert_eq!(bulk_delete(&world, &["watch", task]).code, Some(4));
    world.database.sql(&format!(
        "UPDATE bulk_delete SET status = 'failed', error_code = 'internal' WHERE id = '{task}'"
    ));
    assert_eq!(bulk_delete(&world, &["watch", task]).code, Some(5));
}
