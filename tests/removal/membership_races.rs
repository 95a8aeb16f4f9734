//! Many who change the memberships of the same entities and portfolios at once, one by one and in batches, while others remove them.

use std::sync::Arc;
use std::time::Duration;

use crate::given::{Many, id};
use crate::kit::*;

const BATCH_ATTACH: &str = "PortfolioService/BatchAttachEntities";
const BATCH_DETACH: &str = "PortfolioService/BatchDetachEntities";

/// The refusals that a call may have because others were faster. None of ours: no `unavailable`, no `internal`.
const EXPECTED: [&str; 5] = [
    "not_found",
    "state_conflict",
    "invalid_state_transition",
    "portfolio_not_empty",
    "already_exists",
];

fn any(bound: usize) -> usize {
    rand::random::<u32>() as usize % bound
}

/// Some of these, in any order, some of them twice.
fn some(ids: &[String], count: usize) -> Vec<String> {
    (0..count).map(|_| ids[any(ids.len())].clone()).collect()
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{prefix}-{n:06}")).collect()
}

/// Calls that must be done, or refused for what others did.
async fn call(client: &Client, method: &str, request: Value) -> Option<Answer> {
    match client.call(method, request).await {
        Ok(answer) => {
            for result in answer.json["results"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|result| result["outcome"] == "failed")
            {
                assert!(EXPECTED.contains(&result["error"]["code"].as_str().unwrap()), "{result}");
            }
            Some(answer)
        }
        Err(refused) => {
            assert!(EXPECTED.contains(&refused.code.as_str()), "{method}: {refused:#?}");
            None
        }
    }
}

/// Every portfolio says what the database has, and its members are visible.
async fn assert_counted(world: &World, portfolios: &[&str]) {
    world.database.assert_sound();
    for portfolio in portfolios {
        let folio =
            world.done("PortfolioService/GetPortfolio", json!({"portfolio_id": portfolio})).await;
        let members = folio.get("entity_ids").as_array().unwrap();
        assert_eq!(*folio.get("entity_count"), members.len(), "{portfolio}");
        for member in members {
            let entity = world.done("EntityService/GetEntity", json!({"entity_id": member})).await;
            assert_eq!(entity.get("portfolio_id"), portfolio);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opposite_moves_of_the_same_entities_are_all_done() {
    let world = World::start(Protocol::Grpc).await;
    for portfolio in ["p", "q"] {
        world.given_portfolio(portfolio).await;
    }
    world.database.given_many(Many { prefix: "a", count: 60, dependents: 0, portfolio: Some("p") });
    world.database.given_many(Many { prefix: "b", count: 60, dependents: 0, portfolio: Some("q") });
    let ids = Arc::new([names("a", 60), names("b", 60)].concat());
    let tasks = (0..8).map(|task| {
        let (client, ids) = (
            world.through(if task % 4 < 2 { Protocol::Grpc } else { Protocol::Rest }),
            ids.clone(),
        );
        tokio::spawn(async move {
            let portfolio = if task % 2 == 0 { "p" } else { "q" };
            for _ in 0..25 {
                let request = json!({"portfolio_id": portfolio, "entity_ids": some(&ids, 80)});
                let moved =
                    call(&client, BATCH_ATTACH, request).await.expect("both portfolios stay");
                assert!(
                    moved.json["results"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .all(|result| result["error"].is_null())
                );
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(world.database.entity_counts(), 120, "everyone is in one of the two");
    assert_counted(&world, &["p", "q"]).await;
}

/// One of the ways to change a membership, by chance.
async fn change_something(client: &Client, portfolios: &[&str], ids: &[String]) {
    let (portfolio, entity) = (portfolios[any(portfolios.len())], &ids[any(ids.len())]);
    let one = json!({"portfolio_id": portfolio, "entity_id": entity});
    let count = 1 + any(20);
    let many = json!({"portfolio_id": portfolio, "entity_ids": some(ids, count)});
    match any(6) {
        0 => call(client, "PortfolioService/AttachEntity", one).await,
        1 => call(client, "PortfolioService/DetachEntity", one).await,
        2 => call(client, BATCH_DETACH, many).await,
        3 => {
            call(
                client,
                "PortfolioService/UpdatePortfolio",
                json!({"portfolio_id": portfolio, "name": "New"}),
            )
            .await
        }
        _ => call(client, BATCH_ATTACH, many).await,
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn memberships_hold_while_their_entities_are_removed_in_every_way() {
    let world = World::start_with(
        Protocol::Rest,
        &["--bulk-workers", "2", "--bulk-chunk-size", "7", "--poll-interval", "0.05"],
    )
    .await;
    let portfolios = ["p", "q", "r"];
    for portfolio in portfolios {
        world.given_portfolio(portfolio).await;
    }
    for (prefix, portfolio) in [("a", Some("p")), ("b", Some("q")), ("c", None)] {
        world.database.given_many(Many { prefix, count: 80, dependents: 1, portfolio });
    }
    let ids = Arc::new([names("a", 80), names("b", 80), names("c", 80)].concat());
    let tasks = (0..6).map(|task| {
        let (client, ids) = (
            world.through(if task % 2 == 0 { Protocol::Grpc } else { Protocol::Rest }),
            ids.clone(),
        );
        tokio::spawn(async move {
            for _ in 0..60 {
                change_something(&client, &portfolios, &ids).await;
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let (mut bulk, mut jobs) = (Vec::new(), Vec::new());
    for n in 0..12 {
        tokio::time::sleep(Duration::from_millis(any(120) as u64)).await;
        let mode = if n % 2 == 0 { "soft" } else { "hard" };
        bulk.push(world.schedule(json!({"uris": some(&ids, 12), "mode": mode})).await);
        for entity in some(&ids, 4) {
            let removal =
                call(&world.client, "RemovalService/RemoveEntity", json!({"entity_id": entity}))
                    .await;
            jobs.extend(removal.map(|job| id(&job)));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    for task in bulk {
        assert_ne!(world.task_ended(&task).await.get("status"), "failed");
    }
    for job in jobs {
        world.job_ended(&job, "succeeded").await;
    }
    assert!(
        world.database.rows("tombstone") > 0
            && world.database.rows("entity WHERE deleted_at IS NOT NULL") > 0
    );
    assert_counted(&world, &portfolios).await;
}

/// A portfolio that is made while a move waits for its entity is not forgotten: the member that leaves it is counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_out_of_a_portfolio_that_is_newer_than_itself_is_counted() {
    let world = World::start(Protocol::Grpc).await;
    world.given_portfolio("p").await;
    world.database.given_many(Many { prefix: "e", count: 2, dependents: 0, portfolio: None });
    for (entity, method) in
        [("e-000001", "PortfolioService/AttachEntity"), ("e-000002", BATCH_ATTACH)]
    {
        let fresh = format!("new-{entity}");
        let mut other = world.database.connection();
        // Somebody locks the entity, and puts it into a portfolio that is made only then.
        let held = format!("BEGIN; SELECT FROM entity WHERE id = '{entity}' FOR NO KEY UPDATE");
        diesel::connection::SimpleConnection::batch_execute(&mut other, &held).unwrap();
        let client = world.client.clone();
        let request = match method {
            BATCH_ATTACH => json!({"portfolio_id": "p", "entity_ids": [entity]}),
            _ => json!({"portfolio_id": "p", "entity_id": entity}),
        };
        let moving = tokio::spawn(async move { client.call(method, request).await.unwrap() });
        until("the move waits", || world.database.waiting_for_locks() == 1).await;
        world.given_portfolio(&fresh).await;
        let moved = format!(
            "UPDATE entity SET portfolio_id = '{fresh}', attached_at = now(), version = version + 1 WHERE id = '{entity}';
             UPDATE portfolio SET entity_count = 1, version = 2 WHERE id = '{fresh}';
             INSERT INTO event (realm_id, type, subjects, principal_id, data)
             SELECT realm_id, 'portfolio.entity_attached', ARRAY[id], gen_random_uuid(), '{{\"version\": 2}}' FROM portfolio WHERE id = '{fresh}';
             COMMIT"
        );
        diesel::connection::SimpleConnection::batch_execute(&mut other, &moved).unwrap();
        moving.await.unwrap();
        assert_eq!(world.database.entity_count_of(&fresh), 0);
        world.database.assert_sound();
    }
    assert_eq!(world.database.entity_count_of("p"), 2);
}

/// Creates one entity in a portfolio, in one of the ways there are.
async fn create(
    client: Client,
    way: usize,
    entity: &str,
    portfolio: &str,
) -> Result<Answer, Failure> {
    let new = json!({"entity_id": entity, "type": "HCP", "portfolio_id": portfolio});
    match way {
        0 => client.call("EntityService/CreateEntity", json!({"entity": new})).await,
        1 => {
            client
                .call("EntityService/BatchCreateEntities", json!({"requests": [{"entity": new}]}))
                .await
        }
        _ => client.import(&[new]).await,
    }
}

/// Whoever adds an entity again waits for the chunk that removes it, and has not locked what the chunk wants next.
#[tokio::test(flavor = "multi_thread")]
async fn entities_that_are_added_again_while_they_are_removed_do_not_deadlock() {
    let mut world = World::start_with(
        Protocol::Grpc,
        &["--bulk-chunk-target", "10", "--db-lock-timeout", "60", "--poll-interval", "0.05"],
    )
    .await;
    for way in 0..3 {
        let portfolio = format!("p{way}");
        world.given_portfolio(&portfolio).await;
        world.database.given_many(Many {
            prefix: &portfolio,
            count: 3,
            dependents: 1,
            portfolio: Some(&portfolio),
        });
        let mut other = world.database.connection();
        let held = format!("BEGIN; SELECT FROM entity WHERE id = '{portfolio}-000002' FOR UPDATE");
        diesel::connection::SimpleConnection::batch_execute(&mut other, &held).unwrap();
        let task = world.schedule(json!({"uris": names(&portfolio, 3), "mode": "hard"})).await;
        until("the chunk is in the middle", || world.database.waiting_for_locks() == 1).await;
        let (client, entity) = (world.client.clone(), format!("{portfolio}-000001"));
        let creating = tokio::spawn(async move { create(client, way, &entity, &portfolio).await });
        until("the new one waits for the old one to go", || {
            world.database.waiting_for_locks() == 2
        })
        .await;
        diesel::connection::SimpleConnection::batch_execute(&mut other, "ROLLBACK").unwrap();
        creating.await.unwrap().unwrap();
        assert_eq!(
            world.task_ended(&task).await.get("current_state.number_of_processed_objects"),
            3
        );
    }
    assert_counted(&world, &["p0", "p1", "p2"]).await;
    assert_eq!(world.database.rows("entity WHERE version = 1 AND portfolio_id IS NOT NULL"), 3);
    // A session reports its deadlocks when it ends, if not before.
    world.server.terminate().await;
    let sessions =
        "pg_stat_activity WHERE datname = current_database() AND application_name = 'offboard'";
    until("its sessions have ended", || world.database.rows(sessions) == 0).await;
    assert_eq!(
        world
            .database
            .count("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"),
        0
    );
}

/// A portfolio that is deleted after it was found, and before the members are in, is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_portfolio_that_goes_meanwhile_gets_no_members() {
    let world = World::start(Protocol::Grpc).await;
    for way in 0..3 {
        world.given_portfolio("p").await;
        let mut other = world.database.connection();
        diesel::connection::SimpleConnection::batch_execute(
            &mut other,
            "BEGIN; DELETE FROM portfolio WHERE id = 'p'",
        )
        .unwrap();
        let client = world.client.clone();
        let creating = tokio::spawn(async move { create(client, way, "e", "p").await });
        until("the new one waits", || world.database.waiting_for_locks() == 1).await;
        diesel::connection::SimpleConnection::batch_execute(&mut other, "COMMIT").unwrap();
        match creating.await.unwrap() {
            Ok(import) => assert_eq!(import.get("results")[0]["error"]["code"], "not_found"),
            Err(refused) => assert_eq!(refused.code, "not_found"),
        }
        assert_eq!(
            (world.database.rows("entity"), world.database.history("e")),
            (0, String::new())
        );
    }
}
