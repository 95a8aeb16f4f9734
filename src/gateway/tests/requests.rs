//! From a request to the message for the service. The sample services return the message they got.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use serde_json::json;

use super::service::TestGateway;

#[tokio::test]
async fn path_query_and_body_make_one_message() {
    let answer = TestGateway::new()
        .request(
            "POST",
            "/shops/a%2Fb%20c/orders?size=Small&dryRun=true&page_numbers=1&pageNumbers=2&madeBefore=2026-04-25T00%3A00%3A00%2B02:00",
            r#"{"firstName":"Ada","item_count":"9007199254740993","subOrders":[{"size":"EXTRA_LARGE","madeAt":1777068000123}]}"#,
        )
        .await;
    assert_eq!(answer.status, 201);
    let blank = json!({
        "firstName": "", "itemCount": 0, "size": null, "subOrders": [], "extraData": null, "madeAt": null, "notes": null,
    });
    let mut order = blank.clone();
    let mut sub_order = blank;
    sub_order["size"] = json!("EXTRA_LARGE");
    sub_order["madeAt"] = json!(1_777_068_000_123_i64);
    order["firstName"] = json!("Ada");
    order["itemCount"] = json!(9_007_199_254_740_993_i64);
    order["subOrders"] = json!([sub_order]);
    assert_eq!(
        answer.json(),
        json!({
            "shopId": "a/b c", "order": order, "tagList": [], "size": "Small", "dryRun": true, "pageNumbers": [1, 2],
            "madeBefore": "2026-04-24T22:00:00Z",
        })
    );
}

#[tokio::test]
async fn a_list_may_be_the_body_of_both() {
    let answer =
        TestGateway::new().request("PUT", "/shops/s/tags?order.firstName=x", r#"["a","b"]"#).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (201, json!(["a", "b"])));
}

#[tokio::test]
async fn a_variable_may_span_segments_and_lie_within_a_message() {
    let answer = TestGateway::new().request("GET", "/shops/s/parts/a%2Fb:peek", "").await;
    assert_eq!(answer.json()["order"]["firstName"], "parts/a%2Fb");
}

#[tokio::test]
async fn every_fault_of_path_query_and_body_is_reported_at_once() {
    let answer = TestGateway::new()
        .request(
            "POST",
            "/shops/%ff/orders?size=small&dryRun=1&pageNumbers=1&pageNumbers=x&dry_run=true&shopId=s&order.firstName=x&what=1&tagList=%zz",
            r#"{"firstName":1,"itemCount":1.5,"subOrders":[{"size":"Tiny"},{"extraData":{"a":[1e9999]}},7],"madeAt":"soon","other":1,"notes":[null]}"#,
        )
        .await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.faults(),
        [
            "firstName: invalid_type",
            "itemCount: invalid_type",
            "subOrders[0].size: invalid_value",
            "subOrders[1].extraData.a[0]: out_of_range",
            "subOrders[2]: invalid_type",
            "madeAt: invalid",
            "other: unknown_field",
            "notes[0]: invalid_type",
            "shopId: invalid",
            "size: invalid_value",
            "dryRun: invalid_type",
            "pageNumbers: invalid_type",
            "dryRun: duplicate",
            "shopId: unknown_parameter",
            "firstName: unknown_parameter",
            "what: unknown_parameter",
            "tagList: invalid",
        ]
    );
    assert_eq!(
        answer.json()["errors"][14]["description"],
        "unknown query parameter `order.firstName`"
    );
    assert_eq!(answer.json()["errors"][2]["description"], "must be one of `Small`, `EXTRA_LARGE`");
}

#[tokio::test]
async fn a_character_that_cannot_be_stored_is_reported_where_it_stands() {
    let body = r#"{"extraData":{"b":{"c":["x\u0000","y"]},"d\u0000":1},"subOrders":[{"extraData":{"e":"\u0000"}}]}"#;
    let answer = TestGateway::new().request("POST", "/shops/s/orders", body).await;
    assert_eq!(
        answer.faults(),
        [
            "extraData.b.c[0]: invalid",
            "extraData.d\u{fffd}: invalid",
            "subOrders[0].extraData.e: invalid"
        ]
    );
    assert_eq!(answer.json()["errors"][0]["description"], "must not contain the character U+0000");
}

#[tokio::test]
async fn a_value_without_a_name_is_a_fault_of_the_query() {
    let answer =
        TestGateway::new().request("GET", "/shops/s/parts/x:peek?=x&dryRun=true", "").await;
    assert_eq!(answer.faults(), ["query: unknown_parameter"]);
}

#[tokio::test]
async fn an_empty_word_in_the_query_of_what_only_reads_is_as_good_as_none() {
    let gateway = TestGateway::new();
    let read = gateway.request("GET", "/shops/s/parts/x:peek?size=&pageNumbers=1", "").await;
    assert_eq!(
        (read.status.as_u16(), &read.json()["size"]),
        (201, &json!(null)),
        "{:?}",
        read.json()
    );
    let read = gateway.request("GET", "/shops/s/parts/x:peek?size=&size=Small", "").await;
    assert_eq!(read.json()["size"], "Small");
    assert_eq!(
        gateway.request("GET", "/shops/s/parts/x:peek?dryRun=", "").await.status,
        201,
        "so is a word of two"
    );
    for (method, path, fault) in [
        ("POST", "/shops/s/orders?size=", "size: invalid_value"),
        ("POST", "/shops/s/orders?dryRun=", "dryRun: invalid_type"),
        ("GET", "/shops/s/parts/x:peek?pageNumbers=", "pageNumbers: invalid_type"),
    ] {
        let body = if method == "POST" { "{}" } else { "" };
        assert_eq!(gateway.request(method, path, body).await.faults(), [fault], "{path}");
    }
}

#[tokio::test]
async fn text_that_is_not_json_is_refused_with_its_place() {
    let gateway = TestGateway::new();
    let answer = gateway.request("POST", "/shops/s/orders", "{\n  \"firstName\": ,\n}").await;
    assert_eq!(answer.faults(), ["body: invalid_json"]);
    assert_eq!(
        answer.json()["detail"],
        "body: is not JSON: a value is expected at line 2, column 16"
    );
    for (text, reported) in [
        (r#"{"firstName":nul}"#, "`true`, `false` or `null` is expected"),
        (
            r#"{"firstName":"\ud800"}"#,
            "a string has an escape that is half a character, of which the other half is missing,",
        ),
        (r#"{"firstName":"\x"}"#, "a string has an escape that JSON does not know,"),
        ("{", "it ends within an object"),
        ("{}x", "there is something behind the end of the document"),
        (r#"{"firstName" 1}"#, "`:` is expected"),
    ] {
        let answer = gateway.request("POST", "/shops/s/orders", text).await;
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            detail.starts_with(&format!("body: is not JSON: {reported} at column ")),
            "{text}: {detail}"
        );
    }
    for text in ["{", "{}x", "nul", "{\"firstName\":\"\u{1}\"}", "[", "01", "\u{feff}{}"] {
        assert_eq!(
            gateway.request("POST", "/shops/s/orders", text).await.faults(),
            ["body: invalid_json"],
            "{text}"
        );
    }
    assert_eq!(
        gateway.request("POST", "/shops/s/orders", "[]").await.faults(),
        ["body: invalid_type"]
    );
}

#[tokio::test]
async fn an_empty_body_is_an_empty_message_unless_it_is_a_part_of_one() {
    let gateway = TestGateway::new();
    let answer = gateway.request("PATCH", "/orders/x", " \n").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["order"]), (200, &json!(null)));
    for (method, path) in
        [("POST", "/shops/s/orders?size=Small"), ("PUT", "/shops/s/tags"), ("PUT", "/things/x")]
    {
        assert_eq!(
            gateway.request(method, path, " \n").await.faults(),
            ["body: required"],
            "{path}"
        );
    }
    assert_eq!(
        gateway.request("PUT", "/shops/s/tags?order.firstName=x", " null ").await.faults(),
        ["body: required"]
    );
    assert_eq!(
        gateway.request("PUT", "/shops/s/tags", "[]").await.json(),
        json!([]),
        "an empty list is one, unless it must not be"
    );
}

#[tokio::test]
async fn a_route_without_body_takes_none() {
    let gateway = TestGateway::new();
    assert_eq!(gateway.request("DELETE", "/done", " {} ").await.status, 204);
    assert_eq!(
        gateway.request("DELETE", "/done", r#"{"a":1}"#).await.faults(),
        ["body: unexpected"]
    );
}

#[tokio::test]
async fn a_patch_without_mask_changes_what_its_body_names() {
    let gateway = TestGateway::new();
    let mask = |answer: super::service::Answer| answer.json()["updateMask"].clone();
    assert_eq!(
        mask(gateway.request("PATCH", "/orders/1", r#"{"nickName":null,"order":{}}"#).await),
        "nickName,order"
    );
    assert_eq!(
        mask(
            gateway
                .request(
                    "PATCH",
                    "/orders/1",
                    r#"{"nickName":null,"updateMask":"order.firstName"}"#
                )
                .await
        ),
        "order.firstName"
    );
    let free_form = r#"{"nickName":null,"updateMask":"order.extraData.SSN,order.extraData.lastName,order.no_such.Name"}"#;
    let reported = mask(gateway.request("PATCH", "/orders/1", free_form).await);
    assert_eq!(
        reported, "order.extraData.SSN,order.extraData.lastName,order.noSuch.Name",
        "names of members are nobody's to spell"
    );
    // Of a message within it, what that names.
    assert_eq!(
        mask(
            gateway
                .request(
                    "PATCH",
                    "/orders/1",
                    r#"{"order":{"firstName":null,"subOrders":[]},"nickName":"x"}"#
                )
                .await
        ),
        "order.firstName,order.subOrders,nickName"
    );
}

#[tokio::test]
async fn path_and_body_must_not_contradict_each_other() {
    let gateway = TestGateway::new();
    assert_eq!(gateway.request("PATCH", "/orders/1", r#"{"id":"1"}"#).await.status, 200);
    assert_eq!(
        gateway.request("PATCH", "/orders/1", r#"{"id":"2"}"#).await.faults(),
        ["id: conflict"]
    );
}

#[tokio::test]
async fn the_media_type_must_be_json() {
    let gateway = TestGateway::new();
    let send = |media_type: &'static str| {
        let request = Request::post("/shops/s/orders")
            .header("content-type", media_type)
            .body(Body::from("{}"));
        gateway.send(request.unwrap())
    };
    assert_eq!(send("application/json; charset=utf-8").await.status, 201);
    let refused = send("text/plain").await;
    assert_eq!((refused.status.as_u16(), refused.header("accept-post")), (415, "application/json"));
    assert_eq!(refused.json()["code"], "unsupported_media_type");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let answer = TestGateway::new().request("POST", "/shops/s/orders", "x".repeat(4097)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["limit_bytes"]), (413, &json!(4096)));
}

#[tokio::test]
async fn the_credential_is_looked_at_before_the_body() {
    let request = Request::post("/shops/s/orders")
        .header("authorization", "Bearer wrong")
        .body(Body::from("not JSON"));
    let answer = TestGateway::new().send(request.unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, "Bearer"));
}

#[tokio::test]
async fn known_headers_and_the_address_of_the_caller_reach_the_service() {
    let gateway = TestGateway::new();
    let address: SocketAddr = "192.0.2.7:1234".parse().unwrap();
    let request = Request::delete("/done")
        .header("apikey", "k")
        .header("x-request-id", "mine")
        .header("x-request-timeout", "1.5")
        .header("x-offboard-realm", "1")
        .extension(ConnectInfo(address));
    let answer = gateway.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header("x-request-id"), "mine");
    let seen = gateway.seen.lock().unwrap();
    assert_eq!(
        (&seen.metadata["apikey"], &seen.metadata["x-request-id"], &seen.metadata["grpc-timeout"]),
        (&"k".parse().unwrap(), &"mine".parse().unwrap(), &"1500m".parse().unwrap())
    );
    assert!(!seen.metadata.contains_key("x-offboard-realm"));
    assert_eq!(seen.peer, Some(address));
}

#[tokio::test]
async fn a_wrong_timeout_is_refused() {
    let request = Request::delete("/done").header("x-request-timeout", "soon").body(Body::empty());
    assert_eq!(
        TestGateway::new().send(request.unwrap()).await.faults(),
        ["X-Request-Timeout: invalid"]
    );
}

#[tokio::test]
async fn free_form_objects_nest_as_deep_as_they_may_and_no_deeper() {
    let gateway = TestGateway::new();
    let nested = |levels: usize| {
        format!(
            r#"{{"extraData":{}{}}}"#,
            r#"{"a":"#.repeat(levels),
            "1".to_owned() + &"}".repeat(levels)
        )
    };
    assert_eq!(gateway.request("POST", "/shops/s/orders", nested(32)).await.status, 201);
    for levels in 33..80 {
        let answer = gateway.request("POST", "/shops/s/orders", nested(levels)).await;
        assert_eq!(answer.faults(), ["extraData: too_deep"], "{levels}: {:?}", answer.body);
    }
    assert_eq!(gateway.request("POST", "/shops/s/orders", nested(600)).await.status, 400);
}
