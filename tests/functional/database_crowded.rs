//! A server that lets in fewer sessions than a replica would have.

use std::time::Duration;

use diesel::connection::SimpleConnection;

use crate::database_roles::Role;
use crate::kit::*;
use crate::probes::{check, readiness};

/// Two organisations, each with calls of three kinds that wait, want more connections than there are.
#[tokio::test]
async fn probes_and_wake_ups_come_first_where_the_server_lets_few_in() {
    let database = database().await;
    let clients = ["acme", "umbrella"].map(|org| Key::create(&database, org, "test", SCOPES));
    let role = Role::with_rows(&database);
    let name = &role.name;
    database.sql(&format!("ALTER ROLE {name} CONNECTION LIMIT 4"));
    let patient = [
        "--db-pool-size=20",
        "--db-acquire-timeout=60",
        "--db-lock-timeout=60",
        "--lease=600",
        "--poll-interval=600",
    ];
    let server = Server::start_on(&role.url, &patient, &[]).await;
    readiness(&server, 200).await;

    let mut held = database.connection();
    held.batch_execute("BEGIN; LOCK TABLE portfolio IN ACCESS EXCLUSIVE MODE").unwrap();
    let mut calls = Vec::new();
    for client in clients.iter().map(|key| Client::new(&server, key, Protocol::Grpc)) {
        for _ in 0..4 {
            for (method, request) in [
                ("PortfolioService/ListPortfolios", json!({})),
                ("PortfolioService/ListPortfolioEntities", json!({"portfolio_id": "p"})),
                ("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})),
            ] {
                let client = client.clone();
                calls.push(tokio::spawn(
                    async move { client.call(method, request).await.map(drop) },
                ));
            }
        }
    }
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{name}'");
    until("there are as many sessions as there may be", || database.count(&sessions) == 4).await;

    // Everybody connects again at the same moment. The listener is known by what it said last, for the first seconds.
    for round in 0..2 {
        let begun = database.text("SELECT clock_timestamp()").unwrap();
        assert!(database.end_sessions_of(name) > 0);
        let listens = format!("{sessions} AND query LIKE 'LISTEN %' AND backend_start > '{begun}'");
        until("the listener is back", || database.count(&listens) == 1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        readiness(&server, 200).await;
        for _ in 0..20 {
            assert_eq!(crate::probes::probe(&server, "/readyz").await.status, 200, "round {round}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    held.batch_execute("ROLLBACK").unwrap();
    let mut lost = Vec::new();
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => {}
            Err(failure) if failure.code == "not_found" => {}
            Err(failure) => lost.push(failure),
        }
    }
    assert!(
        lost.is_empty(),
        "the pool makes do with what there is, and calls of which nothing was done are done again: {lost:#?}"
    );
    assert!(database.count(&sessions) <= 4);
    assert!(
        server.log().matches("the database is not ready").count() < 5,
        "the log says it now and then"
    );
}

#[tokio::test]
async fn where_calls_get_no_session_readiness_says_so() {
    let database = database().await;
    let key = Key::create(&database, "acme", "test", SCOPES);
    let role = Role::with_rows(&database);
    let name = &role.name;
    // One for the probes, and one that listens.
    database.sql(&format!("ALTER ROLE {name} CONNECTION LIMIT 2"));
    let server = Server::start_on(&role.url, &["--db-acquire-timeout=1"], &[]).await;
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{name}'");
    let listens = format!("{sessions} AND query LIKE 'LISTEN %'");
    until("the listener has its session", || database.count(&listens) == 1).await;
    let mut reported = readiness(&server, 503).await;
    for _ in 0..500 {
        if reported.to_string().contains("no session of calls") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        reported = crate::probes::probe(&server, "/readyz").await.json();
    }
    assert!(reported.to_string().contains("no session of calls"), "{reported}");
    assert_eq!(check(&reported, "database")["reason"], "database_crowded", "{reported}");
    let call = || async {
        Client::new(&server, &key, Protocol::Rest)
            .call("EntityService/ListEntities", json!({}))
            .await
    };
    assert_eq!(call().await.unwrap_err().code, "unavailable");
    database.sql(&format!("ALTER ROLE {name} CONNECTION LIMIT 3"));
    readiness(&server, 200).await;
    call().await.unwrap();
    for _ in 0..30 {
        assert_eq!(crate::probes::probe(&server, "/readyz").await.status, 200, "one is enough");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_role_that_is_let_in_no_more_is_not_taken_for_an_unreachable_database() {
    let database = database().await;
    let role = Role::with_rows(&database);
    let name = &role.name;
    let server = Server::start_on(&role.url, &["--db-acquire-timeout=1"], &[]).await;
    readiness(&server, 200).await;
    database.sql(&format!("ALTER ROLE {name} NOLOGIN"));
    database.end_sessions_of(name);
    let reported = readiness(&server, 503).await;
    assert_eq!(check(&reported, "database")["reason"], "database_denied", "{reported}");
    assert!(
        server.log().contains("does not let the role of `--database-url` in"),
        "{}",
        server.log()
    );
    database.sql(&format!("ALTER ROLE {name} LOGIN"));
    readiness(&server, 200).await;
}
