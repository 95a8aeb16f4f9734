//! A task that is paused, resumed or stopped while its worker is in the middle of a chunk, and one whose worker died there.

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;

use crate::given::{Account, Many};
use crate::kit::*;
use crate::tasks::{GET, IDLE, PAUSE, RESUME, STOP, TEN_BY_TEN};

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
        until("the worker is in the middle of a chunk", || world.database.waiting_for_locks() > 0)
            .await;
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
        assert_eq!(database.entity_count(), 100 - done);
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
    assert_eq!(still.get("duration"), paused.get("duration"), "a pause does not count as work");
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
