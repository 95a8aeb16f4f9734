//! Every fault of a request is told at once: those of its form, which the gateway finds, those of its filter, and those that a service finds. Nothing
//! is done of such a request.

use crate::kit::*;

struct Rest {
    world: World,
    bearer: String,
}

impl Rest {
    async fn start() -> Rest {
        let world = World::start(Door::Rest).await;
        let bearer = format!("Bearer {}", world.key.secret);
        Rest { world, bearer }
    }

    async fn send(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Reply {
        let headers = [
            &[("authorization", self.bearer.as_str()), ("content-type", "application/json"), ("accept", "application/problem+json")],
            more,
        ]
        .concat();
        http(self.world.server.addresses.http, method, path, &headers, body.to_owned()).await
    }

    /// The faults of a request that is refused, as `field code`.
    async fn faults(&self, method: &str, path: &str, body: &str) -> Vec<String> {
        let reply = self.send(method, path, &[], body).await;
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (400, Some("validation_failed")),
            "{method} {path} {body}: {}",
            reply.text()
        );
        let document = reply.json();
        let faults = document["errors"].as_array().unwrap().iter();
        let mut faults: Vec<_> =
            faults.map(|fault| format!("{} {}", fault["field"].as_str().unwrap(), fault["code"].as_str().unwrap())).collect();
        faults.sort_unstable();
        faults
    }
}

#[tokio::test]
async fn faults_of_the_form_hide_none_of_the_service() {
    let rest = Rest::start().await;
    let large = format!(r#"{{"entity_id":"a b","type":"T","attributes":{{"x":"{}"}}}}"#, "y".repeat(1 << 20));
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
            "/v1/entities:batchCreate",
            batch,
            vec!["requests[0] invalid_type", "requests[2].entity.entity_id invalid", "requests[2].entity.type required"],
        ),
        (
            "GET",
            "/v1/entities?page_size=x&order_by=z&nope=1",
            "",
            vec!["nope unknown_parameter", "order_by invalid", "page_size invalid_type"],
        ),
        ("GET", "/v1/entities?page_size=x&page_token=none", "", vec!["page_size invalid_type", "page_token invalid"]),
        ("GET", "/v1/entities?page_size=x&filter=equals(", "", vec!["filter invalid_filter", "page_size invalid_type"]),
        ("GET", "/v1/entities?page_size=9999&filter=equals(", "", vec!["filter invalid_filter", "page_size out_of_range"]),
        ("GET", "/v1/events?nope=1&filter=equals(", "", vec!["filter invalid_filter", "nope unknown_parameter"]),
        (
            "POST",
            "/api/acme/entities/_delete",
            r#"{"objects":{"filter":"nope(","excludeList":["a b"]},"fliter":"x"}"#,
            vec!["fliter unknown_field", "objects.excludeList[0] invalid", "objects.filter invalid_filter"],
        ),
    ] {
        assert_eq!(rest.faults(method, path, body).await, expected, "{method} {path}");
    }
    let alone = rest.send("GET", "/v1/entities?filter=equals(", &[], "").await;
    assert_eq!(
        (alone.status, alone.json()["code"].as_str(), alone.json()["position"].as_i64().is_some()),
        (400, Some("invalid_filter"), true)
    );
    for table in ["entity", "portfolio", "bulk_delete"] {
        assert_eq!(rest.world.database.count(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
}

#[tokio::test]
async fn nothing_is_done_of_a_request_with_a_fault_of_its_form() {
    let rest = Rest::start().await;
    rest.world.portfolios(&["p"]).await;
    rest.world.entities(&["e"]).await;
    let database = &rest.world.database;
    let state = || {
        let tables = [
            "entity",
            "portfolio",
            "offboarding_request",
            "bulk_delete",
            "event",
            "idempotency_key",
            "attribute_declaration",
            "dependent",
            "removal_policy",
        ];
        let rows = |table: &&str| database.text(&format!("SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t"));
        tables.iter().map(rows).collect::<Vec<_>>()
    };
    let before = state();
    for (method, path, body) in [
        ("POST", "/v1/portfolios", r#"{"portfolio_id":"q","name":"n","nope":1}"#),
        ("PATCH", "/v1/portfolios/p", r#"{"name":"other","nope":1}"#),
        ("DELETE", "/v1/portfolios/p?nope=1", ""),
        ("POST", "/v1/portfolios/p/entities", r#"{"entity_id":"e","nope":1}"#),
        ("POST", "/v1/portfolios/p/entities:batchAttach", r#"{"entity_ids":["e"],"nope":1}"#),
        ("POST", "/v1/entities/e:placeHold", r#"{"reason":"r","nope":1}"#),
        ("PUT", "/v1/entities/e/dependents/k/d", r#"{"data":{},"nope":1}"#),
        ("POST", "/v1/entities:batchCreate", r#"{"requests":[{"entity":{"type":"T"}}],"nope":1}"#),
        ("POST", "/v1/attribute-indexes", r#"{"attribute":"A","nope":1}"#),
        ("PATCH", "/v1/removal-policy", r#"{"nope":1}"#),
        ("POST", "/api/acme/_checkConsistency?nope=1", ""),
        ("POST", "/v1/entities", r#"{"entity_id":"f","type":"T","nope":1}"#),
        ("PATCH", "/v1/entities/e", r#"{"attributes":{"a":1},"nope":1}"#),
        ("DELETE", "/v5/entities/e?nope=1", ""),
        ("POST", "/v1/offboarding/entities", r#"{"entityId":"e","nope":1}"#),
        ("POST", "/api/acme/entities/_delete", r#"{"objects":{"entityType":"T"},"nope":1}"#),
        ("DELETE", "/api/acme/entities?entityType=T&nope=1", ""),
    ] {
        let reply = rest.send(method, path, &[("idempotency-key", "once")], body).await;
        // What has no such route here proves nothing.
        assert_eq!((reply.status, reply.text().contains("nope")), (400, true), "{method} {path}: {}", reply.text());
        assert_eq!(state(), before, "{method} {path}");
    }
    let mended = rest.send("POST", "/v1/portfolios", &[("idempotency-key", "once")], r#"{"portfolio_id":"q","name":"n"}"#).await;
    assert_eq!(mended.status, 201, "the key is still free: {}", mended.text());
}

scenario! {
    async fn a_filter_hides_no_fault_and_none_hides_it(world: &World) {
        world.portfolios(&["p"]).await;
        for (method, request) in [
            ("EntityService/ListEntities", json!({})),
            ("EntityService/ListTombstones", json!({})),
            ("PortfolioService/ListPortfolios", json!({})),
            ("PortfolioService/ListPortfolioEntities", json!({"portfolio_id": "p"})),
            ("OffboardingService/ListOffboardingRequests", json!({})),
            ("EventService/ListEvents", json!({})),
            ("AttributeIndexService/ListAttributeIndexes", json!({})),
        ] {
            let with = |more: Value| {
                let mut request = request.clone();
                request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                world.call(method, request)
            };
            let alone = with(json!({"filter": "equals("})).await.unwrap_err();
            assert_eq!(alone.code, "invalid_filter", "{method}");
            let both = with(json!({"filter": "equals(", "page_size": -1})).await.unwrap_err();
            let mut fields: Vec<_> = both.faults.iter().map(|fault| (fault.field.as_str(), fault.code.as_str())).collect();
            fields.sort_unstable();
            assert_eq!((both.code.as_str(), fields), ("validation_failed", vec![("filter", "invalid_filter"), ("page_size", "out_of_range")]), "{method}");
        }
    }
}
