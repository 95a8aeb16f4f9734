//! Realms take turns in offboardings: how many one has asked for does not delay those of another.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Json;
use offboard::db::{Db, Options};
use offboard::offboarding::policy_queries;
use offboard::offboarding::removal_queries::{self, ClaimRequests};

use crate::kit::*;

/// Makes realms, each with entities that leave and whose requests have been due for so many seconds, one after the other.
fn given_due(database: &Database, org: &str, realms: i64, each: i64, seconds: i64) {
    database.sql(&format!(
        "INSERT INTO realm (org, mode) SELECT '{org}-' || n, 'test' FROM generate_series(1, {realms}) n;
         INSERT INTO entity (realm_id, id, incarnation, type, state)
         SELECT r.id, 'e-' || n, gen_random_uuid(), 'HCP', 'offboarding' FROM realm r, generate_series(1, {each}) n WHERE r.org LIKE '{org}-%';
         INSERT INTO offboarding_request (realm_id, id, entity_id, incarnation, principal_id, api_key_id, status, created_at, execute_after, due_at)
         SELECT r.id, gen_random_uuid(), e.id, e.incarnation, e.incarnation, e.incarnation, 'pending', at.due, at.due, at.due
         FROM realm r
         JOIN entity e ON e.realm_id = r.id
         CROSS JOIN LATERAL (SELECT now() - make_interval(secs => {seconds} - substr(e.id, 3)::int8 * 0.000001) AS due) at
         WHERE r.org LIKE '{org}-%'"
    ));
}

/// Lets a worker do all that is due.
async fn work_off(database: &Database) {
    let _server = Server::start(database).await;
    for _ in 0..3000 {
        if database.count("SELECT count(*) FROM offboarding_request WHERE status <> 'succeeded'")
            == 0
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not all was done");
}

/// How many requests of these realms were done before the last one of those.
fn before(database: &Database, these: &str, those: &str) -> i64 {
    database.count(&format!(
        "SELECT count(*) FROM event v JOIN realm r ON r.id = v.realm_id
         WHERE v.type = 'entity.offboarded' AND r.org LIKE '{these}-%'
           AND v.seq < (SELECT max(l.seq) FROM event l JOIN realm o ON o.id = l.realm_id WHERE l.type = 'entity.offboarded' AND o.org LIKE '{those}-%')"
    ))
}

#[tokio::test]
async fn one_request_does_not_wait_for_all_those_of_another_realm() {
    let database = database().await;
    given_due(&database, "hog", 1, 5_000, 60);
    given_due(&database, "single", 1, 1, 1);
    work_off(&database).await;
    let waited_for = before(&database, "hog", "single");
    assert!(waited_for <= 500, "{waited_for} of 5,000 of another realm were done before it");
}

/// Whatever was asked for in between, an hour and more ago: the queues of realms need not have begun at the same time.
#[tokio::test]
async fn many_realms_take_turns_with_those_that_ask_for_much() {
    let database = database().await;
    given_due(&database, "old", 1, 4_000, 7_000);
    given_due(&database, "hog", 2, 4_000, 600);
    // More than are claimed at once.
    given_due(&database, "some", 150, 3, 2);
    work_off(&database).await;
    let waited_for = before(&database, "old", "some") + before(&database, "hog", "some");
    assert!(
        waited_for <= 4_000,
        "{waited_for} of 12,000 of three realms were done before the three of each of 150 others"
    );
    // One that began later has about as many turns.
    let behind = before(&database, "hog", "old");
    assert!(behind >= 4_000, "only {behind} of 8,000 were done while another realm had 4,000 done");
}

#[tokio::test]
async fn a_realm_has_its_requests_done_in_the_order_in_which_they_are_due() {
    let database = database().await;
    given_due(&database, "hog", 1, 300, 60);
    given_due(&database, "other", 1, 300, 30);
    let db = Db::new(Options { pool_size: 1, ..Options::new(&database.url) });
    let mut taken = Vec::new();
    loop {
        let claimed = db
            .run(|connection| removal_queries::claim(connection, "x", Duration::from_secs(60), 40))
            .await
            .unwrap();
        if claimed.is_empty() {
            break;
        }
        assert_eq!(claimed.len(), 40, "a claim takes as much as it may");
        let of = |org: &str| {
            let mut numbers: Vec<u32> = claimed
                .iter()
                .filter(|claim| claim.realm.org() == org)
                .map(|claim| claim.entity_id[2..].parse().unwrap())
                .collect();
            numbers.sort_unstable();
            numbers
        };
        taken.push((of("hog-1"), of("other-1")));
    }
    assert!(taken.iter().all(|(hog, other)| (hog.len(), other.len()) == (20, 20)), "{taken:?}");
    let (hog, other): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
    assert_eq!(hog.concat(), (1..=300).collect::<Vec<_>>());
    assert_eq!(other.concat(), (1..=300).collect::<Vec<_>>());
}

/// Two workers at the same moment claim different requests, and neither gets nothing.
#[tokio::test]
async fn whoever_claims_beside_another_claims_what_that_one_left() {
    let database = database().await;
    given_due(&database, "hog", 1, 200, 60);
    given_due(&database, "other", 3, 2, 30);
    let mut first = database.connection();
    first.batch_execute("BEGIN").unwrap();
    let claimed =
        removal_queries::claim(&mut first, "first", Duration::from_secs(60), 100).unwrap();
    assert_eq!(claimed.len(), 100);
    let beside =
        removal_queries::claim(&mut database.connection(), "second", Duration::from_secs(60), 100)
            .unwrap();
    assert_eq!(beside.len(), 100);
    assert!(beside.iter().all(|claim| claimed.iter().all(|taken| taken.id != claim.id)));
    first.batch_execute("COMMIT").unwrap();
    let rest =
        removal_queries::claim(&mut database.connection(), "third", Duration::from_secs(60), 100)
            .unwrap();
    assert_eq!(rest.len(), 6);
}

/// How many pages a claim of one request touches.
fn pages_of_a_claim(database: &Database) -> i64 {
    #[derive(QueryableByName)]
    struct Plan {
        #[diesel(sql_type = Json, column_name = "QUERY PLAN")]
        plan: Value,
    }
    let text = ClaimRequests::TEXT
        .replace("{owner}", "$1")
        .replace("{lease}", "60")
        .replace("{limit}", "1");
    let mut connection = database.connection();
    connection.batch_execute(&format!("PREPARE hot (text) AS {text}; BEGIN")).unwrap();
    let plan: Plan = sql_query("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE hot ('x')")
        .get_result(&mut connection)
        .unwrap();
    connection.batch_execute("ROLLBACK").unwrap();
    let plan = &plan.plan[0]["Plan"];
    assert_eq!(plan["Actual Rows"].as_f64(), Some(1.0), "{plan:#}");
    plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap()
}

#[tokio::test]
async fn a_claim_costs_the_same_however_much_is_kept_and_however_many_realms_wait() {
    let database = database().await;
    given_due(&database, "one", 2, 5, 60);
    database.sql("VACUUM ANALYZE");
    pages_of_a_claim(&database);
    let few = pages_of_a_claim(&database);
    // Requests that wait for their time, and requests that were done.
    given_due(&database, "graced", 3_000, 1, -86_400);
    given_due(&database, "done", 1, 30_000, 60);
    database.sql(
        "DELETE FROM entity e USING realm r WHERE r.id = e.realm_id AND r.org = 'done-1';
         UPDATE offboarding_request o SET status = 'succeeded', due_at = NULL, started_at = now(), finished_at = now(), removed = '{}'
         FROM realm r WHERE r.id = o.realm_id AND r.org = 'done-1'",
    );
    database.sql("SET synchronous_commit = on; CREATE TABLE written ()");
    database.sql("VACUUM ANALYZE");
    let many = pages_of_a_claim(&database);
    assert!(many <= few + 40, "{many} pages instead of {few}");
    // And in a queue that is long.
    given_due(&database, "hog", 1, 30_000, 30);
    database.sql("VACUUM ANALYZE");
    let long = pages_of_a_claim(&database);
    assert!(long <= few + 60, "{long} pages instead of {few}");
}

/// Expired rows are removed bit by bit; the amount of one realm does not delay the others.
#[tokio::test]
async fn realms_take_turns_in_the_removal_of_what_has_had_its_time() {
    let database = database().await;
    database.sql(
        "INSERT INTO realm (org, mode) SELECT 'org-' || n, 'test' FROM generate_series(1, 3) n;
         INSERT INTO removal_policy (realm_id, tombstone_retention, request_retention, updated_by)
         SELECT id, '1 day', '1 day', gen_random_uuid() FROM realm;
         INSERT INTO tombstone (realm_id, entity_id, incarnation, type, version, created_at, updated_at, removed_at, removed_by, job_kind, job_id)
         SELECT r.id, n, gen_random_uuid(), 'T', 1, now(), now(), now() - interval '2 days', gen_random_uuid(), 'offboarding', gen_random_uuid()
         FROM realm r, generate_series(1, 1000) n;
         INSERT INTO offboarding_request (realm_id, id, entity_id, incarnation, principal_id, api_key_id, status, execute_after, started_at, finished_at, removed)
         SELECT r.id, gen_random_uuid(), n, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'succeeded', now(), now(), now() - interval '2 days', '{}'
         FROM realm r, generate_series(1, 1000) n",
    );
    let mut connection = database.connection();
    for _ in 0..80 {
        assert_eq!(policy_queries::sweep_tombstones(&mut connection, 10).unwrap(), 10);
        assert_eq!(policy_queries::sweep_requests(&mut connection, 10).unwrap(), 10);
    }
    for table in ["tombstone", "offboarding_request"] {
        let untouched = database.count(&format!(
            "SELECT count(*) FROM (SELECT FROM {table} GROUP BY realm_id HAVING count(*) = 1000) t"
        ));
        assert_eq!(untouched, 0, "of {untouched} realms no {table} was removed");
    }
}
