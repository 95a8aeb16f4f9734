//! The faults of a request of the REST listener, and how they are reported.

use crate::kit::*;
use crate::rest_protocol::{Rest, code, faults};

#[tokio::test]
async fn a_body_that_is_no_json_is_reported_where() {
    let rest = Rest::start(&[]).await;
    let reply = rest.post("/v1/portfolios", "{\"name\": \"a\",\n  \"metadata\": {]}").await;
    assert_eq!(code(&reply), (400, "validation_failed".to_owned()));
    assert!(
        reply.json()["detail"].as_str().unwrap().contains("line 2, column 16"),
        "{}",
        reply.text()
    );
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{\"name\":\"a\"} {}",
        "{\"name\":\"a\",\"name\":\"b\"}",
        "{\"name\":\"\\ud800\"}",
        "{\"name\":7}",
    ] {
        let reply = rest.post("/v1/portfolios", body).await;
        assert_eq!(
            code(&reply),
            (400, "validation_failed".to_owned()),
            "{body:?}: {}",
            reply.text()
        );
    }
    let no_utf8 = rest.post("/v1/portfolios", b"{\"name\":\"\xff\"}".to_vec()).await;
    assert_eq!(code(&no_utf8), (400, "validation_failed".to_owned()));
    let deep =
        format!("{{\"name\":\"a\",\"metadata\":{}{}}}", "{\"a\":".repeat(5000), "}".repeat(5000));
    assert_eq!(
        code(&rest.post("/v1/portfolios", deep).await),
        (400, "validation_failed".to_owned())
    );
    assert_eq!(rest.world.database.rows("portfolio"), 0);
}

#[tokio::test]
async fn every_fault_of_path_query_and_body_is_reported_at_once_in_the_spelling_of_the_contract() {
    let rest = Rest::start(&[]).await;
    let reply = rest
        .post(
            "/v1/portfolios?dryRun=true&nmae=x",
            r#"{"portfolioId":"a","sharedComplianceCalendar":"yes","Name":"x"}"#,
        )
        .await;
    let expected = [
        ("shared_compliance_calendar", "invalid_type"),
        ("Name", "unknown_field"),
        ("name", "required"),
        ("dryRun", "unknown_parameter"),
        ("nmae", "unknown_parameter"),
    ];
    let mut reported = faults(&reply);
    let mut expected: Vec<_> =
        expected.iter().map(|(field, code)| ((*field).to_owned(), (*code).to_owned())).collect();
    reported.sort_unstable();
    expected.sort_unstable();
    assert_eq!(reported, expected, "{}", reply.text());

    let camel = rest
        .post(
            "/api/acme/entities/_delete",
            r#"{"objects":{"uriList":["a b"],"excludeList":["c d"],"filter":"x"}}"#,
        )
        .await;
    let fields: Vec<_> = faults(&camel).into_iter().map(|(field, _)| field).collect();
    assert!(
        fields.contains(&"objects.uriList[0]".to_owned())
            && fields.contains(&"objects.excludeList[0]".to_owned()),
        "{}",
        camel.text()
    );
    let twice = rest.send("DELETE", "/api/acme/entities?entityType=T&entityType=U", &[], "").await;
    assert_eq!(faults(&twice), [("entityType".to_owned(), "duplicate".to_owned())]);
    let body = rest
        .send(
            "DELETE",
            "/v5/entities/e",
            &[("content-type", "application/json")],
            r#"{"force":true}"#,
        )
        .await;
    assert_eq!(faults(&body), [("body".to_owned(), "unexpected".to_owned())]);
    let path = rest.send("GET", "/v1/entities/%ff", &[], "").await;
    assert_eq!(faults(&path), [("entity_id".to_owned(), "invalid".to_owned())]);
}

#[tokio::test]
async fn a_body_of_another_kind_or_size_is_refused() {
    let rest = Rest::start(&["--max-body-bytes=2000"]).await;
    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
        "application/x-ndjson",
    ] {
        let reply = rest
            .send("POST", "/v1/portfolios", &[("content-type", media_type)], r#"{"name":"a"}"#)
            .await;
        assert_eq!(code(&reply), (415, "unsupported_media_type".to_owned()), "{media_type}");
        assert_eq!(reply.header("accept-post"), Some("application/json"));
    }
    let packed = rest
        .send(
            "POST",
            "/v1/portfolios",
            &[("content-type", "application/json"), ("content-encoding", "br")],
            "x",
        )
        .await;
    assert_eq!((packed.status, packed.header("accept-encoding")), (415, Some("zstd, gzip")));
    let large = json!({"name": "a", "metadata": {"x": "y".repeat(2000)}}).to_string();
    let reply = rest.post("/v1/portfolios", large).await;
    assert_eq!(
        (code(&reply), &reply.json()["limit_bytes"]),
        ((413, "payload_too_large".to_owned()), &json!(2000))
    );
    for media_type in ["application/json", "Application/JSON; charset=UTF-8"] {
        let reply = rest
            .send("POST", "/v1/portfolios", &[("content-type", media_type)], r#"{"name":"a"}"#)
            .await;
        assert_eq!(reply.status, 201, "{media_type}: {}", reply.text());
    }
    let created = rest
        .post(
            "/v1/portfolios",
            r#"{"portfolio_id":"p","name":"a","metadata":{"desk":"B","floor":"2"}}"#,
        )
        .await;
    for suffixed in
        ["merge-patch+json", "json-patch+json", "vnd.api+json", "problem+json", "foo+json"]
    {
        let media_type = format!("application/{suffixed}");
        let reply = rest
            .send(
                "PATCH",
                "/v1/portfolios/p",
                &[("content-type", media_type.as_str())],
                r#"{"metadata":{"floor":"3"}}"#,
            )
            .await;
        assert_eq!(
            (code(&reply).0, reply.header("accept-patch")),
            (415, Some("application/json")),
            "{media_type}: {}",
            reply.text()
        );
    }
    assert_eq!(
        rest.send("GET", "/v1/portfolios/p", &[], "").await.json(),
        created.json(),
        "a merge is not taken for a replacement"
    );
    let lines = "{\"type\":\"T\"}\n".repeat(500);
    let stream = rest
        .send("POST", "/v1/entities:import", &[("content-type", "application/x-ndjson")], lines)
        .await;
    let summary: Value = serde_json::from_str(stream.text().lines().last().unwrap()).unwrap();
    assert_eq!(
        (stream.status, &summary["summary"]["created"]),
        (200, &json!(500)),
        "the limit of a stream is that of a line"
    );
    let long = format!("{{\"type\":\"T\"}}\n{{\"type\":\"{}\"}}\n", "x".repeat(2000));
    let stream = rest
        .send("POST", "/v1/entities:import", &[("content-type", "application/x-ndjson")], long)
        .await;
    assert_eq!(code(&stream), (413, "payload_too_large".to_owned()));
}

/// The first fault of a problem as a sentence.
fn first_description(reply: &Reply) -> String {
    reply.json()["errors"][0]["description"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_misspelt_member_gets_the_one_that_was_meant_in_the_spelling_of_the_contract() {
    let rest = Rest::start(&[]).await;
    for (path, body, meant) in [
        ("/api/acme/entities/_delete", r#"{"objcets":{}}"#, "objects"),
        (
            "/api/acme/entities/_delete",
            r#"{"objects":{"exclude_lsit":[],"entityType":"T"}}"#,
            "excludeList",
        ),
        ("/api/acme/entities/_delete?dryRnu=true", r#"{"objects":{"entityType":"T"}}"#, "dryRun"),
        (
            "/api/acme/entities/_delete?expected_cuont=1",
            r#"{"objects":{"entityType":"T"}}"#,
            "expectedCount",
        ),
        ("/v1/entities", r#"{"typ":"T","type":"T"}"#, "type"),
        ("/v1/entities", r#"{"type":"T","dependents":[{"knid":"task"}]}"#, "kind"),
        (
            "/v1/portfolios",
            r#"{"name":"x","sharedComplianceCalender":true}"#,
            "shared_compliance_calendar",
        ),
    ] {
        let reply = rest.post(path, body).await;
        assert_eq!(code(&reply), (400, "validation_failed".to_owned()), "{path} {body}");
        let reported = first_description(&reply);
        assert!(
            reported.ends_with(&format!("; did you mean `{meant}`?")),
            "{path} {body}: {reported}"
        );
    }
    let far = rest.post("/v1/portfolios", r#"{"name":"x","frobnicate":true}"#).await;
    assert_eq!(first_description(&far), "is not known here; your own data goes into `metadata`");
    for (path, body, reported) in [
        (
            "/v1/entities",
            r#"{"type":"T","LastName":"x"}"#,
            "is not known here; your own data goes into `attributes`",
        ),
        (
            "/api/acme/entities/_delete",
            r#"{"filter":"exists(uri)","objects":{}}"#,
            "is not known here; `filter` belongs within `objects`",
        ),
        (
            "/api/acme/entities/_delete",
            r#"{"entity_type":"T","expectedCount":1}"#,
            "is not known here; `entityType` belongs within `objects`",
        ),
        (
            "/api/acme/entities/_delete",
            r#"{"objects":{"matchAll":true}}"#,
            "is not known here; `matchAll` belongs beside `objects`",
        ),
        (
            "/api/acme/entities/_delete",
            r#"{"objects":{"filter":"exists(uri)","allow_unknown_attributes":true}}"#,
            "is not known here; `allowUnknownAttributes` belongs beside `objects`",
        ),
        (
            "/api/acme/entities/_delete",
            r#"{"objects":{"filter":"exists(uri)","dryRun":true}}"#,
            "is not known here; `dryRun` is a query parameter",
        ),
        (
            "/api/acme/entities/_delete",
            r#"{"objects":{"entityType":"T","expectedCount":1}}"#,
            "is not known here; `expectedCount` belongs beside `objects`",
        ),
        (
            "/api/acme/entities/_delete",
            r#"{"objects":{"entityType":"T"},"mode":"hard"}"#,
            "is not known here; `mode` is a query parameter",
        ),
        (
            "/api/acme/entities/_delete?filter=exists(uri)",
            r#"{"objects":{"entityType":"T"}}"#,
            "unknown query parameter `filter`; it goes into the body as `objects.filter`",
        ),
    ] {
        let reply = rest.post(path, body).await;
        assert_eq!(
            (reply.status, first_description(&reply).as_str()),
            (400, reported),
            "{path} {body}"
        );
    }
    let many = format!(
        "{{{}}}",
        (0..50_000).map(|n| format!("\"nmae{n}\":1")).collect::<Vec<_>>().join(",")
    );
    assert_eq!(rest.post("/v1/portfolios", many).await.status, 400);
}

#[tokio::test]
async fn durations_are_read_as_people_write_them_and_reported_in_one_form() {
    let rest = Rest::start(&[]).await;
    let json = [("content-type", "application/json")];
    for (given, reported) in [
        ("1h", "3600s"),
        ("30m", "1800s"),
        ("P1D", "86400s"),
        ("PT1H30M", "5400s"),
        ("1.5s", "1.500s"),
        ("90s", "90s"),
    ] {
        let reply = rest
            .send(
                "PATCH",
                "/v1/removal-policy",
                &json,
                format!(r#"{{"default_grace_period":"{given}"}}"#),
            )
            .await;
        assert_eq!(
            (reply.status, &reply.json()["default_grace_period"]),
            (200, &json!(reported)),
            "{given}: {}",
            reply.text()
        );
    }
    for wrong in ["1 hour", "P1M", "1y", "3600", "30m1h"] {
        let reply = rest
            .send(
                "PATCH",
                "/v1/removal-policy",
                &json,
                format!(r#"{{"default_grace_period":"{wrong}"}}"#),
            )
            .await;
        assert_eq!(code(&reply), (400, "validation_failed".to_owned()), "{wrong}");
        assert!(first_description(&reply).contains("such as `3600s`"), "{wrong}: {}", reply.text());
    }
    let query = rest
        .send(
            "DELETE",
            "/api/acme/entities?entityType=Nothing&cleanReportWithin=PT1H&dryRun=true",
            &[],
            "",
        )
        .await;
    assert_eq!(code(&query).1, "report_required", "a query is text too");
}
