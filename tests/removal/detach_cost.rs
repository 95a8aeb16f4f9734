//! A detach costs the same whatever the size of the portfolio.

use std::collections::BTreeMap;
use std::time::Duration;

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
    // The statement that nobody reads from, the event, runs after the rest and counts for itself.
    let event = root["Plans"]
        .as_array()
        .unwrap()
        .iter()
        .find(|plan| plan["Subplan Name"] == "CTE recorded")
        .expect("the plan has the event");
    let pages = |plan: &Value| {
        plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap()
    };
    pages(root) + pages(event)
}

fn prepare(connection: &mut PgConnection) {
    let names = ["realm", "principal", "portfolio", "entity", "shown"];
    let text = names.iter().enumerate().fold(Detach::TEXT.to_owned(), |text, (n, name)| {
        text.replace(&format!("{{{name}}}"), &format!("${}", n + 1))
    });
    connection
        .batch_execute(&format!("SET plan_cache_mode = force_generic_plan; PREPARE detach (int4, uuid, text, text, int8) AS {text}"))
        .unwrap();
}

#[tokio::test]
async fn a_detach_reads_as_much_in_a_portfolio_of_many_as_in_one_of_a_thousand() {
    let world = World::start_with(Protocol::Grpc, &["--roles", "grpc,gateway"]).await;
    let sizes = [("ten", 10), ("thousand", 1_001), ("many", 150_000)];
    for (portfolio, count) in sizes {
        world.given_portfolio(portfolio).await;
        world.database.given_many(Many {
            prefix: portfolio,
            count,
            dependents: 0,
            portfolio: Some(portfolio),
        });
    }
    // A row whose commit is not on disk yet cannot be marked as visible to all, and the tests' Postgres may commit before it writes.
    world.database.sql("SET synchronous_commit = on; CREATE TABLE written ()");
    let visible = "SELECT (relallvisible >= relpages)::int FROM pg_class WHERE relname = 'entity'";
    until("all rows are visible to all", || {
        world.database.sql("VACUUM ANALYZE");
        world.database.count(visible) == 1
    })
    .await;
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
    let most = |portfolio: &str| {
        *read.iter().filter(|((of, _), _)| *of == portfolio).map(|(_, pages)| pages).max().unwrap()
    };
    // The response names up to 1,000 members, which stand on a few pages of an index; an index of more rows has another level or two.
    assert!(most("many") <= most("thousand") + 8, "{read:?}");
    assert!(most("many") <= most("ten") + 32, "{read:?}");
}

/// How many statements of each kind the server has run.
async fn statements(world: &World) -> BTreeMap<String, u64> {
    let metrics = http(world.server.addresses.admin, "GET", "/metrics", &[], "").await.text();
    let series = metrics.lines().filter_map(|line| {
        line.strip_prefix("db_client_operation_duration_seconds_count{db_operation_name=\"")
    });
    let mut counted = BTreeMap::new();
    for line in series {
        let (name, rest) = line.split_once('"').unwrap();
        let count: f64 = rest.rsplit(' ').next().unwrap().parse().unwrap();
        *counted.entry(name.to_owned()).or_default() += count as u64;
    }
    counted
}

/// How many statements of each kind a call makes. Workers and keepers of the server have statements of their own, at their own times, which
/// add to some of the counts: the least that was seen is what the call makes.
#[derive(Default)]
struct Least(BTreeMap<&'static str, u64>);

impl Least {
    async fn measure<F: Future<Output = ()>>(&mut self, world: &World, call: F) {
        let before = statements(world).await;
        call.await;
        let after = statements(world).await;
        for name in ["WITH", "SELECT", "BEGIN", "COMMIT", "UPDATE", "INSERT", "DELETE"] {
            let more = after.get(name).copied().unwrap_or_default()
                - before.get(name).copied().unwrap_or_default();
            self.0.entry(name).and_modify(|least| *least = more.min(*least)).or_insert(more);
        }
    }

    /// Those that there were, as `NAME COUNT`.
    fn text(&self) -> String {
        let there = self
            .0
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(name, count)| format!("{name} {count}"));
        there.collect::<Vec<_>>().join(", ")
    }
}

/// How often it is measured at most, until no statement of the server's own came between. The pauses in between differ, so that no look keeps step
/// with what the server does once a second.
const LOOKS: i64 = 40;

async fn pause(attempt: i64) {
    tokio::time::sleep(Duration::from_millis((attempt as u64 - 1).min(9) * 37)).await;
}

scenario! {
    async fn a_detach_is_one_statement_in_a_portfolio_of_any_size(world: &World) {
        const STATEMENTS: &str = "WITH 1";
        for (portfolio, count) in [("ten", 10), ("many", 20_000)] {
            world.given_portfolio(portfolio).await;
            world.database.given_many(Many { prefix: portfolio, count, dependents: 0, portfolio: Some(portfolio) });
            let mut least = Least::default();
            for n in 1..=LOOKS.min(count) {
                let request = json!({"portfolio_id": portfolio, "entity_id": format!("{portfolio}-{n:06}")});
                let detach = async {
                    let detached = world.done("PortfolioService/DetachEntity", request).await;
                    assert_eq!(*detached.get("entity_count"), count - n);
                };
                least.measure(world, detach).await;
                if least.text() == STATEMENTS {
                    break;
                }
                pause(n).await;
            }
            assert_eq!(least.text(), STATEMENTS, "in a portfolio of {count}");
        }
        world.database.sql("DELETE FROM entity");
    }

    async fn a_batch_is_three_statements_of_any_number_of_entities(world: &World) {
        // To lock, to change and to return.
        const STATEMENTS: &str = "BEGIN 1, COMMIT 1, SELECT 2, WITH 1";
        // Workers that look for work, and the sequencer of events, make statements of their own.
        let world = &World::start_with(world.protocol, &["--roles", "grpc,gateway"]).await;
        world.given_portfolio("p").await;
        world.given_portfolio("q").await;
        world.database.given_many(Many { prefix: "e", count: 1_000, dependents: 0, portfolio: None });
        let ids: Vec<String> = (1..=1_000).map(|n| format!("e-{n:06}")).collect();
        for many in [&ids[..1], &ids] {
            let mut least: BTreeMap<&str, Least> = BTreeMap::new();
            for n in 1..=LOOKS {
                for (act, method, portfolio) in [("attach", "Attach", "p"), ("move", "Attach", "q"), ("detach", "Detach", "q")] {
                    let request = json!({"portfolio_id": portfolio, "entity_ids": many});
                    let call = async { drop(world.done(&format!("PortfolioService/Batch{method}Entities"), request).await) };
                    least.entry(act).or_default().measure(world, call).await;
                }
                if least.values().all(|least| least.text() == STATEMENTS) {
                    break;
                }
                pause(n).await;
            }
            for (act, least) in least {
                assert_eq!(least.text(), STATEMENTS, "{act} of {}", many.len());
            }
        }
        world.database.assert_sound();
    }
}
