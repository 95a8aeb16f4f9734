//! The end of a server: in an order in which no caller notices, or at once.

use std::time::Duration;

use nix::sys::signal::Signal;
use offboard::proto::v1::entity_service_client::EntityServiceClient;
use offboard::proto::v1::import_entities_response::Answer as ImportAnswer;
use offboard::proto::v1::{ImportEntitiesRequest, ImportSummary, NewEntity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::kit::*;
use crate::probes::{health, readiness};

/// An import whose lines come one by one.
struct SlowImport {
    lines: mpsc::Sender<ImportEntitiesRequest>,
    answer: JoinHandle<Result<ImportSummary, tonic::Status>>,
}

impl SlowImport {
    /// Starts one and waits until the server is at it.
    async fn start(world: &World) -> SlowImport {
        let (lines, receiver) = mpsc::channel(1);
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", world.server.addresses.grpc)).unwrap().connect_lazy();
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("authorization", format!("Bearer {}", world.key.secret).parse().unwrap());
        let answer = async move {
            let mut answers = EntityServiceClient::new(channel).import_entities(request).await?.into_inner();
            while let Some(message) = answers.message().await? {
                if let Some(ImportAnswer::Summary(summary)) = message.answer {
                    return Ok(summary);
                }
            }
            panic!("the import ended without a summary")
        };
        let import = SlowImport { lines, answer: tokio::spawn(answer) };
        // As many as end a batch: once they are stored, the call is known to run.
        for n in 0..500 {
            import.send(&format!("e{n}")).await;
        }
        until("the import is at work", || world.database.count("SELECT count(*) FROM entity") == 500).await;
        import
    }

    async fn send(&self, id: &str) {
        let entity = NewEntity { entity_id: id.to_owned(), r#type: "T".to_owned(), ..Default::default() };
        self.lines.send(ImportEntitiesRequest { entity: Some(entity), failures_only: true, line: 0 }).await.unwrap();
    }
}

async fn logged(server: &Server, text: &str) {
    until(&format!("the log tells {text:?}"), || server.log().contains(text)).await;
}

#[tokio::test]
async fn a_call_in_flight_is_finished_and_a_new_one_is_not_taken() {
    let mut world = World::start(Door::Grpc).await;
    let import = SlowImport::start(&world).await;
    world.server.signal(Signal::SIGTERM);
    logged(&world.server, "ClosingListeners").await;
    import.send("late").await;
    drop(import.lines);
    let account = import.answer.await.unwrap().expect("the import is finished");
    assert_eq!((account.received, account.created), (501, 501));
    assert_eq!(world.server.ended().await.code(), Some(0));
    assert_eq!(world.database.count("SELECT count(*) FROM entity WHERE id = 'late'"), 1);
    assert!(TcpStream::connect(world.server.addresses.grpc).await.is_err());
}

#[tokio::test]
async fn a_request_in_flight_is_finished() {
    let mut world = World::start(Door::Rest).await;
    let mut caller = TcpStream::connect(world.server.addresses.http).await.unwrap();
    let head = format!(
        "POST /v1/entities:import HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/x-ndjson\r\n\
         transfer-encoding: chunked\r\n\r\n",
        world.key.secret
    );
    caller.write_all(head.as_bytes()).await.unwrap();
    for n in 0..500 {
        let line = format!("{{\"entity_id\":\"e{n}\",\"type\":\"T\"}}\n");
        caller.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await.unwrap();
    }
    until("the import is at work", || world.database.count("SELECT count(*) FROM entity") == 500).await;
    world.server.signal(Signal::SIGTERM);
    logged(&world.server, "ClosingListeners").await;
    caller.write_all(b"1f\r\n{\"entity_id\":\"late\",\"type\":\"T\"}\r\n0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"created\":501"), "{answer}");
    assert_eq!(world.server.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_off() {
    let mut world = World::start_with(Door::Grpc, &["--drain-timeout=0.2"]).await;
    let import = SlowImport::start(&world).await;
    assert_eq!(world.server.terminate().await.code(), Some(0));
    assert!(world.server.log().contains("cut off"), "the log tells of it");
    let status = import.answer.await.unwrap().expect_err("the import cannot end well");
    assert!(
        matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled | tonic::Code::Internal),
        "{status:?}"
    );
    assert_eq!(world.database.count("SELECT count(*) FROM entity"), 500, "what was committed is kept");
}

#[tokio::test]
async fn readiness_turns_before_anything_closes_and_a_second_signal_ends_at_once() {
    let mut world = World::start_with(Door::Rest, &["--drain-delay=600"]).await;
    readiness(&world.server, 200).await;
    world.server.signal(Signal::SIGTERM);
    let told = readiness(&world.server, 503).await;
    assert!(told.to_string().contains("shutting down"), "{told}");
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
    world.through(Door::Grpc).call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await.unwrap();
    world.server.signal(Signal::SIGINT);
    assert_eq!(world.server.ended().await.code(), Some(1));
    assert!(world.server.log().contains("told to end at once"));
}

#[tokio::test]
async fn an_idle_server_ends_well_by_either_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut world = World::start(Door::Rest).await;
        // A connection that is open and asks nothing holds nobody up.
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
    let mut world = World::start_with(Door::Rest, &["--drain-timeout=0", "--drain-delay=0"]).await;
    world.call("PortfolioService/ListPortfolios", json!({})).await.unwrap();
    assert!(world.server.terminate().await.success());
    let log = world.server.log();
    assert!(!log.contains("cut off") && !log.contains("left to another") && !log.contains("left behind"), "{log}");
}
