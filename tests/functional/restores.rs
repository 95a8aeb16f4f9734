//! Events when the database becomes another one: a dump, a point-in-time restore, a promotion, a copy. Nothing is hidden, nothing is
//! reported twice as new, nothing is passed over, whoever reads: lists, streams by gRPC and as server-sent events, NATS, and cursors that
//! were kept.

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

/// Calls until the service can answer: the database was unreachable a moment ago.
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
    panic!("the service does not answer again");
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
            "for ever, and always to the same place"
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

#[tokio::test]
async fn a_dump_in_a_fresh_cluster_goes_on_where_it_was_taken() {
    nothing_is_hidden_sent_twice_or_passed_over(
        |home| {
            let (file, url) = (home.path("dump"), home.url("offboard"));
            home.run("pg_dump", &["-f", file.to_str().unwrap(), &url]);
        },
        |home| {
            home.stop("fast");
            home.initdb("new");
            home.start("new");
            home.sql("postgres", "CREATE DATABASE offboard");
            let (file, url) = (home.path("dump"), home.url("offboard"));
            home.run("psql", &["-q", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap(), &url]);
            ("offboard", false)
        },
    )
    .await;
}

#[tokio::test]
async fn a_restore_to_a_point_in_time_goes_on_from_there() {
    nothing_is_hidden_sent_twice_or_passed_over(
        |home| {
            home.copy("new");
            home.sql("postgres", "SELECT pg_create_restore_point('there')");
        },
        |home| {
            home.sql("postgres", "SELECT pg_switch_wal()");
            home.stop("fast");
            let restore = format!(
                "restore_command = 'cp {}/%f %p'\nrecovery_target_name = 'there'\nrecovery_target_action = promote\n",
                home.path("archive").display()
            );
            home.append("new", "postgresql.conf", &restore);
            home.append("new", "recovery.signal", "");
            home.start("new");
            wait_for_promotion(home);
            ("offboard", false)
        },
    )
    .await;
}

#[tokio::test]
async fn a_standby_that_lagged_is_promoted_and_goes_on() {
    nothing_is_hidden_sent_twice_or_passed_over(
        |home| home.copy("new"),
        |home| {
            home.stop("immediate");
            home.append("new", "standby.signal", "");
            home.start("new");
            let data = home.path("new");
            home.run("pg_ctl", &["-D", data.to_str().unwrap(), "-w", "promote"]);
            wait_for_promotion(home);
            ("offboard", false)
        },
    )
    .await;
}

#[tokio::test]
async fn a_copy_in_another_database_of_the_cluster_goes_on_by_itself() {
    nothing_is_hidden_sent_twice_or_passed_over(
        |home| {
            home.sql("postgres", "CREATE DATABASE copy");
            let (file, from, to) = (home.path("dump"), home.url("offboard"), home.url("copy"));
            home.run("pg_dump", &["-f", file.to_str().unwrap(), &from]);
            home.run("psql", &["-q", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap(), &to]);
        },
        |_| ("copy", true),
    )
    .await;
}

/// A history that is begun by hand, where the database itself says nothing; and one that is begun because this process knows better.
#[tokio::test]
async fn a_database_that_went_back_unannounced_is_detected_by_the_rows_that_were_sent() {
    let world = World::start(Protocol::Grpc).await;
    let mut watching = world.watch(json!({})).await;
    world.entities(&["a"]).await;
    world.entities(&["b"]).await;
    let events = watching.events(2).await;
    until("the positions are given", || {
        world.database.count("SELECT position FROM event_sequencer") == 2
    })
    .await;
    // As if the volume had been put back by a snapshot.
    world.database.sql(
        "DELETE FROM event WHERE 'b' = ANY (subjects); DELETE FROM event_position WHERE position = 2;
         UPDATE event_sequencer SET position = 1",
    );
    world.entities(&["c"]).await;
    world.entities(&["d"]).await;
    assert_eq!(watching.end().await.code, "out_of_range");
    let mut again = world.watch(json!({"cursor": events[0]["cursor"]})).await;
    assert_eq!(reported(&again.events(2).await), ["entity.created c", "entity.created d"]);
    let refused = world
        .client
        .stream("EventService/WatchEvents", json!({"cursor": events[1]["cursor"]}), &[])
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code, "out_of_range");

    let printed =
        offboard(&["events", "--database-url", &world.database.url, "new-history", "--yes"]);
    assert!(printed.contains("position 4"), "{printed}");
    let printed = offboard(&["events", "--database-url", &world.database.url, "history"]);
    let reasons: Vec<&str> =
        printed.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(reasons, ["first", "lost", "forced"], "{printed}");
    let mut on =
        world.watch(json!({"cursor": world.all_events(json!({}), 10).await[2]["cursor"]})).await;
    world.entities(&["e"]).await;
    assert_eq!(
        reported(&on.events(1).await),
        ["entity.created e"],
        "who has lost nothing notices nothing"
    );
}

/// The same where nobody had a stream open: what a list has sent counts as well.
#[tokio::test]
async fn a_database_that_went_back_is_found_out_by_what_lists_have_sent() {
    let world = World::start(Protocol::Rest).await;
    world.entities(&["a"]).await;
    world.entities(&["b"]).await;
    let page = world.call("EventService/ListEvents", json!({})).await.unwrap();
    let behind = page.get("next_page_token").clone();
    assert_eq!(
        reported(page.get("events").as_array().unwrap()),
        ["entity.created a", "entity.created b"]
    );
    // A list of what is old says nothing of what is new.
    world.call("EventService/ListEvents", json!({"page_size": 1})).await.unwrap();
    world.database.sql(
        "DELETE FROM event WHERE 'b' = ANY (subjects); DELETE FROM event_position WHERE position = 2;
         UPDATE event_sequencer SET position = 1",
    );
    for name in ["c", "d", "e"] {
        let refused =
            world.call("EventService/ListEvents", json!({"page_token": behind})).await.unwrap_err();
        assert_eq!(
            (refused.code.as_str(), refused.members["parted_at"].as_i64()),
            ("out_of_range", Some(1)),
            "before {name}: {refused:#?}"
        );
        world.entities(&[name]).await;
    }
    assert_eq!(world.database.count("SELECT count(*) FROM event_history"), 2);
}

/// Rows sent before a history that another process began say nothing of that history, and hide no later loss.
#[tokio::test]
async fn what_was_sent_of_an_earlier_history_hides_no_later_loss() {
    let world = World::start(Protocol::Rest).await;
    world.entities(&["a"]).await;
    world.entities(&["b"]).await;
    let back = |name: &str| {
        world.database.sql(&format!(
            "DELETE FROM event WHERE '{name}' = ANY (subjects); DELETE FROM event_position WHERE position = 2;
             UPDATE event_sequencer SET position = 1"
        ));
    };
    world.call("EventService/ListEvents", json!({})).await.unwrap();
    back("b");
    offboard(&["events", "--database-url", &world.database.url, "new-history", "--yes"]);
    world.entities(&["c"]).await;
    let behind = world
        .call("EventService/ListEvents", json!({}))
        .await
        .unwrap()
        .get("next_page_token")
        .clone();
    back("c");
    world.entities(&["d"]).await;
    let refused =
        world.call("EventService/ListEvents", json!({"page_token": behind})).await.unwrap_err();
    assert_eq!(
        (refused.code.as_str(), refused.members["parted_at"].as_i64()),
        ("out_of_range", Some(1)),
        "{refused:#?}"
    );
    let reasons =
        world.database.text("SELECT string_agg(reason, ',' ORDER BY number) FROM event_history");
    assert_eq!(reasons.as_deref(), Some("first,forced,lost"));
}

fn wait_for_promotion(home: &ClusterHome) {
    home.run(
        "psql",
        &[
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            "DO $$ BEGIN WHILE pg_is_in_recovery() LOOP PERFORM pg_sleep(0.02); END LOOP; END $$",
            &home.url("postgres"),
        ],
    );
}
