//! Every fault of a request is reported at once: those of its form, which the gateway finds, those of its filter, and those that a service
//! finds. Nothing is done of such a request.

use crate::kit::rest::{Prepared, prepare};
use crate::kit::*;

/// The faults of a refused request, as `field code`.
async fn faults(rest: &Rest, method: &str, path: &str, body: &str) -> Vec<String> {
    faults_with(rest, method, path, &[], body).await
}

async fn faults_with(
    rest: &Rest,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Vec<String> {
    let faults = rest.faults(method, path, headers, body).await;
    let mut faults: Vec<_> =
        faults.into_iter().map(|[field, code, _]| format!("{field} {code}")).collect();
    faults.sort_unstable();
    faults
}

#[tokio::test]
async fn faults_of_the_form_hide_none_of_the_service() {
    let rest = Rest::start().await;
    let large = format!(
        r#"{{"entity_id":"a b","type":"T","attributes":{{"x":"{}"}}}}"#,
        "y".repeat(1 << 20)
    );
    let digits = "7".repeat(5_000);
    let long_number = format!(
        r#"{{"entity_id":"a b","type":"T","attributes":{{"x":{digits},"y":[-{digits}.5]}}}}"#
    );
    let long_version = format!(r#"{{"nome":1,"expected_version":{digits}}}"#);
    let batch = r#"{"requests":[7,{"entity":{"entity_id":"ok","type":"T"}},{"entity":{"entity_id":"a b"}}]}"#;
    for (method, path, body, expected) in [
        (
            "POST",
            "/v1/portfolios",
            r#"{"portfolio_id":"a b","nome":"x"}"#,
            vec!["name required", "nome unknown_field", "portfolio_id invalid"],
        ),
        (
            "POST",
            "/v1/portfolios?x=1",
            r#"{"portfolio_id":"a b","name":7}"#,
            vec!["name invalid_type", "portfolio_id invalid", "x unknown_parameter"],
        ),
        ("POST", "/v1/entities", large.as_str(), vec!["attributes too_long", "entity_id invalid"]),
        (
            "POST",
            "/v1/entities",
            long_number.as_str(),
            vec!["attributes.x out_of_range", "attributes.y[0] out_of_range", "entity_id invalid"],
        ),
        (
            "PATCH",
            "/v1/portfolios/a%20b",
            long_version.as_str(),
            vec![
                "body required",
                "expected_version out_of_range",
                "nome unknown_field",
                "portfolio_id invalid",
            ],
        ),
        (
            "POST",
            "/v1/entities:batchCreate",
            batch,
            vec![
                "requests[0] invalid_type",
                "requests[2].entity.entity_id invalid",
                "requests[2].entity.type required",
            ],
        ),
        (
            "GET",
            "/v1/entities?page_size=x&order_by=z&nope=1",
            "",
            vec!["nope unknown_parameter", "order_by invalid", "page_size invalid_type"],
        ),
        (
            "GET",
            "/v1/entities?page_size=x&page_token=none",
            "",
            vec!["page_size invalid_type", "page_token invalid"],
        ),
        (
            "GET",
            "/v1/entities?page_size=x&filter=equals(",
            "",
            vec!["filter invalid_filter", "page_size invalid_type"],
        ),
        (
            "GET",
            "/v1/entities?page_size=9999&filter=equals(",
            "",
            vec!["filter invalid_filter", "page_size out_of_range"],
        ),
        (
            "GET",
            "/v1/entities?page_size=9999&filter=exist(type)%20and%20missing(Name)",
            "",
            vec!["filter invalid_filter", "filter invalid_filter", "page_size out_of_range"],
        ),
        (
            "GET",
            "/v1/events?nope=1&filter=exist(type)%20and%20missing(Name)",
            "",
            vec!["filter invalid_filter", "filter invalid_filter", "nope unknown_parameter"],
        ),
        (
            "GET",
            "/v1/events?nope=1&filter=equals(",
            "",
            vec!["filter invalid_filter", "nope unknown_parameter"],
        ),
        (
            "POST",
            "/api/acme/entities/_delete",
            r#"{"objects":{"filter":"nope(","excludeList":["a b"]},"fliter":"x"}"#,
            vec![
                "fliter unknown_field",
                "objects.excludeList[0] invalid",
                "objects.filter invalid_filter",
            ],
        ),
        (
            "PATCH",
            "/v1/removal-policy",
            r#"{"min_grace_period":"2h","default_grace_period":"1h","nope":1}"#,
            vec!["min_grace_period out_of_range", "nope unknown_field"],
        ),
        (
            "PATCH",
            "/v1/removal-policy",
            r#"{"min_grace_period":"2h","default_grace_period":"soon","nope":1}"#,
            vec!["default_grace_period invalid", "nope unknown_field"],
        ),
        ("PATCH", "/v1/portfolios/a%20b", "{}", vec!["body required", "portfolio_id invalid"]),
    ] {
        assert_eq!(faults(&rest, method, path, body).await, expected, "{method} {path}");
    }
    let alone = rest.send("GET", "/v1/entities?filter=equals(", &[], "").await;
    assert_eq!(
        (alone.status, alone.json()["code"].as_str(), alone.json()["position"].as_i64().is_some()),
        (400, Some("invalid_filter"), true)
    );
    let path = "/v1/entities?filter=exist(type)%20and%20missing(Name)%20or%20gt(created_at,x)";
    let several = rest.send("GET", path, &[], "").await.json();
    assert_eq!((&several["code"], &several["position"]), (&json!("invalid_filter"), &json!(0)));
    assert_eq!(several["detail"].as_str().unwrap().matches('^').count(), 3, "{several}");
    let described = several["errors"].as_array().unwrap().iter().map(|fault| {
        (
            fault["field"].as_str(),
            fault["description"].as_str().unwrap().split_once(" (at ").unwrap().1,
        )
    });
    let at = |position: usize| (Some("filter"), format!("position {position})"));
    let described: Vec<_> = described.map(|(field, at)| (field, at.to_owned())).collect();
    assert_eq!(described, [at(0), at(24), at(47)]);
    for table in ["entity", "portfolio", "bulk_delete"] {
        assert_eq!(rest.world.database.rows(table), 0, "{table}");
    }
}

#[tokio::test]
async fn nothing_is_done_of_a_request_with_a_fault_of_its_form() {
    let rest = Rest::start().await;
    rest.world.portfolios(&["p"]).await;
    rest.world.entities(&["e"]).await;
    let before = rest.world.database.contents();
    // An import answers each line by itself.
    let changes = rpcs().into_iter().filter(|rpc| !rpc.only_reads() && !rpc.takes_a_stream());
    let mut requests: Vec<Prepared> =
        changes.map(|rpc| prepare(&rpc.name, &example(&rpc), "acme")).collect();
    requests.push(prepare(
        "BulkDeleteService/StartBulkDelete",
        &json!({"entity_type": "T"}),
        "acme",
    ));
    for Prepared { method, mut target, body, .. } in requests {
        let body = match body {
            Some(mut body) => {
                body["nope"] = json!(1);
                body.to_string()
            }
            None => {
                target.push_str(if target.contains('?') { "&nope=1" } else { "?nope=1" });
                String::new()
            }
        };
        let reply = rest.send(method, &target, &[("idempotency-key", "once")], &body).await;
        // RPCs without such a route prove nothing here.
        assert_eq!(
            (reply.status, reply.text().contains("nope")),
            (400, true),
            "{method} {target}: {}",
            reply.text()
        );
        assert_eq!(rest.world.database.contents(), before, "{method} {target}");
    }
    let mended = rest
        .send(
            "POST",
            "/v1/portfolios",
            &[("idempotency-key", "once")],
            r#"{"portfolio_id":"q","name":"n"}"#,
        )
        .await;
    assert_eq!(mended.status, 201, "the key is still free: {}", mended.text());
}

scenario! {
    async fn a_filter_hides_no_fault_and_none_hides_it(world: &World) {
        world.portfolios(&["p"]).await;
        let lists: Vec<Rpc> = rpcs().into_iter().filter(|rpc| rpc.member("filter").is_some() && rpc.member("page_size").is_some()).collect();
        assert!(!lists.is_empty());
        for rpc in &lists {
            let (method, request) = (rpc.name.as_str(), example(rpc));
            let with = |more: Value| {
                let mut request = request.clone();
                request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                world.call(method, request)
            };
            let alone = with(json!({"filter": "equals("})).await.unwrap_err();
            let faults: Vec<_> = alone.faults.iter().map(|fault| (fault.field.as_str(), fault.code.as_str(), fault.description.as_str())).collect();
            assert_eq!(
                (alone.code.as_str(), faults),
                ("invalid_filter", vec![("filter", "invalid_filter", "the filter ends too early (at position 7)")]),
                "{method}"
            );
            let both = with(json!({"filter": "equals(", "page_size": -1})).await.unwrap_err();
            let mut fields: Vec<_> = both.faults.iter().map(|fault| (fault.field.as_str(), fault.code.as_str())).collect();
            fields.sort_unstable();
            assert_eq!((both.code.as_str(), fields), ("validation_failed", vec![("filter", "invalid_filter"), ("page_size", "out_of_range")]), "{method}");
        }
    }

    async fn faults_of_headers_hide_none_and_are_hidden_by_none(world: &World) {
        let long = "k".repeat(300);
        let headers = [("api-version", "2019-01-01"), ("idempotency-key", long.as_str()), ("grpc-timeout", "soon")];
        let of_headers = ["Api-Version unknown_version", "Grpc-Timeout invalid", "Idempotency-Key invalid"];
        for (method, request, own) in [
            ("PortfolioService/CreatePortfolio", json!({"portfolio_id": "a b", "name": "n"}), vec!["portfolio_id invalid"]),
            ("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "n"}), vec![]),
            ("PortfolioService/ListPortfolios", json!({"filter": "equals("}), vec!["filter invalid_filter"]),
            ("PortfolioService/GetPortfolio", json!({"portfolio_id": "nowhere"}), vec![]),
            ("EventService/WatchEvents", json!({"cursor": "none"}), vec!["cursor invalid"]),
            ("BulkDeleteService/StartBulkDelete", json!({"spec": {"match_all": true}, "expected_count": -1}), vec!["expected_count out_of_range"]),
        ] {
            let refused = match method {
                "EventService/WatchEvents" => world.client.stream(method, request, &headers).await.err(),
                _ => world.client.call_with(method, request, &headers).await.err(),
            };
            let refused = refused.unwrap_or_else(|| panic!("{method} is done"));
            // The one spelling is that of members, and not of headers.
            let plain = |field: &str| field.to_ascii_lowercase().replace('_', "");
            let mut reported: Vec<_> = refused.faults.iter().map(|fault| format!("{} {}", plain(&fault.field), fault.code)).collect();
            reported.sort_unstable();
            let mut expected: Vec<_> = of_headers.iter().chain(&own).filter_map(|fault| fault.split_once(' ')).map(|(field, code)| format!("{} {code}", plain(field))).collect();
            expected.sort_unstable();
            assert_eq!((refused.code.as_str(), reported), ("validation_failed", expected), "{method}");
            assert!(refused.header("api-version").is_some(), "{method}");
        }
        let stream = world.client.import_requests(&[json!({"entity": {"entity_id": "e", "type": "T"}})], "", &headers).await.unwrap_err();
        assert_eq!(stream.faults.len(), 3, "{stream:?}");
        for table in ["entity", "portfolio", "bulk_delete", "idempotency_key"] {
            assert_eq!(world.database.rows(table), 0, "{table}");
        }
        let stranger = world.client.with_secret("nothing").call_with("PortfolioService/ListPortfolios", json!({}), &headers).await.unwrap_err();
        assert_eq!(stranger.code, "invalid_credentials", "who calls comes first");
        let reader = world.client("acme", "test", &["portfolios:read"]);
        let refused = reader.call_with("PortfolioService/CreatePortfolio", json!({"portfolio_id": "a b"}), &headers).await.unwrap_err();
        assert_eq!(refused.code, "permission_denied");
    }

    async fn a_list_that_is_too_long_hides_no_fault(world: &World) {
        let entity = json!({"entity_id": "a b", "type": "T", "components": vec!["c"; 10_001], "dependents": vec![json!({}); 10_001]});
        let refused = world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap_err();
        let reported = |field: &str, code: &str| refused.faults.iter().any(|fault| fault.field.ends_with(field) && fault.code == code);
        assert!(reported("components", "too_many") && reported("dependents", "too_many") && reported("entity_id", "invalid"), "{refused:?}");
        assert_eq!(world.database.rows("entity"), 0);
    }

    async fn rules_between_members_hide_behind_no_other_fault(world: &World) {
        let change = |policy: Value, mask: &str| world.call("RemovalService/UpdateRemovalPolicy", json!({"policy": policy, "update_mask": mask}));
        for (policy, mask, rule) in [
            (json!({"min_grace_period": "7200s", "default_grace_period": "3600s"}), "minGracePeriod,defaultGracePeriod", "min_grace_period"),
            (json!({"min_grace_period": "7200s"}), "minGracePeriod,defaultGracePeriod", "min_grace_period"),
            (json!({"max_grace_period": "60s", "default_grace_period": "61s"}), "maxGracePeriod,defaultGracePeriod", "default_grace_period"),
        ] {
            let mut policy = policy;
            policy["mail_domains"] = json!(["a b"]);
            let refused = change(policy, &format!("{mask},mailDomains")).await.unwrap_err();
            let mut reported: Vec<_> = refused.faults.iter().map(|fault| (fault.field.trim_start_matches("policy."), fault.code.as_str())).collect();
            reported.sort_unstable();
            let mut expected = [("mail_domains[0]", "invalid"), (rule, "out_of_range")];
            expected.sort_unstable();
            assert_eq!(reported, expected, "{mask}");
        }
        let refused = change(json!({"min_grace_period": "7200s", "default_grace_period": "-1s"}), "minGracePeriod,defaultGracePeriod").await.unwrap_err();
        assert_eq!(refused.faults.len(), 1, "what could not be read is compared with nothing: {refused:?}");
        // The rule that an update must name something is one of them.
        let refused = world.call("PortfolioService/UpdatePortfolio", json!({"portfolio_id": "a b"})).await.unwrap_err();
        assert_eq!(refused.faults.len(), 2, "{refused:?}");
    }

    async fn what_query_and_body_say_must_agree(world: &World) {
        world.entities(&["e"]).await;
        for (name, one, other) in [
            ("allow_missing_excludes", json!(false), json!(true)),
            ("allow_unknown_attributes", json!(true), json!(false)),
            ("allow_suspect_values", json!(true), json!(false)),
            ("max_objects", json!(1), json!(2)),
            ("preview_token", json!("a"), json!("b")),
        ] {
            let request = |of_request: &Value, of_body: &Value| {
                let mut request = json!({"spec": {"objects": {"entity_type": "Nothing"}}, "dry_run": true});
                request[name] = of_request.clone();
                request["spec"][name] = of_body.clone();
                request
            };
            let refused = world.call("BulkDeleteService/StartBulkDelete", request(&one, &other)).await.unwrap_err();
            let conflicts: Vec<_> = refused.faults.iter().filter(|fault| fault.code == "conflict" && fault.field.ends_with(name)).collect();
            assert_eq!(conflicts.len(), 1, "{refused:?}");
            if name != "preview_token" {
                let said = &conflicts[0].description;
                assert!(said.contains(&format!("`{one}`")) && said.contains(&format!("`{other}`")), "{said}");
                world.call("BulkDeleteService/StartBulkDelete", request(&one, &one)).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn every_fault_of_headers_query_and_body_is_reported_together() {
    let rest = Rest::start().await;
    let bad = &[
        ("if-match", "x"),
        ("if-none-match", "*"),
        ("x-request-timeout", "0"),
        ("grpc-timeout", "1"),
        ("idempotency-key", ""),
    ];
    let of_headers = [
        "Grpc-Timeout invalid",
        "Idempotency-Key invalid",
        "If-Match invalid",
        "If-None-Match unsupported",
        "X-Request-Timeout invalid",
    ];
    let both = |own: &[&'static str]| [&of_headers[..], own].concat();
    for (method, path, body, expected) in [
        (
            "PATCH",
            "/v1/portfolios/p?x=1",
            r#"{"name":"n","nome":1}"#,
            both(&["nome unknown_field", "x unknown_parameter"]),
        ),
        ("PATCH", "/v1/portfolios/p", "{", both(&["body invalid_json"])),
        (
            "PATCH",
            "/v1/entities/a%20b",
            r#"{"attributes":7}"#,
            both(&["attributes invalid_type", "entity_id invalid"]),
        ),
    ] {
        assert_eq!(faults_with(&rest, method, path, bad, body).await, expected, "{method} {path}");
    }
    let twice = &[
        ("api-version", "2026-11-01"),
        ("api-version", "2026-11-01"),
        ("idempotency-key", "a"),
        ("idempotency-key", "a"),
    ];
    let reported = faults_with(&rest, "POST", "/v1/portfolios?x=1", twice, "{}").await;
    assert_eq!(
        reported[..2],
        ["Api-Version duplicate", "Idempotency-Key duplicate"],
        "{reported:?}"
    );
    // The head of a stream is reported before its lines are read.
    let reported = faults_with(
        &rest,
        "POST",
        "/v1/entities:import?zz=1",
        &[("x-request-timeout", "0"), ("content-type", "application/x-ndjson")],
        "{\n",
    )
    .await;
    assert_eq!(reported, ["X-Request-Timeout invalid", "zz unknown_parameter"]);
    // Faults that cannot be reported with the rest come first.
    for (method, path, headers, body, status) in [
        ("POST", "/v1/nothing", &[("api-version", "1")][..], "", 404),
        ("PUT", "/v1/portfolios", &[("api-version", "1")], "", 405),
        ("POST", "/v1/portfolios", &[("if-match", "x"), ("content-encoding", "br")], "{}", 415),
        ("POST", "/v1/portfolios", &[("if-match", "x"), ("apikey", "other")], "{}", 401),
        ("POST", "/v1/portfolios", &[("if-match", "x")], &"x".repeat(5 << 20), 413),
    ] {
        let reply = rest.send(method, path, headers, body).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
    }
}
