//! Connections to the database that end, or keep silent, and who notices.

use std::time::Duration;

use futures::future::join_all;

use crate::kit::*;
use crate::probes::{probe, readiness};
use crate::proxy::{Proxy, Way};

/// The backends of the server under test; the kit's own connections have no name.
const ENDED: &str = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'offboard') AS ended";

/// Has the pool open several connections.
async fn warm(client: &Client) {
    let calls = (0..30).map(|_| client.call("EntityService/GetEntity", json!({"entity_id": "e"})));
    join_all(calls).await.into_iter().for_each(|answer| drop(answer.unwrap()));
}

scenario! {
    async fn connections_that_the_database_ended_cost_no_call_an_error(world: &World) {
        world.entities(&["e"]).await;
        for round in 0..3 {
            warm(&world.client).await;
            assert!(world.database.count(ENDED) > 0);
            for n in 0..20 {
                world.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
                world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": format!("r{round}.{n}"), "type": "test"}})).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_wakes_workers_and_watches_is_heard_again_at_once_after_its_connection_ended() {
    // Polls alone would take an hour.
    let world = World::start_with(Protocol::Rest, &["--lease=3600", "--poll-interval=3600"]).await;
    world.entities(&["a", "b"]).await;
    world.call("RemovalService/RemoveEntity", json!({"entity_id": "a"})).await.unwrap();
    until("the first is removed", || world.database.rows("entity") == 1).await;
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let before = world
        .database
        .text("SELECT max(backend_start) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'offboard'");
    assert!(world.database.count(ENDED) > 0);
    until("it listens again", || {
        world.database.count(listening)
            + world.database.count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT 1'")
            > 0
    })
    .await;
    assert!(before.is_some());
    world.call("RemovalService/RemoveEntity", json!({"entity_id": "b"})).await.unwrap();
    until("the second is removed", || world.database.rows("entity") == 0).await;
}

#[tokio::test]
async fn connections_that_pass_nothing_any_more_are_given_up_while_new_ones_work() {
    let database = database().await;
    let key = Key::create(&database, "acme", "test", SCOPES);
    let proxy = Proxy::open(&database).await;
    let server = Server::start_on(&proxy.url, &["--db-acquire-timeout=30"], &[]).await;
    let client = Client::new(&server, &key, Protocol::Rest);
    client
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "test"}}))
        .await
        .unwrap();
    warm(&client).await;
    proxy.leave_hanging();
    // Every connection of the pool is asked of; nothing ever comes back on them.
    warm(&client).await;
    client
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "f", "type": "test"}}))
        .await
        .unwrap();
    readiness(&server, 200).await;
    let metrics = probe(&server, "/metrics").await.text();
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("offboard_limit_reached")
                && line.contains("database_silence")),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_statement_that_takes_its_time_is_left_alone() {
    let world = World::start_with(Protocol::Rest, &["--db-lock-timeout=60"]).await;
    world.entities(&["e"]).await;
    let mut held = world.database.connection();
    diesel::connection::SimpleConnection::batch_execute(
        &mut held,
        "BEGIN; SELECT FROM entity FOR UPDATE",
    )
    .unwrap();
    let change = world.call(
        "EntityService/UpdateEntity",
        json!({"entity_id": "e", "entity": {"attributes": {"a": 1}}}),
    );
    let release = async {
        // It is asked after in this time, more than once.
        tokio::time::sleep(Duration::from_secs(8)).await;
        diesel::connection::SimpleConnection::batch_execute(&mut held, "ROLLBACK").unwrap();
    };
    let (changed, ()) = tokio::join!(change, release);
    changed.unwrap();
}

#[tokio::test]
async fn a_database_that_says_nothing_at_all_keeps_no_connection_for_longer_than_a_statement_may_take()
 {
    let database = database().await;
    let key = Key::create(&database, "acme", "test", SCOPES);
    let proxy = Proxy::open(&database).await;
    let arguments = ["--db-pool-size=2", "--db-statement-timeout=1", "--db-acquire-timeout=1"];
    let server = Server::start_on(&proxy.url, &arguments, &[]).await;
    let client = Client::new(&server, &key, Protocol::Rest);
    readiness(&server, 200).await;
    // A connection is open, whatever its response: the machine may be too busy for it.
    let _ = client.call("EntityService/GetEntity", json!({"entity_id": "e"})).await;
    proxy.set(Way::Hangs);
    let calls = (0..6).map(|_| client.call("EntityService/GetEntity", json!({"entity_id": "e"})));
    for answer in join_all(calls).await {
        let code = answer.unwrap_err().code;
        assert!(["unavailable", "deadline_exceeded"].contains(&code.as_str()), "{code}");
    }
    // It still says nothing; those that waited for it have given up.
    let mut silent = false;
    for _ in 0..1500 {
        let metrics = probe(&server, "/metrics").await.text();
        silent = metrics.lines().any(|line| {
            line.starts_with("offboard_limit_reached") && line.contains("database_silence")
        });
        if silent {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(silent, "nothing is given up");
    proxy.set(Way::Open);
    readiness(&server, 200).await;
    let mut last = None;
    for _ in 0..300 {
        match client.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap_err() {
            missing if missing.code == "not_found" => return,
            failure => last = Some(failure),
        }
    }
    panic!("it gets no response any more: {last:?}");
}

#[tokio::test]
async fn the_log_reports_of_an_outage_at_its_beginning_and_at_its_end() {
    let database = database().await;
    let proxy = Proxy::open(&database).await;
    let server =
        Server::start_on(&proxy.url, &["--db-acquire-timeout=1", "--poll-interval=0.1"], &[]).await;
    readiness(&server, 200).await;
    proxy.set(Way::Cut);
    readiness(&server, 503).await;
    // Workers, sweeps and what listens all fail, again and again.
    tokio::time::sleep(Duration::from_secs(8)).await;
    proxy.set(Way::Open);
    readiness(&server, 200).await;
    until("its end is reported", || server.log().contains("the database is ready again")).await;
    let log = server.log();
    let warnings: Vec<_> = log
        .lines()
        .filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""))
        .collect();
    // A call that was at work as it began reports that, once.
    let began = warnings
        .iter()
        .position(|line| line.contains("the database is not ready"))
        .expect("its beginning is reported");
    assert!(
        began <= 5 && warnings[..began].iter().all(|line| line.contains("worker failed")),
        "{warnings:#?}"
    );
    assert_eq!(warnings.len() - began, 2, "{warnings:#?}");
}

#[tokio::test]
async fn a_silence_is_reported_as_readiness_turns_and_its_length_from_there() {
    let database = database().await;
    let proxy = Proxy::open(&database).await;
    let server = Server::start_on(&proxy.url, &["--poll-interval=0.1"], &[]).await;
    readiness(&server, 200).await;
    let lines = |message: &str| {
        let log = server.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect::<Vec<_>>()
    };
    // One outage a moment ago is no reason not to report the next.
    proxy.set(Way::Cut);
    readiness(&server, 503).await;
    proxy.set(Way::Open);
    readiness(&server, 200).await;
    until("its end is reported", || lines("the database is ready again").len() == 1).await;
    proxy.set(Way::Hangs);
    readiness(&server, 503).await;
    let turned = std::time::Instant::now();
    until("it is reported", || lines("the database is not ready").len() == 2).await;
    assert!(turned.elapsed() < Duration::from_secs(2), "{:?}", turned.elapsed());
    let mut details = std::collections::BTreeSet::new();
    while turned.elapsed() < Duration::from_secs(15) {
        let reported = probe(&server, "/readyz").await.json();
        let database = crate::probes::check(&reported, "database");
        details.insert(format!("{} {}", database["reason"], database["detail"]));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(details.into_iter().collect::<Vec<_>>(), ["\"database_away\" \"does not respond\""]);
    proxy.set(Way::Open);
    readiness(&server, 200).await;
    let lasted = turned.elapsed().as_secs_f64();
    until("its end is reported", || lines("the database is ready again").len() == 2).await;
    let reported = lines("the database is ready again")[1]["seconds"].as_f64().unwrap();
    assert!((reported - lasted).abs() < 2.0, "{reported} and {lasted}");
}
