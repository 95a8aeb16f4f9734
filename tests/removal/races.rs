//! Callers and workers that want different things of one entity at the same moment: each time exactly one of them gets its way.

use std::time::Duration;

use futures::future::join_all;

use crate::given::{Account, Many, assert_status, id, text};
use crate::kit::*;

/// A number from 0 to below `bound`.
fn any(bound: u64) -> u64 {
    rand::random::<u64>() % bound
}

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Asks for an offboarding that becomes ready in a moment and cancels it about then, earlier by so many milliseconds. Returns the request's
/// id and whether the cancel won.
async fn cancel_about_when_it_starts(
    client: Client,
    entity: String,
    earlier: u64,
) -> (String, bool) {
    let grace = 300 + any(200) + earlier;
    let asking =
        json!({"entity_id": entity, "grace_period": format!("{:.3}s", grace as f64 / 1000.0)});
    let asked = client.call("OffboardingService/RequestOffboarding", asking).await.unwrap();
    let due = asked.get("execute_after").as_i64().unwrap();
    let now = chrono::Utc::now().timestamp_millis();
    let spread = any(120).cast_signed() - 60 - earlier.cast_signed();
    pause((due - now + spread).max(0).cast_unsigned()).await;
    let cancel = json!({"offboarding_request_id": id(&asked)});
    match client.call("OffboardingService/CancelOffboardingRequest", cancel).await {
        Ok(canceled) => {
            assert_eq!(canceled.get("status"), "canceled");
            (id(&asked), true)
        }
        Err(lost) => {
            assert_eq!(
                (lost.code.as_str(), lost.http.unwrap_or(400)),
                ("not_cancelable", 400),
                "{lost:#?}"
            );
            let now_is = lost.members["current_state"].as_str().unwrap();
            assert!(["Running", "Succeeded"].contains(&now_is), "{now_is}");
            (id(&asked), false)
        }
    }
}

#[tokio::test]
async fn of_a_cancel_and_a_start_exactly_one_wins() {
    const ROUNDS: usize = 20;
    const AT_ONCE: usize = 50;
    let world = World::start_with(Protocol::Grpc, &["--poll-interval", "0.01"]).await;
    world.given_portfolio("p").await;
    world.database.given_many(Many {
        prefix: "e",
        count: (ROUNDS * AT_ONCE) as i64,
        dependents: 2,
        portfolio: Some("p"),
    });
    let protocols = [world.through(Protocol::Grpc), world.through(Protocol::Rest)];
    let mut outcomes = Vec::new();
    // A busy machine makes every cancel late: then the next ones come earlier.
    let mut earlier = 0;
    for round in 0..ROUNDS {
        let entity = |n: usize| format!("e-{:06}", round * AT_ONCE + n);
        let races = (1..=AT_ONCE)
            .map(|n| cancel_about_when_it_starts(protocols[n % 2].clone(), entity(n), earlier));
        let ended = join_all(races).await;
        match ended.iter().filter(|(_, canceled)| *canceled).count() {
            0 => earlier = (2 * earlier + 100).min(4_000),
            AT_ONCE => earlier /= 2,
            _ => {}
        }
        outcomes.extend(ended);
    }
    let canceled: Vec<_> = outcomes
        .iter()
        .filter(|(_, canceled)| *canceled)
        .map(|(request, _)| format!("'{request}'"))
        .collect();
    let (raced, won) = (outcomes.len() as i64, canceled.len() as i64);
    println!("{won} of {raced} were called off in time");
    assert!((1..raced).contains(&won), "one side always wins: that is not a race");
    let database = &world.database;
    until("all requests have ended", || {
        database.rows("offboarding_request WHERE status IN ('pending', 'running')") == 0
    })
    .await;
    // If the cancel succeeded, the entity is as it was; all others are removed.
    let canceled = canceled.join(", ");
    let kept = format!(
        "offboarding_request r JOIN entity e ON e.id = r.entity_id
         WHERE r.id IN ({canceled}) AND r.status = 'canceled' AND e.state = 'active' AND e.portfolio_id = 'p'
           AND (SELECT count(*) FROM dependent d WHERE d.entity_id = e.id) = 2"
    );
    let gone = format!(
        "offboarding_request r JOIN tombstone t ON t.job_id = r.id
         WHERE r.id NOT IN ({canceled}) AND r.status = 'succeeded' AND NOT EXISTS (SELECT FROM entity e WHERE e.id = r.entity_id)"
    );
    assert_eq!((database.rows(&kept), database.rows(&gone)), (won, raced - won));
    assert_eq!((database.rows("entity"), database.rows("offboarding_request")), (won, raced));
    assert_eq!(database.entity_count(), won);
    assert_eq!(database.rows("event WHERE type = 'entity.offboarding_canceled'"), won);
    assert_eq!(database.rows("event WHERE type = 'entity.offboarded'"), raced - won);
    database.assert_sound();
}

/// Nothing is done here, so that what was asked for first is still there for whoever comes second.
#[tokio::test]
async fn of_two_who_ask_at_once_one_is_first_and_both_get_its_request() {
    const ROUNDS: usize = 20;
    const AT_ONCE: usize = 50;
    let world = World::start_with(Protocol::Rest, &["--roles", "grpc,gateway"]).await;
    let raced = (ROUNDS * AT_ONCE) as i64;
    world.database.given_many(Many { prefix: "e", count: raced, dependents: 0, portfolio: None });
    let asks = ["RemovalService/RemoveEntity", "OffboardingService/RequestOffboarding"];
    let race = async |entity: String| {
        let answers =
            join_all(asks.map(|method| world.done(method, json!({"entity_id": entity})))).await;
        let first = answers.iter().filter(|answer| matches!(answer.http, Some(201 | 202))).count();
        assert_eq!(first, 1, "{entity}");
        answers
            .iter()
            .filter(|answer| !matches!(answer.http, Some(201 | 202)))
            .for_each(|later| assert_status(later, 200));
        assert!(answers.iter().all(|answer| id(answer) == id(&answers[0])), "{entity}");
    };
    for round in 0..ROUNDS {
        join_all((1..=AT_ONCE).map(|n| race(format!("e-{:06}", round * AT_ONCE + n)))).await;
    }
    assert_eq!(world.database.rows("offboarding_request WHERE status = 'pending'"), raced);
    assert_eq!(world.database.rows("event WHERE type = 'entity.offboarding_requested'"), raced);
    world.database.assert_sound();
}

#[tokio::test]
async fn an_entity_goes_by_an_offboarding_or_by_a_bulk_delete_and_never_by_both() {
    const ROUNDS: i64 = 10;
    const AT_ONCE: i64 = 20;
    let world =
        World::start_with(Protocol::Rest, &["--bulk-workers", "2", "--bulk-chunk-size", "3"]).await;
    world.given_portfolio("p").await;
    let mut by_task = 0;
    for round in 0..ROUNDS {
        let prefix = format!("e{round}");
        world.database.given_many(Many {
            prefix: &prefix,
            count: AT_ONCE,
            dependents: 2,
            portfolio: Some("p"),
        });
        let entities: Vec<_> = (1..=AT_ONCE).map(|n| format!("{prefix}-{n:06}")).collect();
        let start = world.schedule(json!({"uris": entities, "mode": "hard"}));
        let removals = entities.iter().map(async |entity| {
            pause(any(250)).await;
            world.call("RemovalService/RemoveEntity", json!({"entity_id": entity})).await
        });
        let (task, removals) = tokio::join!(start, join_all(removals));
        let account = Account::of(&world.task_ended(&task).await);
        assert_eq!((account.matched, account.excluded), (AT_ONCE, 0));
        let mut by_job = 0;
        for (entity, removal) in entities.iter().zip(removals) {
            let job_kind = match removal {
                Ok(job) => {
                    assert_status(&job, 202);
                    by_job += 1;
                    world.job_ended(&id(&job), "succeeded").await;
                    "offboarding"
                }
                Err(refusal) => {
                    assert_eq!(refusal.code, "not_found", "{refusal:#?}");
                    "bulk_delete"
                }
            };
            let tombstones = format!(
                "SELECT string_agg(job_kind, ' ') FROM tombstone WHERE entity_id = '{entity}'"
            );
            assert_eq!(world.database.text(&tombstones).as_deref(), Some(job_kind), "{entity}");
        }
        assert_eq!(
            (account.processed, account.failed + account.skipped),
            (AT_ONCE - by_job, by_job)
        );
        for failure in world.failures(&task).await {
            assert!(
                failure.ends_with(": offboarding") || failure.ends_with(": not_found"),
                "{failure}"
            );
        }
        by_task += account.processed;
    }
    let raced = ROUNDS * AT_ONCE;
    println!("{by_task} of {raced} went by a task");
    assert!((1..raced).contains(&by_task), "one side always wins: that is not a race");
    assert_eq!((world.database.rows("entity"), world.database.rows("tombstone")), (0, raced));
    assert_eq!(world.database.entity_count(), 0);
    world.database.assert_sound();
}

/// Members come, move, and leave while they are removed; every portfolio still counts those that it has.
#[tokio::test]
async fn a_portfolio_counts_its_members_whoever_moves_or_removes_them() {
    let world = World::start(Protocol::Rest).await;
    for portfolio in ["p", "q"] {
        world.given_portfolio(portfolio).await;
    }
    world.database.given_many(Many { prefix: "e", count: 80, dependents: 1, portfolio: Some("p") });
    let grpc = world.through(Protocol::Grpc);
    let attach = "PortfolioService/AttachEntity";
    let detach = "PortfolioService/DetachEntity";
    let remove = "RemovalService/RemoveEntity";
    let calls = (1..=80_u64).flat_map(|n| {
        let client = if n % 2 == 0 { &grpc } else { &world.client };
        let mut calls = vec![
            (client, n, attach, Some("q")),
            (client, n, detach, Some("p")),
            (client, n, attach, Some("p")),
        ];
        calls.extend((n % 3 > 0).then_some((client, n, remove, None)));
        calls
    });
    let outcomes = join_all(calls.map(async |(client, n, method, portfolio)| {
        pause(any(400)).await;
        let mut request = json!({"entity_id": format!("e-{n:06}")});
        if let Some(portfolio) = portfolio {
            request["portfolio_id"] = json!(portfolio);
        }
        (method, client.call(method, request).await)
    }))
    .await;
    for (method, outcome) in outcomes {
        match outcome {
            Ok(job) if method == remove => drop(world.job_ended(&id(&job), "succeeded").await),
            Ok(_) => {}
            Err(refusal) => {
                assert_ne!(method, remove, "{refusal:#?}");
                let expected = ["not_found", "state_conflict", "invalid_state_transition"];
                assert!(expected.contains(&refusal.code.as_str()), "{method}: {refusal:#?}");
            }
        }
    }
    assert_eq!((world.database.rows("entity"), world.database.rows("tombstone")), (26, 54));
    world.database.assert_sound();
    for portfolio in ["p", "q"] {
        let folio =
            world.done("PortfolioService/GetPortfolio", json!({"portfolio_id": portfolio})).await;
        let members = folio.get("entity_ids").as_array().unwrap();
        assert_eq!(folio.get("entity_count"), members.len());
        for member in members {
            assert!(world.sees(&text(member)).await);
        }
    }
}
