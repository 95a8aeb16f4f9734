//! The entities that a task could not delete, as a table.

use crate::given::Many;
use crate::kit::*;

/// Asks for a page.
async fn table(world: &World, path: &str, accept: &str) -> Reply {
    let bearer = format!("Bearer {}", world.key.secret);
    http(
        world.server.addresses.http,
        "GET",
        path,
        &[("authorization", &bearer), ("accept", accept)],
        "",
    )
    .await
}

/// A world in which a task could not delete these.
async fn failed(ids: &[&str]) -> (World, String) {
    let world = World::start(Protocol::Rest).await;
    let mut uris = ids.to_vec();
    uris.push("there");
    world.given_entity("there", json!({})).await;
    let task = world.schedule(json!({"uris": uris})).await;
    world.task_ended(&task).await;
    (world, task)
}

#[tokio::test]
async fn a_page_of_failures_is_a_table_for_those_who_ask_for_one() {
    let (world, task) = failed(&["b", "a"]).await;
    let path = format!("/api/acme/tasks/{task}/failures");
    let json = table(&world, &path, "application/json").await.json();
    let failures = json["failures"].as_array().unwrap();
    let reply = table(&world, &path, "text/csv").await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("text/csv; charset=utf-8; header=present"))
    );
    assert_eq!(reply.header("content-disposition"), Some("attachment; filename=\"failures.csv\""));
    assert_eq!(
        (reply.header("link"), reply.header("vary"), reply.header("x-request-id").is_some()),
        (None, Some("accept"), true)
    );
    let line = |n: usize, id: &str| {
        format!("{id},not_found,No such entity is visible.,{}\r\n", failures[n]["time"])
    };
    assert_eq!(
        reply.text(),
        format!("entityId,reason,message,time\r\n{}{}", line(0, "a"), line(1, "b"))
    );
    let problem = table(&world, "/api/acme/tasks/x/failures", "text/csv").await;
    assert_eq!(
        (problem.status, problem.header("content-type")),
        (404, Some("application/problem+json"))
    );
    let document = table(&world, &format!("/api/acme/tasks/{task}"), "text/csv").await;
    assert_eq!(document.header("content-type"), Some("application/json"), "only pages are tables");
}

#[tokio::test]
async fn each_page_leads_to_the_next() {
    let world = World::start(Protocol::Rest).await;
    world.database.given_many(Many { prefix: "e", count: 25, dependents: 0, portfolio: None });
    world.database.sql("UPDATE entity SET state = 'onboarding'");
    let task = world.schedule(json!({"entity_type": "HCP"})).await;
    world.task_ended(&task).await;
    let mut path = format!("/api/acme/tasks/{task}/failures?pageSize=10");
    let (mut pages, mut ids) = (0, Vec::new());
    loop {
        let reply = table(&world, &path, "text/csv").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let text = reply.text();
        let mut lines = text.lines();
        let header = if pages == 0 { "present" } else { "absent" };
        assert_eq!(
            reply.header("content-type"),
            Some(format!("text/csv; charset=utf-8; header={header}").as_str())
        );
        if pages == 0 {
            assert_eq!(
                lines.next(),
                Some("entityId,reason,message,time"),
                "the pages are one table, so the first names the columns"
            );
        }
        ids.extend(lines.map(|line| line.split(',').next().unwrap().to_owned()));
        pages += 1;
        let Some(link) = reply.header("link") else { break };
        path = link
            .strip_prefix('<')
            .and_then(|link| link.strip_suffix(">; rel=\"next\""))
            .unwrap()
            .to_owned();
    }
    assert_eq!(pages, 3);
    assert_eq!(ids, (1..=25).map(|n| format!("e-{n:06}")).collect::<Vec<_>>());
}

/// An id may begin with a minus: opened in a spreadsheet it must stay text.
#[tokio::test]
async fn no_cell_becomes_a_formula() {
    let (world, task) = failed(&["-1-2", "~x"]).await;
    let reply = table(&world, &format!("/api/acme/tasks/{task}/failures"), "text/csv").await;
    let text = reply.text();
    let ids: Vec<_> = text.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(ids, ["'-1-2", "~x"]);
    let exact = table(&world, &format!("/api/acme/tasks/{task}/failures"), "*/*").await.json();
    assert_eq!(exact["failures"][0]["entityId"], "-1-2");
}

#[tokio::test]
async fn other_pages_of_single_values_are_tables_as_well() {
    let world = World::start(Protocol::Rest).await;
    world.given_entity("e", json!({})).await;
    world.bulk_delete(json!({"uris": ["e"], "mode": "hard"})).await;
    let reply = table(&world, "/v1/tombstones", "text/csv, */*;q=0.1").await;
    assert_eq!(reply.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    let text = reply.text();
    assert!(
        text.starts_with("entity_id,")
            && text.lines().nth(1).is_some_and(|line| line.starts_with("e,")),
        "{text}"
    );
    let nested = table(&world, "/v1/entities", "text/csv").await;
    assert_eq!(
        nested.header("content-type"),
        Some("application/json"),
        "rows that contain objects are not a table"
    );
}
