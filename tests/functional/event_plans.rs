//! What reading events costs: what is new, or a page, and never the history.

use diesel::connection::SimpleConnection;
use diesel::sql_types::Json;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use offboard::events::queries::{OpenAll, OpenRealm, RealmsWithNews, TailAll, TailRealm, WalkAll, WalkRealm};

use crate::kit::*;

const HISTORY: i64 = 60_000;

/// A history over three partitions and two realms, each event in a transaction of its own as far as the cluster has had so many, and 20 that are new.
/// Returns the snapshot before these, and the one behind them.
async fn history() -> (Database, String, String) {
    let database = database().await;
    database.sql(&format!(
        "INSERT INTO realm (org, mode) VALUES ('acme', 'test'), ('umbrella', 'test');
         INSERT INTO event (xid, realm_id, type, subjects, principal_id, occurred_at)
         SELECT greatest(3, pg_snapshot_xmin(pg_current_snapshot())::text::int8 - {HISTORY} - 10 + n)::text::xid8, 1 + n % 2, 'entity.created', ARRAY['e' || n],
                gen_random_uuid(), now() + make_interval(days => (n % 3) * 7)
         FROM generate_series(1, {HISTORY}) n;"
    ));
    let seen = database.text("SELECT pg_current_snapshot()").unwrap();
    for n in 0..20 {
        database.sql(&format!(
            "INSERT INTO event (realm_id, type, subjects, principal_id) VALUES (1 + {n} % 2, 'entity.created', ARRAY['new'], gen_random_uuid())"
        ));
    }
    let until = database.text("SELECT pg_current_snapshot()").unwrap();
    database.sql("VACUUM ANALYZE event");
    (database, seen, until)
}

/// How many blocks a prepared statement touches, with the plan for these values or for any; and how many rows it returns.
fn blocks(database: &Database, text: &str, parameters: &[(&str, &str, String)], generic: bool) -> (i64, i64) {
    #[derive(QueryableByName)]
    struct Plan {
        #[diesel(sql_type = Json, column_name = "QUERY PLAN")]
        plan: Value,
    }
    let used: Vec<_> = parameters.iter().filter(|(name, ..)| text.contains(&format!("{{{name}}}"))).collect();
    let numbered =
        used.iter().enumerate().fold(text.to_owned(), |text, (n, (name, ..))| text.replace(&format!("{{{name}}}"), &format!("${}", n + 1)));
    let types = used.iter().map(|(_, sql_type, _)| *sql_type).collect::<Vec<_>>().join(", ");
    let values = used.iter().map(|(.., value)| value.as_str()).collect::<Vec<_>>().join(", ");
    let mode = if generic { "force_generic_plan" } else { "force_custom_plan" };
    let mut connection = database.connection();
    let prepare = format!("SET jit = off; SET plan_cache_mode = {mode}; PREPARE hot ({types}) AS {numbered}");
    connection.batch_execute(&prepare).unwrap_or_else(|error| panic!("{prepare}: {error}"));
    // The first run fills the caches of the catalogue.
    connection.batch_execute(&format!("EXECUTE hot ({values})")).unwrap();
    let plan: Plan =
        sql_query(format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE hot ({values})")).get_result(&mut connection).unwrap();
    let top = &plan.plan[0]["Plan"];
    let number = |name: &str| top[name].as_i64().unwrap();
    (number("Shared Hit Blocks") + number("Shared Read Blocks"), number("Actual Rows"))
}

fn parameters(seen: &str, until: &str, from: i64) -> Vec<(&'static str, &'static str, String)> {
    vec![
        ("realm", "int4", "1".to_owned()),
        ("seen", "text", format!("'{seen}'")),
        ("until", "text", format!("'{until}'")),
        ("from", "int8", from.to_string()),
        ("types", "text[]", "'{}'".to_owned()),
        ("subject", "text", "NULL".to_owned()),
        ("scan", "int8", "100".to_owned()),
        ("limit", "int8", "100".to_owned()),
    ]
}

#[tokio::test]
async fn reading_what_is_new_does_not_read_the_history() {
    let (database, seen, until) = history().await;
    let from = database.count(&format!("SELECT min(seq) FROM event WHERE subjects = ARRAY['new'] AND xid >= pg_snapshot_xmax('{seen}')"));
    let whole = database.count("SELECT sum(pg_relation_size(inhrelid) / 8192) FROM pg_inherits WHERE inhparent = 'event'::regclass");
    assert!(whole > 500, "there is a history: {whole} blocks");
    let statements = [
        ("OpenRealm", OpenRealm::TEXT, 1),
        ("OpenAll", OpenAll::TEXT, 1),
        ("TailRealm", TailRealm::TEXT, 10),
        ("TailAll", TailAll::TEXT, 20),
        ("RealmsWithNews", RealmsWithNews::TEXT, 1),
    ];
    for generic in [false, true] {
        for (name, text, rows) in statements {
            let (touched, returned) = blocks(&database, text, &parameters(&seen, &until, from), generic);
            assert!(touched < 100, "{name} touches {touched} of {whole} blocks (generic: {generic})");
            assert_eq!(returned, rows, "{name} (generic: {generic})");
        }
    }
}

#[tokio::test]
async fn a_reader_far_behind_reads_a_page_and_not_the_rest() {
    let (database, _, until) = history().await;
    for generic in [false, true] {
        for (name, text) in [("WalkRealm", WalkRealm::TEXT), ("WalkAll", WalkAll::TEXT)] {
            for from in [0, HISTORY / 2] {
                let (touched, returned) = blocks(&database, text, &parameters("1:1:", &until, from), generic);
                assert!(touched < 300, "{name} from {from} touches {touched} blocks (generic: {generic})");
                assert_eq!(returned, 100, "{name} from {from} (generic: {generic})");
            }
        }
    }
}
