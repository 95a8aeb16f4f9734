//! Lists of tasks: those that are not over, those that ended within the last 30 days, and what becomes of older ones.

use std::fmt::Write as _;

use crate::kit::*;

const HOUR: i64 = 3_600_000;

/// A task made by SQL: its number, when it was asked for (hours ago), its status, when it ended (hours ago), who started it.
struct Given {
    n: u32,
    created: i64,
    status: &'static str,
    ended: Option<i64>,
    principal: u32,
}

fn uuid(n: u32) -> String {
    format!("0190a1b2-0000-7000-8000-{n:012}")
}

/// Makes tasks that no worker takes up: their slices are done.
fn give(database: &Database, org: &str, tasks: &[Given]) {
    let mut sql = String::new();
    for Given { n, created, status, ended, principal } in tasks {
        let id = uuid(*n);
        let ended =
            ended.map_or("NULL".to_owned(), |hours| format!("now() - interval '{hours} hours'"));
        let code = if *status == "failed" { "'internal'" } else { "NULL" };
        write!(
            sql,
            "INSERT INTO bulk_delete (realm_id, id, name, mode, status, entity_type, principal_id, api_key_id, updated_by, created_at, started_at, ended_at, error_code)
             SELECT id, '{id}', 'Task ' || chr(122 - {n}), 'soft', '{status}', 'T', '{}', gen_random_uuid(), gen_random_uuid(), now() - interval '{created} hours',
                    CASE WHEN '{status}' <> 'scheduled' THEN now() - interval '{created} hours' END, {ended}, {code}
             FROM realm WHERE org = '{org}' AND mode = 'test';
             INSERT INTO bulk_delete_slice (realm_id, bulk_delete_id, slice, done, matched, processed, failed)
             SELECT id, '{id}', s, true, 10 * {n}, 10 * {n} - s, s FROM realm, generate_series(0, 1) s WHERE org = '{org}' AND mode = 'test';
             INSERT INTO bulk_delete_failure (realm_id, bulk_delete_id, entity_id, reason)
             SELECT id, '{id}', 'failed-{n}', 'on_hold' FROM realm WHERE org = '{org}' AND mode = 'test';",
            uuid(*principal)
        )
        .unwrap();
    }
    database.sql(&sql);
}

fn active(n: u32, created: i64, status: &'static str, principal: u32) -> Given {
    Given { n, created, status, ended: None, principal }
}

fn ended(n: u32, created: i64, status: &'static str, hours: i64, principal: u32) -> Given {
    Given { n, created, status, ended: Some(hours), principal }
}

/// The numbers of the tasks that a list shows.
async fn listed(world: &World, list: &str, request: Value) -> Vec<u32> {
    let answer = world.done(&format!("BulkDeleteService/{list}"), request).await;
    let number = |task: &Value| task["id"].as_str().unwrap()[24..].parse().unwrap();
    answer.get("tasks").as_array().unwrap().iter().map(number).collect()
}

async fn counted(world: &World, count: &str, request: Value) -> i64 {
    world.done(&format!("BulkDeleteService/{count}"), request).await.get("total").as_i64().unwrap()
}

fn given(world: &World) {
    world.client("umbrella", "test", SCOPES);
    give(
        &world.database,
        "acme",
        &[
            active(1, 5, "paused", 101),
            active(2, 4, "pausing", 102),
            active(3, 900, "paused", 101),
            ended(4, 50, "completed", 49, 101),
            ended(5, 40, "completed_with_errors", 10, 102),
            ended(6, 800, "canceled", 719, 101),
            ended(7, 30, "failed", 29, 102),
            ended(8, 800, "completed", 721, 101),
        ],
    );
    give(
        &world.database,
        "umbrella",
        &[active(9, 1, "paused", 101), ended(10, 2, "completed", 1, 101)],
    );
}

scenario! {
    async fn a_task_is_among_those_that_are_not_over_or_among_those_that_are(world: &World) {
        given(world);
        assert_eq!(listed(world, "ListTasks", json!({})).await, [2, 1, 3], "the latest first");
        assert_eq!(listed(world, "ListTaskHistory", json!({})).await, [7, 5, 4, 6], "what ended more than 30 days ago is not shown");
        assert_eq!((counted(world, "CountTasks", json!({})).await, counted(world, "CountTaskHistory", json!({})).await), (3, 4));
    }

    async fn a_listed_task_is_the_task_that_is_got(world: &World) {
        given(world);
        world.bulk_delete(json!({"uris": ["nobody"], "mode": "hard"})).await;
        for list in ["ListTasks", "ListTaskHistory"] {
            let tasks = world.done(&format!("BulkDeleteService/{list}"), json!({})).await.get("tasks").as_array().unwrap().clone();
            for mut task in tasks {
                let mut got = world.done("BulkDeleteService/GetTask", json!({"task_id": task["id"]})).await.json;
                for moving in ["current", "duration", "throughput"] {
                    (task[moving], got[moving]) = (json!(0), json!(0));
                }
                task["current_state"]["last_hour_throughput"] = json!(0);
                got["current_state"]["last_hour_throughput"] = json!(0);
                assert_eq!(task, got);
                assert_eq!(task["current_state"]["objects_failed_to_delete"].as_array().unwrap().len(), 1);
            }
        }
    }

    async fn lists_come_in_every_order_and_both_ways(world: &World) {
        given(world);
        for (order, ascending) in [
            ("createdTime", [6, 4, 5, 7]),
            ("startTime", [6, 4, 5, 7]),
            ("endTime", [6, 4, 7, 5]),
            ("updatedTime", [6, 4, 7, 5]),
            ("name", [7, 6, 5, 4]),
            ("status", [6, 4, 5, 7]),
        ] {
            let up = listed(world, "ListTaskHistory", json!({"order_by": order, "ascending": true})).await;
            assert_eq!(up, ascending, "{order}");
            let down = listed(world, "ListTaskHistory", json!({"order_by": order})).await;
            assert_eq!(down, ascending.into_iter().rev().collect::<Vec<_>>(), "{order}");
        }
        let by_starter = listed(world, "ListTaskHistory", json!({"order_by": "createdBy", "ascending": true})).await;
        assert_eq!(by_starter, [4, 6, 5, 7], "and those of one starter by their ids");
        give(&world.database, "acme", &[active(11, 3, "paused", 101)]);
        world.database.sql(&format!("UPDATE bulk_delete SET started_at = NULL WHERE id = '{}'", uuid(11)));
        for ascending in [true, false] {
            let order = listed(world, "ListTasks", json!({"order_by": "startTime", "ascending": ascending})).await;
            assert_eq!(order.last(), Some(&11), "what has not started comes last");
        }
    }

    async fn a_page_leaves_out_what_came_before(world: &World) {
        given(world);
        for (max, offset, shown) in [(2, 0, vec![7, 5]), (2, 2, vec![4, 6]), (2, 3, vec![6]), (1000, 4, vec![]), (1, 1, vec![5])] {
            assert_eq!(listed(world, "ListTaskHistory", json!({"max": max, "offset": offset})).await, shown, "{max} behind {offset}");
        }
        let many: Vec<_> = (20..75).map(|n| active(n, 1, "paused", 101)).collect();
        give(&world.database, "acme", &many);
        assert_eq!(listed(world, "ListTasks", json!({})).await.len(), 50, "a page is of 50 unless it is said");
        assert_eq!(counted(world, "CountTasks", json!({})).await, 58);
    }

    async fn lists_and_counts_are_narrowed_alike(world: &World) {
        given(world);
        let now: i64 = world.database.count("SELECT extract(epoch FROM now()) * 1000");
        let since = |hours: i64| now - hours * HOUR;
        for (narrowed, tasks) in [
            (json!({"created_by": uuid(101)}), vec![4, 6]),
            (json!({"created_by": uuid(102)}), vec![7, 5]),
            (json!({"created_since": since(45)}), vec![7, 5]),
            (json!({"created_before": since(45)}), vec![4, 6]),
            (json!({"created_since": since(60), "created_before": since(35)}), vec![5, 4]),
            (json!({"created_by": uuid(102), "created_since": since(35)}), vec![7]),
            (json!({"created_by": uuid(103)}), vec![]),
        ] {
            assert_eq!(listed(world, "ListTaskHistory", narrowed.clone()).await, tasks, "{narrowed}");
            assert_eq!(counted(world, "CountTaskHistory", narrowed.clone()).await, tasks.len() as i64, "{narrowed}");
        }
        assert_eq!(listed(world, "ListTasks", json!({"created_by": uuid(101), "created_since": since(24)})).await, [1]);
        assert_eq!(counted(world, "CountTasks", json!({"created_by": uuid(101)})).await, 2);
    }

    async fn every_fault_of_a_list_is_reported(world: &World) {
        let request = json!({"max": 1001, "offset": -1, "order_by": "colour", "created_by": "me"});
        for list in ["ListTasks", "ListTaskHistory"] {
            let refusal = world.refused(&format!("BulkDeleteService/{list}"), request.clone()).await;
            let fields: Vec<_> = refusal.faults.iter().map(|fault| fault.field.as_str()).collect();
            assert_eq!((refusal.code.as_str(), fields), ("validation_failed", vec!["max", "offset", "order_by", "created_by"]), "{list}");
        }
    }
}

/// The response of the contract, word by word.
#[tokio::test]
async fn by_rest_a_list_is_a_bare_array_and_a_count_a_total() {
    let world = World::start(Protocol::Rest).await;
    given(&world);
    let bearer = format!("Bearer {}", world.key.secret);
    let get = async |path: &str| {
        http(world.server.addresses.http, "GET", path, &[("authorization", &bearer)], "").await
    };
    let listed = get("/api/acme/tasks?max=2&orderBy=createdTime&ascending=true").await.json();
    let tasks = listed.as_array().unwrap();
    assert_eq!(
        tasks.iter().map(|task| task["id"].clone()).collect::<Vec<_>>(),
        [json!(uuid(3)), json!(uuid(1))]
    );
    assert_eq!(
        (&tasks[0]["status"], &tasks[0]["currentState"]["status"]),
        (&json!("PAUSED"), &json!("Paused"))
    );
    assert!(tasks[0]["createdTime"].is_i64());
    assert_eq!(get("/api/acme/tasks/_total").await.json(), json!({"total": 3}));
    assert_eq!(get("/api/acme/tasks/history/_total").await.json(), json!({"total": 4}));
    let since =
        world.database.count("SELECT extract(epoch FROM now() - interval '45 hours') * 1000");
    let narrowed =
        get(&format!("/api/acme/tasks/history?createdSince={since}&createdBy={}", uuid(102)))
            .await
            .json();
    assert_eq!(narrowed.as_array().unwrap().len(), 2);
    assert_eq!(get("/api/umbrella/tasks").await.status, 404);
}

/// Old rows are removed with everything that belongs to them, in small batches; others stay.
#[tokio::test]
async fn what_ended_more_than_thirty_days_ago_is_removed() {
    let database = database().await;
    Key::create(&database, "acme", "test", SCOPES);
    give(
        &database,
        "acme",
        &[
            active(1, 900, "paused", 101),
            ended(2, 900, "completed", 719, 101),
            ended(3, 900, "completed", 721, 101),
            ended(4, 900, "failed", 800, 101),
        ],
    );
    database.sql(&format!(
        "INSERT INTO bulk_delete_failure (realm_id, bulk_delete_id, entity_id, reason)
         SELECT realm_id, id, 'f-' || n, 'locked' FROM bulk_delete, generate_series(1, 2500) n WHERE id IN ('{}', '{}');
         INSERT INTO bulk_delete_mail (realm_id, bulk_delete_id, recipient, status, finished_at)
         SELECT realm_id, id, 'jo@example.com', 'sent', now() FROM bulk_delete",
        uuid(2),
        uuid(3)
    ));
    let _server = Server::start(&database).await;
    until("the old ones are removed", || database.rows("bulk_delete") == 2).await;
    for (table, rows) in
        [("bulk_delete_slice", 4), ("bulk_delete_mail", 2), ("bulk_delete_failure", 2502)]
    {
        assert_eq!(database.rows(table), rows, "{table}");
    }
    assert_eq!(
        database
            .text("SELECT string_agg(right(id::text, 1), '' ORDER BY id) FROM bulk_delete")
            .unwrap(),
        "12"
    );
}
