//! Callers who hang up: what they asked for ends with them, and nothing is done by halves.

use std::future::Future;
use std::time::Duration;

use diesel::connection::SimpleConnection;

use crate::kit::*;

/// No other bound would end a statement while a test waits.
const PATIENT: [&str; 3] =
    ["--db-lock-timeout=600", "--db-statement-timeout=600", "--request-timeout=600"];
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'offboard' AND wait_event_type = 'Lock'";

/// Holds what this locks until it is let go.
fn held(world: &World, lock: &str) -> diesel::PgConnection {
    let mut held = world.database.connection();
    held.batch_execute(&format!("BEGIN; {lock}")).unwrap();
    held
}

/// Makes a call that waits for a lock, hangs up, and sees its statement end long before anything else would end it.
async fn hang_up<T: Send + 'static>(
    world: &World,
    what: &str,
    call: impl Future<Output = T> + Send + 'static,
) {
    let call = tokio::spawn(call);
    until("the statement waits", || world.database.count(WAITING) == 1).await;
    call.abort();
    assert!(call.await.is_err_and(|ended| ended.is_cancelled()), "{what} was answered");
    for _ in 0..250 {
        if world.database.count(WAITING) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} goes on without its caller");
}

async fn patient(protocol: Protocol) -> World {
    let world = World::start_with(protocol, &PATIENT).await;
    world.portfolios(&["p"]).await;
    world.entities(&["e"]).await;
    world
}

scenario! {
    async fn a_read_ends_with_its_caller(world: &World) {
        let world = patient(world.protocol).await;
        let mut held = held(&world, "LOCK TABLE portfolio IN ACCESS EXCLUSIVE MODE");
        let client = world.client.clone();
        hang_up(&world, "a read", async move { client.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await }).await;
        held.batch_execute("ROLLBACK").unwrap();
        // As often as there are connections: none of them is left as it was.
        for _ in 0..20 {
            world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await.unwrap();
        }
    }

    async fn a_change_whose_caller_has_left_is_undone_and_made_once_by_the_same_key(world: &World) {
        let world = patient(world.protocol).await;
        let before = world.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
        let change = json!({"entity_id": "e", "entity": {"attributes": {"a": 1}}});
        let key = [("idempotency-key", "once")];
        for round in 0..2 {
            let mut held = held(&world, "SELECT 1 FROM entity WHERE id = 'e' FOR UPDATE");
            let (client, change) = (world.client.clone(), change.clone());
            hang_up(&world, "a change", async move { client.call_with("EntityService/UpdateEntity", change, &key).await }).await;
            held.batch_execute("ROLLBACK").unwrap();
            let now = world.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
            assert_eq!(now.json, before.json, "round {round}");
        }
        let done = world.client.call_with("EntityService/UpdateEntity", change.clone(), &key).await.unwrap();
        assert_eq!(done.get("version").as_i64(), before.get("version").as_i64().map(|version| version + 1));
        assert!(!done.headers.iter().any(|(name, _)| name == "idempotent-replayed"), "nothing was done before: {:?}", done.headers);
        let again = world.client.call_with("EntityService/UpdateEntity", change, &key).await.unwrap();
        assert_eq!(again.json, done.json);
        assert_eq!(world.database.events_of("entity.updated"), 1);
    }

    async fn an_import_ends_with_its_caller_and_keeps_nothing_of_what_it_had_in_hand(world: &World) {
        let world = patient(world.protocol).await;
        let mut held = held(&world, "LOCK TABLE entity IN SHARE MODE");
        let client = world.client.clone();
        let entities = [json!({"entity_id": "f", "type": "T"}), json!({"entity_id": "g", "type": "T"})];
        hang_up(&world, "an import", async move { client.import(&entities).await }).await;
        held.batch_execute("ROLLBACK").unwrap();
        world.entities(&["h"]).await;
        assert_eq!(world.database.entity_ids().unwrap(), "e,h");
    }

    async fn an_export_ends_with_its_caller(world: &World) {
        let world = patient(world.protocol).await;
        world.attach("p", "e").await.unwrap();
        let mut held = held(&world, "LOCK TABLE dependent IN ACCESS EXCLUSIVE MODE");
        let client = world.client.clone();
        let export = async move { client.stream("PortfolioService/ExportPortfolio", json!({"portfolio_id": "p"}), &[]).await.map(drop) };
        hang_up(&world, "an export", export).await;
        held.batch_execute("ROLLBACK").unwrap();
        world.client.stream("PortfolioService/ExportPortfolio", json!({"portfolio_id": "p"}), &[]).await.unwrap().message().await;
    }
}
