//! The cost of reading events: new ones, or a page, and never the history.

use diesel::connection::SimpleConnection;
use diesel::sql_types::Json;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use offboard::events::GivePositions;
use offboard::events::queries::{ReadAll, ReadRealm, ReadRealms};
use offboard::events::sequencer::catch_up;

use crate::kit::*;

const HISTORY: i64 = 60_000;

/// A history over three partitions and two realms that has its positions, and 20 events that have none yet. Among the first some numbers were
/// passed over.
async fn history() -> Database {
    let database = database().await;
    database.sql(&format!(
        "INSERT INTO realm (org, mode) VALUES ('acme', 'test'), ('umbrella', 'test');
         INSERT INTO event (realm_id, type, subjects, principal_id, occurred_at)
         SELECT 1 + n % 2, 'entity.created', ARRAY['e' || n], gen_random_uuid(), now() + make_interval(days => (n % 3) * 7)
         FROM generate_series(1, {HISTORY}) n;
         DELETE FROM event WHERE seq % 6000 = 5"
    ));
    catch_up(&mut database.connection()).unwrap();
    for n in 0..20 {
        database.sql(&format!(
            "INSERT INTO event (realm_id, type, subjects, principal_id) VALUES (1 + {n} % 2, 'entity.created', ARRAY['new'], gen_random_uuid())"
        ));
    }
    database.sql("VACUUM ANALYZE event");
    database.sql("VACUUM ANALYZE event_position");
    database
}

/// How many blocks a prepared statement touches, with the plan for these values or for any; and how many rows it returns.
fn blocks(
    database: &Database,
    text: &str,
    parameters: &[(&str, &str, String)],
    generic: bool,
) -> (i64, i64) {
    #[derive(QueryableByName)]
    struct Plan {
        #[diesel(sql_type = Json, column_name = "QUERY PLAN")]
        plan: Value,
    }
    let used: Vec<_> =
        parameters.iter().filter(|(name, ..)| text.contains(&format!("{{{name}}}"))).collect();
    let numbered = used.iter().enumerate().fold(text.to_owned(), |text, (n, (name, ..))| {
        text.replace(&format!("{{{name}}}"), &format!("${}", n + 1))
    });
    let types = used.iter().map(|(_, sql_type, _)| *sql_type).collect::<Vec<_>>().join(", ");
    let values = used.iter().map(|(.., value)| value.as_str()).collect::<Vec<_>>().join(", ");
    let mode = if generic { "force_generic_plan" } else { "force_custom_plan" };
    let mut connection = database.connection();
    let prepare =
        format!("SET jit = off; SET plan_cache_mode = {mode}; PREPARE hot ({types}) AS {numbered}");
    connection.batch_execute(&prepare).unwrap_or_else(|error| panic!("{prepare}: {error}"));
    // The first run fills the caches of the catalogue.
    connection.batch_execute(&format!("EXECUTE hot ({values})")).unwrap();
    let plan: Plan =
        sql_query(format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE hot ({values})"))
            .get_result(&mut connection)
            .unwrap();
    let top = &plan.plan[0]["Plan"];
    // Postgres 18 reports rows with decimals.
    let number = |name: &str| top[name].as_f64().unwrap() as i64;
    (number("Shared Hit Blocks") + number("Shared Read Blocks"), number("Actual Rows"))
}

fn parameters(from: i64) -> Vec<(&'static str, &'static str, String)> {
    vec![
        ("realm", "int4", "1".to_owned()),
        ("realms", "int4[]", "'{1}'".to_owned()),
        ("position", "int8", (from - 1).to_string()),
        ("from", "int8", from.to_string()),
        ("types", "text[]", "'{}'".to_owned()),
        ("subject", "text", "NULL".to_owned()),
        ("scan", "int8", "100".to_owned()),
        ("limit", "int8", "100".to_owned()),
    ]
}

const READS: [(&str, &str, i64); 3] = [
    ("ReadRealm", ReadRealm::TEXT, 10),
    ("ReadRealms", ReadRealms::TEXT, 10),
    ("ReadAll", ReadAll::TEXT, 20),
];

#[tokio::test]
async fn reading_what_is_new_does_not_read_the_history() {
    let database = history().await;
    let whole = database.count("SELECT sum(pg_relation_size(inhrelid) / 8192) FROM pg_inherits WHERE inhparent = 'event'::regclass");
    assert!(whole > 500, "there is a history: {whole} blocks");
    let last = database.last_position();
    catch_up(&mut database.connection()).unwrap();
    for generic in [false, true] {
        for (name, text, rows) in READS {
            let (touched, returned) = blocks(&database, text, &parameters(last + 1), generic);
            assert!(
                touched < 250,
                "{name} touches {touched} of {whole} blocks (generic: {generic})"
            );
            assert_eq!(returned, rows, "{name} (generic: {generic})");
        }
    }
}

#[tokio::test]
async fn a_reader_far_behind_reads_a_page_and_not_the_rest() {
    let database = history().await;
    for generic in [false, true] {
        for (name, text, _) in READS {
            for from in [1, HISTORY / 2] {
                let (touched, returned) = blocks(&database, text, &parameters(from), generic);
                assert!(
                    touched < 900,
                    "{name} from {from} touches {touched} blocks (generic: {generic})"
                );
                assert_eq!(returned, 100, "{name} from {from} (generic: {generic})");
            }
        }
    }
}

#[tokio::test]
async fn giving_positions_costs_what_is_new_and_not_the_history() {
    let database = history().await;
    // Numbers that were passed over and may still come.
    database.sql("UPDATE event_sequencer SET older = '{[5,6),[6005,6006)}', younger = '{[12005,12006)}', older_than = '9000000000'");
    let (touched, returned) =
        blocks(&database, GivePositions::TEXT, &[("limit", "int8", "2000".to_owned())], true);
    assert!(touched < 400, "it touches {touched} blocks");
    assert_eq!(returned, 1);
    assert_eq!(database.rows("event_position") + 10, HISTORY + 20, "all have their positions");
}
