//! Callers without a key, and with keys that they made up: what they can have, and that others have the rest.

use std::future::Future;

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use prost::Message;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::kit::*;

fn channel(server: &Server) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.addresses.grpc)).unwrap().connect_lazy()
}

/// An open stream of reflection with one response; dropping it hangs up.
type Open = (
    tokio::sync::mpsc::Sender<ServerReflectionRequest>,
    tonic::Streaming<tonic_reflection::pb::v1::ServerReflectionResponse>,
);

pub async fn reflect(channel: Channel, key: Option<&str>) -> Result<Open, tonic::Status> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    sender.send(ask).await.unwrap();
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    if let Some(key) = key {
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    let mut answers =
        ServerReflectionClient::new(channel).server_reflection_info(request).await?.into_inner();
    answers.message().await?;
    Ok((sender, answers))
}

#[tokio::test]
async fn reflection_takes_no_place_of_a_call_with_a_key() {
    let world = World::start_with(
        Protocol::Grpc,
        &["--max-concurrent-calls=64", "--max-reflection-streams=400"],
    )
    .await;
    let (channel, mut open, mut refused) = (channel(&world.server), Vec::new(), 0);
    for _ in 0..120 {
        match reflect(channel.clone(), None).await {
            Ok(stream) => open.push(stream),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
                refused += 1;
            }
        }
    }
    assert_eq!((open.len(), refused), (100, 20), "a quarter for one address");
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let client = world.through(protocol);
        let calls = (0..4).map(|_| client.call("EntityService/ListEntities", json!({})));
        for answer in futures::future::join_all(calls).await {
            answer.unwrap();
        }
    }
    drop(open);
    for _ in 0..500 {
        if reflect(channel.clone(), None).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("who has left makes no room");
}

#[tokio::test]
async fn reflection_reports_an_address_no_more_than_it_may() {
    let world = World::start_with(Protocol::Grpc, &[]).await;
    let symbol = MessageRequest::FileContainingSymbol("offboard.v1.BulkDeleteService".to_owned());
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(symbol) };
    let mut reported = 0;
    let refused = loop {
        let asked = tokio_stream::iter(vec![ask.clone(); 50]);
        let mut answers = ServerReflectionClient::new(channel(&world.server))
            .server_reflection_info(asked)
            .await
            .unwrap()
            .into_inner();
        let refused = loop {
            match answers.message().await {
                Ok(Some(answer)) => reported += answer.encoded_len(),
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        if let Some(refused) = refused {
            break refused;
        }
        assert!(reported < 64 << 20, "there is no end to it");
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    assert!((8 << 20..20 << 20).contains(&reported), "{reported}");
    // Another address has its own, and calls with a key have nothing to do with it.
    assert!(reflect(channel_from(&world.server, 7).await, None).await.is_ok());
    world.call("EntityService/ListEntities", json!({})).await.unwrap();
}

#[tokio::test]
async fn reflection_asks_for_a_key_or_is_not_there() {
    let world = World::start_with(Protocol::Grpc, &["--reflection=key"]).await;
    assert_eq!(
        reflect(channel(&world.server), None).await.unwrap_err().code(),
        tonic::Code::Unauthenticated
    );
    let reader = Key::create(&world.database, "acme", "test", &["portfolios:read"]);
    assert!(
        reflect(channel(&world.server), Some(&reader.secret)).await.is_ok(),
        "whatever it may do"
    );
    let made_up = format!("sk_test_{}", "x".repeat(43));
    assert_eq!(
        reflect(channel(&world.server), Some(&made_up)).await.unwrap_err().code(),
        tonic::Code::Unauthenticated
    );

    let server = Server::start_with(&world.database, &["--reflection=off"], &[]).await;
    assert_eq!(
        reflect(channel(&server), Some(&reader.secret)).await.unwrap_err().code(),
        tonic::Code::Unimplemented
    );
    let client = Client::new(&server, &world.key, Protocol::Grpc);
    client.call("EntityService/ListEntities", json!({})).await.unwrap();
}

#[tokio::test]
async fn watches_of_health_are_few_and_checks_are_answered_beside_them() {
    let world = World::start(Protocol::Grpc).await;
    let (channel, mut open, mut refused) = (channel(&world.server), Vec::new(), 0);
    for _ in 0..50 {
        match HealthClient::new(channel.clone()).watch(HealthCheckRequest::default()).await {
            Ok(watch) => open.push(watch),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
                refused += 1;
            }
        }
    }
    assert_eq!((open.len(), refused), (32, 18), "one address has its part");
    HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    assert!(reflect(channel, None).await.is_ok(), "reflection has permits of its own");
    world.call("EntityService/ListEntities", json!({})).await.unwrap();
}

/// A connection of its own from this host.
async fn channel_from(server: &Server, host: u8) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.addresses.grpc)).unwrap();
    endpoint.local_address(Some([127, 0, 0, host].into())).connect().await.unwrap()
}

/// Has every one of these hosts open so many streams at the same moment, each on a connection of its own, and keeps what was opened. How many each
/// has that have a response and are still open.
async fn opened_at_once<S, F>(
    server: &Server,
    hosts: u8,
    each: usize,
    open: impl Fn(Channel) -> F,
) -> Vec<usize>
where
    S: Send + 'static,
    F: Future<Output = Result<S, tonic::Status>> + Send + 'static,
{
    let begin = std::sync::Arc::new(tokio::sync::Barrier::new(usize::from(hosts) * each));
    let mut all = Vec::new();
    for host in (0..hosts).flat_map(|host| (0..each).map(move |_| host)) {
        // One after the other: the kernel resets some of many that connect at once.
        let (begin, opening) = (begin.clone(), open(channel_from(server, host + 1).await));
        all.push(tokio::spawn(async move {
            begin.wait().await;
            (host, opening.await)
        }));
    }
    let (mut counts, mut kept) = (vec![0; usize::from(hosts)], Vec::new());
    for opened in futures::future::join_all(all).await {
        match opened.unwrap() {
            (host, Ok(stream)) => {
                counts[usize::from(host)] += 1;
                kept.push(stream);
            }
            (_, Err(status)) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}"),
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_come_at_once_no_more_than_the_caps_are_let_in() {
    let world = World::start_with(Protocol::Grpc, &["--max-reflection-streams=40"]).await;
    for round in 0..3 {
        // 32 of 256 watches for an address: nine of them would have more than all.
        let watches = opened_at_once(&world.server, 10, 48, |channel| async move {
            let mut watch =
                HealthClient::new(channel).watch(HealthCheckRequest::default()).await?.into_inner();
            watch.message().await?;
            Ok(watch)
        });
        // A quarter of 40 streams.
        let streams =
            opened_at_once(
                &world.server,
                6,
                20,
                |channel| async move { reflect(channel, None).await },
            );
        let (watches, streams) = tokio::join!(watches, streams);
        let (of_watches, of_streams) =
            (watches.iter().sum::<usize>(), streams.iter().sum::<usize>());
        assert!(watches.iter().all(|count| *count <= 32) && of_watches <= 256, "{watches:?}");
        assert!(streams.iter().all(|count| *count <= 10) && of_streams <= 40, "{streams:?}");
        // Later some of those before may not have left yet.
        assert!(round > 0 || (of_watches, of_streams) == (256, 40), "{watches:?} {streams:?}");
    }
    world.call("EntityService/ListEntities", json!({})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_made_up_do_not_take_the_connections_of_those_that_are_not() {
    let world = World::start_with(
        Protocol::Rest,
        &["--db-pool-size=4", "--db-acquire-timeout=60", "--request-timeout=120"],
    )
    .await;
    world.call("PortfolioService/ListPortfolios", json!({})).await.unwrap();
    // Whoever looks a key up waits.
    let mut lock = PgConnection::establish(&world.database.url).unwrap();
    lock.batch_execute("BEGIN; LOCK TABLE api_key IN ACCESS EXCLUSIVE MODE").unwrap();
    let guesses: Vec<_> = (0..40)
        .map(|guess| {
            let (http, key) = (world.server.addresses.http, format!("Bearer sk_test_{guess:0>43}"));
            tokio::spawn(async move {
                crate::kit::http(
                    http,
                    "GET",
                    "/v1/portfolios",
                    &[("authorization", key.as_str())],
                    "",
                )
                .await
                .status
            })
        })
        .collect();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until("one is looked up", || world.database.count(waiting) > 0).await;
    // The key was seen a moment ago, and is not looked up.
    let calls = (0..3).map(|_| world.call("PortfolioService/ListPortfolios", json!({})));
    let served =
        tokio::time::timeout(std::time::Duration::from_secs(4), futures::future::join_all(calls))
            .await;
    for answer in served.expect("calls do not wait for those who guess") {
        answer.unwrap();
    }
    assert_eq!(world.database.count(waiting), 1, "one connection in four is for them");
    lock.batch_execute("ROLLBACK").unwrap();
    for guess in guesses {
        assert_eq!(guess.await.unwrap(), 401);
    }
}
