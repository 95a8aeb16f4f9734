//! Workers that are late, or do not work: they cost others nothing, and change nothing any more.

use diesel::connection::SimpleConnection;
use nix::sys::signal::Signal;

use crate::given::{Account, Many};
use crate::kit::*;
use crate::task_workers::SUBJECTS;

/// The one that does not work now leaves the wake-ups to the other, which has nothing else to go by.
#[tokio::test]
async fn a_worker_that_does_not_work_keeps_none_from_working() {
    let world = World::start_with(
        Protocol::Grpc,
        &["--bulk-idle-workers", "1", "--lease", "600", "--poll-interval", "600"],
    )
    .await;
    for round in 1..=4 {
        world.database.given_many(Many {
            prefix: &format!("r{round}"),
            count: 5,
            dependents: 0,
            portfolio: None,
        });
        for _ in 0..30 {
            world.done("EntityService/ListEntities", json!({"page_size": 1})).await;
        }
        let ended = world.bulk_delete(json!({"entity_type": "HCP", "mode": "hard"})).await;
        assert_eq!(Account::of(&ended), Account { matched: 5, processed: 5, ..Account::default() });
    }
}

/// A worker that sleeps in the middle of a chunk, past its lease, and wakes when another one has long continued.
#[tokio::test]
async fn a_worker_that_is_late_changes_nothing() {
    const COUNT: i64 = 500;
    let arguments = [
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
    let mut world =
        World::start_with(Protocol::Grpc, &["--roles", "grpc,gateway", "--poll-interval", "600"])
            .await;
    world.given_portfolio("p").await;
    world.database.given_many(Many {
        prefix: "e",
        count: COUNT,
        dependents: 1,
        portfolio: Some("p"),
    });
    let task = world.schedule(json!({"entity_type": "HCP", "mode": "hard"})).await;
    // If it had a say any more, its next failure would be the one too many.
    world.database.sql("UPDATE bulk_delete_slice SET attempts = 9");
    let mut other = world.database.connection();
    other.batch_execute("BEGIN; SELECT FROM entity WHERE id = 'e-000005' FOR UPDATE").unwrap();
    let late = Server::start_with(&world.database, &arguments, &[]).await;
    until("the worker is in the middle of a chunk", || world.database.waiting_for_locks() > 0)
        .await;
    late.signal(Signal::SIGSTOP);
    other.batch_execute("ROLLBACK").unwrap();
    let _prompt = Server::start_with(&world.database, &arguments, &[]).await;
    let done = || world.database.count("SELECT sum(processed) FROM bulk_delete_slice");
    until("another worker has continued", || done() > 60).await;
    late.signal(Signal::SIGCONT);
    // As it finds its connection ended, or its lease lost.
    let noticed = || {
        ["slice failed", "the lease of a slice was lost"]
            .iter()
            .any(|message| late.log().contains(message))
    };
    until("the late one has noticed", noticed).await;
    world.client = world.through(Protocol::Rest);
    let ended = world.task_ended(&task).await;
    assert_eq!(
        Account::of(&ended),
        Account { matched: COUNT, processed: COUNT, ..Account::default() }
    );
    assert_eq!(
        world.database.count(SUBJECTS),
        COUNT * 1_000_001,
        "each entity is reported of once"
    );
    assert_eq!((world.database.rows("entity"), world.database.rows("tombstone")), (0, COUNT));
    world.database.assert_sound();
}
