//! What the chunks of a bulk delete read and write, and no more.

use crate::given::{Account, Many};
use crate::kit::*;
use crate::plans::{LARGE, populate};

/// How often each of the large tables was read from end to end, as Postgres counts it.
fn full_reads(database: &Database, table: &str) -> i64 {
    database.count(&format!("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = '{table}'"))
}

/// The chunks of a bulk delete, as the worker's own sessions run them.
#[tokio::test]
async fn each_chunk_of_a_bulk_delete_starts_where_the_last_one_ended() {
    for selection in [
        json!({"entity_type": "HCP"}),
        json!({"filter": "exists(attributes.n)", "exclude_list": ["e-000001", "e-019999"]}),
    ] {
        let mut world = World::start_with(Protocol::Grpc, &["--bulk-chunk-size", "200"]).await;
        world.given_portfolio("p").await;
        populate(&world.database, 20_000);
        world
            .database
            .sql("DELETE FROM offboarding_request WHERE status = 'running'; UPDATE entity SET state = 'onboarding' WHERE id = 'e-010000'");
        world.database.sql("VACUUM ANALYZE");
        world.database.sql("SELECT pg_stat_reset()");
        let task = world.bulk_delete(json!({"mode": "hard", "spec": {"objects": selection}})).await;
        assert_eq!(Account::of(&task).matched, 20_000);
        // A session hands in its counts when it ends.
        world.server.terminate().await;
        for table in LARGE {
            let reads = full_reads(&world.database, table);
            // The count before the first chunk, and what searches for old ones when a server starts.
            let planned = match table {
                "entity" | "idempotency_subject" | "offboarding_request" => 1,
                "tombstone" => 2,
                _ => 0,
            };
            assert!(reads <= planned, "{table} was read from end to end {reads} times");
        }
        let fetched = world.database.count(
            "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'entity_pkey'",
        );
        assert!(fetched < 200_000, "{fetched} index entries were read to find 20,000 entities");
    }
}

/// A filter of members does not: its link is in an index.
#[tokio::test]
async fn a_soft_delete_of_what_is_in_no_portfolio_stays_on_its_page() {
    for portfolio in [None, Some("p")] {
        let mut world = World::start(Protocol::Grpc).await;
        world.given_portfolio("p").await;
        world.database.given_many(Many { prefix: "e", count: 5_000, dependents: 0, portfolio });
        world.database.sql("UPDATE entity SET attributes = attributes || jsonb_build_object('text', repeat('x', 300))");
        world.database.sql("VACUUM FULL ANALYZE entity");
        world.database.sql("SELECT pg_stat_reset()");
        let task = world.bulk_delete(json!({"entity_type": "HCP", "mode": "soft"})).await;
        assert_eq!(Account::of(&task).processed, 5_000);
        world.server.terminate().await;
        let updated = |column: &str| {
            world.database.count(&format!(
                "SELECT {column} FROM pg_stat_user_tables WHERE relname = 'entity'"
            ))
        };
        assert_eq!(updated("n_tup_upd"), 5_000);
        println!(
            "{} of 5,000 stayed on their page (in a portfolio: {})",
            updated("n_tup_hot_upd"),
            portfolio.is_some()
        );
        if portfolio.is_none() {
            assert!(
                updated("n_tup_hot_upd") >= 4_500,
                "only {} of 5,000 stayed on their page",
                updated("n_tup_hot_upd")
            );
        }
        assert_eq!(
            world.database.rows("entity WHERE portfolio_id IS NOT NULL OR attached_at IS NOT NULL"),
            0
        );
    }
}
