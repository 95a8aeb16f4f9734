//! The messages of faults: they use the names of the caller's contract, and their advice works when it is followed.

use crate::kit::*;

/// The fields of the faults and what is said of them.
pub fn faults(reply: &Reply) -> Vec<(String, String)> {
    let document = reply.json();
    let text = |fault: &Value, name: &str| fault[name].as_str().unwrap_or_default().to_owned();
    document["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|fault| (text(fault, "field"), text(fault, "description")))
        .collect()
}

#[tokio::test]
async fn faults_have_the_names_of_the_contract_that_the_caller_speaks() {
    let rest = Rest::start().await;
    rest.world
        .call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "P"}))
        .await
        .unwrap();
    rest.world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T"}}))
        .await
        .unwrap();
    let by_type = ("/api/acme/entities", "entityType");
    for (method, path, body, field) in [
        ("DELETE", by_type.0, "", by_type.1),
        ("DELETE", "/api/acme/entities?entityType=", "", by_type.1),
        ("POST", "/api/acme/entities/_delete", "{}", "objects"),
        ("POST", "/api/acme/entities/_delete", r#"{"objects":{}}"#, "objects.filter"),
        (
            "POST",
            "/api/acme/entities/_delete?entityType=T",
            r#"{"objects":{"entityType":"T"}}"#,
            by_type.1,
        ),
        ("POST", "/api/acme/entities/_deleteByUris?entityType=T", r#"["e"]"#, by_type.1),
        ("POST", "/api/acme/entities/_deleteByUris", r#"["a b"]"#, "[0]"),
        ("PATCH", "/v1/portfolios/p", "{}", "body"),
        ("PATCH", "/v1/portfolios/p", r#"{"expected_version":1}"#, "body"),
        ("PATCH", "/v1/portfolios/p", r#"{"update_mask":"nonsense","name":"x"}"#, "update_mask"),
        ("PATCH", "/v1/entities/e", "{}", "body"),
        ("PATCH", "/v1/removal-policy", "{}", "body"),
        ("PATCH", "/v1/removal-policy?update_mask=nonsense", "{}", "update_mask"),
    ] {
        let reply = rest.send(method, path, &[], body).await;
        let reported = faults(&reply);
        assert_eq!(
            (reply.status, reported.len(), reported[0].0.as_str()),
            (400, 1, field),
            "{method} {path} {body}: {reported:?}"
        );
        let text = reply.text();
        for inner in ["spec", "`uris`", "entity_type", "uri_list", "match_all"] {
            assert!(!text.contains(inner), "{method} {path} {body} shows `{inner}`: {text}");
        }
    }
    // By gRPC they are those of the messages.
    let grpc = rest.world.through(Protocol::Grpc);
    let refused = grpc
        .call("PortfolioService/UpdatePortfolio", json!({"portfolio_id": "p"}))
        .await
        .unwrap_err();
    assert_eq!(refused.faults[0].field, "update_mask");
    let both = json!({"entity_type": "T", "spec": {"objects": {"entity_type": "T"}}});
    let refused = grpc.call("BulkDeleteService/StartBulkDelete", both).await;
    assert_eq!(
        refused.unwrap_err().faults[0].description,
        "must not be given together with `spec`, which says what to delete as well"
    );
}

/// A request with a value in it, and the field in which it stands.
struct Case {
    method: &'static str,
    path: fn(&str) -> String,
    header: Option<&'static str>,
    body: fn(&str) -> String,
    field: &'static str,
    wrong: &'static str,
}

#[tokio::test]
async fn whoever_follows_the_advice_of_a_fault_is_not_refused_for_it_again() {
    let rest = Rest::start().await;
    rest.world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T"}}))
        .await
        .unwrap();
    type Make = fn(&str) -> String;
    let of_path = |path: Make, field, wrong| Case {
        method: "GET",
        path,
        header: None,
        body: |_| String::new(),
        field,
        wrong,
    };
    let of_header = |header, path: Make, field| Case {
        method: "PATCH",
        path,
        header: Some(header),
        body: |_| r#"{"type":"T"}"#.to_owned(),
        field,
        wrong: "x",
    };
    let of_body = |method, path: Make, body: Make, field, wrong| Case {
        method,
        path,
        header: None,
        body,
        field,
        wrong,
    };
    let cases = [
        of_path(|value| format!("/api/acme/tasks?createdSince={value}"), "createdSince", "2024"),
        of_path(
            |value| format!("/api/acme/tasks/history?createdBefore={value}"),
            "createdBefore",
            "1767225600",
        ),
        of_path(
            |value| format!("/api/acme/tasks/_total?createdBefore={value}"),
            "createdBefore",
            "2024-01-01",
        ),
        of_path(|value| format!("/v1/entities?filter=gt(createdTime,'{value}')"), "filter", "2024"),
        of_path(
            |value| format!("/v1/entities?filter=gt(createdTime,'{value}')"),
            "filter",
            "1767225600",
        ),
        of_path(|value| format!("/v1/entities?order_by={value}"), "order_by", "colour"),
        of_path(|value| format!("/v1/entities?filter={value}(type,T)"), "filter", "equal"),
        of_path(|value| format!("/api/acme/tasks?orderBy={value}"), "orderBy", "colour"),
        of_path(|value| format!("/v1/events?types={value}"), "types[0]", "x"),
        of_path(|value| format!("/v1/offboarding/entities?status={value}"), "status", "x"),
        of_header("x-request-timeout", |_| "/v1/entities/e".to_owned(), "X-Request-Timeout"),
        of_header("if-match", |_| "/v1/entities/e".to_owned(), "If-Match"),
        of_body(
            "POST",
            |_| "/v1/offboarding/entities".to_owned(),
            |value| json!({"entityId": "none", "gracePeriod": value}).to_string(),
            "gracePeriod",
            "soon",
        ),
        of_body(
            "PATCH",
            |_| "/v1/removal-policy".to_owned(),
            |value| json!({"mail_domains": [value]}).to_string(),
            "mail_domains[0]",
            "nowhere",
        ),
        of_body(
            "POST",
            |_| "/v1/attribute-indexes".to_owned(),
            |value| json!({"attribute": value}).to_string(),
            "attribute",
            "a..b",
        ),
        of_body(
            "POST",
            |_| "/v1/entities".to_owned(),
            |value| json!({"type": "T", "state": value}).to_string(),
            "state",
            "offboarding",
        ),
    ];
    for Case { method, path, header, body, field, wrong } in cases {
        let send = async |value: &str| {
            let headers: Vec<_> = header.map(|name| (name, value)).into_iter().collect();
            let reported = faults(
                &rest.send(method, &path(&value.replace(' ', "%20")), &headers, &body(value)).await,
            );
            reported
                .into_iter()
                .find(|(reported, _)| reported == field)
                .map(|(_, description)| description)
        };
        let what = format!("{method} {} {field}", path(wrong));
        let description = send(wrong).await.unwrap_or_else(|| panic!("{what}: {wrong} is taken"));
        // The names in backticks, except those of the subject of the sentence.
        let said = description.lines().next().unwrap_or_default().to_owned();
        let samples: Vec<_> = said
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|sample| ![wrong, "createdTime", "attributes.", "*", "s"].contains(sample))
            .collect();
        assert!(!samples.is_empty(), "{what}: {said}");
        for sample in samples {
            assert_eq!(send(sample).await, None, "{what}: `{sample}` of: {said}");
        }
    }
}

#[tokio::test]
async fn a_hint_does_not_send_the_caller_astray() {
    let rest = Rest::start().await;
    rest.world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T"}}))
        .await
        .unwrap();
    for (method, path, body, field, reported) in [
        ("PATCH", "/v1/entities/e", r#"{"state":"active"}"#, "state", "cannot be changed here"),
        (
            "PATCH",
            "/v1/entities/e",
            r#"{"portfolio_id":"p"}"#,
            "portfolio_id",
            "cannot be changed here",
        ),
        ("PATCH", "/v1/entities/e", r#"{"hold":null}"#, "hold", "cannot be changed here"),
        ("PATCH", "/v1/entities/e", r#"{"id":"x"}"#, "id", "cannot be changed here"),
        ("PATCH", "/v1/entities/e", r#"{"createdAt":null}"#, "createdAt", "cannot be changed here"),
        (
            "PATCH",
            "/v1/entities/e",
            r#"{"version":1}"#,
            "version",
            "cannot be changed here; the version that it must be at goes into `expected_version`",
        ),
        (
            "PATCH",
            "/v1/entities/e",
            r#"{"LastName":"x"}"#,
            "LastName",
            "is not known here; your own data goes into `attributes`",
        ),
        ("POST", "/v1/entities", r#"{"type":"T","hold":null}"#, "hold", "cannot be given here"),
        (
            "POST",
            "/v1/portfolios",
            r#"{"name":"x","entity_count":1}"#,
            "entity_count",
            "cannot be given here",
        ),
        (
            "POST",
            "/v1/entities",
            r#"{"type":"t","dependents":[{"kind":"task","dependent_id":"x"}]}"#,
            "dependents[0].dependent_id",
            "is not known here; your own data goes into `dependents[0].data`",
        ),
        (
            "POST",
            "/v1/entities",
            r#"{"type":"t","dependents":[{"kind":"task","type":"x"}]}"#,
            "dependents[0].type",
            "is not known here; your own data goes into `dependents[0].data`",
        ),
    ] {
        let reply = rest.send(method, path, &[], body).await;
        let all = faults(&reply);
        let of_field = all.iter().find(|fault| fault.0 == field).map(|fault| fault.1.as_str());
        assert_eq!(
            (reply.status, of_field),
            (400, Some(reported)),
            "{method} {path} {body}: {all:?}"
        );
    }
    let twice = rest
        .send(
            "POST",
            "/api/acme/entities/_delete",
            &[],
            r#"{"objects":{"entityType":"T","objects":{}}}"#,
        )
        .await;
    assert_eq!(faults(&twice), [("objects.objects".to_owned(), "is not known here".to_owned())]);
}
