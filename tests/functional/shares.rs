//! The shares of one realm and one key, and that others are served all the while.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use futures::StreamExt;
use offboard::proto::v1::entity_service_client::EntityServiceClient;
use offboard::proto::v1::{ImportEntitiesRequest, NewEntity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::*;
use crate::probes::probe;

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'offboard' AND wait_event_type = 'Lock'";
const WATCH: &str = "EventService/WatchEvents";
const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Rest];

/// Begins a stream that lasts. By gRPC it is known to have begun.
async fn watch(client: &Client) -> Result<MessageStream, Failure> {
    let mut stream = client.stream(WATCH, json!({}), &[]).await?;
    if client.protocol() == Protocol::Grpc {
        stream.message().await;
    }
    Ok(stream)
}

#[tokio::test]
async fn rows_that_are_locked_in_one_realm_take_no_connection_of_another() {
    for protocol in PROTOCOLS {
        let patient = ["--db-pool-size=4", "--db-lock-timeout=60", "--db-acquire-timeout=2"];
        let world = World::start_with(protocol, &patient).await;
        world.entities(&["e"]).await;
        let other = world.client("other", "test", SCOPES);
        // Changes that have shown that they are quick have more connections, until they are known to wait.
        for number in 0..if protocol == Protocol::Rest { 30 } else { 0 } {
            let change = json!({"entity_id": "e", "entity": {"attributes": {"a": number}}});
            world.call("EntityService/UpdateEntity", change).await.unwrap();
        }
        let mut held = world.database.connection();
        held.batch_execute("BEGIN; SELECT 1 FROM entity WHERE id = 'e' FOR UPDATE").unwrap();
        let patches: Vec<_> = (0..40)
            .map(|number| {
                let client = world.client.clone();
                let change = json!({"entity_id": "e", "entity": {"attributes": {"a": number}}});
                tokio::spawn(async move { client.call("EntityService/UpdateEntity", change).await })
            })
            .collect();
        until("a change waits for the lock", || world.database.count(WAITING) > 0).await;
        for _ in 0..20 {
            let missing = other
                .call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}))
                .await
                .unwrap_err();
            assert_eq!(missing.code, "not_found", "another realm is served: {missing:?}");
        }
        // Until the calls of the realm that found no connection in time are refused for that.
        let mut reported = futures::stream::FuturesUnordered::from_iter(patches);
        let first = reported.next().await.unwrap().unwrap().unwrap_err();
        assert_eq!((first.code.as_str(), first.http.unwrap_or(503)), ("unavailable", 503));
        assert_eq!(
            probe(&world.server, "/readyz").await.status,
            200,
            "and the replica stays ready"
        );
        held.batch_execute("ROLLBACK").unwrap();
        let mut done = 0;
        while let Some(patch) = reported.next().await {
            done += usize::from(patch.unwrap().is_ok());
        }
        assert!(done > 0, "who waited for the lock got it");
    }
}

#[tokio::test]
async fn a_key_at_its_share_of_streams_is_refused_and_another_realm_opens_its_own() {
    for protocol in PROTOCOLS {
        // More streams than calls: they take no permit of calls.
        let few = [
            "--max-concurrent-calls=4",
            "--max-concurrent-streams=8",
            "--realm-concurrent-streams=4",
            "--key-concurrent-streams=3",
        ];
        let world = World::start_with(protocol, &few).await;
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(watch(&world.client).await.unwrap());
        }
        let Err(refused) = watch(&world.client).await else { panic!("a key has four streams") };
        assert_eq!(
            (refused.code.as_str(), refused.http.unwrap_or(429)),
            ("rate_limit_exceeded", 429)
        );
        assert_eq!(refused.members["retry_after"], 10);
        assert!(refused.message.starts_with("This key has as many streams"), "{}", refused.message);
        let same_realm = world.client("acme", "test", SCOPES);
        open.push(watch(&same_realm).await.unwrap());
        let Err(refused) = watch(&same_realm).await else { panic!("a realm has five streams") };
        assert!(refused.message.starts_with("The organisation of this key"), "{}", refused.message);
        let other = world.client("other", "test", SCOPES);
        open.push(watch(&other).await.unwrap());
        assert_eq!(
            world
                .call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}))
                .await
                .unwrap_err()
                .code,
            "not_found"
        );

        // The one of another realm as well: what is left for others is more then, and so is the share.
        open.pop();
        open.remove(0);
        let mut again = None;
        for _ in 0..1500 {
            if let Ok(stream) = watch(&world.client).await {
                again = Some(stream);
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(again.is_some(), "a stream that ended gives its permit back");
        let metrics = probe(&world.server, "/metrics").await.text();
        for limit in ["key_streams", "realm_streams"] {
            assert!(
                metrics
                    .lines()
                    .any(|line| line.starts_with("offboard_limit_reached") && line.contains(limit)),
                "{limit}: {metrics}"
            );
        }
    }
}

#[tokio::test]
async fn a_realm_at_its_share_of_calls_is_refused_and_another_is_served() {
    for protocol in PROTOCOLS {
        let few =
            ["--max-concurrent-calls=8", "--realm-concurrent-calls=3", "--key-concurrent-calls=2"];
        let patient = ["--slow-db-connections=3", "--db-lock-timeout=60"];
        let world = World::start_with(protocol, &[few.as_slice(), &patient].concat()).await;
        world.entities(&["e"]).await;
        let same_realm = world.client("acme", "test", SCOPES);
        let mut held = world.database.connection();
        held.batch_execute("BEGIN; SELECT 1 FROM entity WHERE id = 'e' FOR UPDATE").unwrap();
        let patch = |client: &Client| {
            let client = client.clone();
            let change = json!({"entity_id": "e", "entity": {"attributes": {"a": 1}}});
            tokio::spawn(async move { client.call("EntityService/UpdateEntity", change).await })
        };
        let mut under_way = vec![patch(&world.client), patch(&world.client)];
        until("both changes of the key wait for the lock", || world.database.count(WAITING) == 2)
            .await;
        let get = json!({"portfolio_id": "p"});
        let refused = world.call("PortfolioService/GetPortfolio", get.clone()).await.unwrap_err();
        assert_eq!(
            (refused.code.as_str(), refused.http.unwrap_or(429)),
            ("rate_limit_exceeded", 429)
        );
        assert_eq!(refused.members["retry_after"], 1);
        under_way.push(patch(&same_realm));
        until("all changes of the realm wait for the lock", || world.database.count(WAITING) == 3)
            .await;
        let refused =
            same_realm.call("PortfolioService/GetPortfolio", get.clone()).await.unwrap_err();
        assert!(
            refused.message.starts_with("The organisation of this key has as many calls"),
            "{}",
            refused.message
        );
        let other = world.client("other", "test", SCOPES);
        assert_eq!(
            other.call("PortfolioService/GetPortfolio", get.clone()).await.unwrap_err().code,
            "not_found"
        );
        held.batch_execute("ROLLBACK").unwrap();
        for call in under_way {
            call.await.unwrap().unwrap();
        }
        assert_eq!(
            world.call("PortfolioService/GetPortfolio", get).await.unwrap_err().code,
            "not_found"
        );
    }
}

#[tokio::test]
async fn an_import_whose_caller_falls_silent_ends_and_keeps_what_it_answered() {
    let world = World::start_with(Protocol::Grpc, &["--stream-silence-timeout=1"]).await;
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", world.server.addresses.grpc))
            .unwrap()
            .connect_lazy();
    let entity =
        NewEntity { entity_id: "e".to_owned(), r#type: "t".to_owned(), ..NewEntity::default() };
    let first = ImportEntitiesRequest { entity: Some(entity), ..ImportEntitiesRequest::default() };
    let mut request =
        tonic::Request::new(futures::stream::iter([first]).chain(futures::stream::pending()));
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {}", world.key.secret).parse().unwrap());
    let answer = match EntityServiceClient::new(channel).import_entities(request).await {
        Ok(answer) => answer.into_inner().message().await,
        Err(status) => Err(status),
    };
    let status = answer.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            tonic::Code::DeadlineExceeded,
            "Nothing was sent for 1 s; what a response was sent for has taken effect."
        )
    );

    let mut connection = TcpStream::connect(world.server.addresses.http).await.unwrap();
    let head = format!(
        "POST /v1/entities:import HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: application/x-ndjson\r\n\
         transfer-encoding: chunked\r\n\r\n",
        world.key.secret
    );
    let line = "{\"entityId\":\"f\",\"type\":\"t\"}\n";
    connection.write_all(format!("{head}{:x}\r\n{line}\r\n", line.len()).as_bytes()).await.unwrap();
    let mut answer = vec![0; 65_536];
    let read = tokio::time::timeout(Duration::from_secs(30), connection.read(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(
        answer.starts_with("HTTP/1.1 504") && answer.contains("Nothing was sent for 1 s"),
        "{answer}"
    );
    assert_eq!(
        world
            .call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}))
            .await
            .unwrap_err()
            .code,
        "not_found"
    );
}

#[tokio::test]
async fn one_realm_that_does_not_read_its_exports_keeps_no_other_from_one() {
    let world = World::start_with(Protocol::Grpc, &["--db-acquire-timeout=1"]).await;
    let other = world.client("other", "test", SCOPES);
    for (client, portfolio) in [(&world.client, "p"), (&other, "q")] {
        client
            .call(
                "PortfolioService/CreatePortfolio",
                json!({"portfolio_id": portfolio, "name": "p"}),
            )
            .await
            .unwrap();
    }
    crate::portfolio_export::given_a_crowd(&world.database, "p");
    let export = async |client: &Client, portfolio| {
        client
            .stream("PortfolioService/ExportPortfolio", json!({"portfolio_id": portfolio}), &[])
            .await
    };
    let mut unread = Vec::new();
    while let Ok(mut stream) = export(&world.client, "p").await {
        stream.message().await;
        unread.push(stream);
    }
    assert!(!unread.is_empty());
    let mut stream =
        export(&other, "q").await.unwrap_or_else(|failure| panic!("refused: {failure:?}"));
    assert!(stream.message().await["portfolio"].is_object());
}
