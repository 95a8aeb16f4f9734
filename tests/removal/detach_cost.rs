//! A detach costs the same whatever the size of the portfolio.

use std::collections::BTreeMap;

use diesel::connection::SimpleConnection;
use diesel::sql_types::Json;
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use offboard::portfolio::queries::Detach;

use crate::given::Many;
use crate::kit::*;

/// How many pages of the database a detach reads, as Postgres counts them in a plan that it runs and rolls back.
fn pages_read(connection: &mut PgConnection, realm: i64, portfolio: &str, entity: &str) -> i64 {
    #[derive(QueryableByName)]
    struct Plan {
        #[diesel(sql_type = Json, column_name = "QUERY PLAN")]
        plan: Value,
    }
    connection.batch_execute("BEGIN").unwrap();
    let arguments = format!("{realm}, gen_random_uuid(), '{portfolio}', '{entity}', 1000");
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE detach ({arguments})");
    let plan: Plan = sql_query(explain).get_result(connection).unwrap();
    connection.batch_execute("ROLLBACK").unwrap();
    let root = &plan.plan[0]["Plan"];
    assert_eq!(root["Actual Rows"].as_f64(), Some(1.0), "it was a member: {root:#}");
    // What nobody reads from, the event, is run behind the rest and counts for itself.
    let event = root["Plans"].as_array().unwrap().iter().find(|plan| plan["Subplan Name"] == "CTE told").expect("it tells of it");
    let pages = |plan: &Value| plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap();
    pages(root) + pages(event)
}

fn prepare(connection: &mut PgConnection) {
    let names = ["realm", "principal", "portfolio", "entity", "shown"];
    let text = names
        .iter()
        .enumerate()
        .fold(Detach::TEXT.to_owned(), |text, (n, name)| text.replace(&format!("{{{name}}}"), &format!("${}", n + 1)));
    connection
        .batch_execute(&format!("SET plan_cache_mode = force_generic_plan; PREPARE detach (int4, uuid, text, text, int8) AS {text}"))
        .unwrap();
}

#[tokio::test]
async fn a_detach_reads_as_much_in_a_portfolio_of_many_as_in_one_of_a_thousand() {
    let world = World::start_with(Door::Grpc, &["--roles", "grpc,gateway"]).await;
    let sizes = [("ten", 10), ("thousand", 1_001), ("many", 150_000)];
    for (portfolio, count) in sizes {
        world.given_portfolio(portfolio).await;
        world.database.given_many(Many { prefix: portfolio, count, dependents: 0, portfolio: Some(portfolio) });
    }
    world.database.sql("VACUUM ANALYZE");
    let (mut connection, realm) = (world.database.connection(), world.database.realm());
    prepare(&mut connection);
    let mut read = BTreeMap::new();
    for (portfolio, count) in sizes {
        // The first, one in the middle, and the last of the members.
        for n in [1, count / 2, count] {
            let entity = format!("{portfolio}-{n:06}");
            pages_read(&mut connection, realm, portfolio, &entity);
            read.insert((portfolio, n), pages_read(&mut connection, realm, portfolio, &entity));
        }
    }
    println!("{read:?}");
    let most = |portfolio: &str| *read.iter().filter(|((of, _), _)| *of == portfolio).map(|(_, pages)| pages).max().unwrap();
    // The answer names up to 1,000 members, which stand on a few pages of an index; an index of more rows has another level or two.
    assert!(most("many") <= most("thousand") + 8, "{read:?}");
    assert!(most("many") <= most("ten") + 64, "{read:?}");
}

/// How many statements of each kind the server has run.
async fn statements(world: &World) -> BTreeMap<String, u64> {
    let metrics = http(world.server.addresses.admin, "GET", "/metrics", &[], "").await.text();
    let series = metrics.lines().filter_map(|line| line.strip_prefix("db_client_operation_duration_seconds_count{db_operation_name=\""));
    let mut counted = BTreeMap::new();
    for line in series {
        let (name, rest) = line.split_once('"').unwrap();
        let count: f64 = rest.rsplit(' ').next().unwrap().parse().unwrap();
        *counted.entry(name.to_owned()).or_default() += count as u64;
    }
    counted
}

scenario! {
    async fn a_detach_is_one_statement_in_a_portfolio_of_any_size(world: &World) {
        for (portfolio, count) in [("ten", 10), ("many", 20_000)] {
            world.given_portfolio(portfolio).await;
            world.database.given_many(Many { prefix: portfolio, count, dependents: 0, portfolio: Some(portfolio) });
            // The caller's key is known from here on.
            world.done("PortfolioService/GetPortfolio", json!({"portfolio_id": portfolio})).await;
            let before = statements(world).await;
            let calls = 5;
            for n in 1..=calls {
                let request = json!({"portfolio_id": portfolio, "entity_id": format!("{portfolio}-{n:06}")});
                let detached = world.done("PortfolioService/DetachEntity", request).await;
                assert_eq!(*detached.get("entity_count"), count - n);
            }
            let after = statements(world).await;
            let more = |name: &str| after.get(name).copied().unwrap_or_default() - before.get(name).copied().unwrap_or_default();
            assert_eq!(more("WITH"), calls.unsigned_abs(), "{before:?} {after:?}");
            for other in ["BEGIN", "COMMIT", "UPDATE", "INSERT", "DELETE"] {
                assert_eq!(more(other), 0, "{other}: {before:?} {after:?}");
            }
        }
        world.database.sql("DELETE FROM entity");
    }

    async fn a_batch_is_three_statements_of_any_number_of_entities(world: &World) {
        world.given_portfolio("p").await;
        world.given_portfolio("q").await;
        world.database.given_many(Many { prefix: "e", count: 1_000, dependents: 0, portfolio: None });
        let ids: Vec<String> = (1..=1_000).map(|n| format!("e-{n:06}")).collect();
        for (method, portfolio) in [("BatchAttachEntities", "p"), ("BatchAttachEntities", "q"), ("BatchDetachEntities", "q")] {
            for many in [&ids[..1], &ids] {
                let before = statements(world).await;
                world.done(&format!("PortfolioService/{method}"), json!({"portfolio_id": portfolio, "entity_ids": many})).await;
                let after = statements(world).await;
                let more = |name: &str| after.get(name).copied().unwrap_or_default() - before.get(name).copied().unwrap_or_default();
                assert_eq!((more("BEGIN"), more("COMMIT"), more("WITH")), (1, 1, 1), "{before:?} {after:?}");
                // To lock and to answer, and at most one to know the caller.
                assert!((2..=3).contains(&more("SELECT")), "{before:?} {after:?}");
            }
        }
        world.database.assert_sound();
    }
}
