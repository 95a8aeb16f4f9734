//! Events as they arrive in a real NATS JetStream, through the deaths of either side.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::kit::*;
use crate::probes::probe;

pub const STREAM: &str = "OFFBOARD";
/// A replica takes over after a second.
pub const EAGER: [&str; 4] = ["--lease", "1", "--poll-interval", "0.05"];

/// A world whose server publishes to this NATS server, with more arguments.
pub async fn publishing(nats: &NatsServer, more: &[&str]) -> World {
    let url = nats.url();
    World::start_with(Protocol::Grpc, &[&["--nats-url", &url], &EAGER[..], more].concat()).await
}

/// Another server on the same database.
async fn another(world: &World, nats: &NatsServer, more: &[&str]) -> Server {
    Server::start_with(
        &world.database,
        &[&["--nats-url", &nats.url()], &EAGER[..], more].concat(),
        &[],
    )
    .await
}

/// Every event of the database, unfolded, in the order of its changes.
fn expected(database: &Database) -> Vec<Value> {
    let events = database.text(
        "SELECT coalesce(json_agg(json_build_object(
                    'id', v.id || CASE WHEN v.subject_count = 1 THEN '' ELSE '-' || s.n END, 'type', v.type, 'subject', s.id,
                    'source', '/orgs/' || r.org || '/' || r.mode, 'data', v.data || jsonb_build_object('principal_id', v.principal_id))
                ORDER BY v.seq, s.n), '[]')
         FROM event v JOIN realm r ON r.id = v.realm_id, unnest(v.subjects) WITH ORDINALITY s(id, n)",
    );
    serde_json::from_str(&events.unwrap()).unwrap()
}

/// The same with its times in one spelling: the database leaves out zeros at their end.
fn by_instant(value: &Value) -> Value {
    match value {
        Value::String(text) => match chrono::DateTime::parse_from_rfc3339(text) {
            Ok(time) => json!(time.to_utc().to_rfc3339()),
            Err(_) => value.clone(),
        },
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), by_instant(value))).collect()
        }
        _ => value.clone(),
    }
}

/// Every event of the database arrived once, each under its subject, and those of one subject in order.
pub fn assert_complete(database: &Database, arrived: &[Stored], prefix: &str) {
    let expected = expected(database);
    let count = |values: &mut dyn Iterator<Item = String>| {
        values.fold(BTreeMap::new(), |mut counts: BTreeMap<String, usize>, id| {
            *counts.entry(id).or_default() += 1;
            counts
        })
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (reported, came) = (
        count(&mut expected.iter().map(|event| text(&event["id"]))),
        count(&mut arrived.iter().map(|one| one.id.clone())),
    );
    assert!(
        reported == came,
        "{} events became {} messages with {} ids",
        expected.len(),
        arrived.len(),
        came.len()
    );
    let by_id: BTreeMap<String, &Value> =
        expected.iter().map(|event| (text(&event["id"]), event)).collect();
    let mut order: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in arrived {
        let event = by_id[&message.id];
        assert_eq!(message.content_type, "application/cloudevents+json");
        assert_eq!(
            (&message.event["id"], &message.event["specversion"]),
            (&event["id"], &json!("1.0"))
        );
        for member in ["type", "subject", "source", "data"] {
            assert_eq!(
                by_instant(&message.event[member]),
                by_instant(&event[member]),
                "{member} of {}",
                message.event
            );
        }
        assert!(
            chrono::DateTime::parse_from_rfc3339(message.event["time"].as_str().unwrap()).is_ok()
        );
        let source = text(&event["source"]);
        let [org, mode] = source.trim_start_matches("/orgs/").split('/').collect::<Vec<_>>()[..]
        else {
            panic!("{source}")
        };
        assert_eq!(
            message.subject,
            format!("{prefix}.{}.{mode}.{}", org.replace('.', "%2E"), text(&event["type"]))
        );
        order.entry(source + "/" + &text(&event["subject"])).or_default().push(message.id.clone());
    }
    let mut right: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in &expected {
        right
            .entry(text(&event["source"]) + "/" + &text(&event["subject"]))
            .or_default()
            .push(text(&event["id"]));
    }
    assert!(order == right, "the events of a subject came out of order");
}

/// Makes active entities without reporting anybody.
fn given_entities(database: &Database, count: usize) {
    database.sql(&format!(
        "INSERT INTO entity (realm_id, id, incarnation, type, state)
         SELECT r.id, 'e-' || lpad(n::text, 6, '0'), gen_random_uuid(), 'HCP', 'active'
         FROM realm r, generate_series(1, {count}) n WHERE r.org = 'acme' AND r.mode = 'test'"
    ));
}

async fn delete_all(world: &World) -> String {
    let task = world
        .call("BulkDeleteService/StartBulkDelete", json!({"entity_type": "HCP", "mode": "hard"}))
        .await
        .unwrap();
    task.get("id").as_str().unwrap().to_owned()
}

fn events(database: &Database) -> usize {
    usize::try_from(database.event_subjects()).unwrap()
}

async fn unpublished(world: &World, task: &str) -> i64 {
    let task = world.call("BulkDeleteService/GetTask", json!({"task_id": task})).await.unwrap();
    task.get("current_state.number_of_failed_to_publish_events").as_i64().unwrap()
}

async fn task_ended(world: &World, task: &str) {
    let ended = |task: &Value| !task["end_time"].is_null();
    world.call_until("BulkDeleteService/GetTask", json!({"task_id": task}), ended).await;
}

#[tokio::test]
async fn every_event_arrives_once_under_its_subject() {
    let nats = NatsServer::start().await;
    let world =
        publishing(&nats, &["--nats-subject-prefix", "corp.offboard", "--nats-stream", "ours"])
            .await;
    let others = [world.client("acme", "live", SCOPES), world.client("a.b", "test", SCOPES)];
    for client in others.iter().chain([&world.client]) {
        for portfolio in ["p", "q"] {
            client
                .call(
                    "PortfolioService/CreatePortfolio",
                    json!({"portfolio_id": portfolio, "name": "Fund"}),
                )
                .await
                .unwrap();
        }
        for entity in ["a", "b", "c"] {
            client
                .call(
                    "EntityService/CreateEntity",
                    json!({"entity": {"entity_id": entity, "type": "HCP"}}),
                )
                .await
                .unwrap();
            for portfolio in ["p", "q"] {
                let request = json!({"portfolio_id": portfolio, "entity_id": entity});
                client.call("PortfolioService/AttachEntity", request).await.unwrap();
            }
        }
        client
            .call("PortfolioService/DetachEntity", json!({"portfolio_id": "q", "entity_id": "a"}))
            .await
            .unwrap();
        client.call("RemovalService/RemoveEntity", json!({"entity_id": "a"})).await.unwrap();
    }
    until("the removals are done", || world.database.rows("tombstone") == 3).await;
    task_ended(&world, &delete_all(&world).await).await;
    let arrived = nats.messages("ours", events(&world.database)).await;
    assert_complete(&world.database, &arrived, "corp.offboard");
    let types: BTreeSet<_> =
        arrived.iter().map(|message| message.event["type"].as_str().unwrap()).collect();
    assert!(types.len() >= 9, "{types:?}");

    let lag = "offboard_publisher_lag{offboard_publisher_name=\"nats\"} 0";
    let total = format!(
        "offboard_publisher_events_total{{offboard_publisher_name=\"nats\"}} {}",
        arrived.len()
    );
    let mut metrics = String::new();
    for _ in 0..500 {
        metrics = probe(&world.server, "/metrics").await.text();
        if metrics.contains(lag) && metrics.contains(&total) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{lag} or {total} is not in:\n{metrics}");
}

#[tokio::test]
async fn nothing_is_lost_or_comes_twice_when_nats_dies_in_the_middle() {
    const COUNT: usize = 12_000;
    let mut nats = NatsServer::start().await;
    let world = publishing(&nats, &["--bulk-chunk-size", "3000"]).await;
    given_entities(&world.database, COUNT);
    let task = delete_all(&world).await;
    nats.messages(STREAM, 500).await;
    nats.kill();
    task_ended(&world, &task).await;
    let mut most = 0;
    for _ in 0..1500 {
        most = unpublished(&world, &task).await;
        if most > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        (1..=COUNT as i64 + 3).contains(&most),
        "{most} events of the task are reported to have failed"
    );
    let metrics = probe(&world.server, "/metrics").await.text();
    assert!(
        metrics.contains("offboard_publisher_failures_total{error_type=\"disconnected\""),
        "{metrics}"
    );
    world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "late", "type": "HCP"}}))
        .await
        .unwrap();

    nats.start_again().await;
    let before = nats.count(STREAM).await;
    assert!(before < COUNT, "it was not killed in the middle: {before}");
    let arrived = nats.messages(STREAM, events(&world.database)).await;
    assert_complete(&world.database, &arrived, "offboard");
    for _ in 0..500 {
        if unpublished(&world, &task).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("events of the task are reported to have failed although all arrived");
}

#[tokio::test]
async fn after_a_restore_nothing_is_published_again_that_the_stream_has() {
    let nats = NatsServer::start().await;
    let no_time = async_nats::jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["offboard.>".to_owned()],
        duplicate_window: Duration::from_millis(100),
        ..Default::default()
    };
    nats.jetstream().await.create_stream(no_time).await.unwrap();
    let mut world = publishing(&nats, &[]).await;
    let place = || "SELECT place::text FROM publisher";
    let create = async |world: &World, id: &str| {
        let entity = json!({"entity": {"entity_id": id, "type": "HCP"}});
        world.call("EntityService/CreateEntity", entity).await.unwrap();
    };
    create(&world, "first").await;
    let before = nats.messages(STREAM, 1).await.len();
    until("the first event is on record", || {
        world.database.text(place()).unwrap().contains(r#""p": 1"#)
    })
    .await;
    let early = world.database.text(place()).unwrap();
    given_entities(&world.database, 1_500);
    task_ended(&world, &delete_all(&world).await).await;
    let published = events(&world.database);
    assert!(published > 1_500 + before);
    nats.messages(STREAM, published).await;
    world.server.terminate().await;
    // As a restore leaves it: all of these events are there, and the publisher's position is of an earlier moment.
    world.database.sql(&format!("UPDATE publisher SET place = '{early}'"));
    offboard(&["events", "--database-url", &world.database.url, "new-history", "--yes"]);
    world.server = another(&world, &nats, &[]).await;
    let world = World { client: Client::new(&world.server, &world.key, Protocol::Grpc), ..world };
    create(&world, "last").await;
    assert_complete(&world.database, &nats.messages(STREAM, published + 1).await, "offboard");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(nats.count(STREAM).await, published + 1);
}

#[tokio::test]
async fn another_replica_goes_on_when_the_publishing_one_dies() {
    const COUNT: usize = 20_000;
    let nats = NatsServer::start().await;
    let mut world = publishing(&nats, &["--bulk-chunk-size", "4000"]).await;
    given_entities(&world.database, COUNT);
    delete_all(&world).await;
    let mut killed_in_the_middle = 0;
    for round in 0..4 {
        nats.messages(STREAM, 1 + round * COUNT / 8).await;
        world.server.kill();
        killed_in_the_middle += usize::from((1..COUNT).contains(&nats.count(STREAM).await));
        world.server = another(&world, &nats, &["--bulk-chunk-size", "4000"]).await;
    }
    assert!(killed_in_the_middle > 0, "no replica was killed in the middle");
    let ended = || world.database.ended_tasks() == 1;
    until("the task has ended", ended).await;
    let arrived = nats.messages(STREAM, events(&world.database)).await;
    assert_complete(&world.database, &arrived, "offboard");
}

#[tokio::test]
async fn a_replica_that_sleeps_is_taken_over_and_disturbs_nothing_when_it_wakes() {
    const COUNT: usize = 5_000;
    let nats = NatsServer::start().await;
    let world = publishing(&nats, &["--bulk-chunk-size", "1000"]).await;
    given_entities(&world.database, COUNT);
    delete_all(&world).await;
    nats.messages(STREAM, 100).await;
    world.server.signal(Signal::SIGSTOP);
    let other = another(&world, &nats, &["--bulk-chunk-size", "1000"]).await;
    until("the other replica has taken over", || other.log().contains("this replica publishes"))
        .await;
    world.server.signal(Signal::SIGCONT);
    until("the task has ended", || world.database.ended_tasks() == 1).await;
    let arrived = nats.messages(STREAM, events(&world.database)).await;
    assert_complete(&world.database, &arrived, "offboard");
}

#[tokio::test]
async fn a_service_starts_without_its_nats_and_publishes_when_it_comes() {
    let mut nats = NatsServer::not_started(&[]);
    let world = publishing(&nats, &[]).await;
    assert_eq!(probe(&world.server, "/readyz").await.status, 200);
    world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "a", "type": "HCP"}}))
        .await
        .unwrap();
    until("it was tried", || world.server.log().contains("cannot publish")).await;
    nats.start_again().await;
    let arrived = nats.messages(STREAM, 1).await;
    assert_complete(&world.database, &arrived, "offboard");
    let (mut world, nats) = (world, nats);
    assert!(world.server.terminate().await.success(), "it ends as it should");
    drop(nats);
}

#[tokio::test]
async fn a_server_that_hangs_is_waited_out() {
    let nats = NatsServer::start().await;
    let world = publishing(&nats, &[]).await;
    world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "a", "type": "HCP"}}))
        .await
        .unwrap();
    nats.messages(STREAM, 1).await;
    nats.signal(Signal::SIGSTOP);
    for entity in ["b", "c"] {
        world
            .call(
                "EntityService/CreateEntity",
                json!({"entity": {"entity_id": entity, "type": "HCP"}}),
            )
            .await
            .unwrap();
    }
    until("it has failed to answer", || world.server.log().contains("cannot publish")).await;
    assert!(!world.server.log().contains("publishes no more"), "the lease is renewed meanwhile");
    nats.signal(Signal::SIGCONT);
    assert_complete(&world.database, &nats.messages(STREAM, 3).await, "offboard");
}

#[tokio::test]
async fn an_event_that_is_too_large_for_the_server_delays_no_other() {
    let nats = NatsServer::start().await;
    let world = publishing(&nats, &[]).await;
    world.database.sql(
        "INSERT INTO event (realm_id, type, subjects, principal_id, data)
         SELECT r.id, 'entity.created', ARRAY['large'], gen_random_uuid(), jsonb_build_object('text', repeat('x', 2000000)) FROM realm r",
    );
    world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "a", "type": "HCP"}}))
        .await
        .unwrap();
    let arrived = nats.messages(STREAM, 2).await;
    assert_eq!(
        (&arrived[0].event["subject"], &arrived[0].event["dataomitted"]),
        (&json!("large"), &json!(true))
    );
    assert!(arrived[0].event["data"].is_null());
    assert_eq!(arrived[1].event["subject"], "a");
}
