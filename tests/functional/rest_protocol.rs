//! The REST listener: its responses where there is nothing to do, and what is on every response.

use crate::kit::*;

pub struct Rest {
    pub world: World,
    bearer: String,
}

impl Rest {
    pub async fn start(arguments: &[&str]) -> Rest {
        let world = World::start_with(Protocol::Rest, arguments).await;
        let bearer = format!("Bearer {}", world.key.secret);
        Rest { world, bearer }
    }

    /// Sends a request with the key.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Reply {
        let headers = [&[("authorization", self.bearer.as_str())], headers].concat();
        http(self.world.server.addresses.http, method, path, &headers, body).await
    }

    /// Sends JSON.
    pub async fn post(&self, path: &str, body: impl Into<bytes::Bytes>) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], body).await
    }
}

pub fn code(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["code"].as_str().unwrap().to_owned())
}

/// The fields and kinds of the faults of a problem.
pub fn faults(reply: &Reply) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    reply.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| (text(&fault["field"]), text(&fault["code"])))
        .collect()
}

#[tokio::test]
async fn a_problem_document_has_every_member() {
    let rest = Rest::start(&["--public-url=https://api.example.com/"]).await;
    let reply = rest.send("GET", "/v1/entities/ent_1", &[("x-request-id", "req-1")], "").await;
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let detail = "No entity with id `ent_1` is visible to this token.";
    let expected = json!({
        "type": "https://api.example.com/errors/not_found", "title": "Not found", "status": 404, "code": "not_found", "detail": detail,
        "doc_url": "https://api.example.com/errors#not_found", "request_id": "req-1",
        "errors": [{"code": "not_found", "message": "Not found", "description": detail}],
    });
    assert_eq!(reply.json(), expected);
    let invalid = rest.post("/v1/portfolios", r#"{"name":""}"#).await;
    let fault = json!({"field": "name", "code": "required", "message": "name: must be given", "description": "must be given"});
    assert_eq!(
        (code(&invalid), &invalid.json()["errors"]),
        ((400, "validation_failed".to_owned()), &json!([fault]))
    );
}

#[tokio::test]
async fn what_has_no_route_is_reported_from_what_has_no_such_method() {
    let rest = Rest::start(&[]).await;
    for path in [
        "/",
        "/nothing",
        "/v1/entitie",
        "/v1/entities/a/b",
        "/v1/entities/",
        "//v1/entities",
        "/v1/entities:frobnicate",
        "/metrics",
    ] {
        let reply = rest.send("GET", path, &[], "").await;
        assert_eq!(code(&reply), (404, "not_found".to_owned()), "{path}");
        assert_eq!(reply.json()["detail"], "No route has this path.", "{path}");
    }
    let misspelt = rest.send("POST", "/v1/entities/x:placehold", &[], "").await;
    let meant = "No route has this path. Did you mean the verb `placeHold`?";
    assert_eq!((misspelt.status, &misspelt.json()["detail"]), (404, &json!(meant)));
    for (method, path) in [
        ("POST", "/v1/entities/x:thaw"),
        ("GET", "/v1/entities/x:thaw"),
        ("HEAD", "/v1/entities/x:thaw"),
        ("PATCH", "/v1/entities/x:thaw"),
        ("OPTIONS", "/v1/entities/x:thaw"),
        ("DELETE", "/v5/entities/x:thaw"),
        ("GET", "/v1/portfolios/p1:thaw"),
        ("DELETE", "/v1/portfolios/p1:thaw"),
        ("DELETE", "/v1/portfolios/p1/entities/x:thaw"),
        ("GET", "/v1/offboarding/entities/x:thaw"),
        ("PUT", "/v1/entities/x/dependents/k/d:thaw"),
        ("GET", "/v5/entities/jobs/x:thaw"),
        ("GET", "/api/acme/tasks/x:thaw"),
    ] {
        let reply = rest.send(method, path, &[], "").await;
        assert_eq!(reply.status, 404, "{method} {path}: {}", reply.text());
        assert!(
            method == "HEAD" || reply.text().contains("No route has this path."),
            "{method} {path}: {}",
            reply.text()
        );
    }
    // A colon that is written as text is, and the path of an attribute may have one.
    assert_eq!(
        code(&rest.send("GET", "/v1/entities/x%3Athaw", &[], "").await),
        (400, "validation_failed".to_owned())
    );
    let attribute = rest.send("DELETE", "/v1/attribute-indexes/%22a:b%22", &[], "").await;
    assert!(attribute.json()["detail"].as_str().unwrap().contains("a:b"), "{}", attribute.text());
    for (method, path, allowed) in [
        ("PUT", "/v1/portfolios/p", "GET, HEAD"),
        ("GET", "/v1/portfolios/p/entities/e", "DELETE"),
        ("GET", "/v1/entities:import", "POST"),
        ("BREW", "/v1/portfolios", "POST"),
        ("POST", "/v5/entities/e", "DELETE"),
    ] {
        let reply = rest.send(method, path, &[], "").await;
        assert_eq!(code(&reply), (405, "method_not_allowed".to_owned()), "{method} {path}");
        let allow: std::collections::BTreeSet<_> =
            reply.header("allow").unwrap().split(", ").collect();
        for method in allowed.split(", ") {
            assert!(allow.contains(method), "{method} is not in {allow:?} of {path}");
        }
        assert!(!allow.contains(&"BREW") && !allow.contains(&"PUT"), "{path}: {allow:?}");
    }
}

#[tokio::test]
async fn who_calls_is_reported_before_the_kind_of_the_body() {
    let rest = Rest::start(&[]).await;
    let reader = Key::create(&rest.world.database, "acme", "test", &["entities:read"]);
    let (wrong, reader) = ("Bearer sk_test_wrong".to_owned(), format!("Bearer {}", reader.secret));
    let text = ("content-type", "text/plain");
    for (method, path, headers) in [
        ("POST", "/v1/entities", &[text][..]),
        ("PATCH", "/v1/entities/e", &[("content-type", "application/merge-patch+json")]),
        ("POST", "/v1/entities:import", &[text]),
        ("POST", "/v1/entities:import", &[text, ("api-version", "1")]),
        (
            "POST",
            "/v1/entities",
            &[("content-type", "application/json"), ("content-encoding", "br")],
        ),
        ("DELETE", "/v5/entities/e", &[("content-encoding", "br")]),
    ] {
        for (credential, status) in
            [(None, 401), (Some(&wrong), 401), (Some(&reader), 403), (Some(&rest.bearer), 415)]
        {
            let mut sent = headers.to_vec();
            sent.extend(credential.map(|credential| ("authorization", credential.as_str())));
            let reply = http(rest.world.server.addresses.http, method, path, &sent, "{}").await;
            assert_eq!(reply.status, status, "{method} {path} {headers:?}: {}", reply.text());
            assert_eq!(
                reply.header("offboard-realm"),
                (status != 401).then_some("acme/test"),
                "{method} {path} {headers:?}"
            );
        }
    }
    assert_eq!(rest.send("PUT", "/v1/entities", &[text], "{}").await.status, 405);
    assert_eq!(rest.send("POST", "/v1/nothing", &[text], "{}").await.status, 404);
    assert_eq!(rest.world.database.rows("entity"), 0);
}

#[tokio::test]
async fn head_is_get_without_the_body_and_options_reports_the_methods() {
    let rest = Rest::start(&[]).await;
    rest.world.portfolios(&["p"]).await;
    let (head, get) = (
        rest.send("HEAD", "/v1/portfolios/p", &[], "").await,
        rest.send("GET", "/v1/portfolios/p", &[], "").await,
    );
    assert_eq!(
        (head.status, head.body.len(), head.header("content-type")),
        (200, 0, get.header("content-type"))
    );
    assert_eq!(rest.send("HEAD", "/v1/portfolios/q", &[], "").await.status, 404);
    let options = rest.send("OPTIONS", "/v1/portfolios/p", &[], "").await;
    assert_eq!(options.status, 204);
    assert!(options.header("allow").unwrap().contains("GET"), "{options:?}");
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_a_sane_one_is_kept() {
    let rest = Rest::start(&[]).await;
    rest.world.portfolios(&["p"]).await;
    let long = "x".repeat(129);
    let json = [("content-type", "application/json")];
    let no_key = [("authorization", "Bearer none")];
    for (method, path, more, body, status) in [
        ("GET", "/v1/portfolios/p", [].as_slice(), "", 200),
        ("GET", "/v1/portfolios/q", &[], "", 404),
        ("GET", "/nothing", &[], "", 404),
        ("PUT", "/v1/portfolios/p", &[], "", 405),
        ("OPTIONS", "/v1/portfolios/p", &[], "", 204),
        ("POST", "/v1/portfolios", &json, "{", 400),
        ("POST", "/v1/portfolios", &[("content-type", "text/plain")], "{}", 415),
        ("POST", "/v1/portfolios", &json, r#"{"name":"n"}"#, 201),
        ("GET", "/v1/portfolios/p", &no_key, "", 401),
    ] {
        let send = async |id: &str| {
            let mut headers = vec![("x-request-id", id)];
            headers.extend(more);
            if more != no_key.as_slice() {
                headers.push(("authorization", rest.bearer.as_str()));
            }
            let reply = http(rest.world.server.addresses.http, method, path, &headers, body).await;
            assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
            let reported = reply.header("x-request-id").unwrap().to_owned();
            if status >= 400 {
                assert_eq!(reply.json()["request_id"], reported, "{method} {path}");
            }
            reported
        };
        assert_eq!(send("my-id.1~2_3").await, "my-id.1~2_3", "{method} {path}");
        for odd in ["two words", "a/b", "<script>", long.as_str(), ""] {
            let reported = send(odd).await;
            assert!(
                reported.starts_with("req_") && reported.len() == 36,
                "{method} {path}: {reported}"
            );
        }
    }
}

#[tokio::test]
async fn nobody_can_forge_what_is_said_between_the_layers() {
    let rest = Rest::start(&[]).await;
    rest.world.portfolios(&["p"]).await;
    let forged = [
        ("x-http-code", "204"),
        ("location", "/elsewhere"),
        ("x-offboard-realm", "1"),
        ("grpc-status", "5"),
        ("grpc-encoding", "gzip"),
        ("grpc-message", "no"),
        ("te", "trailers"),
        ("x-request-id", "mine"),
    ];
    let reply = rest.send("GET", "/v1/portfolios/p", &forged, "").await;
    assert_eq!((reply.status, &reply.json()["id"]), (200, &json!("p")));
    for name in ["location", "x-offboard-realm", "x-http-code", "grpc-status", "grpc-encoding"] {
        assert_eq!(reply.header(name), None, "{name}");
    }
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let answer = rest
        .world
        .through(Protocol::Grpc)
        .call_with(
            "PortfolioService/GetPortfolio",
            json!({"portfolio_id": "p"}),
            &[("x-http-code", "204")],
        )
        .await;
    assert_eq!(answer.unwrap().header("x-http-code"), None);
}

#[tokio::test]
async fn a_caller_may_give_a_deadline() {
    let rest = Rest::start(&[]).await;
    rest.world.portfolios(&["p"]).await;
    for odd in ["0", "-1", "soon"] {
        let reply = rest.send("GET", "/v1/portfolios/p", &[("x-request-timeout", odd)], "").await;
        assert_eq!(
            faults(&reply),
            [("X-Request-Timeout".to_owned(), "invalid".to_owned())],
            "{odd}"
        );
    }
    assert_eq!(
        rest.send("GET", "/v1/portfolios/p", &[("x-request-timeout", "30")], "").await.status,
        200
    );
    let mut held = rest.world.database.connection();
    diesel::connection::SimpleConnection::batch_execute(
        &mut held,
        "BEGIN; LOCK TABLE portfolio IN ACCESS EXCLUSIVE MODE",
    )
    .unwrap();
    let late = rest.send("GET", "/v1/portfolios/p", &[("x-request-timeout", "0.2")], "").await;
    assert_eq!(code(&late), (504, "deadline_exceeded".to_owned()));
}

scenario! {
    async fn a_trace_goes_on_through_the_service_and_into_its_log(world: &World) {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let header = format!("00-{trace}-00f067aa0ba902b7-01");
        let headers = [("traceparent", header.as_str()), ("x-request-id", "traced")];
        world.client.call_with("EntityService/GetEntity", json!({"entity_id": "e"}), &headers).await.unwrap_err();
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "call ended" && line["request_id"] == "traced").then_some(line)
        };
        until("the call is in the log", || world.server.log().lines().any(|text| line(text).is_some())).await;
        let reported = world.server.log().lines().find_map(line).unwrap();
        let expected = (json!("offboard.v1.EntityService/GetEntity"), json!("NOT_FOUND"), json!(trace));
        assert_eq!((reported["method"].clone(), reported["status"].clone(), reported["trace_id"].clone()), expected);
    }

    async fn a_message_that_is_too_large_is_refused_with_the_limit(world: &World) {
        let small = World::start_with(world.protocol, &["--max-body-bytes=5000"]).await;
        let entity = |size: usize| json!({"entity": {"type": "T", "attributes": {"a": "x".repeat(size)}}});
        let refused = small.call("EntityService/CreateEntity", entity(6000)).await.unwrap_err();
        assert_eq!((refused.code.as_str(), &refused.members["limit_bytes"]), ("payload_too_large", &json!(5000)));
        assert!(refused.request_id.is_some());
        small.call("EntityService/CreateEntity", entity(4000)).await.unwrap();
    }
}

/// A caller with the wrong key sees its realm in every response, and most of all where nothing is found.
#[tokio::test]
async fn every_answer_to_a_key_says_whose_it_is() {
    let rest = Rest::start(&[]).await;
    for path in ["/v1/entities", "/v1/entities/nothing", "/v1/entities?page_size=-1"] {
        assert_eq!(
            rest.send("GET", path, &[], "").await.header("offboard-realm"),
            Some("acme/test"),
            "{path}"
        );
    }
    let refused = http(
        rest.world.server.addresses.http,
        "GET",
        "/v1/entities",
        &[("authorization", "Bearer sk_test_none")],
        "",
    )
    .await;
    assert_eq!((refused.status, refused.header("offboard-realm")), (401, None));
}
