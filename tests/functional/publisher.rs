//! The loop behind publishers, on one that does as the test says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use offboard::db::{Db, Options as DbOptions};
use offboard::events::publish_loop::{self, Options};
use offboard::events::publisher::{Failure, Message, Published, Publisher};
use offboard::events::taken::Taken;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kit::*;

/// Acknowledges as many messages as it is allowed to, and refuses the rest.
#[derive(Clone, Default)]
struct Obedient(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    allowed: usize,
    /// The ids that were acknowledged, in order.
    taken: Vec<String>,
    calls: Vec<usize>,
}

impl Obedient {
    fn that_takes(allowed: usize) -> Self {
        let publisher = Obedient::default();
        publisher.allow(allowed);
        publisher
    }

    fn allow(&self, more: usize) {
        let mut state = self.0.lock().unwrap();
        state.allowed = state.allowed.saturating_add(more);
    }

    fn taken(&self) -> Vec<String> {
        self.0.lock().unwrap().taken.clone()
    }
}

#[tonic::async_trait]
impl Publisher for Obedient {
    fn name(&self) -> &'static str {
        "obedient"
    }

    async fn publish(&self, messages: &[Message]) -> Published {
        let mut state = self.0.lock().unwrap();
        let acknowledged = messages.len().min(state.allowed);
        state.allowed -= acknowledged;
        state.calls.push(messages.len());
        state.taken.extend(messages[..acknowledged].iter().map(|message| message.id.clone()));
        let failure = (acknowledged < messages.len())
            .then(|| Failure { code: "refused", cause: "asked to".to_owned() });
        Published { acknowledged, failure }
    }

    async fn taken_since(&self, _: DateTime<Utc>) -> Result<Taken, Failure> {
        let mut taken = Taken::default();
        self.taken().iter().for_each(|id| assert!(taken.add(id)));
        Ok(taken)
    }
}

/// A replica that publishes.
struct Replica {
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Replica {
    async fn start(database: &Database, publisher: &Obedient, owner: &str) -> Replica {
        let db = Db::new(DbOptions::new(&database.url));
        publish_loop::register(&db, publisher).await.unwrap();
        let options = Options {
            owner: owner.to_owned(),
            lease: Duration::from_secs(2),
            poll: Duration::from_millis(20),
        };
        let stop = CancellationToken::new();
        Replica {
            running: tokio::spawn(publish_loop::run(db, publisher.clone(), options, stop.clone())),
            stop,
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }

    /// Ends it where it stands, with its lease.
    async fn die(self) {
        self.running.abort();
        let _ = self.running.await;
    }
}

async fn with_realm() -> Database {
    let database = database().await;
    database.sql("INSERT INTO realm (org, mode) VALUES ('acme', 'test')");
    database
}

/// Writes an event row of a task about this many subjects, and returns its id.
fn report(database: &Database, subjects: usize) -> String {
    database.sql(&format!(
        "INSERT INTO event (realm_id, type, subjects, principal_id, data)
         SELECT r.id, 'entity.deleted', ARRAY(SELECT 'e-' || n FROM generate_series(1, {subjects}) n), gen_random_uuid(),
                '{{\"bulk_delete_id\": \"00000000-0000-4000-8000-000000000001\"}}'
         FROM realm r"
    ));
    database.text("SELECT id FROM event ORDER BY seq DESC LIMIT 1").unwrap()
}

fn ids(row: &str, subjects: usize) -> Vec<String> {
    (1..=subjects).map(|n| format!("{row}-{n}")).collect()
}

fn owed(database: &Database) -> i64 {
    database.events_not_published()
}

#[tokio::test]
async fn what_was_before_the_first_start_is_not_published() {
    let database = with_realm().await;
    report(&database, 3);
    let publisher = Obedient::that_takes(usize::MAX);
    let replica = Replica::start(&database, &publisher, "a").await;
    let row = report(&database, 2);
    until("the new event is published", || publisher.taken().len() >= 2).await;
    assert_eq!(publisher.taken(), ids(&row, 2));
    replica.end().await;
    let later = report(&database, 2);
    let replica = Replica::start(&database, &publisher, "a").await;
    until("what came while nobody published is published", || publisher.taken().len() >= 4).await;
    assert_eq!(publisher.taken()[2..], ids(&later, 2), "the position is kept");
    replica.end().await;
}

#[tokio::test]
async fn a_row_of_many_goes_on_where_it_stopped_whoever_goes_on() {
    let database = with_realm().await;
    let first = Obedient::that_takes(2_345);
    let replica = Replica::start(&database, &first, "a").await;
    let row = report(&database, 5_000);
    until("the publisher has failed", || owed(&database) == 2_655).await;
    replica.die().await;
    let second = Obedient::that_takes(usize::MAX);
    let replica = Replica::start(&database, &second, "b").await;
    until("the other replica takes over", || second.taken().len() >= 2_655).await;
    assert_eq!(
        [first.taken(), second.taken()].concat(),
        ids(&row, 5_000),
        "nothing comes again, nothing is left out"
    );
    until("nothing is owed any more", || owed(&database) == 0).await;
    assert!(second.0.lock().unwrap().calls.iter().all(|call| *call <= 1_000), "memory is bounded");
    replica.end().await;
}

#[tokio::test]
async fn what_is_owed_is_counted_once_however_often_it_is_tried_and_falls_as_it_gets_through() {
    let database = with_realm().await;
    let publisher = Obedient::that_takes(0);
    let replica = Replica::start(&database, &publisher, "a").await;
    let rows = [report(&database, 3), report(&database, 4)];
    until("it was tried a few times", || publisher.0.lock().unwrap().calls.len() > 3).await;
    until("all of it is owed", || owed(&database) == 7).await;
    assert_eq!(database.publisher_failures().unwrap(), "refused");
    publisher.allow(5);
    until("a part has got through", || owed(&database) == 2).await;
    assert_eq!(database.rows("publisher_failure"), 1);
    publisher.allow(100);
    until("nothing is owed any more", || owed(&database) == 0).await;
    assert_eq!(publisher.taken(), [ids(&rows[0], 3), ids(&rows[1], 4)].concat());
    replica.end().await;
}

#[tokio::test]
async fn events_of_one_subject_are_never_on_their_way_together() {
    let database = with_realm().await;
    let publisher = Obedient::default();
    let replica = Replica::start(&database, &publisher, "a").await;
    // One transaction, so that one batch has all of them.
    database.sql(
        "INSERT INTO event (realm_id, type, subjects, principal_id)
         SELECT r.id, 'entity.created', ARRAY[s], gen_random_uuid() FROM realm r, unnest(ARRAY['a', 'b', 'b', 'c', 'a']) WITH ORDINALITY u(s, n)
         ORDER BY n",
    );
    until("they were tried", || !publisher.0.lock().unwrap().calls.is_empty()).await;
    publisher.0.lock().unwrap().calls.clear();
    publisher.allow(5);
    until("they are published", || publisher.taken().len() == 5).await;
    assert_eq!(publisher.0.lock().unwrap().calls, [2, 3], "a b, then b c a");
    replica.end().await;
}

#[tokio::test]
async fn one_replica_publishes_and_a_late_one_moves_nothing_back() {
    let database = with_realm().await;
    let (first, second) = (Obedient::that_takes(usize::MAX), Obedient::that_takes(usize::MAX));
    let one = Replica::start(&database, &first, "a").await;
    let row = report(&database, 1);
    until("the first publishes", || first.taken() == [row.clone()]).await;
    let other = Replica::start(&database, &second, "b").await;
    let row = report(&database, 1);
    until("the first goes on", || first.taken().contains(&row)).await;
    assert!(second.taken().is_empty());
    // Another has the lease now, as if this one had been unreachable for long.
    database.sql("UPDATE publisher SET lease_token = nextval('lease_token'), due_at = now() + interval '1 hour'");
    let before = database.publisher_cursor();
    report(&database, 1);
    // It may publish the event once more, but has no say on where the publisher is.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(database.publisher_cursor(), before);
    database.sql("UPDATE publisher SET due_at = now()");
    let row = report(&database, 1);
    until("one of them publishes again", || {
        first.taken().contains(&row) || second.taken().contains(&row)
    })
    .await;
    one.end().await;
    other.end().await;
    assert_eq!(database.free_publishers(), 1, "the lease is given back");
}

#[tokio::test]
async fn a_replica_that_cannot_publish_lets_others_try() {
    let database = with_realm().await;
    let (cut_off, well) = (Obedient::that_takes(0), Obedient::that_takes(usize::MAX));
    let one = Replica::start(&database, &cut_off, "a").await;
    let row = report(&database, 1);
    until("the first has failed", || !cut_off.0.lock().unwrap().calls.is_empty()).await;
    let other = Replica::start(&database, &well, "b").await;
    until("the other one publishes", || well.taken() == [row.clone()]).await;
    one.end().await;
    other.end().await;
}
