//! The start of a server: the responses of its probes, its log, and its end by a signal.

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use nix::sys::signal::Signal;

use crate::kit::*;
use crate::probes::{probe, readiness};
use crate::proxy::{Proxy, Way};

/// What ends before this has ended at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Probes report what is so; a signal ends the start.
async fn is_reported(server: &mut Server, reason: &str) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert!(
            get(server.addresses.admin, "/livez")
                .await
                .is_some_and(|answer| answer.starts_with("HTTP/1.1 200")),
            "it is alive"
        );
        let reported = get(server.addresses.admin, "/readyz").await.expect("an answer");
        assert!(
            reported.starts_with("HTTP/1.1 503")
                && reported.contains(&format!("\"reason\":\"{reason}\"")),
            "{reported}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        get(server.addresses.admin, "/metrics")
            .await
            .is_some_and(|text| text.contains(&format!("offboard_readiness_reason=\"{reason}\"")))
    );
    assert!(!server.log().contains("\"ready\""), "{}", server.log());
    let begun = Instant::now();
    assert_eq!(server.terminate().await.code(), Some(0), "nothing was served");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_start_on_a_database_that_is_silent_is_reported_and_ends_at_a_signal() {
    let database = database().await;
    let proxy = Proxy::open(&database).await;
    proxy.set(Way::Hangs);
    let mut server = Server::begin_on(&proxy.url, &["--db-acquire-timeout=5"], &[]).await;
    is_reported(&mut server, "starting").await;
}

#[tokio::test]
async fn a_start_that_migrates_is_reported_and_ends_at_a_signal() {
    let database = database().await;
    let last = database.text("SELECT max(version) FROM __diesel_schema_migrations").unwrap();
    database.sql(&format!("DELETE FROM __diesel_schema_migrations WHERE version = '{last}'"));
    let mut held = database.connection();
    held.batch_execute("BEGIN; LOCK TABLE __diesel_schema_migrations IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let mut server = Server::begin_on(&database.url, &["--migrate"], &[]).await;
    until("it is at the migrations", || server.log().contains("it is tried again")).await;
    is_reported(&mut server, "migrating").await;
}

#[tokio::test]
async fn the_log_says_where_it_listens_at_once_and_that_it_is_ready_once_it_is() {
    let database = database().await;
    let proxy = Proxy::open(&database).await;
    proxy.set(Way::Cut);
    let server = Server::start_on(&proxy.url, &["--db-acquire-timeout=1"], &[]).await;
    readiness(&server, 503).await;
    let is_ready = || server.log().lines().any(|line| line.contains("\"message\":\"ready\""));
    assert!(server.log().contains("\"message\":\"listening\"") && !is_ready(), "{}", server.log());
    proxy.set(Way::Open);
    readiness(&server, 200).await;
    until("it says so", is_ready).await;
    let line = server
        .log()
        .lines()
        .find(|line| line.contains("\"message\":\"ready\""))
        .unwrap()
        .to_owned();
    assert_eq!(Addresses::of_line(&line), Some(server.addresses));
    assert_eq!(probe(&server, "/livez").await.status, 200);
}

#[tokio::test]
async fn a_variable_that_is_nearly_a_setting_is_reported() {
    let database = database().await;
    let server = Server::start_with(
        &database,
        &[],
        &[("OFFBOARD_DB_POOLSIZE", "5"), ("OFFBOARD_SERVICE_HOST", "10.0.0.1")],
    )
    .await;
    let log = server.log();
    let reported = log
        .lines()
        .find(|line| line.contains("OFFBOARD_DB_POOLSIZE"))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(
        reported.contains("OFFBOARD_DB_POOL_SIZE")
            && reported.contains("WARN")
            && !log.contains("OFFBOARD_SERVICE_HOST"),
        "{log}"
    );
}

/// A server on a Postgres of its own, which any signal that asks it to end takes along.
#[tokio::test]
async fn whatever_signal_ends_it_no_embedded_postgres_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    if nix::unistd::Uid::effective().is_root() {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let postmaster = || {
        std::fs::read_to_string(data.join("postgres/postmaster.pid"))
            .ok()?
            .lines()
            .next()?
            .trim()
            .parse::<i32>()
            .ok()
    };
    let lives = |pid: i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| !command.is_empty())
    };
    let arguments = [
        "serve",
        "--data-dir",
        data.to_str().unwrap(),
        "--log-format=json",
        "--grpc-addr=127.0.0.1:0",
        "--http-addr=127.0.0.1:0",
        "--admin-addr=127.0.0.1:0",
    ];
    for (signals, drains) in [
        (vec![Signal::SIGHUP], true),
        (vec![Signal::SIGQUIT], true),
        (vec![Signal::SIGUSR1], true),
        (vec![Signal::SIGTERM, Signal::SIGQUIT], false),
    ] {
        let mut process = spawn(
            &[arguments.as_slice(), if drains { &[] } else { &["--drain-delay=600"] }].concat(),
        );
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(process.stderr.take().unwrap()));
        lines
            .by_ref()
            .find(|line| line.as_ref().unwrap().contains("\"message\":\"ready\""))
            .expect("it gets ready")
            .unwrap();
        let pid = postmaster().expect("a postmaster");
        for signal in &signals {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.id().cast_signed()), *signal)
                .unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        assert_eq!(
            process.wait().unwrap().code(),
            Some(i32::from(!drains)),
            "{signals:?}: {rest:#?}"
        );
        assert_eq!(
            rest.iter().any(|line| line.contains("Stopped")),
            drains,
            "{signals:?}: {rest:#?}"
        );
        until(&format!("{signals:?}: the postmaster has ended"), || !lives(pid)).await;
    }
    // While it comes up, too.
    let mut process = spawn(&arguments);
    until("it comes up", || postmaster().is_some_and(lives)).await;
    let pid = postmaster().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.id().cast_signed()), Signal::SIGHUP)
        .unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(0));
    until("the postmaster has ended", || !lives(pid)).await;
}
