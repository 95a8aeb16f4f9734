//! Versions of resources as entity tags.

use crate::kit::*;

#[tokio::test]
async fn a_resource_reports_its_version_and_can_be_changed_at_that_version_alone() {
    let rest = Rest::start().await;
    let made = rest.send("POST", "/v1/portfolios", &[], r#"{"portfolio_id":"p","name":"a"}"#).await;
    assert_eq!((made.status, made.header("etag")), (201, Some("\"1\"")));
    let changed =
        rest.send("PATCH", "/v1/portfolios/p", &[("if-match", "\"1\"")], r#"{"name":"b"}"#).await;
    assert_eq!((changed.status, changed.header("etag")), (200, Some("\"2\"")));
    let stale =
        rest.send("PATCH", "/v1/portfolios/p", &[("if-match", "\"1\"")], r#"{"name":"c"}"#).await;
    let reported = stale.json();
    assert_eq!(
        (
            stale.status,
            &reported["code"],
            &reported["expected_version"],
            &reported["current_version"]
        ),
        (409, &json!("state_conflict"), &json!(1), &json!(2))
    );
    assert_eq!(rest.send("GET", "/v1/portfolios/p", &[], "").await.json()["name"], "b");

    let entity = rest.send("POST", "/v1/entities", &[], r#"{"entity_id":"e","type":"T"}"#).await;
    assert_eq!(entity.header("etag"), Some("\"1\""));
    let stale =
        rest.send("PATCH", "/v1/entities/e", &[("if-match", "\"9\"")], r#"{"type":"U"}"#).await;
    assert_eq!(
        (stale.status, &stale.json()["expected_version"]),
        (409, &json!(9)),
        "where the version is a field of the body"
    );
    let changed =
        rest.send("PATCH", "/v1/entities/e", &[("if-match", "\"1\"")], r#"{"type":"U"}"#).await;
    assert_eq!((changed.status, &changed.json()["type"]), (200, &json!("U")), "{}", changed.text());
}

#[tokio::test]
async fn what_a_reader_has_is_not_sent_again_until_it_changes() {
    let rest = Rest::start().await;
    rest.world.portfolios(&["p"]).await;
    let tag =
        rest.send("GET", "/v1/portfolios/p", &[], "").await.header("etag").unwrap().to_owned();
    for method in ["GET", "HEAD"] {
        let same = rest.send(method, "/v1/portfolios/p", &[("if-none-match", &tag)], "").await;
        assert_eq!(
            (same.status, same.body.len(), same.header("etag")),
            (304, 0, Some(tag.as_str())),
            "{method}"
        );
        assert!(same.header("x-request-id").is_some());
    }
    rest.send("PATCH", "/v1/portfolios/p", &[], r#"{"name":"other"}"#).await;
    let news = rest.send("GET", "/v1/portfolios/p", &[("if-none-match", &tag)], "").await;
    assert_eq!((news.status, &news.json()["name"]), (200, &json!("other")));
}

#[tokio::test]
async fn a_condition_that_a_call_cannot_keep_keeps_the_call_from_being_done() {
    let rest = Rest::start().await;
    rest.world.portfolios(&["p"]).await;
    let refused = rest.send("DELETE", "/v1/portfolios/p", &[("if-match", "\"1\"")], "").await;
    assert_eq!((refused.status, &refused.json()["errors"][0]["field"]), (400, &json!("If-Match")));
    assert_eq!(rest.send("GET", "/v1/portfolios/p", &[], "").await.status, 200);
}
