//! The published pages of services that the gateway has never heard of: the document, the page that shows it, and the reference of errors.

use axum::body::Body;
use http::{Request, header};
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};

use super::service::{TestGateway, pool};
use crate::error::Code;
use crate::gateway::openapi::document;

fn published() -> Value {
    document(&pool(&["sample.proto"]), "", &["2026-11-01".to_owned()]).unwrap()
}

/// Follows a reference within the document.
fn followed<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.trim_start_matches('#'))
            .unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => value,
    }
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| match value {
            Value::String(reference) if name == "$ref" => found.push(reference.clone()),
            value => references(value, found),
        }),
        Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
        _ => {}
    }
}

/// The names of an operation's parameters in a place.
fn parameters<'d>(document: &'d Value, operation: &'d Value, place: &str) -> Vec<&'d str> {
    let all = operation["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|parameter| followed(document, parameter));
    all.filter(|parameter| parameter["in"] == place)
        .map(|parameter| parameter["name"].as_str().unwrap())
        .collect()
}

#[test]
fn the_same_descriptors_give_the_same_document() {
    assert_eq!(published().to_string(), published().to_string());
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() {
    let document = published();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 100);
    for reference in found {
        assert!(
            document.pointer(reference.trim_start_matches('#')).is_some_and(Value::is_object),
            "{reference}"
        );
    }
    let operations = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values());
    let mut names: Vec<_> =
        operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), names.contains(&"Shop_Make_3")), (count, true));
}

#[test]
fn a_service_without_a_spelling_is_not_published() {
    let document = published();
    assert!(document["paths"].get("/hidden").is_none());
    assert_eq!(
        document["tags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tag| tag["name"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["Plain", "Shop", "Narrow"]
    );
}

#[test]
fn a_field_is_published_where_a_request_takes_it() {
    let document = published();
    let make = &document["paths"]["/shops/{shopId}/orders"]["post"];
    assert_eq!(parameters(&document, make, "path"), ["shopId"]);
    assert_eq!(
        parameters(&document, make, "query"),
        ["tagList", "size", "dryRun", "pageNumbers", "madeBefore"]
    );
    let body = &make["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(
        followed(&document, body)["properties"]["firstName"]["type"],
        json!(["string", "null"])
    );
    let peek = &document["paths"]["/shops/{shopId}/parts/{order.firstName}:peek"]["get"];
    assert_eq!(parameters(&document, peek, "path"), ["shopId", "order.firstName"]);
    let change = &document["paths"]["/orders/{id}"]["patch"]["requestBody"]["content"]["application/json"]
        ["schema"];
    assert_eq!(
        change["properties"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["nickName", "order", "updateMask"]
    );
    let shelve = &document["paths"]["/shelves/{name.1}/books/{name.2}"]["get"];
    assert_eq!(
        parameters(&document, shelve, "header"),
        ["Api-Version", "X-Request-Id", "If-Match", "If-None-Match"]
    );
}

#[test]
fn members_are_published_in_their_spelling_and_always_present_in_answers() {
    let document = published();
    let order = &document["components"]["schemas"]["OrderCamelCase"];
    let members: Vec<_> = order["properties"].as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        ["firstName", "itemCount", "size", "subOrders", "extraData", "madeAt", "notes"]
    );
    assert_eq!(order["required"].as_array().unwrap().len(), members.len());
    assert_eq!(order["properties"]["size"]["enum"], json!(["Small", "EXTRA_LARGE", null]));
    assert_eq!(order["properties"]["madeAt"]["type"], json!(["integer", "null"]));
    assert_eq!(order["properties"]["notes"]["type"], json!(["array", "null"]));
    assert_eq!(order["properties"]["subOrders"]["type"], "array");
    let input = &document["components"]["schemas"]["OrderCamelCaseInput"];
    assert_eq!((input.get("required"), &input["additionalProperties"]), (None, &json!(false)));
    let snake = &document["components"]["schemas"]["Order"];
    assert_eq!(snake["properties"]["size"]["enum"], json!(["small", "extra_large", null]));
}

#[test]
fn streams_are_published_with_every_media_type_that_they_have() {
    let document = published();
    let watch = &document["paths"]["/orders:watch"]["get"]["responses"]["200"]["content"];
    assert_eq!(
        watch.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["application/x-ndjson", "text/event-stream", "application/json"]
    );
    let upload = &document["paths"]["/orders:upload"]["post"]["requestBody"]["content"];
    assert!(upload.get("application/x-ndjson").is_some());
}

#[test]
fn a_body_that_must_be_there_is_published_as_such_and_as_never_null() {
    let document =
        document(&DescriptorPool::decode(crate::proto::DESCRIPTOR_SET).unwrap(), "", &[]).unwrap();
    let body = |path: &str| &document["paths"][path]["post"]["requestBody"];
    let schema = |path: &str| &body(path)["content"]["application/json"]["schema"];
    for path in [
        "/api/{tenant}/entities/_delete",
        "/api/{tenant}/entities/_deleteByUris",
        "/v1/portfolios",
        "/v1/entities:batchCreate",
    ] {
        assert_eq!(body(path)["required"], true, "{path}");
    }
    assert_eq!(body("/v1/entities/{entity_id}:releaseHold")["required"], false);
    assert_eq!(schema("/api/{tenant}/entities/_deleteByUris")["type"], "array");
    assert_eq!(
        schema("/api/{tenant}/entities/_delete")["$ref"],
        "#/components/schemas/BulkDeleteSpec"
    );
}

#[test]
fn headers_are_published_where_they_are_sent_and_taken() {
    let document =
        document(&DescriptorPool::decode(crate::proto::DESCRIPTOR_SET).unwrap(), "", &[]).unwrap();
    let (mut tables, mut streams, mut resumed) = (0, 0, Vec::new());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let asked = parameters(&document, operation, "header");
            if asked.contains(&"Last-Event-ID") {
                resumed.push(path.as_str());
            }
            let success = &operation["responses"]["200"];
            let (has_header, has_type) = (
                |name: &str| success["headers"].get(name).is_some(),
                |name: &str| success["content"].get(name).is_some(),
            );
            let (is_table, is_stream) = (has_type("text/csv"), has_type("text/event-stream"));
            assert_eq!(
                [has_header("Link"), has_header("Content-Disposition")],
                [is_table; 2],
                "{method} {path}"
            );
            assert_eq!(has_header("X-Accel-Buffering"), is_stream, "{method} {path}");
            tables += usize::from(is_table);
            streams += usize::from(is_stream);
        }
    }
    assert!(tables > 1 && streams > 1, "{tables} {streams}");
    assert_eq!(resumed, ["/v1/events:watch"]);
}

#[tokio::test]
async fn every_example_of_a_problem_is_what_its_code_is_answered_with() {
    let (document, gateway) = (published(), TestGateway::new());
    for code in Code::ALL {
        let example = &document["components"]["examples"][code.name()]["value"];
        let answer = gateway.request("GET", &format!("/fail/{code}?text=Why."), "").await;
        assert_eq!(answer.status.as_u16(), code.http());
        let problem = answer.json();
        for member in ["type", "title", "status", "code", "doc_url"] {
            assert_eq!(example[member], problem[member], "{code}");
        }
        let page = gateway.request("GET", problem["type"].as_str().unwrap(), "").await;
        assert_eq!((page.status.as_u16(), page.json()["code"].as_str()), (200, Some(code.name())));
    }
}

#[tokio::test]
async fn pages_are_there_for_everybody_and_only_for_readers() {
    let gateway = TestGateway::new();
    for path in [
        "/openapi.json",
        "/docs",
        "/docs/start.js",
        "/docs/swagger-ui.js",
        "/errors",
        "/errors/not_found",
    ] {
        let page = gateway.request("GET", path, "").await;
        assert_eq!(
            (page.status.as_u16(), page.headers.contains_key("x-request-id")),
            (200, true),
            "{path}"
        );
        let head = gateway.request("HEAD", path, "").await;
        assert_eq!(
            (head.status.as_u16(), head.body.is_empty(), head.headers.get("etag")),
            (200, true, page.headers.get("etag")),
            "{path}"
        );
        let known = Request::get(path)
            .header(header::IF_NONE_MATCH, page.header("etag"))
            .body(Body::empty())
            .unwrap();
        assert_eq!(gateway.send(known).await.status, 304, "{path}");
        let post = gateway.request("POST", path, "").await;
        assert_eq!(
            (post.status.as_u16(), post.header("allow")),
            (405, "GET, HEAD, OPTIONS"),
            "{path}"
        );
    }
    assert_eq!(
        gateway.request("GET", "/errors/no_such_code", "").await.json()["code"],
        "not_found"
    );
    let packed = Request::get("/openapi.json")
        .header(header::ACCEPT_ENCODING, "gzip")
        .body(Body::empty())
        .unwrap();
    assert_eq!(gateway.send(packed).await.header("content-encoding"), "gzip");
    assert_eq!(
        gateway.request("GET", "/openapi.json", "").await.json(),
        document(&pool(&["sample.proto"]), "", &[]).unwrap()
    );
}

#[tokio::test]
async fn an_rpc_that_is_added_to_a_proto_has_everything_with_no_other_change() {
    let root = env!("CARGO_MANIFEST_DIR");
    let source = std::fs::read_to_string(format!("{root}/src/gateway/tests/sample.proto")).unwrap();
    let added = "  // Returns an order, that is new here. It says more.\n  //\n  // Errors: `state_conflict` if it is not.\n  \
                 rpc Done2(FailRequest) returns (FailRequest) {\n    option (google.api.http) = {get: \"/new/{code}\"};\n  }\n";
    let shop = "service Shop {\n  option (offboard.v1.json_style) = JSON_STYLE_CAMEL_CASE;\n";
    assert!(source.contains(shop));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("sample.proto"),
        source.replace(shop, &format!("{shop}\n{added}")),
    )
    .unwrap();
    let mut compiler =
        protox::Compiler::new([folder.path().to_path_buf(), format!("{root}/proto").into()])
            .unwrap();
    compiler.include_imports(true).include_source_info(true).open_file("sample.proto").unwrap();
    let gateway = TestGateway::of(
        DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap(),
    );

    let answer = gateway.request("GET", "/new/x?text=y", "").await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"code": "x", "text": "y"})));
    let document = gateway.request("GET", "/openapi.json", "").await.json();
    let operation = &document["paths"]["/new/{code}"]["get"];
    assert_eq!(
        (&operation["operationId"], &operation["summary"]),
        (&json!("Shop_Done2"), &json!("Returns an order, that is new here"))
    );
    let conflict = followed(&document, &operation["responses"]["409"]);
    assert_eq!(
        conflict["content"]["application/problem+json"]["schema"]["properties"]["code"]["enum"],
        json!(["state_conflict"])
    );
    let page = gateway.request("GET", "/docs", "").await;
    assert!(page.header("content-security-policy").contains("script-src 'self';"));
    let start = String::from_utf8(gateway.request("GET", "/docs/start.js", "").await.body.to_vec())
        .unwrap();
    assert!(start.contains("url: \"openapi.json\""), "the page shows the document");
    assert_eq!(
        gateway.request("GET", "/new/x?other=1", "").await.faults(),
        ["other: unknown_parameter"]
    );
}

#[test]
fn no_two_paths_of_the_project_differ_in_the_names_of_their_variables_alone() {
    let descriptors = DescriptorPool::decode(crate::proto::DESCRIPTOR_SET).unwrap();
    let document = document(&descriptors, "", &[]).unwrap();
    let nameless = |path: &String| {
        path.split('{')
            .map(|part| part.split_once('}').map_or(part, |(_, rest)| rest))
            .collect::<Vec<_>>()
            .join("*")
    };
    let paths = document["paths"].as_object().unwrap();
    let shapes: std::collections::BTreeSet<_> = paths.keys().map(nameless).collect();
    assert_eq!(shapes.len(), paths.len());
}

#[test]
fn every_operation_of_the_project_reports_what_any_call_may_be_refused_by() {
    let document =
        document(&DescriptorPool::decode(crate::proto::DESCRIPTOR_SET).unwrap(), "", &[]).unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let refusal = |status: &str| followed(&document, &operation["responses"][status]);
            for status in
                ["400", "401", "403", "413", "414", "415", "429", "431", "500", "503", "504"]
            {
                assert!(refusal(status)["content"].is_object(), "{method} {path}: {status}");
                assert!(
                    refusal(status)["headers"]["Offboard-Realm"].is_object(),
                    "{method} {path}: {status}"
                );
            }
            for name in ["Accept", "Accept-Encoding", "Accept-Patch", "Accept-Post"] {
                assert!(refusal("415")["headers"][name].is_object(), "{method} {path}: {name}");
            }
        }
    }
}

#[test]
fn an_answer_that_has_the_members_that_its_method_says_has_none_that_is_null() {
    let document =
        document(&DescriptorPool::decode(crate::proto::DESCRIPTOR_SET).unwrap(), "", &[]).unwrap();
    let cancel =
        &document["paths"]["/v1/offboarding/entities/{offboardingRequestId}/cancel"]["patch"];
    let properties =
        &cancel["responses"]["200"]["content"]["application/json"]["schema"]["properties"];
    assert_eq!(properties["data"]["$ref"], "#/components/schemas/OffboardingData");
    assert!(!properties.to_string().contains("null"), "{properties}");
}
