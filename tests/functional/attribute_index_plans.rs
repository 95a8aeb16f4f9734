//! The cost of a filter with an index grows with its matches, and not with the number of entities.

use diesel::connection::SimpleConnection;
use diesel::sql_types::Json;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use offboard::entity::list::{Key, Order};
use offboard::entity::list_queries;

use crate::attribute_indexes::{found, given, indexed};
use crate::kit::*;

/// How many blocks a statement touches, how many rows it returns, and the kinds of its nodes.
fn read(database: &Database, text: &str, generic: bool) -> (i64, i64, Vec<String>) {
    #[derive(QueryableByName)]
    struct Plan {
        #[diesel(sql_type = Json, column_name = "QUERY PLAN")]
        plan: Value,
    }
    let mode = if generic { "force_generic_plan" } else { "force_custom_plan" };
    let mut connection = database.connection();
    connection
        .batch_execute(&format!(
            "SET jit = off; SET plan_cache_mode = {mode}; SET enable_hashjoin = off; SET enable_mergejoin = off; PREPARE hot (int4, text, int8) AS {text}"
        ))
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    // The first run fills the caches of the catalogue.
    connection.batch_execute("EXECUTE hot (1, 'tfew', 101)").unwrap();
    let explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE hot (1, 'tfew', 101)";
    let plan: Plan = sql_query(explain).get_result(&mut connection).unwrap();
    let top = &plan.plan[0]["Plan"];
    // Postgres 18 reports rows with decimals.
    let number = |name: &str| top[name].as_f64().unwrap() as i64;
    let mut nodes = Vec::new();
    collect(top, &mut nodes);
    (number("Shared Hit Blocks") + number("Shared Read Blocks"), number("Actual Rows"), nodes)
}

fn collect(plan: &Value, nodes: &mut Vec<String>) {
    let word = |name: &str| plan[name].as_str().unwrap_or_default().to_owned();
    nodes.push(format!("{} {}", word("Node Type"), word("Index Name")).trim_end().to_owned());
    plan["Plans"].as_array().into_iter().flatten().for_each(|child| collect(child, nodes));
}

#[tokio::test]
async fn a_filter_that_few_match_reads_as_much_of_many_entities_as_of_few() {
    let world = World::start_with(Protocol::Grpc, &["--poll-interval", "0.05"]).await;
    let candidates = "SELECT a.entity_id FROM attribute_index a WHERE a.realm_id = $1 AND a.attribute = 'name' AND a.value = ANY(ARRAY[$2])";
    let list = |key: Key| {
        let text = list_queries::text_among(Order { key, descending: false }, false);
        let predicate = "(lower(e.attributes ->> 'name' COLLATE \"C\") = 'few')";
        text.replace("{candidates}", candidates)
            .replace("{predicate}", predicate)
            .replace("{realm}", "$1")
            .replace("{limit}", "$3")
    };
    let statements = [
        ("list by id", list(Key::Id)),
        ("list by creation", list(Key::CreatedAt)),
        (
            "count of candidates",
            format!("SELECT count(*) FROM (SELECT 1 FROM ({candidates}) c LIMIT $3) few"),
        ),
    ];
    let mut reads: Vec<Vec<(i64, i64, Vec<String>)>> = Vec::new();
    for count in [20_000, 200_000] {
        world.database.sql("TRUNCATE entity, attribute_index, attribute_declaration");
        given(
            &world.database,
            count,
            &format!(
                "jsonb_build_object('name', CASE WHEN n % {} = 0 THEN 'few' ELSE 'n' || n END)",
                count / 100
            ),
        );
        indexed(&world, "name").await;
        // A row whose commit is not on disk yet cannot be marked as visible to all, and the tests' Postgres may commit before it writes.
        world.database.sql(
            "SET synchronous_commit = on; DROP TABLE IF EXISTS written; CREATE TABLE written ()",
        );
        world.database.sql("VACUUM ANALYZE entity, attribute_index");
        assert_eq!(found(&world, "equals(attributes.name, Few)").await.len(), 100);
        for generic in [false, true] {
            reads.push(
                statements.iter().map(|(_, text)| read(&world.database, text, generic)).collect(),
            );
        }
    }
    for ((n, (what, _)), generic) in
        statements.iter().enumerate().flat_map(|one| [(one, 0), (one, 1)])
    {
        let ((small, rows, nodes), (large, rows_of_many, nodes_of_many)) =
            (&reads[generic][n], &reads[2 + generic][n]);
        println!(
            "{what}: {small} blocks of 20,000 entities, {large} of 200,000: {nodes_of_many:?}"
        );
        assert_eq!(rows, rows_of_many, "{what}");
        assert_eq!(nodes, nodes_of_many, "{what} is done in the same way");
        assert!(nodes.iter().all(|node| !node.contains("Seq Scan")), "{what}: {nodes:?}");
        assert!(
            nodes.iter().any(|node| node.ends_with("attribute_index_pkey")),
            "{what}: {nodes:?}"
        );
        // A tree of ten times as many has at most one level more: a block for each of a hundred lookups.
        assert!(*large <= small + 150 && *large < 600, "{what}: {small} blocks grow to {large}");
    }
}
