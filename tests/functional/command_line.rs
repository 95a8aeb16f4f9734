//! The command line: what it says, and the codes it ends with.

use std::net::TcpListener;

use crate::kit::*;

#[test]
fn every_command_explains_itself() {
    let commands: &[&[&str]] = &[
        &[],
        &["serve"],
        &["migrate"],
        &["wait-for-db"],
        &["healthcheck"],
        &["key"],
        &["key", "create"],
        &["key", "list"],
        &["key", "revoke"],
        &["import"],
        &["bulk-delete"],
        &["bulk-delete", "preview"],
        &["bulk-delete", "start"],
        &["bulk-delete", "watch"],
        &["bulk-delete", "pause"],
        &["bulk-delete", "resume"],
        &["bulk-delete", "stop"],
        &["bulk-delete", "list"],
        &["bulk-delete", "failures"],
        &["demo"],
        &["version"],
    ];
    for command in commands {
        let printed = offboard(&[command, ["--help"].as_slice()].concat());
        assert!(printed.contains("Usage: offboard"), "{command:?}: {printed}");
        assert!(printed.lines().next().is_some_and(|line| line.len() > 10), "{command:?}: {printed}");
    }
    let all = offboard(&["--help"]);
    for command in commands.iter().filter_map(|command| command.first()) {
        assert!(all.contains(command), "{command} is not in the help");
    }
    let serve = offboard(&["serve", "--help"]);
    for variable in
        ["OFFBOARD_DATABASE_URL", "OFFBOARD_GRPC_ADDR", "OFFBOARD_HTTP_ADDR", "OFFBOARD_ADMIN_ADDR", "OFFBOARD_DRAIN_DELAY", "OFFBOARD_LOG"]
    {
        assert!(serve.contains(variable), "{variable} is not in the help");
    }
}

#[test]
fn the_version_is_printed() {
    let expected = format!("offboard {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((offboard(&["version"]), offboard(&["--version"])), (expected.clone(), expected));
}

#[test]
fn wrong_usage_is_told_and_ends_with_2() {
    for (arguments, told) in [
        (["servе"].as_slice(), "subcommand"),
        (&["serve", "--grpc-adr=x"], "--grpc-addr"),
        (&["serve", "--grpc-addr=here"], "--grpc-addr"),
        (&["serve", "--roles=grpc,cook"], "gateway"),
        (&["serve", "--lease=-1"], "seconds"),
        (&["import", "x.ndjson"], "--key"),
        (&["import", "x.ndjson", "--offline"], "--org"),
    ] {
        let ended = run(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(told), "{arguments:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_taken_port_is_one_clear_sentence() {
    let database = database().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--grpc-addr", "--http-addr", "--admin-addr"] {
        let mut arguments = vec!["serve", "--database-url", &database.url, "--log=error"];
        for listener in ["--grpc-addr", "--http-addr", "--admin-addr"] {
            arguments.extend([listener, if listener == flag { &address } else { "127.0.0.1:0" }]);
        }
        let ended = run(&arguments);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let expected = format!("offboard: {flag} {address} is taken by another process; choose another port.");
        assert!(ended.stderr.starts_with(&expected) && ended.stderr.lines().count() == 1, "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_database_is_waited_for_until_it_answers_or_the_time_is_over() {
    let database = database().await;
    offboard(&["wait-for-db", "--database-url", &database.url]);
    for url in ["postgresql://nobody:secret@127.0.0.1:1/none", "not a URL"] {
        let ended = run(&["wait-for-db", "--database-url", url, "--timeout", "0"]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert!(ended.stderr.contains("The database cannot be reached.") && !ended.stderr.contains("secret"), "{}", ended.stderr);
    }
    let ended = run(&["migrate", "--database-url", "postgresql://nobody:secret@127.0.0.1:1/none"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("The database cannot be reached.") && !ended.stderr.contains("secret"), "{}", ended.stderr);
}
