//! Calls that wait at once are done together: each has its own response, and none has another's trouble.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use futures::future::{join_all, try_join_all};

use crate::attribute_indexes::indexed;
use crate::kit::*;

const MEMBERS: usize = 40;

/// A portfolio with members `e0` and so on.
async fn with_members(world: &World) {
    world.portfolios(&["p"]).await;
    let entities: Vec<Value> = (0..MEMBERS)
        .map(|n| json!({"entity_id": format!("e{n}"), "type": "T", "portfolio_id": "p"}))
        .collect();
    world.client.import(&entities).await.unwrap();
}

fn change(n: usize, view: &str) -> Value {
    json!({"portfolio_id": "p", "entity_id": format!("e{n}"), "view": view})
}

/// How many transactions have reported this.
fn transactions(world: &World, event: &str) -> i64 {
    world.database.transactions_of(&format!("portfolio.{event}"))
}

/// Makes calls that find the first of them delayed.
async fn piled_up<T>(world: &World, calls: impl Future<Output = T>) -> T {
    let mut held = world.database.connection();
    held.batch_execute("BEGIN; LOCK TABLE entity IN EXCLUSIVE MODE").unwrap();
    let release = async {
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'entity'::regclass";
        until("one waits", || world.database.count(waiting) > 0).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        held.batch_execute("COMMIT").unwrap();
    };
    tokio::join!(calls, release).0
}

scenario! {
    async fn changes_of_one_portfolio_at_once_are_each_a_step_of_it(world: &World) {
        with_members(world).await;
        let first = world.portfolio("p").await["version"].as_i64().unwrap();
        for (round, (method, event)) in [("DetachEntity", "entity_detached"), ("AttachEntity", "entity_attached")].into_iter().enumerate() {
            let before = transactions(world, event);
            let method = format!("PortfolioService/{method}");
            let calls = (0..MEMBERS).map(|n| {
                let (client, method) = (world.client.clone(), method.clone());
                async move { client.call(&method, change(n, if n % 2 == 0 { "full" } else { "basic" })).await }
            });
            let answers = piled_up(world, try_join_all(calls)).await.unwrap();
            let from = first + (round * MEMBERS) as i64;
            let mut versions = BTreeSet::new();
            for (n, answer) in answers.iter().enumerate() {
                let version = answer.get("version").as_i64().unwrap();
                let count = answer.get("entity_count").as_i64().unwrap_or_default();
                let members = answer.get("entity_ids").as_array().map_or(0, Vec::len);
                assert!((from + 1..=from + MEMBERS as i64).contains(&version), "{version} after {from}");
                assert_eq!(count, if round == 0 { from + MEMBERS as i64 - version } else { version - from }, "as if one came after the other");
                if n % 2 == 1 {
                    assert!(versions.insert(version), "each has its own version");
                    assert_eq!(members, 0, "the basic view has no members");
                } else {
                    // It is read anew where others have changed the same portfolio.
                    assert_eq!(members as i64, count);
                }
            }
            let reported = transactions(world, event) - before;
            assert!(reported < MEMBERS as i64 / 2, "most are done together: {reported}");
            let each = format!("SELECT count(DISTINCT data->'entity_ids'->>0) FROM event WHERE type = 'portfolio.{event}'");
            assert_eq!(world.database.count(&each), MEMBERS as i64);
        }
        let now = world.portfolio("p").await;
        assert_eq!((now["entity_count"].as_i64(), now["entity_ids"].as_array().map(Vec::len)), (Some(MEMBERS as i64), Some(MEMBERS)));
        let wrong = "SELECT count(*) FROM (
            SELECT (data->>'version')::int8 - row_number() OVER (ORDER BY seq) AS ahead
            FROM event WHERE type LIKE 'portfolio.entity_%' AND subjects = ARRAY['p']) t WHERE ahead <> 1";
        assert_eq!(world.database.count(wrong), 0, "the events are in the order of the versions");
        assert_eq!(world.entity("e0").await["version"], 3);
    }

    /// Large ones are read one by one, so that many at once take little memory.
    async fn entities_that_are_read_together_are_whole_however_large_they_are(world: &World) {
        let noise = |length: usize| (0..length).map(|_| char::from(rand::random_range(b'a'..=b'z'))).collect::<String>();
        let texts = [String::new(), "x".repeat(300_000), noise(100_000), noise(10_000), "y".repeat(3_000)];
        for (n, text) in texts.iter().enumerate() {
            let entity = json!({"entity_id": format!("e{n}"), "type": "T", "attributes": {"text": text}});
            world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
        }
        let gets = (0..60).map(|n| world.call("EntityService/GetEntity", json!({"entity_id": format!("e{}", n % 6)})));
        for (n, answer) in join_all(gets).await.into_iter().enumerate() {
            match texts.get(n % 6) {
                Some(text) => assert!(answer.unwrap().get("attributes.text").as_str() == Some(text), "{n}"),
                None => assert_eq!(answer.unwrap_err().code, "not_found"),
            }
        }
    }

    async fn what_somebody_has_locked_keeps_nobody_else(world: &World) {
        with_members(world).await;
        let mut held = world.database.connection();
        held.batch_execute("BEGIN; SELECT FROM entity WHERE id = 'e0' FOR UPDATE").unwrap();
        let client = world.client.clone();
        let waits = tokio::spawn(async move { client.call("PortfolioService/DetachEntity", change(0, "basic")).await });
        for round in 0..3 {
            let others = (1..MEMBERS / 4).map(|n| world.call("PortfolioService/DetachEntity", change(round * 10 + n, "basic")));
            try_join_all(others).await.unwrap();
            assert!(!waits.is_finished(), "somebody else has it locked");
        }
        held.batch_execute("COMMIT").unwrap();
        waits.await.unwrap().unwrap();
        assert_eq!(world.database.entity_count(), MEMBERS as i64 - 3 * (MEMBERS as i64 / 4 - 1) - 1);
    }

    async fn one_that_the_database_refuses_costs_itself(world: &World) {
        with_members(world).await;
        world.database.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON entity FOR EACH ROW WHEN (OLD.id = 'e7') EXECUTE FUNCTION refuse()",
        );
        let answers = piled_up(world, join_all((0..MEMBERS).map(|n| world.call("PortfolioService/DetachEntity", change(n, "basic"))))).await;
        for (n, answer) in answers.iter().enumerate() {
            assert_eq!(answer.is_err(), n == 7, "{n}: {answer:?}");
        }
        assert_eq!(world.database.entity_count(), 1);
        assert_eq!(world.database.events_of("portfolio.entity_detached"), MEMBERS as i64 - 1);
    }

    async fn an_entity_that_is_detached_many_times_at_once_takes_one_step(world: &World) {
        with_members(world).await;
        let calls = (0..MEMBERS).map(|n| world.call("PortfolioService/DetachEntity", change(n % 4, "basic")));
        piled_up(world, try_join_all(calls)).await.unwrap();
        assert_eq!(world.database.entity_count(), MEMBERS as i64 - 4);
        assert_eq!(world.database.events_of("portfolio.entity_detached"), 4);
        assert_eq!(world.entity("e3").await["version"], 2);
    }

    async fn each_reads_its_own_world(world: &World) {
        world.entities(&["same", "mine"]).await;
        let other = world.client("umbrella", "test", SCOPES);
        let theirs = json!({"entity": {"entity_id": "same", "type": "THEIRS"}});
        other.call("EntityService/CreateEntity", theirs).await.unwrap();
        let calls = (0..90).map(|n| {
            let (client, id) = (if n % 2 == 0 { &world.client } else { &other }, ["same", "mine", "none"][n % 3]);
            client.call("EntityService/GetEntity", json!({"entity_id": id}))
        });
        for (n, answer) in join_all(calls).await.into_iter().enumerate() {
            match (n % 2, n % 3) {
                (0, 0 | 1) => assert_ne!(answer.unwrap().get("type"), "THEIRS"),
                (_, 0) => assert_eq!(answer.unwrap().get("type"), "THEIRS"),
                _ => assert_eq!(answer.unwrap_err().code, "not_found"),
            }
        }
    }

    async fn creations_at_once_are_each_an_entity_with_all_that_hangs_on_it(world: &World) {
        let other = world.client("umbrella", "test", SCOPES);
        let entity = |n: usize| {
            json!({"entity": {
                "entity_id": format!("c{n}"), "type": "T", "attributes": {"n": n}, "components": ["0190a1b2-0000-7000-8000-000000000001"],
                "dependents": [{"kind": "task", "id": format!("d{n}"), "data": {"of": n}}]}})
        };
        let calls = (0..MEMBERS).map(|n| (if n % 4 == 3 { &other } else { &world.client }).call("EntityService/CreateEntity", entity(n)));
        let answers = piled_up(world, try_join_all(calls)).await.unwrap();
        for (n, answer) in answers.iter().enumerate() {
            assert_eq!((answer.get("id"), answer.get("version")), (&json!(format!("c{n}")), &json!(1)));
            let client = if n % 4 == 3 { &other } else { &world.client };
            let read = client.call("EntityService/GetEntity", json!({"entity_id": format!("c{n}")})).await.unwrap();
            assert_eq!(&read.json, &answer.json, "what is said is what is there");
        }
        let dependents = "SELECT count(*) FROM dependent d JOIN entity e ON e.realm_id = d.realm_id AND e.id = d.entity_id
            WHERE d.data->>'of' = e.attributes->>'n' AND d.id = 'd' || (e.attributes->>'n')";
        assert_eq!(world.database.count(dependents), MEMBERS as i64);
        let events = "SELECT count(*) FROM event v JOIN entity e ON e.realm_id = v.realm_id AND ARRAY[e.id] = v.subjects WHERE v.type = 'entity.created'";
        assert_eq!(world.database.count(events), MEMBERS as i64);
        let transactions = world.database.transactions_of("entity.created");
        assert!(transactions < MEMBERS as i64 / 2, "most are done together: {transactions}");
    }

    async fn of_those_who_create_one_id_at_once_one_does(world: &World) {
        let calls = (0..MEMBERS).map(|n| {
            world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": format!("c{}", n % 4), "type": format!("T{n}")}}))
        });
        let answers = piled_up(world, join_all(calls)).await;
        let created = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(created, 4);
        for (n, answer) in answers.iter().enumerate() {
            let stored = world.entity(&format!("c{}", n % 4)).await["type"] == format!("T{n}");
            assert_eq!(answer.is_ok(), stored, "{n}: {answer:?}");
            assert!(answer.as_ref().err().is_none_or(|failure| failure.code == "already_exists"), "{n}: {answer:?}");
        }
        assert_eq!(world.database.events_of("entity.created"), 4);
    }

    async fn an_id_that_somebody_is_creating_keeps_nobody_else(world: &World) {
        let mut held = world.database.connection();
        held.batch_execute(
            "BEGIN; INSERT INTO entity (realm_id, id, incarnation, type, state)
             SELECT id, 'c0', gen_random_uuid(), 'T', 'active' FROM realm WHERE org = 'acme'",
        )
        .unwrap();
        let create = |id: String| json!({"entity": {"entity_id": id, "type": "T"}});
        let (client, first) = (world.client.clone(), create("c0".to_owned()));
        let waits = tokio::spawn(async move { client.call("EntityService/CreateEntity", first).await });
        for round in 0..3 {
            try_join_all((1..10).map(|n| world.call("EntityService/CreateEntity", create(format!("c{round}.{n}"))))).await.unwrap();
            assert!(!waits.is_finished(), "somebody else is creating it: {:?}", waits.await);
        }
        held.batch_execute("ROLLBACK").unwrap();
        waits.await.unwrap().unwrap();
        assert_eq!(world.database.events_of("entity.created"), 28);
    }

    async fn what_is_created_at_once_is_indexed_and_follows_whoever_had_its_id(world: &World) {
        world.entities(&["c0"]).await;
        world.call("RemovalService/RemoveEntity", json!({"entity_id": "c0"})).await.unwrap();
        until("it is removed", || !world.database.has_entity("c0")).await;
        let create = |n: usize| json!({"entity": {"entity_id": format!("c{n}"), "type": "T", "attributes": {"n": n}}});
        let calls = (0..MEMBERS).map(|n| world.call("EntityService/CreateEntity", create(n)));
        piled_up(world, try_join_all(calls)).await.unwrap();
        assert_eq!(world.database.requests_not_followed(), 0);
        indexed(world, "n").await;
        let calls = (MEMBERS..2 * MEMBERS).map(|n| world.call("EntityService/CreateEntity", create(n)));
        piled_up(world, try_join_all(calls)).await.unwrap();
        until("all are indexed", || world.database.rows("attribute_index") == 2 * MEMBERS as i64).await;
    }

    async fn each_reads_its_own_portfolio(world: &World) {
        world.portfolios(&["same", "mine"]).await;
        world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T", "portfolio_id": "same"}})).await.unwrap();
        let other = world.client("umbrella", "test", SCOPES);
        other.call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "same", "name": "Theirs"})).await.unwrap();
        let calls = (0..90).map(|n| {
            let (client, id) = (if n % 2 == 0 { &world.client } else { &other }, ["same", "mine", "none"][n % 3]);
            client.call("PortfolioService/GetPortfolio", json!({"portfolio_id": id, "view": if n % 5 == 0 { "basic" } else { "full" }}))
        });
        for (n, answer) in join_all(calls).await.into_iter().enumerate() {
            match (n % 2, n % 3) {
                (0, 0) => {
                    let members = answer.unwrap().get("entity_ids").as_array().map_or(0, Vec::len);
                    assert_eq!(members, usize::from(n % 5 != 0), "{n}");
                }
                (0, 1) => assert_ne!(answer.unwrap().get("name"), "Theirs"),
                (_, 0) => assert_eq!(answer.unwrap().get("name"), "Theirs"),
                _ => assert_eq!(answer.unwrap_err().code, "not_found"),
            }
        }
    }
}
