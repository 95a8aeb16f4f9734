//! The end of a server: in an order in which no caller notices, or at once.

use std::time::Duration;

use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use futures::{Stream, StreamExt};
use nix::sys::signal::Signal;
use offboard::proto::v1::entity_service_client::EntityServiceClient;
use offboard::proto::v1::import_entities_response::Answer as ImportAnswer;
use offboard::proto::v1::{ImportEntitiesRequest, ImportSummary, NewEntity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::kit::*;
use crate::probes::{health, readiness};

async fn logged(server: &Server, text: &str) {
    until(&format!("the log says {text:?}"), || server.log().contains(text)).await;
}

/// An entity that somebody else has locked, and a call that waits for it.
struct Waiting {
    holder: PgConnection,
    call: JoinHandle<Result<Answer, Failure>>,
}

impl Waiting {
    async fn start(world: &World) -> Waiting {
        world.entities(&["e"]).await;
        let mut holder = world.database.connection();
        holder.batch_execute("BEGIN; SELECT FROM entity FOR UPDATE").unwrap();
        let client = world.client.clone();
        let hold = json!({"entity_id": "e", "reason": "An audit."});
        let call = tokio::spawn(async move { client.call("EntityService/PlaceHold", hold).await });
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        until("the call is under way", || world.database.count(waits) == 1).await;
        Waiting { holder, call }
    }
}

#[tokio::test]
async fn a_call_in_flight_is_finished_and_a_new_one_is_not_taken() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let mut world = World::start(protocol).await;
        let Waiting { holder, call } = Waiting::start(&world).await;
        world.server.signal(Signal::SIGTERM);
        logged(&world.server, "ClosingListeners").await;
        drop(holder);
        call.await.unwrap().expect("the call is finished");
        assert_eq!(world.server.ended().await.code(), Some(0));
        assert_eq!(world.database.held(), 1);
        for address in [world.server.addresses.grpc, world.server.addresses.http] {
            assert!(TcpStream::connect(address).await.is_err());
        }
        assert!(!world.server.log().contains("cut off"), "{}", world.server.log());
    }
}

#[tokio::test]
async fn a_call_that_does_not_end_is_reported_before_it_would_be_cut_off() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let mut world =
            World::start_with(protocol, &["--drain-timeout=2", "--db-lock-timeout=60"]).await;
        let Waiting { holder: _holder, call } = Waiting::start(&world).await;
        world.server.signal(Signal::SIGTERM);
        let failure = call.await.unwrap().unwrap_err();
        assert_eq!(failure.code, "unavailable", "{failure:?}");
        assert!(failure.message.contains("did not end in time"), "{failure:?}");
        assert!(
            protocol == Protocol::Grpc || failure.header("retry-after") == Some("1"),
            "{failure:?}"
        );
        assert_eq!(world.server.ended().await.code(), Some(0));
        assert!(!world.server.log().contains("cut off"), "{}", world.server.log());
    }
}

/// How many lines end a batch.
const BATCH: usize = 500;

fn line(n: usize) -> ImportEntitiesRequest {
    let entity =
        NewEntity { entity_id: format!("e{n}"), r#type: "T".to_owned(), ..Default::default() };
    ImportEntitiesRequest { entity: Some(entity), failures_only: true, line: 0 }
}

/// Sends an import under a key, and returns its summary.
fn import<S>(
    server: &Server,
    key: &Key,
    lines: S,
) -> impl Future<Output = Result<ImportSummary, tonic::Status>> + Send + use<S>
where
    S: Stream<Item = ImportEntitiesRequest> + Send + 'static,
{
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", server.addresses.grpc))
            .unwrap()
            .connect_lazy();
    let mut request = tonic::Request::new(lines);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {}", key.secret).parse().unwrap());
    request.metadata_mut().insert("idempotency-key", "an import".parse().unwrap());
    async move {
        let mut answers =
            EntityServiceClient::new(channel).import_entities(request).await?.into_inner();
        while let Some(message) = answers.message().await? {
            if let Some(ImportAnswer::Summary(summary)) = message.answer {
                return Ok(summary);
            }
        }
        panic!("the import ended without a summary")
    }
}

#[tokio::test]
async fn an_import_by_grpc_ends_behind_a_batch_and_says_how_far_it_came() {
    let mut world = World::start(Protocol::Grpc).await;
    let lines = futures::stream::iter((0..=BATCH).map(line)).chain(futures::stream::pending());
    let sending = tokio::spawn(import(&world.server, &world.key, lines));
    until("the import is at work", || world.database.rows("entity") == BATCH as i64).await;
    world.server.signal(Signal::SIGTERM);
    let status = sending.await.unwrap().expect_err("the import cannot end well");
    let info = status.get_error_details().error_info().cloned().unwrap();
    let reported = ["received", "created", "existing", "failed"]
        .map(|name| info.metadata.get(name).map(String::as_str));
    assert_eq!(
        (status.code(), reported),
        (tonic::Code::Unavailable, [Some("500"), Some("500"), Some("0"), Some("0")]),
        "{status:?}"
    );
    assert!(status.message().contains("The first 500 entities"), "{status:?}");
    assert_eq!(world.server.ended().await.code(), Some(0));
    assert!(!world.server.log().contains("cut off"), "{}", world.server.log());
    assert_eq!(
        world.database.rows("entity"),
        BATCH as i64,
        "nothing was done with what is behind the batch"
    );
    // Another replica does the rest, and knows what was done.
    let other = Server::start(&world.database).await;
    let summary =
        import(&other, &world.key, futures::stream::iter((0..BATCH + 7).map(line))).await.unwrap();
    assert_eq!((summary.received, summary.created), (507, 507));
}

#[tokio::test]
async fn an_import_by_rest_ends_behind_a_batch_and_says_how_far_it_came() {
    let mut world = World::start(Protocol::Rest).await;
    let mut caller = TcpStream::connect(world.server.addresses.http).await.unwrap();
    let head = format!(
        "POST /v1/entities:import HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/x-ndjson\r\n\
         transfer-encoding: chunked\r\n\r\n",
        world.key.secret
    );
    caller.write_all(head.as_bytes()).await.unwrap();
    for n in 0..=BATCH {
        let line = format!("{{\"entity_id\":\"e{n}\",\"type\":\"T\"}}\n");
        caller.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await.unwrap();
    }
    until("the import is at work", || world.database.rows("entity") == BATCH as i64).await;
    world.server.signal(Signal::SIGTERM);
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"entity_id\":\"e499\""),
        "{answer}"
    );
    let last = answer
        .lines()
        .find_map(|line| serde_json::from_str::<Value>(line).ok()?.get("error").cloned())
        .unwrap();
    let reported =
        ["code", "received", "created", "existing", "failed"].map(|name| last[name].clone());
    assert_eq!(
        reported,
        [json!("unavailable"), json!(500), json!(500), json!(0), json!(0)],
        "{last}"
    );
    assert_eq!(world.server.ended().await.code(), Some(0));
    assert!(!world.server.log().contains("cut off"), "{}", world.server.log());
    assert_eq!(world.database.rows("entity"), BATCH as i64);
}

#[tokio::test]
async fn every_stream_ends_with_a_word() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let mut world = World::start_with(protocol, &["--drain-timeout=4"]).await;
        world
            .call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "P"}))
            .await
            .unwrap();
        world.database.sql(
            "INSERT INTO entity (realm_id, id, incarnation, type, state, portfolio_id, attached_at)
             SELECT p.realm_id, rpad('m' || n, 128, '_'), gen_random_uuid(), 'T', 'active', p.id, now()
             FROM portfolio p, generate_series(1, 60000) n;
             UPDATE portfolio SET entity_count = 60000, version = version + 1",
        );
        let mut watch =
            world.client.stream("EventService/WatchEvents", json!({}), &[]).await.unwrap();
        let mut export = world
            .client
            .stream("PortfolioService/ExportPortfolio", json!({"portfolio_id": "p"}), &[])
            .await
            .unwrap();
        export.message().await;
        let channel = tonic::transport::Endpoint::from_shared(format!(
            "http://{}",
            world.server.addresses.grpc
        ))
        .unwrap()
        .connect_lazy();
        let asked = HealthCheckRequest { service: "offboard.v1.EntityService".to_owned() };
        let mut health = HealthClient::new(channel).watch(asked).await.unwrap().into_inner();
        world.server.signal(Signal::SIGTERM);
        let failure = loop {
            match watch.next().await {
                Some(Ok(_)) => {}
                ended => break ended.unwrap().unwrap_err(),
            }
        };
        assert_eq!(failure.code, "unavailable", "{failure:?}");
        let mut last = None;
        let status = loop {
            match health.message().await {
                Ok(Some(reported)) => last = Some(reported.status()),
                ended => break ended.unwrap_err(),
            }
        };
        assert_eq!(
            (status.code(), last),
            (tonic::Code::Unavailable, Some(ServingStatus::NotServing)),
            "{status:?}"
        );
        // A reader that is too slow gets an error when its time is over, and not before.
        logged(&world.server, "calls that did not end in time").await;
        let failure = loop {
            match export.next().await {
                Some(Ok(_)) => {}
                // The buffers of a socket may have all of it.
                None if protocol == Protocol::Rest => break None,
                ended => break Some(ended.unwrap().unwrap_err()),
            }
        };
        assert!(
            failure.as_ref().is_none_or(|failure| failure.code == "unavailable"),
            "{failure:?}"
        );
        assert_eq!(world.server.ended().await.code(), Some(0));
        assert!(!world.server.log().contains("cut off"), "{}", world.server.log());
    }
}

#[tokio::test]
async fn readiness_turns_before_anything_closes_and_a_second_signal_ends_at_once() {
    let mut world = World::start_with(Protocol::Rest, &["--drain-delay=600"]).await;
    readiness(&world.server, 200).await;
    world.server.signal(Signal::SIGTERM);
    let reported = readiness(&world.server, 503).await;
    assert!(reported.to_string().contains("shutting down"), "{reported}");
    for service in ["", "offboard.v1.EntityService"] {
        for _ in 0..500 {
            if health(&world.server, service).await == ServingStatus::NotServing {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(health(&world.server, service).await, ServingStatus::NotServing, "{service:?}");
    }
    world.portfolios(&["p"]).await;
    world
        .through(Protocol::Grpc)
        .call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}))
        .await
        .unwrap();
    world.server.signal(Signal::SIGINT);
    assert_eq!(world.server.ended().await.code(), Some(1));
    assert!(world.server.log().contains("ending at once"));
}

#[tokio::test]
async fn an_idle_server_ends_well_by_either_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut world = World::start(Protocol::Rest).await;
        // A connection that is open and asks nothing delays nobody.
        let _idle = TcpStream::connect(world.server.addresses.http).await.unwrap();
        world.server.signal(signal);
        assert_eq!(world.server.ended().await.code(), Some(0), "{signal}");
        assert!(!world.server.log().contains("cut off"), "{}", world.server.log());
        let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'offboard'";
        until("no connection is left", || world.database.count(left) == 0).await;
    }
}

#[tokio::test]
async fn an_idle_server_without_time_to_drain_ends_without_a_warning() {
    let mut world =
        World::start_with(Protocol::Rest, &["--drain-timeout=0", "--drain-delay=0"]).await;
    world.call("PortfolioService/ListPortfolios", json!({})).await.unwrap();
    assert!(world.server.terminate().await.success());
    let log = world.server.log();
    assert!(
        !log.contains("cut off")
            && !log.contains("left to another")
            && !log.contains("left behind"),
        "{log}"
    );
}
