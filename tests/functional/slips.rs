//! Slips that a person makes in a request: what was meant to protect and would not, and what contradicts itself. Each is refused, and nothing is done.

use crate::kit::*;

const POLICY: &str = "RemovalService/UpdateRemovalPolicy";
const UPDATE: &str = "PortfolioService/UpdatePortfolio";

/// The faults, each as its field, its code and what it says.
fn faults(refusal: &Failure) -> Vec<(&str, &str, &str)> {
    assert_eq!(
        (refusal.code.as_str(), refusal.http.unwrap_or(400)),
        ("validation_failed", 400),
        "{refusal:#?}"
    );
    refusal
        .faults
        .iter()
        .map(|fault| {
            (
                fault.field.trim_start_matches("policy."),
                fault.code.as_str(),
                fault.description.as_str(),
            )
        })
        .collect()
}

scenario! {
    /// A policy that was read with another key, and is sent back with this one.
    async fn a_policy_of_another_realm_is_not_taken_for_this_one(world: &World) {
        let change = |more: Value, mask: &str| {
            let mut policy = json!({"max_grace_period": "7200s"});
            policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"policy": policy, "update_mask": mask})
        };
        let refused = world.call(POLICY, change(json!({"tenant": "umbrella", "mode": "live"}), "maxGracePeriod,mode,tenant")).await.unwrap_err();
        let both = [("tenant", "conflict", "is `umbrella`, and the key is of `acme`"), ("mode", "conflict", "is `live`, and the key is of `test`")];
        assert_eq!(faults(&refused), both);
        // The realm counts also where the mask does not name it.
        let refused = world.call(POLICY, change(json!({"mode": "live"}), "maxGracePeriod")).await.unwrap_err();
        assert_eq!(faults(&refused), both[1..]);
        let policy = world.call("RemovalService/GetRemovalPolicy", json!({})).await.unwrap();
        assert_eq!(policy.get("max_grace_period"), "7776000s");
        let own = world.call(POLICY, change(json!({"tenant": "acme", "mode": "test"}), "maxGracePeriod,mode,tenant")).await.unwrap();
        assert_eq!(own.get("max_grace_period"), "7200s");
    }

    async fn a_header_that_is_nearly_one_that_protects_is_refused_where_something_changes(world: &World) {
        world.portfolios(&["p"]).await;
        let create = json!({"portfolio_id": "q", "name": "q"});
        for (header, meant) in [
            ("x-idempotency-key", "Idempotency-Key"),
            ("idempotence-key", "Idempotency-Key"),
            ("idempotencykey", "Idempotency-Key"),
            ("if_match", "If-Match"),
            ("ifmatch", "If-Match"),
            ("x-request-timeouts", "X-Request-Timeout"),
            ("x-dry-run", "dryRun"),
            ("stripe-idempotency-key", "Idempotency-Key"),
            ("idem-key", "Idempotency-Key"),
            ("x-is-dry-run", "dryRun"),
            ("if-none-mach", "If-None-Match"),
            ("expected-version", "expected_version"),
            ("expected-count", "expected_count"),
            ("max-objects", "max_objects"),
            ("preview-token", "preview_token"),
            ("grace-period", "grace_period"),
            ("x-grace-period", "grace_period"),
            ("graceperiod", "grace_period"),
            ("clean-report-within", "clean_report_within"),
            ("exclude-list", "exclude_list"),
            ("max-objects-per-second", "max_objects_per_second"),
            ("x-mode", "mode"),
            ("x-tenant", "tenant"),
        ] {
            let refused = world.client.call_with("PortfolioService/CreatePortfolio", create.clone(), &[(header, "1")]).await.unwrap_err();
            let [(field, code, reported)] = faults(&refused).try_into().unwrap();
            assert_eq!((field, code), (header, "unknown_header"));
            assert!(reported.contains(&format!("`{meant}`")), "{header}: {reported}");
        }
        // It is reported with the other faults.
        let wrong = json!({"portfolio_id": "a b", "name": ""});
        let refused = world.client.call_with("PortfolioService/CreatePortfolio", wrong, &[("ifmatch", "1")]).await.unwrap_err();
        assert_eq!(faults(&refused).len(), 3, "{refused:#?}");
        assert_eq!(world.database.rows("portfolio"), 1);
        // A proxy's header is nobody's slip, and what only reads is not protected.
        let others = [("x-request-id", "r"), ("x-forwarded-proto", "https"), ("x-api-version", "1"), ("x-envoy-expected-rq-timeout-ms", "15000")];
        world.client.call_with("PortfolioService/CreatePortfolio", create, &others).await.unwrap();
        let read = world.client.call_with("PortfolioService/GetPortfolio", json!({"portfolio_id": "q"}), &[("x-idempotency-key", "1")]).await;
        assert!(read.is_ok(), "{read:#?}");
        let imported = world.client.import_with(&[json!({"type": "T"})], &[("idempotency_key", "1")]).await.unwrap_err();
        assert_eq!(faults(&imported)[0].1, "unknown_header");
        assert_eq!(world.database.rows("entity"), 0);
    }

    /// By REST it says the version, by gRPC it would say nothing.
    async fn a_condition_in_a_header_is_kept_or_refused(world: &World) {
        world.portfolios(&["p"]).await;
        let answer = world.client.call_with(UPDATE, json!({"portfolio_id": "p", "name": "other"}), &[("if-match", "\"7\"")]).await.unwrap_err();
        match world.protocol {
            Protocol::Rest => assert_eq!(answer.code, "state_conflict"),
            Protocol::Grpc => assert_eq!((faults(&answer)[0].0, faults(&answer)[0].1), ("if-match", "unsupported")),
        }
        assert_eq!(world.database.portfolios_named("other"), 0);
    }

    /// None of these is ever read, and who sends one believes that it is.
    async fn a_condition_that_cannot_be_kept_is_refused(world: &World) {
        world.portfolios(&["p"]).await;
        for header in ["if-unmodified-since", "if-modified-since", "if-range", "content-range", "if", "if-none-match"] {
            for (method, request) in [
                ("PortfolioService/DeletePortfolio", json!({"portfolio_id": "p"})),
                (UPDATE, json!({"portfolio_id": "p", "name": "other"})),
                ("PortfolioService/CreatePortfolio", json!({"portfolio_id": "q", "name": "other"})),
            ] {
                let value = "Sat, 29 Oct 2011 19:43:31 GMT";
                let refused = world.client.call_with(method, request, &[(header, value)]).await.unwrap_err();
                let [(field, code, _)] = faults(&refused).try_into().unwrap();
                // The test kit takes capitals for those of JSON.
                assert_eq!((field.to_lowercase().replace('_', "").as_str(), code), (header, "unsupported"), "{method} {header}");
            }
            let read = world.client.call_with("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}), &[(header, "\"x\"")]).await;
            assert!(read.is_ok(), "{header}: {read:#?}");
        }
        assert_eq!(world.database.portfolios_named("other"), 0);
    }

    /// A key that is pasted into the wrong header stays out of logs and responses.
    async fn a_key_is_no_request_id(world: &World) {
        let long = format!("{}.retry~1", world.key.secret);
        for given in [world.key.secret.as_str(), long.as_str(), "trace-sk_live_x", "mine"] {
            let missing = world.client.call_with("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}), &[("x-request-id", given)]).await;
            let shown = format!("{:?}", missing.unwrap_err());
            assert_eq!(shown.contains(given), given == "mine", "{given}");
        }
    }

    async fn a_time_in_seconds_is_read(world: &World) {
        let mut held = world.database.connection();
        diesel::connection::SimpleConnection::batch_execute(&mut held, "BEGIN; LOCK TABLE portfolio IN ACCESS EXCLUSIVE MODE").unwrap();
        let late = world.client.call_with("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"}), &[("x-request-timeout", "0.3")]).await.unwrap_err();
        assert_eq!(late.code, "deadline_exceeded");
    }
}

/// The only fault of a request that is refused: its field, its code and what it says.
async fn fault(rest: &Rest, method: &str, path: &str, body: &str) -> (String, String, String) {
    let faults = rest.faults(method, path, &[], body).await;
    let [[field, code, reported]]: [_; 1] =
        faults.try_into().unwrap_or_else(|faults| panic!("{method} {path} {body}: {faults:?}"));
    (field, code, reported)
}

const DELETE: &str = "/api/acme/entities/_delete";

#[tokio::test]
async fn a_guard_that_is_named_and_has_no_value_is_refused() {
    let rest = Rest::start().await;
    rest.world.portfolios(&["p"]).await;
    rest.world.entities(&["e"]).await;
    for (method, path, body, field) in [
        ("POST", DELETE, r#"{"objects":{"entityType":"T"},"expectedCount":null}"#, "expectedCount"),
        ("POST", DELETE, r#"{"objects":{"entityType":"T"},"maxObjects":null}"#, "maxObjects"),
        ("POST", DELETE, r#"{"objects":{"entityType":"T"},"previewToken":""}"#, "previewToken"),
        ("POST", DELETE, r#"{"objects":{"entityType":"T"},"preview_token":null}"#, "previewToken"),
        (
            "POST",
            &format!("{DELETE}?previewToken="),
            r#"{"objects":{"entityType":"T"}}"#,
            "previewToken",
        ),
        (
            "POST",
            "/v1/offboarding/entities",
            r#"{"entityId":"e","gracePeriod":null}"#,
            "gracePeriod",
        ),
        (
            "POST",
            "/v1/offboarding/entities",
            r#"{"entityId":"e","grace_period":null}"#,
            "gracePeriod",
        ),
        (
            "PATCH",
            "/v1/portfolios/p",
            r#"{"name":"other","expected_version":null}"#,
            "expected_version",
        ),
        (
            "PATCH",
            "/v1/entities/e",
            r#"{"type":"other","expectedVersion":null}"#,
            "expected_version",
        ),
    ] {
        let (reported, code, description) = fault(&rest, method, path, body).await;
        assert_eq!((reported.as_str(), code.as_str()), (field, "required"), "{path} {body}");
        assert!(description.contains("guards the request"), "{description}");
    }
    assert_eq!(
        rest.world.database.rows("bulk_delete") + rest.world.database.rows("offboarding_request"),
        0
    );
    // A member that is not a guard may be left out.
    let open = r#"{"objects":{"entityType":"Nothing"},"allowMissingExcludes":null}"#;
    assert_eq!(rest.send("POST", DELETE, &[], open).await.status, 200);
}

#[tokio::test]
async fn what_belongs_into_the_query_is_not_passed_over_in_the_body() {
    let rest = Rest::start().await;
    rest.world.entities(&["e"]).await;
    for (body, hint) in [
        (r#"{"objects":{"uriList":["e"]},"dryRun":true}"#, "; `dryRun` is a query parameter"),
        (r#"{"objects":{"uriList":["e"]},"dry_run":true}"#, "; `dryRun` is a query parameter"),
        (r#"{"objects":{"uriList":["e"]},"dryrun":true}"#, "; `dryRun` is a query parameter"),
        (r#"{"objects":{"uriList":["e"]},"mode":"soft"}"#, "; `mode` is a query parameter"),
    ] {
        let (_, code, reported) = fault(&rest, "POST", DELETE, body).await;
        assert_eq!(code, "unknown_field", "{body}");
        assert!(reported.ends_with(hint), "{body}: {reported}");
    }
    assert_eq!(rest.world.database.rows("bulk_delete"), 0);
}

#[tokio::test]
async fn ids_of_path_and_body_must_agree_and_both_are_reported() {
    let rest = Rest::start().await;
    rest.world.portfolios(&["p"]).await;
    rest.world.entities(&["e"]).await;
    for (method, path, body, field) in [
        ("PATCH", "/v1/portfolios/p", r#"{"portfolio_id":"x","name":"other"}"#, "portfolio_id"),
        (
            "POST",
            "/v1/portfolios/p/entities",
            r#"{"portfolio_id":"x","entity_id":"e"}"#,
            "portfolio_id",
        ),
        (
            "POST",
            "/v1/portfolios/p/entities:batchDetach",
            r#"{"portfolio_id":"x","entity_ids":["e"]}"#,
            "portfolio_id",
        ),
        ("PUT", "/v1/entities/e/dependents/task/p", r#"{"dependent_id":"x"}"#, "dependent_id"),
        ("PUT", "/v1/entities/p/dependents/task/t", r#"{"entity_id":"x"}"#, "entity_id"),
        ("PUT", "/v1/entities/e/dependents/p/t", r#"{"kind":"x"}"#, "kind"),
        ("POST", "/v1/entities/p:placeHold", r#"{"entity_id":"x","reason":"audit"}"#, "entity_id"),
    ] {
        let reported = fault(&rest, method, path, body).await;
        let both = "differs between the path, which says `p`, and the body, which says `x`";
        assert_eq!(
            reported,
            (field.to_owned(), "conflict".to_owned(), both.to_owned()),
            "{method} {path}"
        );
    }
    let same =
        rest.send("PATCH", "/v1/portfolios/p", &[], r#"{"portfolio_id":"p","name":"other"}"#).await;
    assert_eq!(same.status, 200, "{}", same.text());
}

/// A mask that names less than the body has is not a fault, since clients send whole things: what it does not name is not taken.
#[tokio::test]
async fn a_mask_that_names_less_than_the_body_changes_no_more_than_it_names() {
    let rest = Rest::start().await;
    rest.world.portfolios(&["p"]).await;
    let changed = rest
        .send(
            "PATCH",
            "/v1/portfolios/p",
            &[],
            r#"{"name":"other","metadata":{"a":1},"update_mask":"name"}"#,
        )
        .await;
    assert_eq!(
        (changed.status, &changed.json()["name"], &changed.json()["metadata"]),
        (200, &json!("other"), &json!({})),
        "{}",
        changed.text()
    );
    let policy = rest
        .send(
            "PATCH",
            "/v1/removal-policy?update_mask=maxGracePeriod",
            &[],
            r#"{"max_grace_period":"7200s","hard_delete":{"max_objects":5}}"#,
        )
        .await;
    assert_eq!(
        (policy.status, &policy.json()["max_grace_period"], &policy.json()["hard_delete"]),
        (200, &json!("7200s"), &json!(null))
    );
}

#[tokio::test]
async fn what_may_be_given_is_all_that_is_offered() {
    let rest = Rest::start().await;
    for state in ["offboardin", "gone"] {
        let (_, code, reported) =
            fault(&rest, "POST", "/v1/entities", &format!(r#"{{"type":"T","state":"{state}"}}"#))
                .await;
        assert_eq!(
            (code.as_str(), reported.as_str()),
            ("invalid_value", "must be one of `onboarding`, `active`")
        );
    }
    let (field, _, reported) =
        fault(&rest, "POST", "/v1/entities", r#"{"type":"T","state":"offboarding"}"#).await;
    assert_eq!((field.as_str(), reported.as_str()), ("state", "must be `onboarding` or `active`"));
}

#[tokio::test]
async fn a_parameter_of_one_word_that_is_left_blank_is_not_given() {
    let rest = Rest::start().await;
    for path in ["/api/acme/tasks?ascending=", "/api/acme/tasks/history?ascending="] {
        let reply = rest.send("GET", path, &[], "").await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    // Where something is changed it is not a word.
    let (field, _, reported) =
        fault(&rest, "DELETE", "/api/acme/entities?entityType=T&dryRun=", "").await;
    assert_eq!((field.as_str(), reported.as_str()), ("dryRun", "must be `true` or `false`"));
}

#[tokio::test]
async fn what_is_taken_back_beside_a_slip_is_no_second_fault() {
    let rest = Rest::start().await;
    let (field, code, _) = fault(
        &rest,
        "PATCH",
        "/v1/removal-policy",
        r#"{"hard_delete":{"preview_within":null,"max_objcts":5}}"#,
    )
    .await;
    assert_eq!((field.as_str(), code.as_str()), ("hard_delete.max_objcts", "unknown_field"));
}

#[tokio::test]
async fn what_is_said_of_one_is_said_of_each_of_a_batch() {
    let rest = Rest::start().await;
    for member in ["created_at", "version"] {
        let entity = format!(r#"{{"type":"T","{member}":1}}"#);
        let one = fault(&rest, "POST", "/v1/entities", &entity).await;
        let many = fault(
            &rest,
            "POST",
            "/v1/entities:batchCreate",
            &format!(r#"{{"requests":[{{"entity":{entity}}}]}}"#),
        )
        .await;
        assert_eq!(one.2, "cannot be given here");
        assert_eq!(
            (many.0, many.1, many.2),
            (format!("requests[0].entity.{member}"), one.1, one.2)
        );
    }
}

#[tokio::test]
async fn what_no_name_can_have_is_refused_in_every_path() {
    let rest = Rest::start().await;
    for (method, path, field) in [
        ("GET", "/v1/entities/a%00b", "entity_id"),
        ("DELETE", "/v1/portfolios/p/entities/%00", "entity_id"),
        ("GET", "/v5/entities/jobs/a%00b", "job_id"),
        ("GET", "/api/a%00b/tasks", "tenant"),
        ("PUT", "/api/acme/tasks/a%00b/_pause", "task_id"),
        ("GET", "/v1/attribute-indexes/a%00b", "attribute"),
    ] {
        let (reported, code, _) = fault(&rest, method, path, "").await;
        assert_eq!(
            (reported.to_ascii_lowercase().replace('_', ""), code.as_str()),
            (field.replace('_', ""), "invalid"),
            "{path}"
        );
    }
}
