//! Databases that cannot be used as they are, and what is said of them.

use std::path::Path;

use diesel::connection::SimpleConnection;
use url::Url;

use crate::database_roles::Role;
use crate::kit::*;
use crate::probes::readiness;
use crate::proxy::Proxy;

/// Ends badly, with one sentence that has this in it.
#[expect(
    clippy::disallowed_methods,
    reason = "waits for a process, and nothing else is to be done"
)]
pub fn assert_refused(arguments: &[&str], what: &str) {
    let mut process = spawn(arguments);
    // One that is not refused serves for ever.
    let ended = (0..6000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        process.try_wait().unwrap().is_some()
    });
    let _ = process.kill();
    let output = process.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        ended && output.status.code() == Some(1),
        "{arguments:?}: {:?}: {stderr}",
        output.status
    );
    let sentences: Vec<&str> =
        stderr.lines().filter(|line| line.starts_with("offboard: ")).collect();
    assert!(sentences.len() == 1 && sentences[0].contains(what), "{arguments:?}: {stderr}");
}

#[tokio::test]
async fn a_database_in_another_encoding_is_refused_by_every_command() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database =
            empty_database(&format!("ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")).await;
        let url = database.url.as_str();
        for command in [
            &[
                "serve",
                "--http-addr=127.0.0.1:0",
                "--grpc-addr=127.0.0.1:0",
                "--admin-addr=127.0.0.1:0",
            ] as &[&str],
            &["migrate"],
            &["key", "list"],
            &["wait-for-db"],
        ] {
            assert_refused(
                &[command, &["--database-url", url]].concat(),
                &format!("has the encoding {encoding} and must have UTF8"),
            );
        }
        assert_eq!(database.tables_in(&["public"]), 0, "nothing was begun");
    }
}

#[tokio::test]
async fn an_address_that_leads_nowhere_is_refused_at_once_and_no_outage() {
    let database = database().await;
    let role = Role::create(&database);
    let changed = |url: &str, change: &dyn Fn(&mut Url)| {
        let mut url = Url::parse(url).unwrap();
        change(&mut url);
        String::from(url)
    };
    let absent = changed(&database.url, &|url| url.set_path("/no_such_database"));
    let stranger = changed(&role.url, &|url| url.set_username("no_such_role").unwrap());
    let wrong = changed(&database.url, &|url| url.set_query(Some("foo=bar")));
    let odd = changed(&database.url, &|url| url.set_query(Some("sslmode=bogus")));
    // A Unix socket knows no TLS, and no need for it.
    let over_tcp = Proxy::open(&database).await;
    let cases = [
        (absent, "names does not exist"),
        (stranger, "`--database-url`"),
        (wrong, "invalid URI query parameter: \"foo\""),
        (odd, "invalid sslmode value: \"bogus\""),
        (
            changed(&database.url, &|url| url.set_query(Some("connect_timeout=abc"))),
            "gives `connect_timeout` the value abc",
        ),
        (
            changed(&database.url, &|url| url.set_query(Some("service=nope"))),
            "definition of service \"nope\" not found",
        ),
        (
            changed(&database.url, &|url| url.set_query(Some("options=-cbogus"))),
            "does not take the `options` of `--database-url`",
        ),
        (
            changed(&database.url, &|url| url.set_query(Some("options=-cbogus%3D1"))),
            "does not take the `options` of `--database-url`",
        ),
        (changed(&over_tcp.url, &|url| url.set_query(Some("sslmode=require"))), "speaks no TLS"),
    ];
    for (url, reported) in &cases {
        for command in [
            &[
                "serve",
                "--http-addr=127.0.0.1:0",
                "--grpc-addr=127.0.0.1:0",
                "--admin-addr=127.0.0.1:0",
            ] as &[&str],
            &["migrate"],
            &["key", "list"],
        ] {
            assert_refused(&[command, &["--database-url", url]].concat(), reported);
        }
    }
    let named = Url::parse(&database.url).unwrap().path()[1..].to_owned();
    database.sql(&format!("REVOKE CONNECT ON DATABASE \"{named}\" FROM PUBLIC"));
    assert_refused(
        &["serve", "--admin-addr=127.0.0.1:0", "--database-url", &role.url],
        "grant it CONNECT",
    );
}

#[tokio::test]
async fn a_database_that_is_not_set_up_is_reported_so_by_every_command() {
    let empty = empty_database("").await;
    let database = database().await;
    let role = Role::create(&database);
    for (url, reported) in [
        (&empty.url, "`offboard migrate` brings it up to date"),
        (&role.url, "lacks a right that it needs"),
    ] {
        for command in [
            ["key", "list"].as_slice(),
            &["key", "create", "--org", "acme", "--scope", "admin"],
            &["events", "history"],
        ] {
            assert_refused(&[command, &["--database-url", url]].concat(), reported);
        }
        let server = Server::start_on(url, &[], &[]).await;
        let key = format!("Bearer sk_test_{}", "x".repeat(43));
        let reply =
            http(server.addresses.http, "GET", "/v1/portfolios", &[("authorization", &key)], "")
                .await;
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (503, Some("unavailable")),
            "{}",
            reply.text()
        );
        assert!(reply.text().contains(reported), "{}", reply.text());
        let report = readiness(&server, 503).await;
        assert!(
            report.to_string().contains("offboard migrate")
                || report.to_string().contains(reported),
            "{report}"
        );
    }
}

#[tokio::test]
async fn a_refusal_to_start_is_all_that_is_said() {
    let database = empty_database("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").await;
    let listeners =
        ["--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"];
    let ended = run(&[&["serve", "--database-url", &database.url][..], &listeners].concat());
    let said = ended.stderr.lines().filter(|line| !line.contains(" listening ")).count();
    assert_eq!((ended.code, said), (Some(1), 1), "{}", ended.stderr);
}

/// Reverts the migration that adds columns to a table.
fn take_back(database: &Database) {
    let down = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("migrations/00000000000016_removed_entities/down.sql"),
    );
    database.sql(&format!(
        "{}; DELETE FROM __diesel_schema_migrations WHERE version = '00000000000016'",
        down.unwrap()
    ));
}

#[tokio::test]
async fn a_migration_that_has_to_wait_lets_readers_through() {
    let database = database().await;
    take_back(&database);
    let mut open = database.connection();
    open.batch_execute("BEGIN; SELECT count(*) FROM bulk_delete_finding").unwrap();
    let migration = spawn(&["migrate", "--database-url", &database.url]);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'relation'";
    let mut waited = 0;
    let mut waiting = false;
    // The migration comes, and goes, and comes again.
    for _ in 0..1500 {
        let now = database.count(waits) > 0;
        waited += i32::from(now && !waiting);
        waiting = now;
        if now {
            let mut reader = database.connection();
            reader
                .batch_execute(
                    "SET statement_timeout = '10s'; SELECT count(*) FROM bulk_delete_finding",
                )
                .expect("readers are let through");
        }
        if waited == 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(waited, 3, "the migration is tried again");
    open.batch_execute("ROLLBACK").unwrap();
    let ended = migration.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&ended.stdout);
    assert!(
        ended.status.success() && printed.contains("00000000000016"),
        "{printed}{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

#[tokio::test]
async fn a_clock_that_is_wrong_changes_no_answer_and_is_reported() {
    let database = database().await;
    let key = Key::create_with(&database, "acme", "test", SCOPES, &["--expires-in-days", "10"]);
    let ended = Key::create_with(&database, "acme", "test", SCOPES, &["--expires-in-days", "10"]);
    database.sql(&format!(
        "UPDATE api_key SET expires_at = now() - interval '1 day' WHERE id = '{}'",
        ended.id
    ));
    let library = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    ];
    let library = library
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("`script/bootstrap test` installs faketime");
    for shift in ["+40d", "-40d"] {
        let environment =
            [("LD_PRELOAD", library), ("FAKETIME", shift), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let server = Server::start_with(&database, &[], &environment).await;
        readiness(&server, 200).await;
        let client = Client::new(&server, &key, Protocol::Rest);
        client
            .call("PortfolioService/ListPortfolios", json!({}))
            .await
            .unwrap_or_else(|failure| panic!("{shift}: {failure:?}"));
        let late = Client::new(&server, &ended, Protocol::Rest)
            .call("PortfolioService/ListPortfolios", json!({}))
            .await;
        assert_eq!(late.unwrap_err().code, "invalid_credentials", "{shift}");
        assert!(server.log().contains("differs from that of the database"), "{shift}");
    }
}

/// An index that is built concurrently waits for all who have read something before; they wait for nothing, and what a try left behind is
/// not an obstacle.
#[tokio::test]
async fn migrations_at_once_build_their_indexes_beside_whoever_is_at_work() {
    let database = database().await;
    database.sql(
        "DELETE FROM __diesel_schema_migrations WHERE version = '00000000000030';
         DROP INDEX offboarding_request_turn;
         CREATE INDEX offboarding_request_turn ON offboarding_request (id)",
    );
    let mut open = database.connection();
    open.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM offboarding_request")
        .unwrap();
    let arguments = ["migrate", "--database-url", &database.url];
    let migrating: Vec<_> = (0..3).map(|_| spawn(&arguments)).collect();
    // Longer than a migration waits for a lock, and than Postgres waits before it checks for a deadlock.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    open.batch_execute("INSERT INTO realm (org, mode) VALUES ('acme', 'test'); COMMIT").unwrap();
    let ended: Vec<_> =
        migrating.into_iter().map(|process| process.wait_with_output().unwrap()).collect();
    assert!(ended.iter().all(|output| output.status.success()), "{ended:?}");
    let retried = ended
        .iter()
        .filter(|output| String::from_utf8_lossy(&output.stderr).contains("it is tried again"))
        .count();
    assert_eq!(retried, 0, "{ended:?}");
    let built = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indisvalid AND indexrelid = 'offboarding_request_turn'::regclass";
    assert!(database.text(built).unwrap().contains("realm_id, due_at"));
    assert_eq!(run(&arguments).stdout, "The schema is up to date.\n");
}
