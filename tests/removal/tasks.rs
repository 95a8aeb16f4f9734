//! The change of a task while it runs: it is paused, resumed, stopped, made slower or faster, and watched.

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use nix::sys::signal::Signal;

use crate::given::{Account, Many, text};
use crate::kit::*;

const PAUSE: &str = "BulkDeleteService/PauseTask";
const RESUME: &str = "BulkDeleteService/ResumeTask";
const STOP: &str = "BulkDeleteService/StopTask";
const UPDATE: &str = "BulkDeleteService/UpdateTask";
const GET: &str = "BulkDeleteService/GetTask";
const WATCH: &str = "BulkDeleteService/WatchTask";

/// A worker goes ten by ten, looks for work often and takes over after four seconds what was lost.
const TEN_BY_TEN: [&str; 10] = [
    "--bulk-chunk-size",
    "10",
    "--bulk-chunk-target",
    "3.9",
    "--db-lock-timeout",
    "60",
    "--lease",
    "4",
    "--poll-interval",
    "0.05",
];
/// A server that does no work.
const IDLE: [&str; 4] = ["--roles", "grpc,gateway", "--poll-interval", "0.05"];
/// As many as are done when the chunk in which a worker was delayed is done.
const WITH_THE_CHUNK: i64 = 60;

/// A task over a hundred entities, whose worker is delayed in the middle of the sixth chunk until `other` lets go.
struct Midst {
    world: World,
    task: String,
    other: PgConnection,
}

impl Midst {
    async fn of_a_task(protocol: Protocol) -> Midst {
        let world = World::start_with(protocol, &TEN_BY_TEN).await;
        world.given_portfolio("p").await;
        world.database.given_many(Many {
            prefix: "e",
            count: 100,
            dependents: 1,
            portfolio: Some("p"),
        });
        let mut other = world.database.connection();
        other.batch_execute("BEGIN; SELECT FROM entity WHERE id = 'e-000055' FOR UPDATE").unwrap();
        let task = world.schedule(json!({"entity_type": "HCP", "mode": "hard"})).await;
        until("the worker is in the middle of a chunk", || world.database.waiting() > 0).await;
        Midst { world, task, other }
    }

    fn let_go(&mut self) {
        self.other.batch_execute("ROLLBACK").unwrap();
    }

    async fn reported(&self, method: &str) {
        let answer = self.world.done(method, json!({"task_id": self.task})).await;
        assert_eq!(answer.json, json!({"status": "success"}));
    }

    async fn status(&self) -> String {
        self.task().await.get("status").as_str().unwrap().to_owned()
    }

    async fn task(&self) -> Answer {
        self.world.done(GET, json!({"task_id": self.task})).await
    }

    async fn becomes(&self, status: &str) -> Answer {
        let task = self
            .world
            .call_until(GET, json!({"task_id": self.task}), |task| task["status"] == status)
            .await;
        let account = Account::of(&task);
        assert_eq!(
            account.processed + account.failed + account.excluded + account.skipped,
            account.matched
        );
        task
    }

    fn assert_left(&self, done: i64) {
        let database = &self.world.database;
        assert_eq!(
            (database.rows("tombstone"), database.rows("entity"), database.rows("dependent")),
            (done, 100 - done, 100 - done)
        );
        assert_eq!(database.count("SELECT entity_count FROM portfolio"), 100 - done);
        database.assert_sound();
    }

    /// The states of the task, in order.
    fn history(&self) -> String {
        self.world.database.history(&self.task).replace("bulk_delete.", "")
    }

    /// A worker that is there has had every chance to continue with the task.
    async fn another_task_is_done(&self) {
        self.world.given_entity("another", json!({})).await;
        let other = self.world.bulk_delete(json!({"uris": ["another"], "mode": "soft"})).await;
        assert_eq!(other.get("status"), "completed");
        self.world.database.sql("DELETE FROM entity WHERE id = 'another'");
    }

    /// The server is killed, and another one takes its place.
    async fn server_is_replaced(&mut self, arguments: &[&str]) {
        self.world.server.kill();
        self.world.server = Server::start_with(&self.world.database, arguments, &[]).await;
        self.world.client = self.world.through(self.world.protocol);
    }

    fn assert_each_went_once(&self) {
        let reported = "SELECT count(DISTINCT s) * 1000 + count(*) FROM event, unnest(subjects) s WHERE type = 'entity.deleted' AND s LIKE 'e-%'";
        assert_eq!(self.world.database.count(reported), 100_100, "each entity is reported of once");
    }
}

async fn a_paused_task_goes_on_where_it_stopped(protocol: Protocol) {
    let mut midst = Midst::of_a_task(protocol).await;
    midst.reported(PAUSE).await;
    assert_eq!(midst.status().await, "pausing");
    midst.reported(PAUSE).await;
    midst.let_go();
    let paused = midst.becomes("paused").await;
    assert_eq!(Account::of(&paused).processed, WITH_THE_CHUNK);
    assert!(paused.get("paused_time").is_i64() && paused.get("end_time").is_null());
    assert_eq!(paused.get("current_state.status"), "Paused");
    assert_eq!(
        (
            paused.get("current_state.current_throughput"),
            paused.get("current_state.estimated_remaining")
        ),
        (&json!(0.0), &json!(null))
    );
    midst.reported(PAUSE).await;
    midst.assert_left(WITH_THE_CHUNK);

    midst.server_is_replaced(&TEN_BY_TEN).await;
    midst.another_task_is_done().await;
    let still = midst.becomes("paused").await;
    assert_eq!(Account::of(&still).processed, WITH_THE_CHUNK);
    assert_eq!(still.get("duration"), paused.get("duration"), "a pause is no work");
    midst.assert_left(WITH_THE_CHUNK);

    midst.reported(RESUME).await;
    let ended = midst.world.task_ended(&midst.task).await;
    assert_eq!(
        (ended.get("status"), ended.get("paused_time")),
        (&json!("completed"), &json!(null))
    );
    assert_eq!(Account::of(&ended), Account { matched: 100, processed: 100, ..Account::default() });
    midst.assert_left(100);
    midst.assert_each_went_once();
    assert_eq!(midst.history(), "scheduled started pausing paused resumed continued ended");
    let refusal = midst.world.refused(PAUSE, json!({"task_id": midst.task})).await;
    assert_eq!(
        (refusal.code.as_str(), &refusal.members["current_state"]),
        ("invalid_state_transition", &json!("COMPLETED"))
    );
}

#[tokio::test]
async fn a_paused_task_goes_on_where_it_stopped_by_grpc() {
    a_paused_task_goes_on_where_it_stopped(Protocol::Grpc).await;
}

#[tokio::test]
async fn a_paused_task_goes_on_where_it_stopped_by_rest() {
    a_paused_task_goes_on_where_it_stopped(Protocol::Rest).await;
}

async fn a_task_that_is_stopped_leaves_the_rest(protocol: Protocol) {
    let mut midst = Midst::of_a_task(protocol).await;
    midst.reported(STOP).await;
    assert_eq!(midst.status().await, "canceling");
    midst.reported(STOP).await;
    for method in [PAUSE, RESUME] {
        let refusal = midst.world.refused(method, json!({"task_id": midst.task})).await;
        assert_eq!(
            (refusal.code.as_str(), &refusal.members["current_state"]),
            ("invalid_state_transition", &json!("CANCELING"))
        );
        assert_eq!(refusal.http.unwrap_or(409), 409);
    }
    midst.let_go();
    let stopped = midst.becomes("canceled").await;
    assert_eq!(
        Account::of(&stopped),
        Account { matched: WITH_THE_CHUNK, processed: WITH_THE_CHUNK, ..Account::default() }
    );
    assert_eq!(
        (stopped.get("end_time").is_i64(), stopped.get("current_state.status")),
        (true, &json!("Canceled"))
    );
    midst.another_task_is_done().await;
    midst.assert_left(WITH_THE_CHUNK);
    midst.reported(STOP).await;
    midst.world.refused(RESUME, json!({"task_id": midst.task})).await;
    assert_eq!(midst.history(), "scheduled started canceling ended");
}

#[tokio::test]
async fn a_task_that_is_stopped_leaves_the_rest_by_grpc() {
    a_task_that_is_stopped_leaves_the_rest(Protocol::Grpc).await;
}

#[tokio::test]
async fn a_task_that_is_stopped_leaves_the_rest_by_rest() {
    a_task_that_is_stopped_leaves_the_rest(Protocol::Rest).await;
}

#[tokio::test]
async fn who_changes_their_mind_before_the_task_has_paused_gets_what_they_want() {
    let mut midst = Midst::of_a_task(Protocol::Rest).await;
    midst.reported(PAUSE).await;
    midst.reported(RESUME).await;
    assert_eq!(midst.status().await, "processing");
    midst.reported(PAUSE).await;
    midst.reported(STOP).await;
    midst.let_go();
    midst.becomes("canceled").await;
    midst.assert_left(WITH_THE_CHUNK);
    assert_eq!(midst.history(), "scheduled started pausing resumed pausing canceling ended");
}

#[tokio::test]
async fn a_task_whose_worker_died_pauses_all_the_same() {
    let mut midst = Midst::of_a_task(Protocol::Grpc).await;
    midst.reported(PAUSE).await;
    midst.server_is_replaced(&IDLE).await;
    midst.let_go();
    let paused = midst.becomes("paused").await;
    let done = Account::of(&paused).processed;
    assert_eq!(done, WITH_THE_CHUNK - 10, "the chunk in hand was never committed");
    midst.assert_left(done);
    midst.reported(RESUME).await;
    assert_eq!(midst.status().await, "scheduled");
    midst.reported(STOP).await;
    assert_eq!(midst.status().await, "canceled");
    assert_eq!(midst.history(), "scheduled started pausing paused resumed ended");
}

#[tokio::test]
async fn a_task_whose_worker_died_waits_to_be_taken_up_again() {
    let mut midst = Midst::of_a_task(Protocol::Rest).await;
    midst.server_is_replaced(&IDLE).await;
    midst.let_go();
    let lost = midst.becomes("scheduled_poll").await;
    assert_eq!(lost.get("current_state.status"), "Scheduled");
    midst.server_is_replaced(&TEN_BY_TEN).await;
    let ended = midst.world.task_ended(&midst.task).await;
    assert_eq!(Account::of(&ended), Account { matched: 100, processed: 100, ..Account::default() });
    assert_eq!(ended.get("current_state.last_execution_instances").as_array().unwrap().len(), 2);
    midst.assert_left(100);
    midst.assert_each_went_once();
    assert_eq!(midst.history(), "scheduled started lost continued ended");
}

/// A task that nobody has taken up, at a server that takes up nothing.
async fn waiting_task(protocol: Protocol) -> (World, String) {
    let world = World::start_with(protocol, &IDLE).await;
    world.database.given_many(Many { prefix: "e", count: 3, dependents: 0, portfolio: None });
    let task = world.schedule(json!({"entity_type": "HCP", "mode": "hard"})).await;
    (world, task)
}

#[tokio::test]
async fn a_task_that_waits_for_a_worker_pauses_and_stops_at_once() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let (world, task) = waiting_task(protocol).await;
        let who = world.done(GET, json!({"task_id": task})).await.get("created_by").clone();
        for (method, status) in [
            (RESUME, "scheduled"),
            (PAUSE, "paused"),
            (RESUME, "scheduled"),
            (PAUSE, "paused"),
            (STOP, "canceled"),
        ] {
            world.done(method, json!({"task_id": task})).await;
            let found = world.done(GET, json!({"task_id": task})).await;
            assert_eq!((found.get("status"), found.get("updated_by")), (&json!(status), &who));
        }
        assert_eq!(
            world.database.history(&task).replace("bulk_delete.", ""),
            "scheduled paused resumed paused canceling ended",
            "what changes nothing is not told of"
        );
        assert_eq!(world.database.rows("entity"), 3);
    }
}

#[tokio::test]
async fn a_task_names_the_caller_who_last_changed_it() {
    let (world, task) = waiting_task(Protocol::Rest).await;
    let other = world.client("acme", "test", SCOPES);
    other.call(PAUSE, json!({"task_id": task})).await.unwrap();
    let found = world.done(GET, json!({"task_id": task})).await;
    assert_ne!(found.get("created_by"), found.get("updated_by"));
    let by = format!(
        "SELECT principal_id::text FROM event WHERE type = 'bulk_delete.paused' AND '{task}' = ANY(subjects)"
    );
    assert_eq!(world.database.text(&by).unwrap(), text(found.get("updated_by")));
}

scenario! {
    async fn a_task_of_nobody_or_of_others_is_not_found(world: &World) {
        let task = world.schedule(json!({"uris": ["nowhere"]})).await;
        world.task_ended(&task).await;
        let others = [world.client("acme", "live", SCOPES), world.client("umbrella", "test", SCOPES)];
        for (method, more) in [(PAUSE, json!({})), (RESUME, json!({})), (STOP, json!({})), (UPDATE, json!({"max_objects_per_second": 1}))] {
            let request = |id: &str| {
                let mut request = more.clone();
                request["task_id"] = json!(id);
                request
            };
            for id in ["nothing", "0190aaaa-0000-7000-8000-000000000001"] {
                assert_eq!(world.refused(method, request(id)).await.code, "not_found");
            }
            for other in &others {
                assert_eq!(other.call(method, request(&task)).await.unwrap_err().code, "not_found");
            }
        }
        for other in &others {
            let refused = other.stream(WATCH, json!({"task_id": task}), &[]).await;
            let code = match refused {
                Err(failure) => failure.code,
                Ok(mut stream) => stream.next().await.expect("there is an answer").unwrap_err().code,
            };
            assert_eq!(code, "not_found");
        }
        let reader = world.client("acme", "test", &["entities:read"]);
        for method in [PAUSE, RESUME, STOP, UPDATE] {
            assert_eq!(reader.call(method, json!({"task_id": task})).await.unwrap_err().code, "permission_denied");
        }
    }

    async fn a_pace_is_positive_and_what_is_over_has_none(world: &World) {
        let task = world.schedule(json!({"uris": ["nowhere"], "max_objects_per_second": 1000})).await;
        let ended = world.task_ended(&task).await;
        assert_eq!(ended.get("current_state.max_objects_per_second"), 1000);
        assert_eq!(ended.get("parameters.maxObjectsPerSecond"), "1000");
        let start = |most: i32| ("BulkDeleteService/StartBulkDelete", json!({"uris": ["nowhere"], "max_objects_per_second": most}));
        let update = |most: Value| (UPDATE, json!({"task_id": task, "max_objects_per_second": most}));
        for (method, request) in [start(0), start(-1), update(json!(-1)), (UPDATE, json!({"task_id": task}))] {
            let refusal = world.refused(method, request).await;
            assert_eq!((refusal.code.as_str(), refusal.faults[0].field.as_str()), ("validation_failed", "max_objects_per_second"));
        }
        let refusal = world.refused(UPDATE, json!({"task_id": task, "max_objects_per_second": 5})).await;
        assert_eq!((refusal.code.as_str(), &refusal.members["attempted_transition"]), ("invalid_state_transition", &json!("update")));
    }
}

#[tokio::test]
async fn an_operation_with_a_key_takes_effect_once() {
    let (world, task) = waiting_task(Protocol::Rest).await;
    let key = [("idempotency-key", "pause-once")];
    world.client.call_with(PAUSE, json!({"task_id": task}), &key).await.unwrap();
    world.done(RESUME, json!({"task_id": task})).await;
    let again = world.client.call_with(PAUSE, json!({"task_id": task}), &key).await.unwrap();
    assert_eq!(
        (again.header("idempotent-replayed"), again.get("status")),
        (Some("true"), &json!("success"))
    );
    assert_eq!(world.done(GET, json!({"task_id": task})).await.get("status"), "scheduled");
    assert_eq!(
        world.database.history(&task).replace("bulk_delete.", ""),
        "scheduled paused resumed"
    );
}

/// A chunk takes up at most a quarter of what a second allows; the new pace holds from the next chunk on.
#[tokio::test]
async fn a_task_keeps_to_its_pace_until_it_may_go_faster() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let world = World::start_with(
            protocol,
            &["--bulk-workers", "2", "--bulk-chunk-size", "300", "--bulk-chunk-target", "10"],
        )
        .await;
        world.database.given_many(Many {
            prefix: "e",
            count: 2_000,
            dependents: 0,
            portfolio: None,
        });
        let task = world
            .schedule(json!({"entity_type": "HCP", "mode": "hard", "max_objects_per_second": 40}))
            .await;
        let chunks = || world.database.rows("event WHERE type = 'entity.deleted'");
        until("it is at work", || chunks() >= 3).await;
        let largest = "SELECT max(cardinality(subjects)) FROM event WHERE type = 'entity.deleted'";
        assert_eq!(world.database.count(largest), 10);
        let slow = world.done(GET, json!({"task_id": task})).await;
        assert_eq!(
            (slow.get("status"), slow.get("current_state.max_objects_per_second")),
            (&json!("processing"), &json!(40))
        );
        let slower =
            world.done(UPDATE, json!({"task_id": task, "max_objects_per_second": 4})).await;
        assert_eq!(slower.get("current_state.max_objects_per_second"), 4);
        // The same pace again is not a change.
        world.done(UPDATE, json!({"task_id": task, "max_objects_per_second": 4})).await;
        let before = chunks();
        until("it goes on slower", || chunks() > before + 1).await;
        let last = "SELECT cardinality(subjects) FROM event WHERE type = 'entity.deleted' ORDER BY seq DESC LIMIT 1";
        assert_eq!(world.database.count(last), 1);
        let free = world.done(UPDATE, json!({"task_id": task, "max_objects_per_second": 0})).await;
        assert!(free.get("current_state.max_objects_per_second").is_null());
        let ended = world.task_ended(&task).await;
        assert_eq!(
            Account::of(&ended),
            Account { matched: 2_000, processed: 2_000, ..Account::default() }
        );
        assert_eq!(
            world.database.count(largest),
            300,
            "without a limit a chunk is as large as it may be"
        );
        assert_eq!(world.database.rows("event WHERE type = 'bulk_delete.updated'"), 2);
        world.database.assert_sound();
    }
}

/// The messages of a watch until it ends: each status once, and the last account.
async fn reported_to_the_end(stream: &mut MessageStream) -> (Vec<String>, Value) {
    let (mut statuses, mut last) = (Vec::new(), json!(null));
    while let Some(message) = stream.next().await {
        last = message.unwrap_or_else(|failure| panic!("the stream failed: {failure:#?}"));
        statuses.push(text(&last["status"]));
    }
    statuses.dedup();
    (statuses, last)
}

#[tokio::test]
async fn a_watcher_receives_every_status_until_the_end() {
    for (protocol, headers) in [
        (Protocol::Grpc, vec![]),
        (Protocol::Rest, vec![]),
        (Protocol::Rest, vec![("accept", "text/event-stream")]),
    ] {
        let (world, task) = waiting_task(protocol).await;
        let mut stream =
            world.client.stream(WATCH, json!({"task_id": task}), &headers).await.unwrap();
        assert_eq!(stream.message().await["status"], "scheduled");
        world.done(PAUSE, json!({"task_id": task})).await;
        assert_eq!(stream.message().await["status"], "paused");
        world.done(UPDATE, json!({"task_id": task, "max_objects_per_second": 2})).await;
        assert_eq!(stream.message().await["current_state"]["max_objects_per_second"], 2);
        world.done(RESUME, json!({"task_id": task})).await;
        assert_eq!(stream.message().await["status"], "scheduled");
        let _worker = Server::start_with(&world.database, &TEN_BY_TEN, &[]).await;
        let (statuses, last) = reported_to_the_end(&mut stream).await;
        assert_eq!(statuses, ["processing", "completed"]);
        assert_eq!(
            (&last["current_state"]["number_of_processed_objects"], last["end_time"].is_i64()),
            (&json!(3), true)
        );
        let mut late =
            world.client.stream(WATCH, json!({"task_id": task}), &headers).await.unwrap();
        assert_eq!(
            reported_to_the_end(&mut late).await.0,
            ["completed"],
            "what is over is reported once"
        );
    }
}

#[tokio::test]
async fn a_watch_ends_when_the_server_shuts_down() {
    for protocol in [Protocol::Grpc, Protocol::Rest] {
        let (mut world, task) = waiting_task(protocol).await;
        let mut stream = world.client.stream(WATCH, json!({"task_id": task}), &[]).await.unwrap();
        assert_eq!(stream.message().await["status"], "scheduled");
        world.server.signal(Signal::SIGTERM);
        let failure = stream.next().await.expect("it says why").unwrap_err();
        assert_eq!(failure.code, "unavailable");
        assert!(world.server.ended().await.success());
    }
}
