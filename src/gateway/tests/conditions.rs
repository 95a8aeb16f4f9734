//! Versions as entity tags, and patterns in paths.

use axum::body::Body;
use http::Request;
use serde_json::json;

use super::service::{Answer, TestGateway};

async fn send(method: &str, uri: &str, headers: &[(&str, &str)], body: &'static str) -> Answer {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    TestGateway::new().send(request.body(Body::from(body)).unwrap()).await
}

const BOOK: &str = "/shelves/s/books/a/b";

#[tokio::test]
async fn a_variable_may_be_a_pattern_also_with_a_rest_and_a_verb() {
    let name = async |method, uri| send(method, uri, &[], "").await.json()["name"].clone();
    assert_eq!(name("GET", "/shelves/1%2F2/books/a%20b/c").await, "shelves/1%2F2/books/a b/c");
    assert_eq!(name("GET", "/shelves/1/books").await, "shelves/1/books");
    assert_eq!(name("POST", "/shelves/x:lock").await, "shelves/x");
    assert_eq!(send("GET", "/shelves/1/2/books/a", &[], "").await.status, 404);
    assert_eq!(send("POST", "/shelves/x:open", &[], "").await.status, 404);
}

#[tokio::test]
async fn nested_fields_and_well_known_types_are_query_parameters() {
    let answer =
        send("GET", &format!("{BOOK}?part.text=x%2By&wait=1.5s&note=&part.version=2"), &[], "")
            .await;
    let reported = answer.json();
    assert_eq!(
        (&reported["part"]["text"], &reported["wait"], &reported["note"]),
        (&json!("x+y"), &json!("1.500s"), &json!(""))
    );
    let refused = send("GET", &format!("{BOOK}?part=x&part.other=y&wait=long"), &[], "").await;
    assert_eq!(
        refused.faults(),
        ["part: unknown_parameter", "part.other: unknown_parameter", "wait: invalid"]
    );
}

#[tokio::test]
async fn a_message_that_is_a_document_is_the_body_as_it_stands() {
    let gateway = TestGateway::new();
    assert_eq!(
        gateway.request("POST", "/free", r#"{"a":[1,null]}"#).await.json(),
        json!({"a": [1, null]})
    );
    assert_eq!(gateway.request("POST", "/free", "[]").await.faults(), ["body: invalid_type"]);
}

#[tokio::test]
async fn a_version_is_an_entity_tag() {
    let answer = send("PATCH", BOOK, &[], r#"{"version":7}"#).await;
    assert_eq!((answer.status.as_u16(), answer.header("etag")), (200, "\"7\""));
    assert!(
        !send("GET", BOOK, &[], "").await.headers.contains_key("etag"),
        "a resource at no version has no tag"
    );
    let part = send("PUT", "/things/x", &[], r#"{"version":3}"#).await;
    assert_eq!(part.header("etag"), "\"3\"", "it is that of the part which is the answer");
}

#[tokio::test]
async fn if_match_is_the_version_that_is_expected() {
    let expected = async |tag, body| send("PATCH", BOOK, &[("if-match", tag)], body).await;
    assert_eq!(expected("\"7\"", "{}").await.json()["expectedVersion"], 7);
    assert_eq!(expected("*", "{}").await.json()["expectedVersion"], json!(null));
    assert_eq!(expected("\"7\"", r#"{"expectedVersion":7}"#).await.status, 200);
    assert_eq!(
        expected("\"7\"", r#"{"expectedVersion":8}"#).await.faults(),
        ["expectedVersion: conflict"]
    );
    for wrong in ["7", "W/\"7\"", "\"x\"", "\"7\", \"8\""] {
        assert_eq!(expected(wrong, "{}").await.faults(), ["If-Match: invalid"], "{wrong}");
    }
    let inside = send("PUT", "/things/x", &[("if-match", "\"2\"")], "{}").await;
    assert_eq!(inside.json()["expectedVersion"], 2, "it may be a field of the body");
}

#[tokio::test]
async fn a_condition_that_cannot_be_kept_is_refused() {
    assert_eq!(
        send("DELETE", "/done", &[("if-match", "\"7\"")], "").await.faults(),
        ["If-Match: unsupported"]
    );
    assert_eq!(
        send("PATCH", BOOK, &[("if-none-match", "*")], "{}").await.faults(),
        ["If-None-Match: unsupported"]
    );
}

#[tokio::test]
async fn what_a_reader_has_already_is_not_sent_again() {
    let uri = format!("{BOOK}?version=7");
    for (known, status) in
        [("\"7\"", 304), ("W/\"7\"", 304), ("\"6\", \"7\"", 304), ("*", 304), ("\"6\"", 200)]
    {
        for method in ["GET", "HEAD"] {
            let answer = send(method, &uri, &[("if-none-match", known)], "").await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("etag")),
                (status, "\"7\""),
                "{method} {known}"
            );
            assert_eq!(answer.body.is_empty(), status == 304 || method == "HEAD");
        }
    }
    assert_eq!(
        send("GET", BOOK, &[("if-none-match", "*")], "").await.status,
        200,
        "a resource at no version is always sent"
    );
    for unreadable in ["1", "zz", "\"1", "\"1\" \"2\"", ""] {
        for method in ["GET", "HEAD"] {
            let answer = send(method, &uri, &[("if-none-match", unreadable)], "").await;
            assert_eq!(answer.status, 400, "{method} {unreadable}");
        }
        assert_eq!(
            send("GET", &uri, &[("if-none-match", unreadable)], "").await.faults(),
            ["If-None-Match: invalid"]
        );
    }
}
