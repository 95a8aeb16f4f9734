//! The change of a task while it runs: it is paused, resumed, stopped, made slower or faster, and watched.

use nix::sys::signal::Signal;

use crate::given::{Account, Many, text};
use crate::kit::*;

pub const PAUSE: &str = "BulkDeleteService/PauseTask";
pub const RESUME: &str = "BulkDeleteService/ResumeTask";
pub const STOP: &str = "BulkDeleteService/StopTask";
const UPDATE: &str = "BulkDeleteService/UpdateTask";
pub const GET: &str = "BulkDeleteService/GetTask";
const WATCH: &str = "BulkDeleteService/WatchTask";

/// A worker goes ten by ten, polls for work often and takes over after four seconds what was lost.
pub const TEN_BY_TEN: [&str; 10] = [
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
pub const IDLE: [&str; 4] = ["--roles", "grpc,gateway", "--poll-interval", "0.05"];

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
            "what changes nothing has no event"
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

/// A chunk takes up at most a quarter of what a second allows; the new pace applies from the next chunk on.
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
