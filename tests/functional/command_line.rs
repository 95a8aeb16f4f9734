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
        &["key", "get"],
        &["key", "list"],
        &["key", "update"],
        &["key", "rotate"],
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
        &["bulk-delete", "excludes"],
        &["removal-policy"],
        &["removal-policy", "get"],
        &["removal-policy", "set"],
        &["demo"],
        &["version"],
    ];
    for command in commands {
        let printed = offboard(&[command, ["--help"].as_slice()].concat());
        assert!(printed.contains("Usage: offboard"), "{command:?}: {printed}");
        assert!(
            printed.lines().next().is_some_and(|line| line.len() > 10),
            "{command:?}: {printed}"
        );
    }
    let all = offboard(&["--help"]);
    for command in commands.iter().filter_map(|command| command.first()) {
        assert!(all.contains(command), "{command} is not in the help");
    }
    let serve = offboard(&["serve", "--help"]);
    for variable in [
        "OFFBOARD_DATABASE_URL",
        "OFFBOARD_GRPC_ADDR",
        "OFFBOARD_HTTP_ADDR",
        "OFFBOARD_ADMIN_ADDR",
        "OFFBOARD_DRAIN_DELAY",
        "OFFBOARD_LOG",
    ] {
        assert!(serve.contains(variable), "{variable} is not in the help");
    }
}

#[test]
fn the_version_is_printed() {
    let expected = format!("offboard {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((offboard(&["version"]), offboard(&["--version"])), (expected.clone(), expected));
}

#[test]
fn wrong_usage_is_reported_and_ends_with_2() {
    for (arguments, reported) in [
        (["servе"].as_slice(), "subcommand"),
        (&["serve", "--grpc-adr=x"], "--grpc-addr"),
        (&["serve", "--grpc-addr=here"], "--grpc-addr"),
        (&["serve", "--roles=grpc,cook"], "gateway"),
        (&["serve", "--lease=-1"], "seconds"),
        (&["serve", "--lease=0"], "from 1 to 86400"),
        (&["serve", "--request-timeout=0"], "from 0.001 to 86400"),
        (&["serve", "--poll-interval=0"], "from 0.01 to 86400"),
        (&["serve", "--db-acquire-timeout=0"], "from 0.001 to 86400"),
        (&["serve", "--public-url=api.example.com"], "http"),
        (
            &["key", "revoke", "nokey", "--yes"],
            "must be the id of a key, as `offboard key list` shows it",
        ),
        (
            &["key", "create", "--org=acme", "--scope=entities:raed,nope", "--scope=admin"],
            "`entities:raed` (did you mean `entities:read`?), `nope` are not scopes; the scopes are ",
        ),
        (&["healthcheck", "--admin-addr=localhost:1"], "must be an IP address and a port"),
        (&["serve", "--data-dir=/dev/null", "--mail-from=someone@example.com"], "--smtp-url"),
        (&["serve", "--data-dir=/dev/null", "--smtp-url=smtp://mail"], "--mail-from"),
        (&["import", "x.ndjson"], "--key"),
        (&["import", "x.ndjson", "--offline"], "--org"),
        (&["import", "x.ndjson", "--key=k", "--live"], "--offline"),
        (&["import", "x.ndjson", "--key=k", "--org=acme"], "--offline"),
        (
            &["import", "x.ndjson", "--key=k", "--data-dir=/tmp/none"],
            "--data-dir has no effect without --offline",
        ),
        (
            &["import", "x.ndjson", "--key=k", "--database-url=postgresql://h/d"],
            "--database-url has no effect without --offline",
        ),
        (
            &["import", "x.ndjson", "--offline", "--org=acme", "--server=http://h:1"],
            "--server is of a running service",
        ),
        (
            &["key", "revoke", "0190a1b2-0000-7000-8000-000000000001"],
            "--yes revokes the key without asking",
        ),
        (&["events", "new-history"], "--yes begins the history without asking"),
        (&["removal-policy", "set", "--key=k"], "--default-grace-period"),
        (
            &["removal-policy", "set", "--key=k", "--mail-domain=none", "--mail-domain=a.com"],
            "--mail-domain none removes all domains, so it cannot be combined with others",
        ),
        (
            &["removal-policy", "set", "--key=k", "--tombstone-retention=P1D"],
            "--yes sets the retention without asking",
        ),
    ] {
        let ended = run(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(reported), "{arguments:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_reader_that_is_gone_changes_no_exit_code() {
    let world = World::start(Protocol::Grpc).await;
    let database = ["--database-url", world.database.url.as_str()];
    let (server, admin) = (
        format!("http://{}", world.server.addresses.grpc),
        world.server.addresses.admin.to_string(),
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"entity_id\":\"a\",\"type\":\"T\"}\n").unwrap();
    let path = file.path().to_str().unwrap();
    let import = |more: &[&str]| {
        run_unread(
            &[["import", path, "--server", &server, "--key", &world.key.secret].as_slice(), more]
                .concat(),
        )
    };
    assert_eq!((import(&[]), import(&["--json"])), (Some(0), Some(0)));
    std::fs::write(file.path(), "no JSON\n").unwrap();
    assert_eq!(import(&[]), Some(1), "a failure stays one");
    let key = ["key", "create", "--org", "acme", "--scope", "entities:read"];
    for arguments in [
        [key.as_slice(), &database].concat(),
        [key.as_slice(), &["--json"], &database].concat(),
        [["key", "list"].as_slice(), &database].concat(),
        [["key", "list", "--json"].as_slice(), &database].concat(),
        [["key", "revoke", &world.key.id, "--yes"].as_slice(), &database].concat(),
        [["migrate"].as_slice(), &database].concat(),
        vec!["healthcheck", "--admin-addr", &admin],
        vec!["version"],
    ] {
        assert_eq!(run_unread(&arguments), Some(0), "{arguments:?}");
    }
    assert_eq!(run_unread(&["serve", "--grpc-adr=x"]), Some(2));
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
        let expected =
            format!("offboard: {flag} {address} is taken by another process; choose another port.");
        assert!(
            ended.stderr.starts_with(&expected) && ended.stderr.lines().count() == 1,
            "{}",
            ended.stderr
        );
        // Nothing was made before that was found out.
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("data");
        arguments[1..3].copy_from_slice(&["--data-dir", nowhere.to_str().unwrap()]);
        let ended = run(&arguments);
        assert!(
            ended.code == Some(1) && ended.stderr.starts_with(&expected) && !nowhere.exists(),
            "{ended:?}"
        );
    }
    drop(taken);
    let ended = run(&[
        "serve",
        "--database-url",
        &database.url,
        "--log=error",
        "--grpc-addr",
        &address,
        "--http-addr",
        &address,
    ]);
    let expected = format!(
        "offboard: --http-addr: {address} is the address of --grpc-addr too: each listener needs a port of its own\n"
    );
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), expected.as_str()), "{ended:?}");
}

#[tokio::test]
async fn the_removal_policy_is_shown_and_changed() {
    let world = World::start(Protocol::Grpc).await;
    let server = format!("http://{}", world.server.addresses.grpc);
    let policy = |arguments: &[&str]| {
        run(&[&["removal-policy"], arguments, &["--server", &server, "--key", &world.key.secret]]
            .concat())
    };
    let set = policy(&[
        "set",
        "--default-grace-period",
        "1h",
        "--hard-max-objects",
        "5",
        "--hard-expected-count",
        "true",
        "--mail-domain",
        "example.com",
    ]);
    assert!(
        set.code == Some(0) && set.stdout.starts_with("The removal policy of acme (test):\n"),
        "{set:?}"
    );
    let set = policy(&[
        "set",
        "--hard-max-objects",
        "7",
        "--request-retention",
        "P1D",
        "--yes",
        "--json",
    ]);
    let shown: Value = serde_json::from_str(&set.stdout).unwrap();
    assert_eq!(shown, world.call("RemovalService/GetRemovalPolicy", json!({})).await.unwrap().json);
    assert_eq!(
        (
            &shown["hard_delete"]["max_objects"],
            &shown["hard_delete"]["expected_count"],
            &shown["request_retention"]
        ),
        (&json!(7), &json!(true), &json!("86400s"))
    );
    // Nobody can be asked here, and what protects less is asked for.
    for (flags, reported) in [
        (
            &["--default-grace-period", "none"][..],
            "acme (test) would be protected less: default_grace_period: from 3600s to none",
        ),
        (&["--default-grace-period", "30m"], "default_grace_period: from 3600s to 1800s"),
        (&["--hard-max-objects", "8"], "hard_delete.max_objects: from 7 to 8"),
        (&["--hard-max-objects", "none"], "hard_delete.max_objects: from 7 to none"),
        (&["--hard-expected-count", "false"], "hard_delete.expected_count: from true to false"),
    ] {
        let unasked = policy(&[&["set"], flags].concat());
        assert_eq!((unasked.code, unasked.stdout.as_str()), (Some(2), ""), "{unasked:?}");
        assert!(
            unasked.stderr.contains(reported)
                && unasked.stderr.contains("--yes changes the policy without asking"),
            "{unasked:?}"
        );
    }
    assert_eq!(shown, world.call("RemovalService/GetRemovalPolicy", json!({})).await.unwrap().json);
    let stricter = policy(&[
        "set",
        "--default-grace-period",
        "1h",
        "--hard-max-objects",
        "7",
        "--soft-preview-within",
        "1h",
        "--min-grace-period",
        "1m",
    ]);
    assert_eq!(stricter.code, Some(0), "{stricter:?}");
    policy(&[
        "set",
        "--hard-max-objects",
        "none",
        "--mail-domain",
        "none",
        "--request-retention",
        "none",
        "--yes",
    ]);
    let got = policy(&["get"]);
    assert!(
        got.stdout.contains("default_grace_period  3600s")
            && got.stdout.contains("request_retention     -"),
        "{got:?}"
    );
    let refused = |arguments: &[&str], reported: &str| {
        let refused = policy(&[&["set"], arguments].concat());
        assert!(
            refused.code.is_some_and(|code| code > 0) && refused.stderr.contains(reported),
            "{reported} is not in {refused:?}"
        );
    };
    refused(&["--hard-max-objects", "x"], "must be a whole number");
    // The faults that are found here and those that the service finds are reported by flag.
    refused(
        &["--default-grace-period", "1y"],
        "offboard: --default-grace-period: must be a number of seconds",
    );
    refused(
        &["--hard-preview-within", "1y"],
        "offboard: --hard-preview-within: must be a number of seconds",
    );
    refused(
        &["--min-grace-period", "2h"],
        "offboard: --min-grace-period: the default must not be shorter than the minimum",
    );
    refused(
        &["--tombstone-retention", "1s", "--yes"],
        "offboard: --tombstone-retention: must be from 86400s",
    );
    refused(
        &["--mail-domain", "example.com", "--mail-domain", "nowhere"],
        "offboard: value 2 of --mail-domain: must be",
    );
    refused(&["--soft-preview-within", "0s"], "offboard: --soft-preview-within: must be above 0s");
}

#[tokio::test]
async fn a_database_is_waited_for_until_it_answers_or_the_time_is_over() {
    let database = database().await;
    offboard(&["wait-for-db", "--database-url", &database.url]);
    let away = "postgresql://nobody:secret@127.0.0.1:1/none";
    for command in [["wait-for-db", "--timeout", "0"].as_slice(), &["migrate"]] {
        let ended = run(&[command, &["--database-url", away]].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert!(
            ended.stderr.contains("The database cannot be reached.")
                && !ended.stderr.contains("secret"),
            "{}",
            ended.stderr
        );
    }
}

/// libpq's own words would repeat what it does not understand, and that is the password.
#[test]
fn an_address_of_a_database_that_is_none_is_refused_without_a_word_of_it() {
    for address in [
        "postgres://app:hunter2/xyz@127.0.0.1:5/app",
        "postgres://app:a@hunter2@h/d",
        "postgres://app:%hunter2@h/d",
        "mysql://app:hunter2@h/d",
        "hunter2 is not a valid",
    ] {
        for command in [
            ["key", "list", "--org", "acme"].as_slice(),
            &["serve"],
            &["migrate"],
            &["wait-for-db"],
        ] {
            let ended = run(&[command, &["--database-url", address]].concat());
            assert!(ended.code.is_some_and(|code| code != 0), "{command:?}: {ended:?}");
            assert!(
                ended.stderr.contains("is not a valid Postgres URL")
                    && !ended.stderr.contains("hunter2"),
                "{command:?}: {ended:?}"
            );
        }
    }
}

/// A second database, beside the one that a service uses, would be of use to nobody.
#[tokio::test]
async fn a_command_makes_no_database_and_says_which_one_it_uses() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("data");
    let path = nowhere.to_str().unwrap();
    let file = folder.path().join("entities.ndjson");
    std::fs::write(&file, "").unwrap();
    for command in [
        ["key", "create", "--org", "acme", "--scope", "entities:read"].as_slice(),
        &["key", "list"],
        &["migrate"],
        &["events", "history"],
        &["wait-for-db"],
        &["import", file.to_str().unwrap(), "--offline", "--org", "acme"],
    ] {
        let ended = run(&[command, &["--data-dir", path]].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{command:?}: {ended:?}");
        for reported in [path, "--data-dir", "--database-url", "offboard serve"] {
            assert!(ended.stderr.contains(reported), "{command:?}: {}", ended.stderr);
        }
        assert!(!nowhere.exists(), "{command:?}");
    }
    let database = database().await;
    let ended = run(&[
        "key",
        "create",
        "--org",
        "acme",
        "--scope",
        "entities:read",
        "--database-url",
        &database.url,
    ]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let name = url::Url::parse(&database.url).unwrap().path().trim_start_matches('/').to_owned();
    assert!(ended.stderr.contains(&format!("Using the database `{name}` at ")), "{}", ended.stderr);
}
