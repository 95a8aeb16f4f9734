//! The functional tests' kit, where it can be tested without a server.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod kit;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use kit::rest::{Prepared, prepare};
use kit::routes::{Body, Credential, ROUTES};
use kit::spelling::{POOL, from_protocol, method, snake_case, to_grpc};
use kit::stream::{Frame, Frames};
use kit::{
    Addresses, Reply, Value, curl, database, example, examples_of_nothing, http, json, rpcs,
};
use regex::Regex;

fn message(name: &str) -> prost_reflect::MessageDescriptor {
    POOL.get_message_by_name(&format!("offboard.v1.{name}")).unwrap()
}

#[test]
fn every_rpc_has_a_request() {
    let routes: BTreeSet<&str> = ROUTES.iter().map(|route| route.rpc.as_str()).collect();
    let without: Vec<String> = rpcs()
        .into_iter()
        .map(|rpc| rpc.name)
        .filter(|name| !routes.contains(name.as_str()))
        .collect();
    assert!(without.is_empty(), "no contract has a request for {without:?}");
}

/// The contracts are others' too: whoever changes a line of this snapshot changes what their programs send.
#[test]
fn no_request_of_a_contract_moves_unnoticed() {
    let lines = ROUTES.iter().map(|route| {
        let body = match &route.body {
            Body::None => String::new(),
            Body::Rest => ", body of the rest".to_owned(),
            Body::Member(member) => format!(", body of `{member}`"),
            Body::Lines(member) => format!(", a line for each `{member}`"),
        };
        let answer = route.answer.as_ref();
        let answer = answer.map_or(String::new(), |member| format!(", answer of `{member}`"));
        let style = if route.camel_case { "camelCase" } else { "snake_case" };
        let (method, path, rpc, credential) =
            (route.method, &route.path, &route.rpc, route.credential);
        format!("{method} {path} -> {rpc}: {style}, {credential:?}{body}{answer}")
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!("contracts", lines.join("\n"));
    });
}

#[test]
fn no_scope_changes_unnoticed() {
    let lines: Vec<String> =
        rpcs().iter().map(|rpc| format!("{}: {}", rpc.name, rpc.scope())).collect();
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!("scopes", lines.join("\n"));
    });
}

#[test]
fn every_rpc_has_an_example_and_what_there_is_not_has_none() {
    for rpc in rpcs() {
        assert!(example(&rpc).is_object(), "{}", rpc.name);
    }
    assert_eq!(examples_of_nothing(), Vec::<&str>::new());
}

#[test]
fn every_member_with_text_is_known_as_the_name_of_a_thing_or_of_none() {
    let named: usize = rpcs().iter().map(|rpc| rpc.places().len()).sum();
    assert!(named > 0);
}

/// An assertion that goes leaves its snapshot behind, which nothing else would notice.
#[test]
fn every_snapshot_has_an_assertion() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let asserted =
        Regex::new(r#"assert_(?:seen|snapshot)!\([ \n]*(?:format!\([ \n]*)?"([^"]+)""#).unwrap();
    let mut found = 0;
    for folder in ["tests/snapshots", "tests/functional/snapshots"] {
        for file in fs::read_dir(root.join(folder)).unwrap() {
            let file = file.unwrap().path();
            let snapshot = fs::read_to_string(&file).unwrap();
            let source = snapshot.lines().find_map(|line| line.strip_prefix("source: ")).unwrap();
            let source = fs::read_to_string(root.join(source)).unwrap();
            let stem = file.file_stem().unwrap().to_str().unwrap();
            let name = stem.rsplit("__").next().unwrap();
            let is_asserted = asserted.captures_iter(&source).any(|found| {
                let (start, rest) = found[1].split_once('{').unwrap_or((&found[1], ""));
                match rest.rsplit_once('}') {
                    Some((_, end)) => name.starts_with(start) && name.ends_with(end),
                    None => name == start,
                }
            });
            assert!(is_asserted, "nothing asserts {}", file.display());
            found += 1;
        }
    }
    assert!(found > 0);
}

#[test]
fn members_in_the_path_are_members_of_the_request() {
    for route in ROUTES.iter() {
        let input = method(&route.rpc).input();
        for name in route.path.split('{').skip(1).map(|part| part.split('}').next().unwrap()) {
            assert!(input.get_field_by_name(name).is_some(), "{} has no `{name}`", input.name());
        }
    }
}

#[test]
fn a_detach_has_both_ids_in_its_path() {
    let request = prepare(
        "offboard.v1.PortfolioService/DetachEntity",
        &json!({"portfolio_id": "p", "entity_id": "a/b"}),
        "acme",
    );
    let expected = Prepared {
        method: "DELETE",
        target: "/v1/portfolios/p/entities/a%2Fb".to_owned(),
        body: None,
        credential: Credential::Bearer,
    };
    assert_eq!(request, expected);
}

#[test]
fn a_removal_shows_its_key_as_its_contract_says() {
    let request = prepare("RemovalService/RemoveEntity", &json!({"entity_id": "e"}), "acme");
    assert_eq!(
        (request.method, request.target.as_str(), request.credential),
        ("DELETE", "/v5/entities/e", Credential::ApiKey)
    );
}

#[test]
fn a_bulk_delete_has_one_request_for_each_way_to_select() {
    let by = |request: Value| {
        let request = prepare("BulkDeleteService/StartBulkDelete", &request, "acme");
        (request.method, request.target, request.body)
    };
    let spec = json!({"objects": {"filter": "exists(attributes.a)", "exclude_list": ["x"]}});
    let spelled = json!({"objects": {"filter": "exists(attributes.a)", "excludeList": ["x"]}});
    assert_eq!(
        by(json!({"mode": "hard", "spec": spec})),
        ("POST", "/api/acme/entities/_delete?mode=hard".to_owned(), Some(spelled))
    );
    let uris = json!(["entities/x"]);
    assert_eq!(
        by(json!({"tenant": "other", "uris": uris})),
        ("POST", "/api/other/entities/_deleteByUris".to_owned(), Some(uris))
    );
    let by_type = by(json!({"entity_type": "HCP", "mode": "soft"}));
    assert_eq!(by_type, ("DELETE", "/api/acme/entities?entityType=HCP&mode=soft".to_owned(), None));
}

#[test]
fn an_offboarding_is_asked_for_in_camel_case() {
    let request = prepare(
        "OffboardingService/RequestOffboarding",
        &json!({"entity_id": "e", "grace_period": "60s"}),
        "acme",
    );
    assert_eq!(request.body, Some(json!({"entityId": "e", "gracePeriod": "60s"})));
    let request = prepare(
        "OffboardingService/CancelOffboardingRequest",
        &json!({"offboarding_request_id": "o"}),
        "acme",
    );
    assert_eq!(
        (request.target.as_str(), request.body),
        ("/v1/offboarding/entities/o/cancel", None)
    );
}

#[test]
fn both_protocols_show_an_offboarding_request_alike() {
    let by_grpc = json!({"id": "o", "principal_id": "p", "status": "OFFBOARDING_STATUS_PENDING", "data": {"id": "e", "components": []},
        "created": "2026-04-25T00:00:00.250Z"});
    let by_rest = json!({"id": "o", "principalId": "p", "status": "Pending", "data": {"id": "e", "components": null},
        "created": "2026-04-25T00:00:00.250123Z", "executeAfter": null, "started": null, "finished": null, "error": null});
    let one = from_protocol(&by_grpc, &message("OffboardingRequest"));
    assert_eq!(one, from_protocol(&by_rest, &message("OffboardingRequest")));
    assert_eq!(one["status"], "pending");
    assert_eq!(one["created"], 1_777_075_200_250_i64);
    assert_eq!(one["data"], json!({"id": "e", "components": []}));
}

#[test]
fn both_protocols_show_a_task_alike() {
    let by_grpc = json!({"id": "t", "status": "TASK_STATUS_COMPLETED_WITH_ERRORS", "parameters": {"entityType": "HCP"},
        "current_state": {"number_of_processed_objects": 126, "last_hour_throughput": 0.0}, "started": "1970-01-01T00:00:01Z", "throughput": 2.0});
    let by_rest = json!({"id": "t", "status": "COMPLETED_WITH_ERRORS", "parameters": {"entityType": "HCP"},
        "currentState": {"numberOfProcessedObjects": 126, "lastHourThroughput": 0}, "started": 1000, "throughput": 2});
    let one = from_protocol(&by_grpc, &message("Task"));
    assert_eq!(one, from_protocol(&by_rest, &message("Task")));
    assert_eq!(one["status"], "completed_with_errors");
    assert_eq!(one["parameters"]["entityType"], "HCP", "the keys of a map are data");
}

#[test]
fn attributes_are_data_and_keep_their_names() {
    let entity = json!({"id": "e", "state": "active", "attributes": {"LastName": "Ind", "someThing": [1, {"innerThing": null}]}});
    let one = from_protocol(&entity, &message("Entity"));
    assert_eq!(one["attributes"], entity["attributes"]);
    assert_eq!(one["portfolio_id"], Value::Null);
    assert_eq!(one["version"], 0);
}

#[test]
#[should_panic(expected = "`entityCount2` is no member of Portfolio")]
fn a_member_that_the_protos_do_not_know_is_a_defect() {
    from_protocol(&json!({"id": "p", "entityCount2": 1}), &message("Portfolio"));
}

#[test]
#[should_panic(expected = "`Waiting` is no value of OffboardingStatus")]
fn a_value_that_the_protos_do_not_know_is_a_defect() {
    from_protocol(&json!({"status": "Waiting"}), &message("OffboardingRequest"));
}

#[test]
fn requests_get_the_full_names_of_enum_values_for_grpc() {
    let entity = json!({"entity": {"type": "HCP", "state": "onboarding", "attributes": {"state": "active"}}});
    let spelled = to_grpc(&entity, &message("CreateEntityRequest"));
    assert_eq!(spelled["entity"]["state"], "ENTITY_STATE_ONBOARDING");
    assert_eq!(spelled["entity"]["attributes"]["state"], "active");
}

#[test]
fn paths_of_both_spellings_are_one() {
    assert_eq!(snake_case("entity.dependents[2].kind"), "entity.dependents[2].kind");
    assert_eq!(snake_case("objects.excludeList[0]"), "objects.exclude_list[0]");
}

#[test]
fn the_lines_that_say_where_the_server_listens_are_found_among_others() {
    let fields = r#""message":"listening","grpc_addr":"127.0.0.1:1","http_addr":"127.0.0.1:2","admin_addr":"127.0.0.1:3""#;
    let expected = Addresses {
        grpc: "127.0.0.1:1".parse().unwrap(),
        http: "127.0.0.1:2".parse().unwrap(),
        admin: "127.0.0.1:3".parse().unwrap(),
    };
    assert_eq!(
        Addresses::of_line(&format!(r#"{{"level":"INFO","fields":{{{fields}}}}}"#)),
        Some(expected)
    );
    assert_eq!(Addresses::of_line(&format!(r#"{{"level":"INFO",{fields}}}"#)), Some(expected));
    assert_eq!(
        Addresses::of_line(&format!("{{{}}}", fields.replace("listening", "ready"))),
        Some(expected)
    );
    assert_eq!(Addresses::of_line(r#"{"message":"almost ready"}"#), None);
    assert_eq!(Addresses::of_line("ready"), None);
}

#[tokio::test]
async fn a_database_is_ones_own_and_goes_at_the_end() {
    let (one, other) = (database().await, database().await);
    one.sql("CREATE TABLE own (id int); INSERT INTO own VALUES (1), (2)");
    assert_eq!(one.count("SELECT count(*) FROM own"), 2);
    assert_eq!(one.text("SELECT max(id) FROM own").as_deref(), Some("2"));
    assert_eq!(one.text("SELECT id FROM own WHERE id = 3"), None);
    assert_eq!(other.count("SELECT count(*) FROM pg_tables WHERE tablename = 'own'"), 0);
    let named = format!(
        "SELECT count(*) FROM pg_database WHERE datname = '{}'",
        one.text("SELECT current_database()").unwrap()
    );
    assert_eq!(other.count(&named), 1);
    drop(one);
    assert_eq!(other.count(&named), 0);
}

#[tokio::test]
async fn curl_and_the_kits_own_caller_read_the_same_answer() {
    let answer =
        |reply: &Reply| (reply.status, reply.header("x-test").map(str::to_owned), reply.json());
    let app = axum::Router::new().route(
        "/echo",
        axum::routing::post(|body: String| async move {
            (http::StatusCode::ACCEPTED, [("X-Test", "a: b")], format!("[{body}]"))
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let own = http(address, "POST", "/echo", &[("content-type", "text/plain")], "7").await;
    assert_eq!(answer(&own), (202, Some("a: b".to_owned()), json!([7])));
    let url = format!("http://{address}/echo");
    let curled =
        tokio::task::spawn_blocking(move || curl(&["-X", "POST", "-d", "7", &url])).await.unwrap();
    assert_eq!(answer(&curled), answer(&own));
}

#[test]
fn frames_are_read_however_they_arrive() {
    let text = ": alive\n\nevent: entity.created\nid: c1\ndata: {\"a\":1}\n\nid: c2\ndata:{}\n\n";
    for size in 1..text.len() {
        let mut frames = Frames::events();
        text.as_bytes().chunks(size).for_each(|piece| frames.push(piece));
        let first = Frame {
            name: Some("entity.created".to_owned()),
            id: Some("c1".to_owned()),
            data: "{\"a\":1}".to_owned(),
        };
        assert_eq!(frames.next(), Some(first));
        assert_eq!(
            frames.next(),
            Some(Frame { name: None, id: Some("c2".to_owned()), data: "{}".to_owned() })
        );
        assert_eq!(frames.next(), None);
    }
    let mut frames = Frames::lines();
    frames.push("\n{\"a\":1}\n{\"b\"");
    assert_eq!(frames.next().map(|frame| frame.data), Some("{\"a\":1}".to_owned()));
    assert_eq!(frames.next(), None);
    frames.push(":2}\n");
    assert_eq!(frames.next().map(|frame| frame.data), Some("{\"b\":2}".to_owned()));
}
