//! From the message of the service to the response.

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use prost_reflect::DescriptorPool;
use serde_json::json;
use tower::ServiceExt;

use super::service::TestGateway;
use crate::gateway::{Gateway, Options};

#[tokio::test]
async fn metadata_become_headers_and_the_status() {
    let answer = TestGateway::new().request("POST", "/shops/s/orders", "{}").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("location"), answer.header("content-type")),
        (201, "/orders/1", "application/json")
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    for hidden in ["x-http-code", "x-internal-bin", "grpc-status", "grpc-encoding"] {
        assert!(!answer.headers.contains_key(hidden), "{hidden}");
    }
}

#[tokio::test]
async fn no_content_has_no_body() {
    let answer = TestGateway::new().request("DELETE", "/done", "").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    assert!(!answer.headers.contains_key("content-type"));
}

#[tokio::test]
async fn a_failure_is_a_problem() {
    let answer =
        TestGateway::new().request("GET", "/fail/invalid_state_transition?text=No.", "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type"), answer.header("x-ratelimit-limit")),
        (409, "application/problem+json", "10")
    );
    let request_id = answer.header("x-request-id");
    assert_eq!(
        answer.json(),
        json!({
            "type": "/errors/invalid_state_transition",
            "title": "Invalid state transition",
            "status": 409,
            "code": "invalid_state_transition",
            "detail": "No.",
            "doc_url": "/errors#invalid_state_transition",
            "request_id": request_id,
            "current_state": "onboarding",
            "errors": [{"code": "invalid_state_transition", "message": "Invalid state transition", "description": "No."}],
        })
    );
}

#[tokio::test]
async fn an_unknown_route_is_not_found() {
    let gateway = TestGateway::new();
    for path in ["/", "/shops", "/shops//orders", "/hidden", "/sample.Shop/Make", "/orders:other"] {
        let answer = gateway.request("GET", path, "").await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["code"]),
            (404, &json!("not_found")),
            "{path}"
        );
        assert!(answer.header("x-request-id").starts_with("req_"));
    }
}

#[tokio::test]
async fn another_method_is_reported_which_there_are() {
    let gateway = TestGateway::new();
    let answer = gateway.request("PUT", "/fail/x", "").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET, HEAD, OPTIONS, POST"));
    assert_eq!(answer.json()["code"], "method_not_allowed");
    let answer = gateway.request("OPTIONS", "/fail/x", "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow"), answer.body.len()),
        (204, "GET, HEAD, OPTIONS, POST", 0)
    );
    assert!(answer.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let gateway = TestGateway::new();
    let answer = gateway.request("HEAD", "/shops/s/parts/x:peek", "").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type"), answer.body.len()),
        (201, "application/json", 0)
    );
    assert_eq!(gateway.request("HEAD", "/fail/not_found", "").await.status, 404);
}

#[tokio::test]
async fn a_panic_is_an_internal_failure() {
    let request = Request::get("/fail/panic").header("x-request-id", "mine").body(Body::empty());
    let answer = TestGateway::new().send(request.unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-request-id"), &answer.json()["code"]),
        (500, "mine", &json!("internal"))
    );
    assert!(!String::from_utf8_lossy(&answer.body).contains("told to"));
}

#[tokio::test]
async fn an_internal_failure_reports_nothing() {
    let answer = TestGateway::new().request("GET", "/fail/internal?text=SELECT", "").await;
    assert_eq!(answer.status, 500);
    assert!(!String::from_utf8_lossy(&answer.body).contains("SELECT"));
}

#[tokio::test]
async fn the_gateway_fits_between_a_router_and_the_routes_of_tonic() {
    let descriptors = DescriptorPool::decode(crate::proto::DESCRIPTOR_SET).unwrap();
    let gateway =
        Gateway::new(descriptors, tonic::service::Routes::default(), Options::default()).unwrap();
    let router = axum::Router::new().fallback_service(gateway);
    let request = Request::get("/v1/entities/ent_1").body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    // No service is mounted, and tonic returns a bare status.
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&document["code"], &document["detail"]),
        (&json!("not_found"), &json!("Not found."))
    );
}

#[tokio::test]
async fn a_narrow_contract_is_reported_its_members_and_no_other() {
    let answer = TestGateway::new().request("POST", "/narrow/links/a", r#"{"secret":"s"}"#).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, json!({"id": "a", "nextPage": null}))
    );
    for (method, path, status) in [
        ("GET", "/narrow/links/not_found/fail?text=No.", 404),
        ("GET", "/narrow/links/x/y/z", 404),
        ("PUT", "/narrow/links/a", 405),
        ("POST", "/narrow/links/a?what=1", 400),
    ] {
        let answer = TestGateway::new().request(method, path, "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type"), answer.header("vary")),
            (status, "application/json", "accept")
        );
        let (reported, errors) = (answer.json(), answer.json()["errors"].clone());
        assert_eq!(reported, json!({"errors": errors}), "{path}");
        assert_eq!(
            errors[0].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["code", "message", "description"],
            "{path}"
        );
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", "application/problem+json")
            .body(Body::empty())
            .unwrap();
        let named = TestGateway::new().send(request).await;
        assert_eq!(
            (named.json()["status"].as_u64(), named.header("content-type")),
            (Some(status.into()), "application/problem+json")
        );
    }
    let ours = TestGateway::new().request("GET", "/narrow/links/internal/fail?text=No.", "").await;
    assert_eq!(
        (ours.status.as_u16(), ours.header("content-type")),
        (500, "application/problem+json"),
        "no contract has a form for that"
    );
    assert_eq!(
        TestGateway::new().request("GET", "/narrower", "").await.header("content-type"),
        "application/problem+json"
    );
}

#[tokio::test]
async fn paths_are_reported_as_callers_reach_them() {
    let pool = super::service::pool(&["sample.proto"]);
    let gateway = |public_url: Option<&str>| {
        let options = Options { public_url: public_url.map(str::to_owned), ..Options::default() };
        Gateway::new(pool.clone(), TestGateway::new().gateway.stack, options).unwrap()
    };
    for (public_url, base) in [
        (None, ""),
        (Some("https://api.example.com"), ""),
        (Some("https://api.example.com/"), ""),
        (Some("https://api.example.com/a/b/"), "/a/b"),
    ] {
        let send = async |path: &str, body: &'static str| {
            gateway(public_url)
                .oneshot(Request::post(path).body(Body::from(body)).unwrap())
                .await
                .unwrap()
        };
        assert_eq!(
            send("/shops/s/orders", "{}").await.headers()["location"],
            format!("{base}/orders/1"),
            "{public_url:?}"
        );
        let linked = send("/narrow/links/a", r#"{"nextPage":"/narrow/links?page=2"}"#)
            .await
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
        let reported: serde_json::Value = serde_json::from_slice(&linked).unwrap();
        assert_eq!(reported["nextPage"], format!("{base}/narrow/links?page=2"), "{public_url:?}");
    }
}
