//! The calls that a revoked key ends: every long one, whoever sends in it.

use offboard::proto::v1;
use offboard::proto::v1::entity_service_client::EntityServiceClient;
use offboard::proto::v1::import_entities_response::Answer as ImportAnswer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};
use tonic_types::StatusExt;

use crate::kit::*;

/// As many lines as one transaction writes.
const BATCH: usize = 500;

fn revoke(world: &World, key: &Key) {
    offboard(&["key", "revoke", &key.id, "--yes", "--database-url", &world.database.url]);
}

fn ids(from: usize, count: usize) -> impl Iterator<Item = String> {
    (from..from + count).map(|n| format!("e{n:05}"))
}

/// An import by gRPC that is still being sent.
struct GrpcImport {
    lines: mpsc::Sender<v1::ImportEntitiesRequest>,
    answers: Option<Streaming<v1::ImportEntitiesResponse>>,
    client: EntityServiceClient<tonic::transport::Channel>,
    request: Option<Request<ReceiverStream<v1::ImportEntitiesRequest>>>,
}

impl GrpcImport {
    fn begin(world: &World, key: &Key) -> GrpcImport {
        let channel = tonic::transport::Channel::from_shared(format!(
            "http://{}",
            world.server.addresses.grpc
        ))
        .unwrap()
        .connect_lazy();
        let (lines, source) = mpsc::channel(2 * BATCH);
        let mut request = Request::new(ReceiverStream::new(source));
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {}", key.secret).parse().unwrap());
        GrpcImport {
            lines,
            answers: None,
            client: EntityServiceClient::new(channel),
            request: Some(request),
        }
    }

    async fn send(&mut self, from: usize, count: usize) {
        for id in ids(from, count) {
            let entity =
                v1::NewEntity { entity_id: id, r#type: "T".to_owned(), ..Default::default() };
            // Whoever has hung up takes no more.
            let _ = self
                .lines
                .send(v1::ImportEntitiesRequest { entity: Some(entity), ..Default::default() })
                .await;
        }
        if let Some(request) = self.request.take() {
            self.answers = Some(self.client.import_entities(request).await.unwrap().into_inner());
        }
    }

    /// The reason that it fails for, behind so many results.
    async fn end(&mut self, results: usize) -> String {
        let answers = self.answers.as_mut().unwrap();
        for n in 0..results {
            let answer = answers
                .message()
                .await
                .unwrap_or_else(|status| panic!("result {n}: {status:?}"))
                .unwrap()
                .answer;
            assert!(matches!(answer, Some(ImportAnswer::Result(_))), "{answer:?}");
        }
        let status = tokio::time::timeout(std::time::Duration::from_secs(30), answers.message())
            .await
            .expect("it ends")
            .unwrap_err();
        status.get_error_details().error_info().unwrap().reason.to_ascii_lowercase()
    }
}

/// An import by REST that is still being sent.
struct RestImport(TcpStream);

impl RestImport {
    async fn begin(world: &World, key: &Key) -> RestImport {
        let mut stream = TcpStream::connect(world.server.addresses.http).await.unwrap();
        let head = format!(
            "POST /v1/entities:import HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/x-ndjson\r\n\
             transfer-encoding: chunked\r\n\r\n",
            key.secret
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        RestImport(stream)
    }

    async fn send(&mut self, from: usize, count: usize) {
        let lines: String = ids(from, count)
            .map(|id| format!("{}\n", json!({"entity_id": id, "type": "T"})))
            .collect();
        // Whoever has hung up takes no more.
        let _ = self.0.write_all(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes()).await;
    }

    /// The response up to and with this text.
    async fn read_to(&mut self, text: &str) -> String {
        let (mut read, mut buffer) = (String::new(), vec![0; 65_536]);
        while !read.contains(text) {
            let reading =
                tokio::time::timeout(std::time::Duration::from_secs(30), self.0.read(&mut buffer));
            let count = reading.await.unwrap_or_else(|_| panic!("no `{text}` in {read}")).unwrap();
            assert!(count > 0, "it ends without `{text}`: {read}");
            read.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        read
    }
}

#[tokio::test]
async fn an_import_by_grpc_writes_nothing_behind_the_end_of_its_key() {
    let world = World::start(Protocol::Grpc).await;
    let [busy, silent] =
        [(); 2].map(|()| Key::create(&world.database, "acme", "test", &["entities:write"]));
    let (mut sending, mut waiting) =
        (GrpcImport::begin(&world, &busy), GrpcImport::begin(&world, &silent));
    sending.send(0, BATCH).await;
    waiting.send(50_000, BATCH).await;
    revoke(&world, &busy);
    revoke(&world, &silent);
    sending.send(BATCH, BATCH).await;
    // Written lines are reported first; also for a caller who sends nothing more.
    assert_eq!(sending.end(BATCH).await, "invalid_credentials");
    assert_eq!(waiting.end(BATCH).await, "invalid_credentials");
    assert_eq!(world.database.rows("entity"), 2 * BATCH as i64);
}

#[tokio::test]
async fn an_import_by_rest_writes_nothing_behind_the_end_of_its_key() {
    let world = World::start(Protocol::Rest).await;
    let [busy, silent] =
        [(); 2].map(|()| Key::create(&world.database, "acme", "test", &["entities:write"]));
    let (mut sending, mut waiting) =
        (RestImport::begin(&world, &busy).await, RestImport::begin(&world, &silent).await);
    sending.send(0, BATCH).await;
    waiting.send(50_000, BATCH).await;
    sending.read_to("e00499").await;
    waiting.read_to("e50499").await;
    revoke(&world, &busy);
    revoke(&world, &silent);
    sending.send(BATCH, BATCH).await;
    for import in [&mut sending, &mut waiting] {
        let reported = import.read_to("invalid_credentials").await;
        assert!(!reported.contains("\"summary\""), "{reported}");
    }
    assert_eq!(world.database.rows("entity"), 2 * BATCH as i64);
}

scenario! {
    async fn every_stream_ends_with_its_key(world: &World) {
        world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T"}})).await.unwrap();
        world.call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "P"})).await.unwrap();
        world.database.sql(
            "INSERT INTO entity (realm_id, id, incarnation, type, state, portfolio_id, attached_at)
             SELECT p.realm_id, rpad('m' || n, 128, '_'), gen_random_uuid(), 'T', 'active', p.id, now()
             FROM portfolio p, generate_series(1, 60000) n;
             UPDATE portfolio SET entity_count = 60000, version = version + 1",
        );
        let asked = world.call("OffboardingService/RequestOffboarding", json!({"entity_id": "e", "grace_period": "3600s"})).await.unwrap();
        let slow = json!({"entity_type": "T", "max_objects_per_second": 1});
        let task = world.call("BulkDeleteService/StartBulkDelete", slow).await.unwrap();
        let key = Key::create(&world.database, "acme", "test", SCOPES);
        let client = Client::new(&world.server, &key, world.protocol);
        let mut streams = Vec::new();
        for (method, request) in [
            ("PortfolioService/ExportPortfolio", json!({"portfolio_id": "p"})),
            ("EventService/WatchEvents", json!({})),
            ("BulkDeleteService/WatchTask", json!({"task_id": task.get("id")})),
            ("OffboardingService/WatchOffboardingRequest", json!({"offboarding_request_id": asked.get("id")})),
        ] {
            streams.push((method, client.stream(method, request, &[]).await.unwrap()));
        }
        revoke(world, &key);
        for (method, stream) in &mut streams {
            // A reader who takes long at first, and what is more than the windows of gRPC hold: so the key is checked again while there
            // is something left to send. The buffers of a socket, by REST, may have all of it; then the export has ended before its key was
            // checked.
            let is_export = *method == "PortfolioService/ExportPortfolio";
            let mut slow = if is_export { 25 } else { 0 };
            let failure = loop {
                match stream.next().await {
                    Some(Ok(_)) if slow > 0 => {
                        slow -= 1;
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(failure)) => break Some(failure),
                    None if is_export && world.protocol == Protocol::Rest => break None,
                    None => panic!("{method} ends as if nothing had happened"),
                }
            };
            assert!(failure.is_none_or(|failure| failure.code == "invalid_credentials"), "{method}");
        }
        world.call("BulkDeleteService/StopTask", json!({"task_id": task.get("id")})).await.unwrap();
    }
}
