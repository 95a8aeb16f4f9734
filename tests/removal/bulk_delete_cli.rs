//! `offboard bulk-delete`: what it shows, what it does, and the codes it ends with.

use crate::given::{Many, text};
use crate::kit::*;

/// Runs a command as the world's caller.
pub fn bulk_delete(world: &World, arguments: &[&str]) -> Ended {
    let server = format!("http://{}", world.server.addresses.grpc);
    let mut all =
        vec!["bulk-delete", arguments[0], "--server", &server, "--key", &world.key.secret];
    all.extend(&arguments[1..]);
    run(&all)
}

pub async fn given() -> World {
    let world = World::start(Protocol::Grpc).await;
    world.database.given_many(Many { prefix: "e", count: 12, dependents: 1, portfolio: None });
    world.database.hold("e-000003");
    world
}

#[tokio::test]
async fn a_preview_reports_what_would_go_and_why_not() {
    let world = given().await;
    let ended =
        bulk_delete(&world, &["preview", "--type", "HCP", "--exclude", "entities/e-000001"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines[0], "12 entities of acme (test) selected.");
    assert!(
        lines[1].starts_with("             10 would be marked as deleted, in "),
        "{}",
        lines[1]
    );
    assert_eq!(lines[2..4], ["              1 would fail: on hold", "              1 excluded"]);
    assert!(
        lines[4].starts_with("First of them: e-000002, e-000004, ")
            && lines[4].ends_with("e-000012"),
        "{}",
        lines[4]
    );
    let ended = bulk_delete(&world, &["preview", "--all", "--hard", "--json"]);
    let preview: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&preview["matchedCount"], &preview["failingByReason"]),
        (&json!(12), &json!({"on_hold": 1}))
    );
    assert_eq!(world.database.rows("bulk_delete"), 0);
}

#[tokio::test]
async fn a_start_is_held_to_what_was_shown_and_can_be_left_alone() {
    let world = given().await;
    let ended = bulk_delete(
        &world,
        &["start", "--filter", "in(attributes.n, '1,2')", "--hard", "--yes", "--detach"],
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.starts_with("2 entities of acme (test) selected.\n"), "{}", ended.stderr);
    let task = world.task_ended(ended.stdout.trim()).await;
    assert_eq!(
        (task.get("status"), task.get("parameters.expectedCount")),
        (&json!("completed"), &json!("2"))
    );
    let ended = bulk_delete(
        &world,
        &[
            "start",
            "--type",
            "HCP",
            "--yes",
            "--detach",
            "--json",
            "--idempotency-key",
            "k",
            "--no-preview",
        ],
    );
    let started: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&started["status"], started["parameters"].get("expectedCount")),
        (&json!("SCHEDULED"), None)
    );
    world.task_ended(started["id"].as_str().unwrap()).await;
    let again = bulk_delete(
        &world,
        &["start", "--type", "HCP", "--yes", "--detach", "--idempotency-key", "k", "--no-preview"],
    );
    assert_eq!(again.stdout.trim(), started["id"].as_str().unwrap());
}

#[tokio::test]
async fn nothing_selected_and_ids_that_are_spared_are_reported() {
    let world = given().await;
    let ended = bulk_delete(&world, &["start", "--type", "HPC", "--yes"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for reported in [
        "0 entities of acme (test) selected.\nNothing is selected: a task has nothing to delete.\n",
        "Warning: no entity has the type `HPC`; did you mean `HCP`?",
    ] {
        assert!(ended.stderr.contains(reported), "{}", ended.stderr);
    }
    let ended =
        bulk_delete(&world, &["start", "--type", "HPC", "--yes", "--no-preview", "--detach"]);
    assert!(
        ended.code == Some(0) && ended.stderr.contains("Warning: no entity has the type `HPC`"),
        "{ended:?}"
    );
    let spared = [
        "start",
        "--filter",
        "equals(attributes.n, 1)",
        "--exclude",
        "e-000001",
        "--exclude",
        "e-000002",
        "--yes",
        "--detach",
    ];
    let ended = bulk_delete(&world, &spared);
    assert!(ended.stderr.contains("1 of the exclude list not selected anyway"), "{}", ended.stderr);
    let task = ended.stdout.trim();
    assert_eq!(bulk_delete(&world, &["excludes", task]).stdout, "e-000001\ne-000002\n");
    assert_eq!(
        bulk_delete(&world, &["excludes", task, "--json"]).stdout,
        "\"e-000001\"\n\"e-000002\"\n"
    );
}

#[tokio::test]
async fn a_start_without_anyone_to_ask_is_wrong_usage() {
    let world = given().await;
    let ended = bulk_delete(&world, &["start", "--all"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
    assert!(ended.stderr.contains("--yes"), "{}", ended.stderr);
    for wrong in [
        ["start", "--yes"].as_slice(),
        &["preview"],
        &["preview", "--all", "--type", "HCP"],
        &["preview", "--uri", "e", "--filter", "exists(uri)"],
        &["start", "--all", "--no-preview"],
        &["start", "--all", "--yes", "--max-objects-per-second", "0"],
        &["start", "--all", "--yes", "--send-mail", ""],
        &["preview", "--uris-from", "-", "--exclude-from", "-"],
        &["start", "--yes", "--uris-from", "/dev/stdin", "--exclude-from", "-"],
        &["list", "--max", "1001"],
        &["watch"],
    ] {
        assert_eq!(bulk_delete(&world, wrong).code, Some(2), "{wrong:?}");
    }
    assert_eq!(world.database.rows("bulk_delete"), 0);
}

#[tokio::test]
async fn what_the_service_refuses_is_one_clear_sentence() {
    let world = given().await;
    for (arguments, reported) in [
        (
            ["start", "--all", "--yes", "--max-objects", "5"].as_slice(),
            "The selection contains 12 entities, more than 5.",
        ),
        (
            &["start", "--all", "--yes", "--expected-count", "5"],
            "The selection contains 12 entities, not 5.",
        ),
        (&["preview", "--filter", "exists(nothing)"], "nothing"),
        (&["preview", "--uri", "a b"], "value 1 of --uri and --uris-from: must be"),
        (
            &["start", "--all", "--yes", "--clean-report-within", "60"],
            "Run a consistency check first",
        ),
        (
            &["start", "--all", "--yes", "--no-preview", "--send-mail", "true"],
            "--send-mail: must be left out",
        ),
        (&["failures", "0190a1b2-0000-7000-8000-000000000001"], "No task with id"),
        (&["watch", "0190a1b2-0000-7000-8000-000000000001"], "The key is of acme (test)"),
        (&["stop", "0190a1b2-0000-7000-8000-000000000001"], "The key is of acme (test)"),
        (
            &["start", "--filter", "missing(attributes.nn)", "--hard", "--yes"],
            "did you mean `n`? --allow-unknown-attributes",
        ),
        (
            &["start", "--filter", "missing(attributes.nn)", "--hard", "--yes", "--no-preview"],
            "--filter: no entity has the attribute `nn`; did you mean `n`?",
        ),
        (
            &["start", "--all", "--hard", "--yes", "--exclude", "e-00001"],
            "`e-00001`. --allow-missing-excludes",
        ),
        (&["list", "--order-by", "colour"], "--order-by: must be one of"),
        (
            &["preview", "--uris-from", "/nowhere/at-all"],
            "--uris-from: /nowhere/at-all cannot be read",
        ),
    ] {
        let ended = bulk_delete(&world, arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(reported), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains(&world.key.secret));
    }
    let away = run(&["bulk-delete", "list", "--server", "http://127.0.0.1:1", "--key", "k"]);
    assert!(
        away.code == Some(1) && away.stderr.contains("http://127.0.0.1:1 cannot be reached."),
        "{away:?}"
    );
    assert_eq!(world.database.rows("bulk_delete"), 0);
}

#[tokio::test]
async fn lists_of_uris_come_from_files() {
    let world = given().await;
    let folder = tempfile::tempdir().unwrap();
    let (uris, spared) = (folder.path().join("uris"), folder.path().join("spared"));
    std::fs::write(&uris, "entities/e-000001\n\n e-000002 \ne-000004\n").unwrap();
    std::fs::write(&spared, "e-000004\n").unwrap();
    let arguments = [
        "preview",
        "--uris-from",
        uris.to_str().unwrap(),
        "--uri",
        "e-000005",
        "--exclude-from",
        spared.to_str().unwrap(),
        "--json",
    ];
    let preview: Value = serde_json::from_str(&bulk_delete(&world, &arguments).stdout).unwrap();
    assert_eq!((&preview["matchedCount"], &preview["excludedCount"]), (&json!(4), &json!(1)));
    assert_eq!(preview["sample"], json!(["e-000001", "e-000002", "e-000005"]));
    std::fs::write(&uris, "\n").unwrap();
    let ended = bulk_delete(&world, &["preview", "--uris-from", uris.to_str().unwrap()]);
    assert!(
        ended.code == Some(1) && ended.stderr.contains("--uris-from: names a file without a URI"),
        "{ended:?}"
    );
    let ended =
        bulk_delete(&world, &["start", "--all", "--yes", "--exclude-from", uris.to_str().unwrap()]);
    assert!(
        ended.code == Some(1)
            && ended.stderr.contains("--exclude-from: names a file without a URI"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn tasks_and_failures_are_listed_line_by_line() {
    let world = given().await;
    let ids: Vec<_> = (0..1100).map(|n| format!("nobody-{n:04}")).collect();
    let task = world.schedule(json!({"uris": ids})).await;
    world.task_ended(&task).await;
    let ended = bulk_delete(&world, &["failures", &task]);
    assert_eq!(
        (ended.code, ended.stdout.lines().count()),
        (Some(0), 1100),
        "over more than one page"
    );
    assert_eq!(
        ended.stdout.lines().next(),
        Some("nobody-0000  not_found  No such entity is visible.")
    );
    let last = bulk_delete(&world, &["failures", &task, "--json"])
        .stdout
        .lines()
        .last()
        .map(str::to_owned)
        .unwrap();
    assert_eq!(serde_json::from_str::<Value>(&last).unwrap()["entityId"], "nobody-1099");
    let none = bulk_delete(&world, &["list"]);
    assert!(none.stdout.is_empty() && none.stderr.contains("acme (test)"), "{none:?}");
    let line = bulk_delete(&world, &["list", "--history"]).stdout;
    assert!(
        line.starts_with(&task)
            && line.contains("COMPLETED_WITH_ERRORS")
            && line.contains("1,100 failed"),
        "{line}"
    );
    let json: Value =
        serde_json::from_str(&bulk_delete(&world, &["list", "--history", "--json"]).stdout)
            .unwrap();
    assert_eq!(
        (&json["id"], &json["currentState"]["objectsFailedToDeleteCount"]),
        (&json!(task), &json!(1100))
    );
}

/// A variable of the shell that is not set leaves an empty argument.
#[tokio::test]
async fn a_blank_selection_is_wrong_usage_and_the_flag_is_named() {
    let world = given().await;
    for flag in ["--filter", "--type", "--uri", "--exclude"] {
        for blank in ["", "  "] {
            for command in ["preview", "start"] {
                let other = if flag == "--exclude" { "--all" } else { "--hard" };
                let more =
                    if command == "start" { ["--yes", "--no-preview"].as_slice() } else { &[] };
                let ended =
                    bulk_delete(&world, &[[command, other, flag, blank].as_slice(), more].concat());
                assert_eq!(
                    (ended.code, ended.stdout.as_str()),
                    (Some(2), ""),
                    "{command} {flag}: {ended:?}"
                );
                assert!(
                    ended.stderr.contains(flag) && ended.stderr.contains("must not be blank"),
                    "{command} {flag}: {}",
                    ended.stderr
                );
            }
        }
    }
    assert_eq!(world.database.rows("bulk_delete"), 0);
}

/// As in `offboard … | head -1`: whoever leaves early breaks nothing.
#[tokio::test]
async fn a_reader_that_is_gone_changes_no_exit_code() {
    let world = given().await;
    let server = format!("http://{}", world.server.addresses.grpc);
    let unread = |arguments: &[&str]| {
        run_unread(
            &[
                ["bulk-delete"].as_slice(),
                arguments,
                &["--server", &server, "--key", &world.key.secret],
            ]
            .concat(),
        )
    };
    assert_eq!(unread(&["preview", "--all"]), Some(0));
    assert_eq!(unread(&["preview", "--all", "--json"]), Some(0));
    assert_eq!(unread(&["start", "--uri", "e-000001", "--yes"]), Some(0));
    assert_eq!(unread(&["start", "--uri", "e-000002", "--yes", "--detach"]), Some(0));
    // A start is limited to what it shows: an entity that this task removes in between would be one too few.
    until("the task is over", || world.database.open_tasks() == 0).await;
    assert_eq!(unread(&["start", "--all", "--yes", "--json"]), Some(3), "e-000003 is on hold");
    let task = text(
        &serde_json::from_str::<Value>(
            bulk_delete(&world, &["list", "--history", "--max", "1", "--json"]).stdout.trim(),
        )
        .unwrap()["id"],
    );
    for arguments in [["watch", &task].as_slice(), &["watch", &task, "--json"]] {
        assert_eq!(unread(arguments), Some(3), "{arguments:?}");
    }
    assert_eq!((unread(&["list", "--history"]), unread(&["failures", &task])), (Some(0), Some(0)));
    assert_eq!(
        unread(&["failures", "0190a1b2-0000-7000-8000-000000000001"]),
        Some(1),
        "a failure stays one"
    );
    assert_eq!(unread(&["start", "--all"]), Some(2), "and so does wrong usage");
    world.database.sql(&format!("UPDATE bulk_delete SET status = 'paused', ended_at = NULL, paused_at = now() WHERE id = '{task}'"));
    assert_eq!(
        (unread(&["resume", &task]), unread(&["pause", &task]), unread(&["stop", &task])),
        (Some(0), Some(0), Some(0))
    );
}

/// The JSON of a task is that of the REST listener.
#[tokio::test]
async fn a_task_is_printed_as_the_rest_door_shows_it() {
    let world = given().await;
    world.bulk_delete(json!({"entity_type": "HCP", "mode": "hard"})).await;
    let printed: Value =
        serde_json::from_str(&bulk_delete(&world, &["list", "--history", "--json"]).stdout)
            .unwrap();
    let bearer = format!("Bearer {}", world.key.secret);
    let path = format!("/api/acme/tasks/{}", printed["id"].as_str().unwrap());
    let shown = http(world.server.addresses.http, "GET", &path, &[("authorization", &bearer)], "")
        .await
        .json();
    let names = |value: &Value| {
        value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(
        (names(&printed), names(&printed["currentState"])),
        (names(&shown), names(&shown["currentState"]))
    );
    for member in [
        "id",
        "name",
        "type",
        "tenant",
        "status",
        "parameters",
        "started",
        "createdTime",
        "endTime",
        "pausedTime",
        "duration",
    ] {
        assert_eq!(printed[member], shown[member], "{member}");
    }
}
