//! The service's reports about itself: liveness, readiness, health, metrics.

use std::time::Duration;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::kit::*;
use crate::proxy::{Proxy, Way};

/// The health of a service; the empty name is the whole.
pub async fn health(server: &Server, service: &str) -> ServingStatus {
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", server.addresses.grpc))
            .unwrap()
            .connect_lazy();
    let answer = HealthClient::new(channel)
        .check(HealthCheckRequest { service: service.to_owned() })
        .await
        .unwrap();
    answer.into_inner().status()
}

/// The response to a probe.
pub async fn probe(server: &Server, path: &str) -> Reply {
    http(server.addresses.admin, "GET", path, &[], "").await
}

/// Waits until readiness has this status, and returns what it says.
pub async fn readiness(server: &Server, status: u16) -> Value {
    for _ in 0..600 {
        let reply = probe(server, "/readyz").await;
        if reply.status == status {
            return reply.json();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("readiness never answers {status}: {}", probe(server, "/readyz").await.text());
}

/// Waits until the metric of readiness has this value for a reason.
pub async fn is_ready_for(server: &Server, reason: &str, value: u8) {
    let (reason, value) = (format!("offboard_readiness_reason=\"{reason}\""), format!(" {value}"));
    for _ in 0..500 {
        let metrics = probe(server, "/metrics").await.text();
        if metrics.lines().any(|line| {
            line.starts_with("offboard_readiness{")
                && line.contains(&reason)
                && line.ends_with(&value)
        }) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never {reason}{value}: {}", probe(server, "/metrics").await.text());
}

async fn healths(server: &Server, status: ServingStatus) {
    for _ in 0..1500 {
        if health(server, "offboard.v1.PortfolioService").await == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("health is never {status:?}");
}

pub fn check<'a>(readiness: &'a Value, name: &str) -> &'a Value {
    readiness["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap()
}

#[tokio::test]
async fn a_server_that_can_work_says_so_everywhere() {
    let world = World::start(Protocol::Grpc).await;
    assert_eq!(readiness(&world.server, 200).await["ready"], true);
    assert_eq!(
        (probe(&world.server, "/livez").await.status, probe(&world.server, "/livez").await.text()),
        (200, "ok\n".to_owned())
    );
    assert_eq!(health(&world.server, "").await, ServingStatus::Serving);
    for service in [
        "EntityService",
        "PortfolioService",
        "RemovalService",
        "OffboardingService",
        "BulkDeleteService",
    ] {
        assert_eq!(
            health(&world.server, &format!("offboard.v1.{service}")).await,
            ServingStatus::Serving,
            "{service}"
        );
    }
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", world.server.addresses.grpc))
            .unwrap()
            .connect_lazy();
    let unknown = HealthClient::new(channel)
        .check(HealthCheckRequest { service: "offboard.v1.Nothing".to_owned() })
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    assert_eq!(probe(&world.server, "/nothing").await.status, 404);

    let ask = |more: &[&str]| {
        run(&[&["healthcheck", "--admin-addr", &world.server.addresses.admin.to_string()], more]
            .concat())
    };
    assert_eq!(
        (ask(&[]).code, ask(&["--live"]).code, ask(&["--live"]).stdout.trim()),
        (Some(0), Some(0), "ok")
    );
    let everywhere = format!("0.0.0.0:{}", world.server.addresses.admin.port());
    assert_eq!(
        run(&["healthcheck", "--admin-addr", &everywhere]).code,
        Some(0),
        "where it listens is where it is asked"
    );
    let nobody = run(&["healthcheck", "--admin-addr", "127.0.0.1:1"]);
    assert_eq!(nobody.code, Some(1));
    assert!(
        nobody.stderr.contains("127.0.0.1:1") && nobody.stderr.lines().count() == 1,
        "{}",
        nobody.stderr
    );
}

#[tokio::test]
async fn metrics_report_of_calls_requests_statements_and_the_pool() {
    let world = World::start(Protocol::Rest).await;
    world.portfolios(&["p"]).await;
    world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "q"})).await.unwrap_err();
    http(world.server.addresses.http, "GET", "/invented/route", &[], "").await;
    world.entities(&["e"]).await;
    world.call("RemovalService/RemoveEntity", json!({"entity_id": "e"})).await.unwrap();
    until("the entity is removed", || world.database.rows("entity") == 0).await;
    let metrics = probe(&world.server, "/metrics").await;
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"), "{metrics:?}");
    let text = metrics.text();
    for name in [
        "rpc_server_call_duration_seconds_count",
        "http_server_request_duration_seconds_count",
        "db_client_operation_duration_seconds_count",
        "db_client_connection_wait_time_seconds_count",
        "db_client_connection_count",
        "offboard_jobs_claimed",
        "offboard_jobs_finished",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "no {name} in\n{text}");
    }
    let line =
        |parts: &[&str]| text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(
        line(&["rpc_server_call", "offboard.v1.PortfolioService/GetPortfolio", "NOT_FOUND"]),
        "{text}"
    );
    assert!(line(&["http_server_request", "/v1/portfolios/{portfolio_id}", "404"]), "{text}");
    assert!(
        !text.contains("invented") && !text.contains("/v1/portfolios/q"),
        "a caller makes no time series"
    );
}

#[tokio::test]
async fn a_database_that_hangs_or_is_gone_turns_readiness_and_its_return_turns_it_back() {
    let database = database().await;
    let key = Key::create(&database, "acme", "test", SCOPES);
    let proxy = Proxy::open(&database).await;
    let server = Server::start_on(&proxy.url, &["--db-acquire-timeout=1"], &[]).await;
    let client = Client::new(&server, &key, Protocol::Rest);
    readiness(&server, 200).await;
    for way in [Way::Hangs, Way::Cut] {
        proxy.set(way);
        let reported = readiness(&server, 503).await;
        assert_eq!(
            (
                check(&reported, "database")["ok"].as_bool(),
                check(&reported, "draining")["ok"].as_bool()
            ),
            (Some(false), Some(true)),
            "{way:?}: {reported}"
        );
        assert_eq!(check(&reported, "database")["reason"], "database_away", "{way:?}: {reported}");
        assert!(
            !reported.to_string().contains("postgres"),
            "{way:?}: probes report no causes: {reported}"
        );
        is_ready_for(&server, "database_away", 1).await;
        is_ready_for(&server, "ready", 0).await;
        healths(&server, ServingStatus::NotServing).await;
        assert_eq!(
            probe(&server, "/livez").await.status,
            200,
            "{way:?}: a restart mends no database"
        );
        assert_eq!(health(&server, "").await, ServingStatus::Serving, "{way:?}");
        assert_eq!(
            run(&["healthcheck", "--admin-addr", &server.addresses.admin.to_string()]).code,
            Some(1),
            "{way:?}"
        );
        if way == Way::Cut {
            let refused = client
                .call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}))
                .await
                .unwrap_err();
            assert_eq!(
                (refused.code.as_str(), refused.http, refused.header("retry-after")),
                ("unavailable", Some(503), Some("1"))
            );
            assert!(!refused.message.contains("127.0.0.1"), "{}", refused.message);
        }
        proxy.set(Way::Open);
        readiness(&server, 200).await;
        healths(&server, ServingStatus::Serving).await;
        let missing = client
            .call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}))
            .await
            .unwrap_err();
        assert_eq!(missing.code, "not_found", "{way:?}: calls are served again");
    }
}

#[tokio::test]
async fn a_server_starts_before_its_database_does_and_ends_without_it() {
    let database = database().await;
    for way in [Way::Hangs, Way::Cut] {
        let proxy = Proxy::open(&database).await;
        proxy.set(way);
        let mut server =
            Server::start_on(&proxy.url, &["--db-acquire-timeout=1", "--drain-timeout=1"], &[])
                .await;
        readiness(&server, 503).await;
        assert_eq!(probe(&server, "/livez").await.status, 200);
        assert_eq!(
            server.terminate().await.code(),
            Some(0),
            "{way:?}: nothing is left to wait for"
        );
    }
    let proxy = Proxy::open(&database).await;
    proxy.set(Way::Hangs);
    let server = Server::start_on(&proxy.url, &["--db-acquire-timeout=1"], &[]).await;
    proxy.set(Way::Open);
    readiness(&server, 200).await;
}

#[tokio::test]
async fn a_schema_that_is_behind_is_named_with_what_repairs_it() {
    let database = empty_database("").await;
    let server = Server::start(&database).await;
    let reported = readiness(&server, 503).await;
    let detail = check(&reported, "database")["detail"].as_str().unwrap();
    assert!(
        detail.contains("offboard migrate")
            && check(&reported, "database")["reason"] == "schema_behind",
        "{reported}"
    );
    assert_eq!(probe(&server, "/livez").await.status, 200);
    let printed = offboard(&["migrate", "--database-url", &database.url]);
    assert!(printed.starts_with("Applied "), "{printed}");
    readiness(&server, 200).await;
    assert_eq!(
        offboard(&["migrate", "--database-url", &database.url]),
        "The schema is up to date.\n"
    );
}

#[tokio::test]
async fn a_server_may_bring_the_schema_up_to_date_itself() {
    let database = empty_database("").await;
    let server = Server::start_with(&database, &["--migrate"], &[]).await;
    readiness(&server, 200).await;
    assert!(server.log().contains("applied a migration"));
}
