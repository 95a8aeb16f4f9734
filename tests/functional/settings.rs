//! Settings: what is refused before anything is opened, all of it at once, and what one without a value is.

use offboard::limits::Value as Bound;

use crate::kit::*;

/// The flags of `serve` that have a variable, with that and what is said of them.
fn settings() -> Vec<(String, String, String)> {
    let command = offboard::cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let arguments = command.get_arguments().chain(serve.get_arguments());
    let setting = |argument: &clap::Arg| {
        let variable = argument.get_env()?.to_str().unwrap().to_owned();
        Some((format!("--{}", argument.get_long()?), variable, argument.get_help()?.to_string()))
    };
    arguments.filter_map(setting).collect()
}

#[tokio::test]
async fn a_variable_that_is_set_to_nothing_is_not_set() {
    let database = database().await;
    for blank in ["", " "] {
        let variables = settings();
        let variables: Vec<_> =
            variables.iter().map(|(_, variable, _)| (variable.as_str(), blank)).collect();
        assert!(variables.len() > 50, "{variables:?}");
        let server = Server::start_with(&database, &[], &variables).await;
        crate::probes::readiness(&server, 200).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let (nowhere, file) = (folder.path().join("data"), folder.path().join("none.ndjson"));
    std::fs::write(&file, "").unwrap();
    let arguments = [
        "import",
        file.to_str().unwrap(),
        "--offline",
        "--org",
        "acme",
        "--database-url",
        &database.url,
    ];
    let blank = [
        ("OFFBOARD_DATA_DIR", ""),
        ("OFFBOARD_ROLES", ""),
        ("OFFBOARD_LEASE", ""),
        ("OFFBOARD_SERVER", ""),
        ("OFFBOARD_KEY", ""),
    ];
    let ended = run_with(&arguments, &blank);
    assert!(ended.code == Some(0) && !nowhere.exists(), "{ended:?}");
    let ended = run_with(&["import", file.to_str().unwrap()], &[("OFFBOARD_KEY", "")]);
    assert!(ended.code == Some(2) && ended.stderr.contains("--key"), "{ended:?}");
}

#[test]
fn a_flag_without_a_value_is_refused_by_its_name() {
    let settings = settings();
    let valued: Vec<_> = settings
        .iter()
        .filter(|(flag, ..)| {
            !["--migrate", "--into-existing", "--proxy-protocol"].contains(&flag.as_str())
        })
        .collect();
    let blank: Vec<_> = valued.iter().map(|(flag, ..)| format!("{flag}=")).collect();
    let ended = run(
        &[["serve"].as_slice(), &blank.iter().map(String::as_str).collect::<Vec<_>>()].concat()
    );
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    for (flag, ..) in valued {
        assert!(
            ended.stderr.lines().any(|line| line.contains(&format!("{flag} "))),
            "{flag} is not in {}",
            ended.stderr
        );
    }
    let ended = run(&["key", "list", "--database-url="]);
    assert!(
        ended.code == Some(2) && ended.stderr.contains("--database-url must have a value"),
        "{ended:?}"
    );
}

#[test]
fn every_value_that_cannot_be_is_reported_at_once() {
    let no_certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let certificate = format!("--smtp-ca-file={no_certificate}");
    let reported = [
        ("--db-queue-limit=0", "must be a whole number from 1 to"),
        ("--max-concurrent-calls=0", "must be a whole number from 1 to"),
        ("--max-body-bytes=0", "must be a whole number from 1024 to"),
        ("--log=warning", "`warning` is not a level"),
        ("--otlp-endpoint=foo", "must be as http://localhost:4317"),
        ("--grpc-addr=localhost:0", "must be an IP address and a port, such as 127.0.0.1:8080"),
        ("--nats-ca-file=/nowhere", "cannot be read: No such file"),
        ("--nats-credentials-file=/nowhere", "cannot be read: No such file"),
        (certificate.as_str(), "has no certificate in PEM"),
        ("--lease=0.0001", "must be a number of seconds from 1 to 86400"),
        ("--poll-interval=1e-9", "must be a number of seconds from 0.01 to 86400"),
        (
            "--db-statement-timeout=0.0000001",
            "must be 0 or a number of seconds from 0.001 to 86400",
        ),
        ("--roles=cook", "possible values: grpc, gateway, worker"),
    ];
    let arguments: Vec<_> =
        ["serve"].into_iter().chain(reported.iter().map(|(argument, _)| *argument)).collect();
    let ended = run(&arguments);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    let sentences: Vec<_> = ended.stderr.split("error: ").collect();
    for (argument, why) in reported {
        let (flag, value) = argument.split_once('=').unwrap();
        let is_reported = |sentence: &&&str| {
            sentence.contains(&format!("{flag} "))
                && sentence.contains(value)
                && sentence.contains(why)
        };
        assert_eq!(
            sentences.iter().filter(is_reported).count(),
            1,
            "{argument} is not in {}",
            ended.stderr
        );
    }
}

#[test]
fn no_limit_is_nothing_unless_its_help_says_what_that_means() {
    let settings = settings();
    for (flag, _, help) in settings {
        let is_limit = |limit: &&offboard::limits::Limit| matches!(limit.value, Bound::Setting(setting) if flag == format!("--{setting}"));
        if offboard::limits::ALL
            .iter()
            .any(|(_, limits)| limits.iter().copied().any(|limit| is_limit(&limit)))
            && !help.contains("0 is")
        {
            let ended = run(&["serve", &format!("{flag}=0"), "--roles=cook"]);
            assert!(
                ended.code == Some(2) && ended.stderr.contains(&format!("'0' for '{flag} ")),
                "{flag}: {ended:?}"
            );
        }
    }
}

#[test]
fn what_is_wrong_with_settings_together_is_reported_at_once_and_no_secret() {
    let arguments = [
        "serve",
        "--database-url=hunter2 is not a valid",
        "--nats-url=http://user:hunter2@host",
        concat!("--nats-credentials-file=", env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        "--smtp-url=http://user:hunter2@host?tls=required",
        "--mail-from=nobody",
        "--grpc-addr=127.0.0.1:7001",
        "--http-addr=127.0.0.1:7001",
        "--max-body-bytes=8388608",
        "--body-memory-bytes=4194304",
    ];
    let ended = run_with(&arguments, &[("SSL_CERT_FILE", "/nope")]);
    assert_eq!(
        (ended.code, ended.stdout.as_str(), ended.stderr.lines().count()),
        (Some(1), "", 1),
        "{ended:?}"
    );
    for reported in [
        "--database-url: is not a valid Postgres URL",
        "--nats-url: must be one or more URLs",
        "has no JWT and seed of a NATS user",
        "--smtp-url: must be",
        "--mail-from: must be",
        "--http-addr: 127.0.0.1:7001 is the address of --grpc-addr too",
        "SSL_CERT_FILE: names /nope, which cannot be read: No such file",
        "--body-memory-bytes: must be at least --max-body-bytes, 8388608",
    ] {
        assert!(ended.stderr.contains(reported), "{reported} is not in {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
}

/// Settings that can each be, and not together: those that are given, and the one that is refused with what is said of it.
const PAIRS: &[(&[&str], &str)] = &[
    (
        &["--max-body-bytes=8388608", "--body-memory-bytes=4194304"],
        "--body-memory-bytes: must be at least --max-body-bytes, 8388608: else",
    ),
    (
        &["--db-lock-timeout=61"],
        "--db-lock-timeout: must be at most --db-statement-timeout, 60: a statement",
    ),
    (
        &["--db-statement-timeout=2.5", "--db-lock-timeout=3"],
        "--db-lock-timeout: must be at most --db-statement-timeout, 2.5",
    ),
    (&["--bulk-chunk-target=15"], "--bulk-chunk-target: must be less than --lease, 15: the end"),
    (&["--lease=1", "--bulk-chunk-target=2"], "--bulk-chunk-target: must be less than --lease, 1"),
    (&["--poll-interval=16"], "--poll-interval: must be at most --lease, 15: what a lost worker"),
    (
        &["--grpc-max-connection-age=0", "--grpc-max-connection-age-grace=3"],
        "--grpc-max-connection-age-grace: must be 0 where --grpc-max-connection-age is 0: it begins",
    ),
    (
        &["--max-connections=10", "--max-connections-per-realm=11"],
        "--max-connections-per-realm: must be at most --max-connections, 10",
    ),
    (
        &["--max-concurrent-calls=10", "--realm-concurrent-calls=11"],
        "--realm-concurrent-calls: must be at most --max-concurrent-calls, 10",
    ),
    (
        &["--max-concurrent-calls=10", "--key-concurrent-calls=6"],
        "--key-concurrent-calls: must be at most what its realm may have, 5",
    ),
    (
        &["--realm-concurrent-calls=5", "--key-concurrent-calls=6"],
        "--key-concurrent-calls: must be at most what its realm may have, 5",
    ),
    (
        &["--realm-concurrent-streams=2049"],
        "--realm-concurrent-streams: must be at most --max-concurrent-streams, 2048",
    ),
    (
        &["--realm-concurrent-streams=5", "--key-concurrent-streams=6"],
        "--key-concurrent-streams: must be at most what its realm may have, 5",
    ),
    (&["--realm-db-connections=11"], "--realm-db-connections: must be at most --db-pool-size, 10"),
    (
        &["--db-pool-size=4", "--slow-db-connections=5"],
        "--slow-db-connections: must be at most --db-pool-size, 4",
    ),
    (
        &["--realm-db-connections=3", "--slow-db-connections=4"],
        "--slow-db-connections: must be at most --realm-db-connections, 3",
    ),
];

#[test]
fn settings_that_make_no_sense_together_are_refused() {
    // Without it they would be served, or be refused for the database.
    const BESIDE: &str = "--database-url=no URL";
    for (settings, reported) in PAIRS {
        let ended = run(&[["serve", BESIDE].as_slice(), settings].concat());
        assert_eq!(
            (ended.code, ended.stderr.lines().count()),
            (Some(1), 1),
            "{settings:?}: {ended:?}"
        );
        assert!(ended.stderr.contains(reported), "{reported} is not in {}", ended.stderr);
        assert_eq!(
            ended.stderr.matches(" must be ").count(),
            1,
            "nothing else is wrong with {settings:?}: {}",
            ended.stderr
        );
    }
    for sensible in [
        ["--db-statement-timeout=1", "--max-concurrent-calls=10"].as_slice(),
        &["--db-statement-timeout=0", "--db-lock-timeout=600"],
        &["--db-lock-timeout=0", "--lease=1"],
        &["--db-lock-timeout=60", "--poll-interval=15"],
        // Without workers there are no leases.
        &["--roles=grpc,gateway", "--poll-interval=600", "--bulk-chunk-target=60"],
    ] {
        let ended = run(&[["serve", BESIDE].as_slice(), sensible].concat());
        assert!(
            ended.code == Some(1) && !ended.stderr.contains(" must be "),
            "{sensible:?}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn roots_that_cannot_be_read_are_reported_where_they_are_needed_and_nowhere_else() {
    let database = database().await;
    let serve = [
        "serve",
        "--database-url",
        &database.url,
        "--http-addr=127.0.0.1:0",
        "--grpc-addr=127.0.0.1:0",
        "--admin-addr=127.0.0.1:0",
    ];
    let no_certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (variable, value, reported) in [
        ("SSL_CERT_FILE", "/nope", "SSL_CERT_FILE: names /nope, which cannot be read"),
        ("SSL_CERT_FILE", no_certificate, "has no certificate in PEM"),
        (
            "SSL_CERT_DIR",
            "/nope/certificates",
            "SSL_CERT_DIR: names /nope/certificates, which cannot be read",
        ),
    ] {
        for more in [
            ["--otlp-endpoint=https://collector:4317"].as_slice(),
            &["--nats-url=tls://nats:4222"],
            &["--smtp-url=smtps://mail", "--mail-from=a@example.com"],
        ] {
            let ended = run_with(&[serve.as_slice(), more].concat(), &[(variable, value)]);
            assert!(
                ended.code == Some(1) && ended.stderr.contains(reported),
                "{more:?}: {ended:?}"
            );
        }
        let ended = run_with(
            &["bulk-delete", "list", "--server=https://127.0.0.1:1", "--key=k"],
            &[(variable, value)],
        );
        assert!(ended.code == Some(1) && ended.stderr.contains(reported), "{ended:?}");
        let server =
            Server::start_with(&database, &["--nats-url=nats://127.0.0.1:1"], &[(variable, value)])
                .await;
        crate::probes::readiness(&server, 200).await;
    }
}

#[tokio::test]
async fn a_new_organisation_is_reported_with_those_that_may_have_been_meant() {
    let database = database().await;
    let create = |org: &str| {
        run(&[
            "key",
            "create",
            "--database-url",
            &database.url,
            "--org",
            org,
            "--scope=admin",
            "--json",
        ])
    };
    let first = create("acme");
    assert!(
        first.stderr.contains("Making the new organisation `acme`; it is the first."),
        "{first:?}"
    );
    let again = create("acme");
    assert!(again.code == Some(0) && !again.stderr.contains("new organisation"), "{again:?}");
    let slip = create("acmee");
    assert!(
        slip.stderr.contains(
            "Making the new organisation `acmee`. There is `acme`, with much the same name."
        ),
        "{slip:?}"
    );
    assert!(serde_json::from_str::<Value>(&slip.stdout).unwrap()["secret"].is_string(), "{slip:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let import =
        run(&["import", path, "--offline", "--org", "acmme", "--database-url", &database.url]);
    assert!(import.stderr.contains("Making the new organisation `acmme`."), "{import:?}");
}

#[tokio::test]
async fn a_statement_timeout_that_is_too_short_is_no_database_that_is_away() {
    let world = World::start_with(Protocol::Rest, &["--db-statement-timeout=0.001"]).await;
    crate::probes::readiness(&world.server, 200).await;
    let filter = json!({"filter": "equals(attributes.n, '1')"});
    world.database.sql(
        "INSERT INTO portfolio (realm_id, id, name) SELECT (SELECT max(id) FROM realm), 'p' || n, 'x' FROM generate_series(1, 2000) n",
    );
    for _ in 0..20 {
        if let Err(failure) = world.call("EntityService/ListEntities", filter.clone()).await {
            assert_eq!(failure.code, "deadline_exceeded", "{failure:?}");
        }
    }
    assert!(
        !world.server.log().contains("cannot be reached")
            && !world.server.log().contains("is not ready"),
        "{}",
        world.server.log()
    );
}
