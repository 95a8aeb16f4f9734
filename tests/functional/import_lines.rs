//! Lines of an import that cannot be read or written, and how each is named.

use crate::import::counts;
use crate::kit::*;

#[tokio::test]
async fn a_line_that_is_no_entity_at_all_ends_an_import_by_rest_and_is_named() {
    let world = World::start(Protocol::Rest).await;
    let bearer = format!("Bearer {}", world.key.secret);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/x-ndjson")];
    let send = async |body: &'static str| {
        http(world.server.addresses.http, "POST", "/v1/entities:import", &headers, body).await
    };
    let broken = send("{\"entity_id\":\"a\",\"type\":\"T\"}\n\n{\"entity_id\":\n").await;
    assert_eq!(broken.status, 400, "{}", broken.text());
    let described = broken.json()["errors"][0]["description"].as_str().unwrap().to_owned();
    assert!(described.starts_with("line 3: "), "{described}");
    let unknown = send("{\"entity_id\":\"a\",\"typo\":\"T\"}\n").await;
    assert_eq!(
        (unknown.status, &unknown.json()["errors"][0]["field"]),
        (400, &json!("typo")),
        "{}",
        unknown.text()
    );
    // Blank lines and a missing last end of line are nothing wrong.
    let good =
        send("\r\n{\"entity_id\":\"a\",\"type\":\"T\"}\r\n\n{\"entity_id\":\"b\",\"type\":\"T\"}")
            .await;
    assert_eq!(good.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> =
        good.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((good.status, lines.len()), (200, 3), "{}", good.text());
    // They have numbers all the same.
    assert_eq!(
        (&lines[0]["result"]["line"], &lines[0]["result"]["entity_id"]),
        (&json!(2), &json!("a"))
    );
    assert_eq!(
        lines[1],
        json!({"result": {"line": 4, "entity_id": "b", "outcome": "created", "error": null, "soft_deleted": false, "different": false}, "summary": null})
    );
    let summary = json!({"received": 2, "created": 2, "existing": 0, "failed": 0, "failures_left_out": 0, "soft_deleted": 0, "different": 0});
    assert_eq!(lines[2], json!({"result": null, "summary": summary}));
    // A line with a fault of form has those that the service finds as well.
    let faults = |reply: &Reply| {
        let document = reply.json();
        let faults = document["errors"].as_array().unwrap().iter();
        faults
            .map(|fault| {
                (
                    fault["field"].as_str().unwrap().to_owned(),
                    fault["description"].as_str().unwrap()[..8].to_owned(),
                )
            })
            .collect::<Vec<_>>()
    };
    let both =
        send("{\"entity_id\":\"c\",\"type\":\"T\"}\n\n{\"entity_id\":\"a b\",\"typo\":\"T\"}\n{\"entity_id\":\"d\",\"type\":\"T\"}\n")
            .await;
    let expected =
        ["typo", "entity_id", "type"].map(|field| (field.to_owned(), "line 3: ".to_owned()));
    assert_eq!((both.status, faults(&both)), (400, expected.to_vec()), "{}", both.text());
    assert_eq!(world.database.entity_ids().as_deref(), Some("a,b"), "nothing behind it");
    let query = http(
        world.server.addresses.http,
        "POST",
        "/v1/entities:import?zz=1&line=7",
        &headers,
        "{\n",
    )
    .await;
    let reported: Vec<_> = query.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| fault["field"].clone())
        .collect();
    assert_eq!(
        (query.status, reported),
        (400, vec![json!("zz"), json!("line")]),
        "{}",
        query.text()
    );
    assert!(!query.text().contains("line 1"), "{}", query.text());

    // Behind the first results a fault is a last line.
    let mut long: String =
        (0..1000).map(|n| format!("{{\"entity_id\":\"n{n}\",\"type\":\"T\"}}\n")).collect();
    long.push_str("{\"entity_id\":\n");
    let broken =
        http(world.server.addresses.http, "POST", "/v1/entities:import", &headers, long).await;
    let text = broken.text();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(
        (broken.status, &last["error"]["code"]),
        (200, &json!("validation_failed")),
        "{last}"
    );
    assert!(
        last["error"]["errors"][0]["description"].as_str().unwrap().starts_with("line 1001: "),
        "{last}"
    );
    let reported = text.lines().filter(|line| line.contains("\"created\"")).count();
    assert_eq!(
        world.database.entities_with_prefix("n"),
        reported as i64,
        "what is reported is stored"
    );
    assert_eq!(reported, 1000);

    // Past a number of failures the rest is only counted.
    let many = http(
        world.server.addresses.http,
        "POST",
        "/v1/entities:import?failures_only=true",
        &headers,
        "{}\n".repeat(10_003),
    )
    .await;
    let text = many.text();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let summary = json!({"received": 10_003, "created": 0, "existing": 0, "failed": 10_003, "failures_left_out": 3, "soft_deleted": 0, "different": 0});
    assert_eq!((text.lines().count(), &last["summary"]), (10_001, &summary));
}

#[tokio::test]
async fn a_fault_of_a_line_has_one_number_of_a_line_and_a_body_that_is_nothing_is_named() {
    let world = World::start(Protocol::Rest).await;
    let bearer = format!("Bearer {}", world.key.secret);
    let send = async |media_type: &'static str, body: &'static str| {
        let headers = [("authorization", bearer.as_str()), ("content-type", media_type)];
        http(world.server.addresses.http, "POST", "/v1/entities:import", &headers, body).await
    };
    let broken =
        send("application/x-ndjson", "{\"type\":\"T\"}\n{\"entity_id\":\"a\",\"type\":T}\n").await;
    let reported = broken.json()["errors"][0]["description"].as_str().unwrap().to_owned();
    assert_eq!(
        (broken.status, reported.as_str()),
        (400, "line 2: is not JSON: a value is expected at column 25")
    );
    let document = send("application/json", "{\n\"type\":T}").await;
    let reported = document.json()["errors"][0]["description"].as_str().unwrap().to_owned();
    assert_eq!(reported, "is not JSON: a value is expected at line 2, column 8");
    for empty in ["", "  \n"] {
        let nothing = send("application/json", empty).await;
        let faults: Vec<_> = nothing.json()["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| fault["message"].clone())
            .collect();
        assert_eq!(
            (nothing.status, faults),
            (400, vec![json!("body: must be given")]),
            "{}",
            nothing.text()
        );
    }
    assert_eq!(
        send("application/x-ndjson", "").await.status,
        200,
        "no lines are an import of nothing"
    );
}

#[tokio::test]
async fn a_message_whose_lists_are_too_long_is_a_line_that_failed() {
    let world = World::start(Protocol::Grpc).await;
    let account = world
        .client
        .import_requests(
            &[
                json!({"entity": {"entity_id": "good", "type": "T"}, "line": 7}),
                json!({"entity": {"entity_id": "a b", "components": vec!["c"; 10_001]}, "line": 9}),
                json!({"entity": {"entity_id": "c", "type": "T"}, "line": -1}),
                json!({"entity": {"entity_id": "d", "type": "T"}}),
            ],
            "",
            &[],
        )
        .await
        .unwrap()
        .json;
    assert_eq!(counts(&account), [4, 2, 0, 2], "{account}");
    let lines: Vec<_> = account["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["line"].clone())
        .collect();
    assert_eq!(lines, [7, 9, 3, 4]);
    let why = account["results"][1]["error"]["message"].as_str().unwrap();
    assert!(
        ["components: must be at most 10,000", "; entity_id: must", "; type: must"]
            .iter()
            .all(|part| why.contains(part)),
        "{why}"
    );
    assert!(!why.contains("entity.components"), "{why}");
}
