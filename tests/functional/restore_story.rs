//! The story of a database that becomes another one while its events are read, as every restore does it.

use std::collections::BTreeSet;

use crate::events::reported;
use crate::kit::*;
use crate::probes::probe;
use crate::watching::Watching;

const STREAM: &str = "OFFBOARD";

/// A service on a cluster of its own that publishes, and what its callers have kept.
pub struct Story {
    pub home: ClusterHome,
    pub nats: NatsServer,
    pub server: Server,
    key: Key,
}

/// The part of the story that was sent.
pub struct Chapter {
    /// The events, each with its cursor.
    pub events: Vec<Value>,
    /// The token of the list at the end.
    pub token: Value,
}

impl Story {
    pub async fn begin() -> Story {
        let mut home = ClusterHome::new();
        home.initdb("old");
        home.start("old");
        home.sql("postgres", "CREATE DATABASE offboard");
        let url = home.url("offboard");
        offboard(&["migrate", "--database-url", &url]);
        let printed = offboard(&[
            "key",
            "create",
            "--database-url",
            &url,
            "--org",
            "acme",
            "--scope",
            "admin",
            "--json",
        ]);
        let printed: Value = serde_json::from_str(&printed).unwrap();
        let text = |name: &str| printed[name].as_str().unwrap().to_owned();
        let key = Key { id: text("id"), secret: text("secret"), org: "acme".to_owned() };
        let nats = NatsServer::start().await;
        let server = serve(&url, &nats).await;
        Story { home, nats, server, key }
    }

    fn client(&self, protocol: Protocol) -> Client {
        Client::new(&self.server, &self.key, protocol)
    }

    /// Creates entities one by one, as soon as the service can, and returns what a list reports behind the token.
    pub async fn chapter(&self, name: &str, count: usize, token: &Value) -> Chapter {
        let client = self.client(Protocol::Grpc);
        for n in 0..count {
            let request = json!({"entity": {"entity_id": format!("{name}{n}"), "type": "HCP"}});
            let key = format!("{name}{n}");
            patiently(async || {
                client
                    .call_with(
                        "EntityService/CreateEntity",
                        request.clone(),
                        &[("idempotency-key", &key)],
                    )
                    .await
            })
            .await
            .unwrap();
        }
        self.list(token).await.unwrap()
    }

    /// The rest of the list behind a token.
    pub async fn list(&self, token: &Value) -> Result<Chapter, Failure> {
        let client = self.client(Protocol::Rest);
        let (mut events, mut token) = (Vec::new(), token.clone());
        loop {
            let request = json!({"page_size": 3, "page_token": token});
            let page =
                patiently(async || client.call("EventService/ListEvents", request.clone()).await)
                    .await?;
            events.extend(page.get("events").as_array().unwrap().iter().cloned());
            token = page.get("next_page_token").clone();
            if page.get("caught_up") == true {
                return Ok(Chapter { events, token });
            }
        }
    }

    /// A stream from a cursor, by gRPC or as server-sent events.
    async fn watch(&self, protocol: Protocol, cursor: &Value) -> Result<Watching, Failure> {
        let client = self.client(protocol);
        let accept: &[(&str, &str)] =
            if protocol == Protocol::Rest { &[("accept", "text/event-stream")] } else { &[] };
        let request = json!({"cursor": cursor});
        patiently(async || client.stream("EventService/WatchEvents", request.clone(), accept).await)
            .await
            .map(Watching)
    }

    /// Continues behind a cursor in every way there is, and is reported these.
    pub async fn goes_on(&self, cursor: &Value, expected: &[String]) {
        for protocol in [Protocol::Grpc, Protocol::Rest] {
            let mut watching = self
                .watch(protocol, cursor)
                .await
                .unwrap_or_else(|failure| panic!("{protocol:?}: {failure:#?}"));
            assert_eq!(reported(&watching.events(expected.len()).await), expected, "{protocol:?}");
        }
    }

    /// Is refused behind a cursor in every way there is. Returns where to continue.
    async fn is_out_of_range(&self, cursor: &Value) -> Value {
        let mut on = Value::Null;
        for protocol in [Protocol::Grpc, Protocol::Rest] {
            let failure = match self.watch(protocol, cursor).await {
                Err(failure) => failure,
                Ok(mut watching) => watching.end().await,
            };
            assert_eq!(
                (failure.code.as_str(), failure.http.unwrap_or(410)),
                ("out_of_range", 410),
                "{protocol:?}: {failure:#?}"
            );
            assert_eq!(failure.grpc.unwrap_or(tonic::Code::OutOfRange), tonic::Code::OutOfRange);
            on = failure.members["cursor"].clone();
            assert!(failure.members["parted_at"].as_i64().unwrap() > 0, "{:?}", failure.members);
        }
        on
    }

    /// Waits until the publisher has given NATS all that is there, and returns the subjects of what it was given, in order.
    pub async fn published(&self, last: &str) -> Vec<String> {
        let mut subjects = Vec::new();
        for _ in 0..1500 {
            let stored = self.nats.messages(STREAM, 0).await;
            subjects = stored
                .iter()
                .map(|message| message.event["subject"].as_str().unwrap().to_owned())
                .collect();
            let lag = probe(&self.server, "/metrics").await.text();
            assert!(
                lag.contains("offboard_publisher_lag{offboard_publisher_name=\"nats\"}"),
                "the series is there throughout:\n{lag}"
            );
            if subjects.iter().any(|subject| subject == last) {
                return subjects;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("waited in vain for {last}; there are {subjects:?}");
    }

    /// Of a database: no number was given out twice, and an organisation that is new finds one of its own.
    pub fn numbers_are_given_out_once(&self, database: &str) {
        self.home.sql(
            database,
            "DO $$ BEGIN
                ASSERT (SELECT count(*) = count(DISTINCT seq) FROM event), 'events';
                ASSERT (SELECT count(*) = count(DISTINCT ordinal) FROM entity), 'entities';
                ASSERT (SELECT max(lease_token) <= pg_sequence_last_value('lease_token') FROM publisher), 'leases';
             END $$",
        );
        let url = self.home.url(database);
        offboard(&[
            "key",
            "create",
            "--database-url",
            &url,
            "--org",
            "newcomer",
            "--scope",
            "admin",
        ]);
    }

    /// The reasons of the histories, as the command reports them.
    pub fn histories(&self, database: &str) -> Vec<String> {
        let printed =
            offboard(&["events", "--database-url", &self.home.url(database), "history", "--json"]);
        printed
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["reason"].as_str().unwrap().to_owned()
            })
            .collect()
    }
}

pub async fn serve(url: &str, nats: &NatsServer) -> Server {
    let arguments = [
        "--nats-url",
        &nats.url(),
        "--poll-interval",
        "0.1",
        "--lease",
        "2",
        "--db-pool-size",
        "8",
    ];
    Server::start_on(url, &arguments, &[]).await
}

/// Calls until the service can respond: the database was unreachable a moment ago.
async fn patiently<T>(call: impl AsyncFn() -> Result<T, Failure>) -> Result<T, Failure> {
    for _ in 0..600 {
        match call().await {
            Err(failure)
                if ["unavailable", "internal", "deadline_exceeded"]
                    .contains(&failure.code.as_str()) =>
            {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            done => return done,
        }
    }
    panic!("the service does not respond again");
}

pub fn names(chapter: &str, from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("entity.created {chapter}{n}")).collect()
}

/// Reports a story in three chapters: one that both databases have, one that the old one alone has, and one on the new one. `keep` copies
/// the database behind the first, `change` puts the copy in its place, and says which database it is and whether the service is to be
/// started anew.
pub async fn nothing_is_hidden_sent_twice_or_passed_over(
    keep: impl FnOnce(&mut ClusterHome),
    change: impl FnOnce(&mut ClusterHome) -> (&'static str, bool),
) {
    let mut story = Story::begin().await;
    let common = story.chapter("a", 5, &json!("")).await;
    assert_eq!(reported(&common.events), names("a", 0, 5));
    // Open watches, which remember what they received.
    let mut open = [
        story.watch(Protocol::Grpc, &common.events[4]["cursor"]).await.unwrap(),
        story.watch(Protocol::Rest, &common.events[4]["cursor"]).await.unwrap(),
    ];
    story.published("a4").await;
    keep(&mut story.home);
    let lost = story.chapter("b", 4, &common.token).await;
    assert_eq!(reported(&lost.events), names("b", 0, 4));
    for watching in &mut open {
        assert_eq!(reported(&watching.events(4).await), names("b", 0, 4));
    }
    story.published("b3").await;
    let (database, restart) = change(&mut story.home);
    if restart {
        story.server.kill();
        story.server = serve(&story.home.url(database), &story.nats).await;
    }

    // Nothing has happened on the new line yet.
    let on = story.is_out_of_range(&lost.events[0]["cursor"]).await;
    assert_eq!(story.list(&lost.token).await.err().unwrap().code, "out_of_range");
    assert_eq!(
        story.list(&common.token).await.unwrap().events,
        Vec::<Value>::new(),
        "what parts there goes on"
    );
    let all = story.list(&json!("")).await.unwrap();
    assert_eq!(reported(&all.events), names("a", 0, 5), "0 hidden");
    // As many and more as the old line had.
    let new = story.chapter("c", 6, &common.token).await;
    assert_eq!(reported(&new.events), names("c", 0, 6));
    for event in &lost.events {
        assert_eq!(
            story.is_out_of_range(&event["cursor"]).await,
            on,
            "for ever, and always to the same position"
        );
    }
    assert_eq!(story.list(&lost.token).await.err().unwrap().code, "out_of_range");
    story.goes_on(&on, &names("c", 0, 6)).await;
    for n in 0..5 {
        story
            .goes_on(
                &common.events[n]["cursor"],
                &[names("a", n + 1, 5), names("c", 0, 6)].concat(),
            )
            .await;
    }
    assert_eq!(
        reported(&story.list(&json!("")).await.unwrap().events),
        [names("a", 0, 5), names("c", 0, 6)].concat()
    );
    // A stream that was open ends, or has lost the database and ends when that comes back; it never sends new events. A database that is
    // being filled from a dump has tables before it has keys.
    for watching in open.iter_mut().filter(|_| !restart) {
        let code = watching.end().await.code;
        assert!(
            ["out_of_range", "unavailable", "internal", "invalid_credentials"]
                .contains(&code.as_str()),
            "{code}"
        );
    }
    let published = story.published("c5").await;
    let subjects: BTreeSet<&str> = published.iter().map(String::as_str).collect();
    assert_eq!(subjects.len(), 15, "all of it was published: {published:?}");
    assert_eq!(published.len(), 15, "nothing of it twice: {published:?}");
    assert_eq!(story.histories(database), ["first", "line"]);
    story.numbers_are_given_out_once(database);
}
