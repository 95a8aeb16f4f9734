//! Those who change entities against those who remove them: each time exactly one of them gets its way, and nothing is left half.

use std::time::Duration;

use futures::future::join_all;

use crate::given::{Account, Many, id};
use crate::kit::*;

async fn pause() {
    tokio::time::sleep(Duration::from_micros(rand::random::<u64>() % 20_000)).await;
}

/// The ids of `Many`.
fn ids(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("{prefix}-{n:06}")).collect()
}

/// The refusal is because of the entity's state, or because there is no entity any more.
#[track_caller]
fn assert_late(failure: &Failure, state: &str) {
    match failure.code.as_str() {
        "not_found" => {}
        "invalid_state_transition" => {
            assert_eq!(failure.members["current_state"], state, "{failure:#?}")
        }
        other => panic!("{other}: {failure:#?}"),
    }
}

/// Nobody removes anything here, so that what came second finds what came first.
#[tokio::test]
async fn of_a_hold_and_an_offboarding_exactly_one_wins() {
    let world = World::start_with(Protocol::Rest, &["--roles", "grpc,gateway"]).await;
    world.database.given_many(Many { prefix: "e", count: 200, dependents: 0, portfolio: None });
    let grpc = world.through(Protocol::Grpc);
    let race = async |entity: &String| {
        let hold = async {
            pause().await;
            world
                .call("EntityService/PlaceHold", json!({"entity_id": entity, "reason": "audit"}))
                .await
        };
        let offboard = async {
            pause().await;
            grpc.call("OffboardingService/RequestOffboarding", json!({"entity_id": entity})).await
        };
        match tokio::join!(hold, offboard) {
            (Ok(_), Err(refused)) => {
                assert_eq!(refused.members["current_state"], "on_hold", "{refused:#?}");
                true
            }
            (Err(refused), Ok(_)) => {
                assert_late(&refused, "offboarding");
                false
            }
            other => panic!("{entity}: {other:#?}"),
        }
    };
    let mut held = 0;
    for group in ids("e", 200).chunks(40) {
        held +=
            join_all(group.iter().map(race)).await.into_iter().filter(|held| *held).count() as i64;
    }
    println!("{held} of 200 were held");
    assert_eq!(
        world.database.rows("entity WHERE hold_reason IS NOT NULL AND state = 'active'"),
        held
    );
    assert_eq!(
        world.database.rows("entity WHERE hold_reason IS NULL AND state = 'offboarding'"),
        200 - held
    );
    assert_eq!(world.database.rows("event WHERE type = 'entity.held'"), held);
    assert_eq!(world.database.rows("offboarding_request WHERE status = 'pending'"), 200 - held);
    world.database.assert_sound();
}

#[tokio::test]
async fn an_update_comes_before_an_offboarding_or_not_at_all() {
    let world = World::start_with(Protocol::Rest, &["--poll-interval", "0.01"]).await;
    world.database.given_many(Many { prefix: "e", count: 100, dependents: 2, portfolio: None });
    let race = async |entity: &String| {
        let update = async {
            pause().await;
            world
                .call(
                    "EntityService/UpdateEntity",
                    json!({"entity_id": entity, "entity": {"type": "New"}}),
                )
                .await
        };
        let remove = async {
            pause().await;
            world.call("RemovalService/RemoveEntity", json!({"entity_id": entity})).await
        };
        let (updated, job) = tokio::join!(update, remove);
        world.job_ended(&id(&job.unwrap()), "succeeded").await;
        let kept = world
            .database
            .text(&format!("SELECT type FROM tombstone WHERE entity_id = '{entity}'"));
        match updated {
            Ok(_) => assert_eq!(kept.as_deref(), Some("New"), "{entity}"),
            Err(refused) => {
                assert_late(&refused, "offboarding");
                assert_eq!(kept.as_deref(), Some("HCP"), "{entity}");
            }
        }
    };
    for group in ids("e", 100).chunks(25) {
        join_all(group.iter().map(race)).await;
    }
    assert_eq!(
        (
            world.database.rows("entity"),
            world.database.rows("dependent"),
            world.database.rows("tombstone")
        ),
        (0, 0, 100)
    );
    let updates = world.database.rows("event WHERE type = 'entity.updated'");
    println!("{updates} of 100 were updated in time");
    assert_eq!(world.database.rows("tombstone WHERE type = 'New'"), updates);
    world.database.assert_sound();
}

#[tokio::test]
async fn nothing_is_put_onto_an_entity_that_is_being_deleted() {
    for selection in ["listed", "matching"] {
        let world =
            World::start_with(Protocol::Rest, &["--bulk-workers", "2", "--bulk-chunk-size", "7"])
                .await;
        world.database.given_many(Many { prefix: "e", count: 150, dependents: 1, portfolio: None });
        let entities = ids("e", 150);
        let request = match selection {
            "listed" => json!({"uris": entities, "mode": "hard"}),
            _ => json!({"entity_type": "HCP", "mode": "hard"}),
        };
        let protocols = [world.through(Protocol::Grpc), world.through(Protocol::Rest)];
        let puts = entities.iter().enumerate().map(async |(n, entity)| {
            let (mut put, mut late) = (0, 0);
            for round in 0..6 {
                pause().await;
                let request = json!({"entity_id": entity, "kind": "task", "dependent_id": format!("late-{round}"), "data": {"n": round}});
                let mut answer = protocols[n % 2].call("EntityService/PutDependent", request.clone()).await;
                // A busy machine may keep one waiting for longer than a call waits for a connection.
                for _ in 0..10 {
                    if !answer.as_ref().is_err_and(|refused| refused.code == "unavailable") {
                        break;
                    }
                    answer = protocols[n % 2].call("EntityService/PutDependent", request.clone()).await;
                }
                match answer {
                    Ok(_) => put += 1,
                    Err(refused) => {
                        assert_eq!(refused.code, "not_found", "{refused:#?}");
                        late += 1;
                    }
                }
            }
            (put, late)
        });
        let (task, outcomes) = tokio::join!(world.schedule(request), join_all(puts));
        let account = Account::of(&world.task_ended(&task).await);
        let (put, late) = outcomes
            .iter()
            .fold((0, 0), |(put, late), outcome| (put + outcome.0, late + outcome.1));
        println!(
            "{selection}: {put} were put in time, {late} were too late, {} of 150 were deleted",
            account.processed
        );
        assert_eq!(
            (account.matched, world.database.rows("entity")),
            (150, 150 - account.processed)
        );
        assert_eq!(world.database.rows("event WHERE type = 'entity.updated'"), put);
        world.database.assert_sound();
    }
}

#[tokio::test]
async fn of_updates_that_expect_the_same_version_one_wins() {
    let world = World::start_with(Protocol::Rest, &["--roles", "grpc,gateway"]).await;
    world.database.given_many(Many { prefix: "e", count: 20, dependents: 0, portfolio: None });
    let protocols = [world.through(Protocol::Grpc), world.through(Protocol::Rest)];
    for entity in ids("e", 20) {
        let updates = (0..8).map(async |n: usize| {
            let update = json!({"attributes": {format!("by-{n}"): true}, "expected_version": 1});
            protocols[n % 2]
                .call("EntityService/UpdateEntity", json!({"entity_id": entity, "entity": update}))
                .await
        });
        let outcomes = join_all(updates).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{entity}");
        for refused in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(
                (refused.code.as_str(), &refused.members["current_version"]),
                ("state_conflict", &json!(2)),
                "{refused:#?}"
            );
        }
    }
    assert_eq!(world.database.rows("event WHERE type = 'entity.updated'"), 20);
}

#[tokio::test]
async fn merges_of_many_who_update_at_once_lose_nothing() {
    let world = World::start_with(Protocol::Rest, &["--roles", "grpc,gateway"]).await;
    world.given_entity("e", json!({"attributes": {"count": {"start": 0}}})).await;
    let protocols = [world.through(Protocol::Grpc), world.through(Protocol::Rest)];
    let updates = (0..64).map(async |n: usize| {
        let update = json!({"attributes": {"count": {format!("n{n}"): n}}});
        protocols[n % 2]
            .call("EntityService/UpdateEntity", json!({"entity_id": "e", "entity": update}))
            .await
            .unwrap()
    });
    join_all(updates).await;
    let entity = world.done("EntityService/GetEntity", json!({"entity_id": "e"})).await;
    assert_eq!(entity.get("attributes.count").as_object().unwrap().len(), 65);
    assert_eq!(entity.get("version"), 65);
}
