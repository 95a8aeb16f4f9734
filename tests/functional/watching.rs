//! Streams of events: what is reported, in which order, where a caller continues, and how a stream ends.

use diesel::connection::SimpleConnection;
use nix::sys::signal::Signal;

use crate::events::{insert, reported};
use crate::kit::*;

/// A stream of events, with its signs of life left out.
pub struct Watching(pub MessageStream);

impl World {
    /// Watches events.
    pub async fn watch(&self, request: Value) -> Watching {
        self.watch_with(request, &[]).await
    }

    /// Watches events with more headers. By gRPC the stream is known to have begun.
    pub async fn watch_with(&self, request: Value, headers: &[(&str, &str)]) -> Watching {
        let stream = self.client.stream("EventService/WatchEvents", request.clone(), headers).await;
        let mut stream =
            stream.unwrap_or_else(|failure| panic!("{request} is refused: {failure:#?}"));
        if self.protocol == Protocol::Grpc {
            let first = stream.message().await;
            assert!(
                first["event"].is_null() && first["cursor"] != "",
                "the cursor that it starts from: {first}"
            );
        }
        Watching(stream)
    }
}

impl Watching {
    /// The next so many events.
    pub async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            let message = self.0.message().await;
            if !message["event"].is_null() {
                events.push(message["event"].clone());
            }
        }
        events
    }

    /// The end of the stream.
    pub async fn end(&mut self) -> Failure {
        loop {
            match self.0.next().await.expect("a stream does not end without a word") {
                Ok(message) => {
                    assert!(message["event"].is_null(), "nothing more happens: {message}")
                }
                Err(failure) => return failure,
            }
        }
    }
}

fn cursor(event: &Value) -> &str {
    event["cursor"].as_str().unwrap()
}

scenario! {
    async fn events_are_sent_in_order(world: &World) {
        world.portfolios(&["before"]).await;
        let mut watching = world.watch(json!({})).await;
        world.portfolios(&["p"]).await;
        world.entities(&["a", "b"]).await;
        world.attach("p", "a").await.unwrap();
        world.call("PortfolioService/DetachEntity", json!({"portfolio_id": "p", "entity_id": "a"})).await.unwrap();
        let asked = world.call("OffboardingService/RequestOffboarding", json!({"entity_id": "a", "grace_period": "3600s"})).await.unwrap();
        let cancel = json!({"offboarding_request_id": asked.get("id")});
        world.call("OffboardingService/CancelOffboardingRequest", cancel).await.unwrap();
        world.call("RemovalService/RemoveEntity", json!({"entity_id": "a"})).await.unwrap();
        let events = watching.events(9).await;
        assert_eq!(reported(&events), [
            "portfolio.created p",
            "entity.created a",
            "entity.created b",
            "portfolio.entity_attached p",
            "portfolio.entity_detached p",
            "entity.offboarding_requested a",
            "entity.offboarding_canceled a",
            "entity.offboarding_requested a",
            "entity.offboarded a",
        ]);
        let versions: Vec<_> = events[5..].iter().map(|event| event["data"]["version"].clone()).collect();
        assert_eq!(versions, [4, 5, 6, 6], "the entity was created, attached and detached before; its last version is what it went with");
        let task = world.call("BulkDeleteService/StartBulkDelete", json!({"uris": ["entities/b"], "mode": "hard"})).await.unwrap();
        let events = watching.events(4).await;
        let id = task.get("id").as_str().unwrap();
        assert_eq!(reported(&events), [
            format!("bulk_delete.scheduled {id}"),
            format!("bulk_delete.started {id}"),
            "entity.deleted b".to_owned(),
            format!("bulk_delete.ended {id}"),
        ]);
        assert_eq!(events[3]["data"]["status"], "completed");
        // The sent events are those of the list.
        assert_eq!(reported(&world.all_events(json!({}), 100).await)[10..], reported(&events));
    }

    async fn a_caller_goes_on_behind_any_event(world: &World) {
        let mut first = world.watch(json!({"from": "beginning"})).await;
        world.entities(&["a", "b", "c"]).await;
        world.portfolios(&["p", "q"]).await;
        let events = first.events(5).await;
        drop(first);
        let mut due = reported(&events);
        for (n, event) in events.iter().enumerate() {
            // Existing events, and those that come while the stream is open.
            let mut again = world.watch(json!({"cursor": cursor(event), "from": "beginning"})).await;
            world.portfolios(&[&format!("new-{n}")]).await;
            due.push(format!("portfolio.created new-{n}"));
            assert_eq!(reported(&again.events(due.len() - n - 1).await), due[n + 1..], "behind {n}");
        }
    }

    async fn the_last_event_id_goes_before_the_address(world: &World) {
        world.portfolios(&["a", "b", "c"]).await;
        let events = world.all_events(json!({}), 10).await;
        let request = json!({"cursor": cursor(&events[0])});
        let mut again = world.watch_with(request.clone(), &[("last-event-id", cursor(&events[1]))]).await;
        assert_eq!(reported(&again.events(1).await), ["portfolio.created c"]);
        let refused = world.client.stream("EventService/WatchEvents", request, &[("last-event-id", "x")]).await.err().unwrap();
        assert_eq!((refused.code.as_str(), refused.faults[0].field.as_str()), ("validation_failed", "last-event-id"));
    }

    async fn only_requested_events_are_sent(world: &World) {
        let mut by_type = world.watch(json!({"types": ["portfolio.created"]})).await;
        let mut by_subject = world.watch(json!({"subject": "b"})).await;
        world.entities(&["a", "b", "c"]).await;
        world.portfolios(&["p", "b"]).await;
        assert_eq!(reported(&by_type.events(2).await), ["portfolio.created p", "portfolio.created b"]);
        assert_eq!(reported(&by_subject.events(2).await), ["entity.created b", "portfolio.created b"]);
    }

    async fn faults_are_reported_before_a_stream_begins(world: &World) {
        let request = json!({"cursor": "x", "types": ["lost"], "subject": "a".repeat(257)});
        let refused = world.client.stream("EventService/WatchEvents", request, &[]).await.err().unwrap();
        let fields: Vec<_> = refused.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["types[0]", "subject", "cursor"]);
    }

    async fn another_realm_hears_nothing_and_its_cursors_open_nothing(world: &World) {
        world.portfolios(&["p"]).await;
        let events = world.all_events(json!({}), 10).await;
        let other = world.client("acme", "live", SCOPES);
        let refused = other.stream("EventService/WatchEvents", json!({"cursor": cursor(&events[0])}), &[]).await.err().unwrap();
        assert_eq!(refused.code, "validation_failed");
        let mut stream = Watching(other.stream("EventService/WatchEvents", json!({"from": "beginning"}), &[]).await.unwrap());
        world.portfolios(&["q"]).await;
        other.call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "theirs", "name": "P"})).await.unwrap();
        assert_eq!(reported(&stream.events(1).await), ["portfolio.created theirs"]);
    }

    async fn events_that_commit_out_of_order_are_sent_without_a_gap(world: &World) {
        let mut watching = world.watch(json!({})).await;
        let (mut early, mut late, mut open) = (world.database.connection(), world.database.connection(), world.database.connection());
        // It has nothing to do with events, and delays none of them.
        open.batch_execute("BEGIN; SELECT pg_current_xact_id()").unwrap();
        early.batch_execute(&format!("BEGIN; {}", insert("early"))).unwrap();
        late.batch_execute(&format!("BEGIN; {}", insert("late"))).unwrap();
        late.batch_execute("COMMIT").unwrap();
        let first = watching.events(1).await;
        assert_eq!(reported(&first), ["entity.created late"]);
        early.batch_execute("COMMIT").unwrap();
        assert_eq!(reported(&watching.events(1).await), ["entity.created early"]);
        let mut again = world.watch(json!({"cursor": cursor(&first[0])})).await;
        assert_eq!(reported(&again.events(1).await), ["entity.created early"]);
        open.batch_execute("ROLLBACK").unwrap();
    }

    async fn a_stream_ends_with_its_key(world: &World) {
        let key = Key::create(&world.database, "acme", "test", &["events:read"]);
        let client = Client::new(&world.server, &key, world.protocol);
        let mut watching = Watching(client.stream("EventService/WatchEvents", json!({}), &[]).await.unwrap());
        offboard(&["key", "revoke", &key.id, "--yes", "--database-url", &world.database.url]);
        let ended = watching.end().await;
        assert_eq!(ended.code, "invalid_credentials");
        assert!(watching.0.next().await.is_none());
    }
}

async fn a_watcher_is_sent_on_when_its_server_ends(protocol: Protocol) {
    let mut world = World::start(protocol).await;
    let mut watching = world.watch(json!({})).await;
    world.portfolios(&["p"]).await;
    assert_eq!(watching.events(1).await.len(), 1);
    world.server.signal(Signal::SIGTERM);
    let ended = watching.end().await;
    assert_eq!((ended.code.as_str(), ended.http.unwrap_or(503)), ("unavailable", 503));
    assert_eq!(ended.members["retry_after"], 1);
    assert!(watching.0.next().await.is_none());
    assert_eq!(world.server.ended().await.code(), Some(0));
    assert!(!world.server.log().contains("cut off"), "{}", world.server.log());
}

#[tokio::test]
async fn a_watcher_by_grpc_is_sent_on_when_its_server_ends() {
    a_watcher_is_sent_on_when_its_server_ends(Protocol::Grpc).await;
}

#[tokio::test]
async fn a_watcher_by_rest_is_sent_on_when_its_server_ends() {
    a_watcher_is_sent_on_when_its_server_ends(Protocol::Rest).await;
}

#[tokio::test]
async fn server_sent_events_have_their_cursor_for_an_id() {
    let world = World::start_with(Protocol::Rest, &["--request-timeout=0.2"]).await;
    let accept = ("accept", "text/event-stream");
    let mut watching = world.watch_with(json!({}), &[accept]).await;
    assert_eq!(watching.0.header("content-type"), Some("text/event-stream"));
    assert_eq!(watching.0.header("cache-control"), Some("no-store"));
    // A stream may last for longer than a call.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    world.portfolios(&["p", "q"]).await;
    let events = watching.events(1).await;
    assert_eq!(watching.0.last_id(), Some(cursor(&events[0])));
    assert!(watching.0.signs_of_life() > 0, "its id was sent at the start");
    let id = watching.0.last_id().unwrap().to_owned();
    drop(watching);
    let mut again = world.watch_with(json!({}), &[accept, ("last-event-id", &id)]).await;
    assert_eq!(reported(&again.events(1).await), ["portfolio.created q"]);
}

#[tokio::test]
async fn a_silent_stream_gives_signs_of_life_and_its_cursor_moves_on() {
    let world = World::start(Protocol::Grpc).await;
    let mut watching = world.watch(json!({"types": ["entity.offboarded"]})).await;
    world.portfolios(&["p"]).await;
    let sign = watching.0.message().await;
    assert_eq!(sign["event"], Value::Null);
    world.portfolios(&["q"]).await;
    let mut on = world.watch(json!({"cursor": sign["cursor"]})).await;
    assert_eq!(reported(&on.events(1).await), ["portfolio.created q"]);
}

/// Three checks of one key for each of them would be hundreds.
#[tokio::test]
async fn many_watches_of_one_key_share_the_checks_of_it() {
    let world = World::start(Protocol::Grpc).await;
    let mut watches = Vec::new();
    for _ in 0..60 {
        watches.push(world.watch(json!({})).await);
    }
    const CHECKS: &str = "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 'api_key'";
    let before = world.database.count(CHECKS);
    // Each watch is to check every three seconds.
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    let checks = world.database.count(CHECKS) - before;
    assert!((1..60).contains(&checks), "{checks} checks of the key of 60 watches in 8 s");
    drop(watches);
}
