//! Streams in both directions.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::service::{Answer, TestGateway};

async fn upload(gateway: &TestGateway, media_type: &str, body: impl Into<Body>) -> Answer {
    gateway
        .send(
            Request::post("/orders:upload")
                .header("content-type", media_type)
                .body(body.into())
                .unwrap(),
        )
        .await
}

#[tokio::test]
async fn each_line_is_a_message() {
    let gateway = TestGateway::new();
    let lines = "{\"firstName\":\"a\"}\n\n{\"firstName\":\"b\"}\r\n{\"firstName\":\"c\"}";
    for media_type in ["application/x-ndjson", "application/jsonl"] {
        assert_eq!(upload(&gateway, media_type, lines).await.json(), json!({"received": 3}));
    }
    assert_eq!(
        upload(&gateway, "application/json", "{\n\"firstName\":\"a\"}").await.json(),
        json!({"received": 1})
    );
    assert_eq!(upload(&gateway, "application/x-ndjson", "").await.json(), json!({"received": 0}));
    assert_eq!(upload(&gateway, "text/csv", lines).await.status, 415);
}

#[tokio::test]
async fn a_stream_may_be_larger_than_a_body() {
    let lines = "{\"firstName\":\"a\"}\n".repeat(5000);
    assert_eq!(
        upload(&TestGateway::new(), "application/x-ndjson", lines).await.json(),
        json!({"received": 5000})
    );
}

#[tokio::test]
async fn a_line_with_faults_ends_the_stream_for_the_service_too() {
    let gateway = TestGateway::new();
    let answer =
        upload(&gateway, "application/x-ndjson", "{}\n{\"firstName\":1,\"other\":2}\n{}").await;
    assert_eq!(answer.faults(), ["firstName: invalid_type", "other: unknown_field"]);
    assert_eq!(answer.json()["errors"][0]["description"], "line 2: must be a string");
    let seen = gateway.seen.lock().unwrap();
    assert!(seen.failure.is_some() && seen.messages == 2, "the line itself is there to be checked");
}

#[tokio::test]
async fn a_line_that_is_not_json_is_named() {
    let answer = upload(&TestGateway::new(), "application/x-ndjson", "{}\n{}\n{").await;
    assert_eq!(answer.faults(), ["body: invalid_json"]);
    assert!(answer.json()["detail"].as_str().unwrap().starts_with("body: line 3: is not JSON: "));
}

#[tokio::test]
async fn a_line_that_is_too_long_is_named() {
    let answer =
        upload(&TestGateway::new(), "application/x-ndjson", format!("{{}}\n{}", " ".repeat(4097)))
            .await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["detail"]),
        (413, &json!("Line 2 of the body is larger than the 4096 bytes that this service takes."))
    );
}

fn lines(answer: &Answer) -> Vec<Value> {
    std::str::from_utf8(&answer.body)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_stream_of_answers_is_lines_of_json() {
    let answer = TestGateway::new().request("GET", "/orders:watch?count=3", "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type")),
        (200, "application/x-ndjson")
    );
    let counts: Vec<_> = lines(&answer).iter().map(|line| line["itemCount"].clone()).collect();
    assert_eq!(counts, [0, 1, 2]);
}

#[tokio::test]
async fn a_failure_is_the_last_line() {
    let gateway = TestGateway::new();
    let answer = gateway.request("GET", "/orders:watch?count=1&end=unavailable", "").await;
    let found = lines(&answer);
    assert_eq!((found.len(), &found[1]["error"]["code"]), (2, &json!("unavailable")));
    assert_eq!(found[1]["error"]["request_id"], answer.header("x-request-id"));

    // A panic takes the messages along that were not sent yet.
    let answer = gateway.request("GET", "/orders:watch?count=1&end=panic", "").await;
    assert_eq!(lines(&answer).last().unwrap()["error"]["code"], "internal");
}

#[tokio::test]
async fn a_failure_before_the_stream_is_a_problem() {
    assert_eq!(
        TestGateway::new().request("GET", "/orders:watch?count=x", "").await.faults(),
        ["count: invalid_type"]
    );
}

#[tokio::test]
async fn events_are_sent_to_those_who_ask() {
    let request = Request::get("/orders:watch?count=1&end=unavailable")
        .header("accept", "text/html, text/event-stream;q=0.9");
    let answer = TestGateway::new().send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let text = std::str::from_utf8(&answer.body).unwrap();
    let events: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!(events.len(), 2);
    assert!(events[0].starts_with("data: {\"firstName\":\"\","));
    assert!(events[1].starts_with("event: error\ndata: {\"type\":\"/errors/unavailable\","));
}

#[tokio::test]
async fn an_event_has_the_id_of_its_message() {
    let request = Request::get("/orders:follow?count=3").header("accept", "text/event-stream");
    let answer = TestGateway::new().send(request.body(Body::empty()).unwrap()).await;
    let text = std::str::from_utf8(&answer.body).unwrap();
    let events: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!(
        (events.len(), events[0], events[2]),
        (3, "id: p0", "id: p2"),
        "without data it is a sign of life"
    );
    assert!(events[1].starts_with("id: p1\ndata: {\"firstName\":\"\","), "{text}");
}

#[tokio::test]
async fn a_message_that_says_nothing_is_an_empty_line() {
    let answer = TestGateway::new().request("GET", "/orders:follow?count=3", "").await;
    let text = std::str::from_utf8(&answer.body).unwrap();
    let lines: Vec<&str> = text.split('\n').collect();
    assert_eq!((lines.len(), lines[0], lines[2], lines[3]), (4, "", "", ""), "{text}");
    assert!(lines[1].starts_with("{\"firstName\":\"\","));
}

async fn accepting(accept: &'static str, uri: &str) -> Answer {
    TestGateway::new()
        .send(Request::get(uri).header("accept", accept).body(Body::empty()).unwrap())
        .await
}

#[tokio::test]
async fn an_array_is_sent_to_those_who_ask() {
    let answer = accepting("application/json", "/orders:watch?count=2").await;
    assert_eq!(
        (answer.header("content-type"), answer.json().as_array().unwrap().len()),
        ("application/json", 2)
    );
    assert_eq!(accepting("application/json", "/orders:watch").await.json(), json!([]));
    let failed =
        accepting("application/json", "/orders:watch?count=1&end=unavailable").await.json();
    assert_eq!(
        (failed[0]["itemCount"].clone(), &failed[1]["error"]["code"]),
        (json!(0), &json!("unavailable"))
    );
    let failed = accepting("application/json", "/orders:watch?end=unavailable").await.json();
    assert_eq!(failed[0]["error"]["code"], "unavailable");
    assert_eq!(
        accepting("application/json", "/orders:follow?count=5")
            .await
            .json()
            .as_array()
            .unwrap()
            .len(),
        2,
        "signs of life are white space"
    );
}

#[tokio::test]
async fn the_caller_weighs_what_it_would_rather_have() {
    for (accept, media_type) in [
        ("*/*", "application/x-ndjson"),
        ("text/csv", "application/x-ndjson"),
        ("application/jsonl", "application/x-ndjson"),
        ("application/json;q=0.5, text/event-stream;q=0.6, */*", "text/event-stream"),
        ("application/json, application/x-ndjson", "application/json"),
    ] {
        let answer = accepting(accept, "/orders:watch?count=1").await;
        assert_eq!(
            (answer.header("content-type"), answer.header("vary")),
            (media_type, "accept"),
            "{accept}"
        );
    }
}
