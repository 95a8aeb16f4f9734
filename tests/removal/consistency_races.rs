//! Consistency checks while others are at work: no false finding, no repair that is wrong, no row that is lost on the way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use futures::future::join_all;

use crate::consistency::reported;
use crate::given::{Account, Many, id};
use crate::kit::*;

const CHECK: &str = "BulkDeleteService/CheckConsistency";

/// Creates, moves, changes and removes entities of its own until it is stopped; returns how often.
async fn busy(client: Client, number: usize, stop: &AtomicBool) -> usize {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let entity = format!("busy-{number}-{}", rounds % 7);
        let dependents: Vec<_> =
            (0..3).map(|n| json!({"kind": "task", "id": n.to_string(), "data": {}})).collect();
        let new = json!({"entity_id": entity, "type": format!("T{number}"), "portfolio_id": "p", "dependents": dependents});
        // The id may still be taken by one that is soft-deleted or on its way out.
        let _ = client.call("EntityService/CreateEntity", json!({"entity": new})).await;
        let _ = client
            .call(
                "PortfolioService/AttachEntity",
                json!({"portfolio_id": "q", "entity_id": entity}),
            )
            .await;
        let put = json!({"entity_id": entity, "kind": "note", "dependent_id": "n", "data": {"n": rounds}});
        let _ = client.call("EntityService/PutDependent", put).await;
        match rounds % 8 {
            0 | 4 => {
                drop(client.call("RemovalService/RemoveEntity", json!({"entity_id": entity})).await)
            }
            1 | 5 => {
                let asked = client
                    .call(
                        "OffboardingService/RequestOffboarding",
                        json!({"entity_id": entity, "grace_period": "5s"}),
                    )
                    .await;
                if let Ok(asked) = asked {
                    let cancel = json!({"offboarding_request_id": id(&asked)});
                    let _ =
                        client.call("OffboardingService/CancelOffboardingRequest", cancel).await;
                }
            }
            2 | 3 | 6 => drop(
                client
                    .call(
                        "PortfolioService/DetachEntity",
                        json!({"portfolio_id": "q", "entity_id": entity}),
                    )
                    .await,
            ),
            _ => {
                let mode = if rounds % 16 == 7 { "soft" } else { "hard" };
                let request = json!({"entity_type": format!("T{number}"), "mode": mode});
                drop(client.call("BulkDeleteService/StartBulkDelete", request).await);
            }
        }
        rounds += 1;
    }
    rounds
}

/// The realm is healthy at every moment, so a check finds nothing, whether it would repair or not.
#[tokio::test]
async fn a_busy_realm_has_no_findings() {
    let arguments = ["--bulk-workers", "3", "--poll-interval", "0.05", "--bulk-chunk-size", "500"];
    let world = World::start_with(Protocol::Grpc, &arguments).await;
    for portfolio in ["p", "q"] {
        world.given_portfolio(portfolio).await;
    }
    world.database.given_many(Many {
        prefix: "a",
        count: 3_000,
        dependents: 2,
        portfolio: Some("p"),
    });
    let stop = AtomicBool::new(false);
    let others = join_all((0..6).map(|number| busy(world.through(Protocol::Grpc), number, &stop)));
    let checks = async {
        let is_busy = || {
            world.database.rows("tombstone") > 50
                && world.database.rows("entity WHERE deleted_at IS NOT NULL") > 0
        };
        let mut round = 0;
        while round < 8 || (round < 200 && !is_busy()) {
            round += 1;
            let task = world.check(json!({"fix": round % 2 == 0})).await;
            let findings = world.findings(&task).await;
            if !findings.is_empty() {
                stop.store(true, Ordering::Relaxed);
            }
            assert!(findings.is_empty(), "{findings:?}: {:#}", task.json);
            assert_eq!(task.get("status"), "completed");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(is_busy(), "that realm is not busy");
        round
    };
    let (rounds, checks) = tokio::join!(others, checks);
    println!("{} rounds went on beside {checks} checks", rounds.iter().sum::<usize>());
    let database = &world.database;
    until("all is done", || {
        database.rows("offboarding_request WHERE status IN ('pending', 'running')")
            + database.rows("bulk_delete WHERE ended_at IS NULL")
            == 0
    })
    .await;
    database.assert_sound();
    world.assert_clean().await;
}

/// Members are added and removed while the count of their portfolio is repaired.
#[tokio::test]
async fn a_count_is_set_right_while_members_come_and_go() {
    let world = World::start_with(Protocol::Grpc, &["--poll-interval", "0.05"]).await;
    let database = &world.database;
    world.given_portfolio("p").await;
    database.given_many(Many { prefix: "m", count: 5_000, dependents: 0, portfolio: Some("p") });
    database.given_many(Many { prefix: "free", count: 160, dependents: 0, portfolio: None });
    for drift in [7, -5, 1_000] {
        database.sql(&format!("UPDATE portfolio SET entity_count = entity_count + {drift}"));
        let moves = join_all((1..=4).map(|lane| {
            let client = world.through(Protocol::Grpc);
            async move {
                for n in 0..40 {
                    let member = json!({"portfolio_id": "p", "entity_id": format!("free-{:06}", lane * 40 - n)});
                    client.call("PortfolioService/AttachEntity", member.clone()).await.unwrap();
                    if n % 3 == 0 {
                        client.call("PortfolioService/DetachEntity", member).await.unwrap();
                    }
                }
            }
        }));
        // Two at once repair once.
        let (_, one, other) = tokio::join!(moves, world.check(json!({})), world.check(json!({})));
        assert_eq!(reported(&one).1 + reported(&other).1, 1, "{:#} {:#}", one.json, other.json);
        let members = database.members_of("p");
        assert_eq!(database.entity_count(), members);
        database.sql(
            "UPDATE portfolio SET entity_count = 5000; UPDATE entity SET portfolio_id = NULL, attached_at = NULL WHERE id LIKE 'free%'",
        );
    }
}

/// A contradiction that ends while a repair waits for it is not a finding, and is left as it is.
#[tokio::test]
async fn a_contradiction_that_ends_before_its_repair_is_not_a_finding() {
    let world = World::start(Protocol::Rest).await;
    let database = &world.database;
    let realm = database.realm();
    database.given_many(Many { prefix: "e", count: 2, dependents: 0, portfolio: None });
    database.sql(&format!(
        "INSERT INTO dependent (realm_id, entity_id, kind, id) VALUES ({realm}, 'late', 'task', 't'), ({realm}, 'never', 'task', 't');
         UPDATE entity SET state = 'offboarding'"
    ));
    let mut other = database.connection();
    let change = format!(
        "BEGIN;
         INSERT INTO entity (realm_id, id, incarnation, type, state) VALUES ({realm}, 'late', gen_random_uuid(), 'T', 'active');
         UPDATE dependent SET data = '{{\"of\": \"late\"}}' WHERE entity_id = 'late';
         UPDATE entity SET version = version + 1 WHERE id = 'e-000001';
         INSERT INTO offboarding_request (realm_id, id, entity_id, incarnation, principal_id, api_key_id, status, execute_after, due_at)
         SELECT realm_id, gen_random_uuid(), id, incarnation, gen_random_uuid(), gen_random_uuid(), 'pending', now() + interval '1 day',
                now() + interval '1 day'
         FROM entity WHERE id = 'e-000001';"
    );
    other.batch_execute(&change).unwrap();
    let task = id(&world.done(CHECK, json!({})).await);
    until("the mend waits", || database.waiting_for_locks() > 0).await;
    other.batch_execute("COMMIT").unwrap();
    let ended = world.task_ended(&task).await;
    assert_eq!(reported(&ended), (json!({"orphan_dependent": 1, "stuck_offboarding": 1}), 2));
    assert_eq!(database.rows("dependent WHERE entity_id = 'late'"), 1);
    assert_eq!(
        database
            .text("SELECT string_agg(state, ' ' ORDER BY id) FROM entity WHERE id LIKE 'e-%'")
            .unwrap(),
        "offboarding active"
    );
    world.assert_clean().await;
}

/// Rows that others keep locked cost only themselves, and not the other repairs.
#[tokio::test]
async fn a_finding_that_stays_locked_is_reported_and_repaired_another_time() {
    let world = World::start_with(Protocol::Rest, &["--db-lock-timeout", "0.3"]).await;
    let database = &world.database;
    database.given_many(Many { prefix: "e", count: 5, dependents: 0, portfolio: None });
    for portfolio in ["p", "q"] {
        world.given_portfolio(portfolio).await;
    }
    database.sql("UPDATE entity SET state = 'offboarding'; UPDATE portfolio SET entity_count = 3");
    let mut other = database.connection();
    other
        .batch_execute("BEGIN; SELECT FROM entity WHERE id = 'e-000003' FOR UPDATE; SELECT FROM portfolio WHERE id = 'p' FOR UPDATE")
        .unwrap();
    let task = world.check(json!({})).await;
    other.batch_execute("ROLLBACK").unwrap();
    assert_eq!(reported(&task), (json!({"portfolio_count": 2, "stuck_offboarding": 5}), 5));
    assert_eq!(task.get("status"), "completed_with_errors");
    let left: Vec<_> = world
        .findings(&task)
        .await
        .into_iter()
        .filter(|(_, mended)| !mended)
        .map(|(finding, _)| finding)
        .collect();
    assert_eq!(left, ["portfolio_count p", "stuck_offboarding e-000003"]);
    assert_eq!(reported(&world.check(json!({})).await).1, 2);
    world.assert_clean().await;
}

/// Each row is checked once, each finding counted and repaired once, however often workers die.
#[tokio::test]
async fn a_check_survives_the_death_of_its_workers() {
    const COUNT: i64 = 6_000;
    let mut world = World::start_with(Protocol::Grpc, &["--roles", "grpc,gateway"]).await;
    world.database.given_many(Many { prefix: "e", count: COUNT, dependents: 1, portfolio: None });
    world.database.sql("DELETE FROM entity WHERE right(id, 1) = '7'; UPDATE entity SET state = 'offboarding' WHERE right(id, 1) = '3'");
    let task = id(&world.done(CHECK, json!({})).await);
    let arguments = ["--lease", "1", "--poll-interval", "0.05", "--bulk-chunk-size", "100"];
    let processed = "SELECT coalesce(sum(processed), 0) FROM bulk_delete_slice";
    let mut in_the_middle = 0;
    for _ in 0..4 {
        let before = world.database.count(processed);
        world.server = Server::start_with(&world.database, &arguments, &[]).await;
        until("the check goes on", || world.database.count(processed) > before).await;
        tokio::time::sleep(Duration::from_millis(rand::random::<u64>() % 60)).await;
        world.server.kill();
        in_the_middle +=
            usize::from((1..2 * COUNT - COUNT / 10).contains(&world.database.count(processed)));
    }
    assert!(in_the_middle > 0, "no worker was killed in the middle of the check");
    world.server = Server::start_with(&world.database, &arguments, &[]).await;
    world.client = world.through(Protocol::Grpc);
    let ended = world.task_ended(&task).await;
    assert_eq!(
        reported(&ended),
        (json!({"orphan_dependent": COUNT / 10, "stuck_offboarding": COUNT / 10}), COUNT / 5)
    );
    let account = Account::of(&ended);
    assert_eq!(
        (account.matched, account.processed),
        (2 * COUNT - COUNT / 10, 2 * COUNT - COUNT / 10)
    );
    assert_eq!(world.database.rows("bulk_delete_finding"), COUNT / 5);
    assert_eq!(
        world.database.rows("event WHERE type = 'entity.offboarding_canceled'"),
        COUNT / 10,
        "each mend is reported once"
    );
    assert_eq!(ended.get("status"), "completed");
    world.assert_clean().await;
}

/// A check keeps to its pace, pauses between chunks, continues where it was, and stops.
#[tokio::test]
async fn a_check_pauses_goes_on_and_stops() {
    let world = World::start_with(Protocol::Rest, &["--poll-interval", "0.05"]).await;
    let database = &world.database;
    database.given_many(Many { prefix: "e", count: 1_500, dependents: 1, portfolio: None });
    database.sql("UPDATE entity SET state = 'offboarding' WHERE right(id, 1) = '3'");
    let processed = || database.count("SELECT sum(processed) FROM bulk_delete_slice");
    let set = |status: &str| {
        database.sql(&format!(
            "UPDATE bulk_delete SET status = '{status}', paused_at = NULL WHERE ended_at IS NULL"
        ))
    };
    let task = id(&world.done(CHECK, json!({"max_objects_per_second": 400})).await);
    until("the check is at work", || processed() > 0).await;
    set("pausing");
    until("it has paused", || database.rows("bulk_delete WHERE status = 'paused'") == 1).await;
    let done = processed();
    assert!((1..3_000).contains(&done), "it did not pause");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(processed(), done);
    set("scheduled");
    let ended = world.task_ended(&task).await;
    assert_eq!(
        Account::of(&ended),
        Account { matched: 3_000, processed: 3_000, ..Account::default() }
    );
    assert_eq!(reported(&ended), (json!({"stuck_offboarding": 150}), 150));

    let task = id(&world.done(CHECK, json!({"max_objects_per_second": 400})).await);
    until("the second check is at work", || {
        database.count(&format!(
            "SELECT sum(processed) FROM bulk_delete_slice WHERE bulk_delete_id = '{task}'"
        )) > 0
    })
    .await;
    set("canceling");
    assert_eq!(world.task_ended(&task).await.get("status"), "canceled");
}
