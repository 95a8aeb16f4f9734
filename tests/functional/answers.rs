//! The parts of a request that responses repeat.

use offboard::proto::v1::{
    ListTasksRequest, RemovalPolicy, RequestOffboardingRequest, StartBulkDeleteRequest,
    UpdateRemovalPolicyRequest, bulk_delete_service_client::BulkDeleteServiceClient,
    offboarding_service_client::OffboardingServiceClient,
    removal_service_client::RemovalServiceClient,
};
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

use crate::kit::*;

/// A request with the key.
pub async fn send(
    world: &World,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<bytes::Bytes>,
) -> Reply {
    let bearer = format!("Bearer {}", world.key.secret);
    let headers = [&[("authorization", bearer.as_str())], headers].concat();
    http(world.server.addresses.http, method, path, &headers, body).await
}

scenario! {
    async fn an_id_of_any_length_is_not_found_and_repeated_by_its_start(world: &World) {
        let long = "x".repeat(5_000);
        for (method, request) in [
            ("BulkDeleteService/GetTask", json!({"task_id": long})),
            ("BulkDeleteService/ListTasks", json!({"tenant": long})),
            ("RemovalService/GetRemovalJob", json!({"job_id": long})),
            ("OffboardingService/GetOffboardingRequest", json!({"offboarding_request_id": long})),
        ] {
            let failure = world.call(method, request).await.unwrap_err();
            assert_eq!(failure.code, "not_found", "{method}");
            assert!(failure.message.len() < 256 && failure.message.contains("xxx…`"), "{method}: {}", failure.message);
        }
        for (method, request) in [
            ("EntityService/GetEntity", json!({"entity_id": long})),
            ("PortfolioService/GetPortfolio", json!({"portfolio_id": long})),
            ("AttributeIndexService/GetAttributeIndex", json!({"attribute": long})),
            ("EventService/ListEvents", json!({"subject": long})),
            ("RemovalService/UpdateRemovalPolicy", json!({"policy": {}, "update_mask": long})),
            ("EntityService/UpdateEntity", json!({"entity_id": "e", "entity": {}, "update_mask": long})),
            ("EntityService/ListEntities", json!({"filter": format!("gt(attributes.{long}.x, 1) and equals(x{long}, 1)")})),
            ("EntityService/ListEntities", json!({"order_by": long})),
        ] {
            // An update by REST is spelled by its body.
            if world.protocol == Protocol::Rest && request.get("update_mask").is_some() {
                continue;
            }
            let failure = world.call(method, request).await.unwrap_err();
            assert!(["validation_failed", "invalid_filter"].contains(&failure.code.as_str()), "{method}: {failure:#?}");
            assert!(failure.message.len() < 1100 && !failure.message.contains(&long), "{method}: {}", failure.message);
        }
    }

    async fn nothing_new_has_an_id_that_is_a_step_in_a_path(world: &World) {
        world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T"}})).await.unwrap();
        for dots in [".", ".."] {
            let dependent = json!([{"kind": "task", "id": dots}]);
            for (method, request, field) in [
                ("EntityService/CreateEntity", json!({"entity": {"entity_id": dots, "type": "T"}}), "entity_id"),
                ("EntityService/CreateEntity", json!({"entity": {"entity_id": "f", "type": "T", "dependents": dependent}}), "dependents[0].id"),
                ("EntityService/BatchCreateEntities", json!({"requests": [{"entity": {"entity_id": dots, "type": "T"}}]}), "entity_id"),
                ("EntityService/PutDependent", json!({"entity_id": "e", "kind": "task", "dependent_id": dots}), "dependent_id"),
                ("PortfolioService/CreatePortfolio", json!({"portfolio_id": dots, "name": "n"}), "portfolio_id"),
            ] {
                let failure = world.call(method, request).await.unwrap_err();
                assert_eq!(failure.code, "validation_failed", "{method} {dots}");
                assert!(failure.faults[0].field.ends_with(field), "{method} {dots}: {:?}", failure.faults);
            }
            let account = world.client.import(&[json!({"entity_id": dots, "type": "T"})]).await.unwrap();
            assert_eq!((account.get("failed"), account.get("created")), (&json!(1), &json!(0)), "{dots}");
        }
        assert_eq!(world.database.rows("entity"), 1);
    }
}

#[tokio::test]
async fn what_has_such_an_id_already_stays_reachable_by_grpc() {
    let world = World::start(Protocol::Grpc).await;
    for id in ["e", "p"] {
        world
            .call("EntityService/CreateEntity", json!({"entity": {"entity_id": id, "type": "T"}}))
            .await
            .unwrap();
    }
    world
        .call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "n"}))
        .await
        .unwrap();
    world
        .call(
            "EntityService/PutDependent",
            json!({"entity_id": "e", "kind": "task", "dependent_id": "d"}),
        )
        .await
        .unwrap();
    world.database.sql("UPDATE dependent SET id = '..'; UPDATE entity SET id = '.' WHERE id = 'p'; UPDATE portfolio SET id = '..'");
    let found = world.call("EntityService/GetEntity", json!({"entity_id": "."})).await.unwrap();
    assert_eq!(found.json["id"], ".");
    world
        .call("PortfolioService/AttachEntity", json!({"portfolio_id": "..", "entity_id": "."}))
        .await
        .unwrap();
    let put = json!({"entity_id": "e", "kind": "task", "dependent_id": "..", "data": {"a": 1}});
    assert_eq!(
        world.call("EntityService/PutDependent", put).await.unwrap().json["data"],
        json!({"a": 1})
    );
    world.call("RemovalService/RemoveEntity", json!({"entity_id": "."})).await.unwrap();
}

#[tokio::test]
async fn no_organisation_is_named_like_a_step_in_a_path() {
    let database = database().await;
    for org in [".", "..", "a/b"] {
        let ended = run(&[
            "key",
            "create",
            "--database-url",
            &database.url,
            "--org",
            org,
            "--scope",
            "admin",
        ]);
        assert!(
            ended.code == Some(2) && ended.stderr.contains("'--org <ORG>': must be"),
            "{org}: {ended:?}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let ended = run(&[
            "import",
            "--offline",
            "--org",
            org,
            "--database-url",
            &database.url,
            file.path().to_str().unwrap(),
        ]);
        assert!(
            ended.code == Some(2) && ended.stderr.contains("'--org <ORG>': must be"),
            "{org}: {ended:?}"
        );
    }
    assert_eq!(database.rows("realm"), 0);
}

#[tokio::test]
async fn a_byte_order_mark_is_named() {
    let world = World::start(Protocol::Rest).await;
    let json = [("content-type", "application/json")];
    let utf16: Vec<u8> =
        "\u{feff}{\"name\":\"n\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (body, named) in
        [("\u{feff}{\"name\":\"n\"}".as_bytes().to_vec(), "U+FEFF"), (utf16, "UTF-16")]
    {
        let refused = send(&world, "POST", "/v1/portfolios", &json, body).await;
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            refused.status == 400 && detail.contains("byte order mark") && detail.contains(named),
            "{detail}"
        );
    }
    let lines = [("content-type", "application/x-ndjson")];
    let imported =
        send(&world, "POST", "/v1/entities:import", &lines, "\u{feff}{\"type\":\"T\"}\n").await;
    assert!(
        imported.text().contains("line 1: must be JSON without a byte order mark"),
        "{}",
        imported.text()
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "\u{feff}{\"type\":\"T\"}\n{\"type\":\"T\"}\n").unwrap();
    let server = format!("http://{}", world.server.addresses.grpc);
    let ended = run(&[
        "import",
        "--server",
        &server,
        "--key",
        &world.key.secret,
        file.path().to_str().unwrap(),
    ]);
    assert!(
        ended.stderr.contains("line 1: ") && ended.stderr.contains("byte order mark"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_plus_in_a_query_is_a_blank_and_the_caller_is_reported_so() {
    let world = World::start(Protocol::Rest).await;
    let ask = async |query: &str| send(&world, "GET", query, &[], "").await;
    for (query, code) in [
        ("/v1/entities?filter=gt(attributes.n,+)", "invalid_filter"),
        ("/v5/entities/jobs?entity_id=a+b", "validation_failed"),
        ("/api/acme/tasks?createdSince=+5x", "validation_failed"),
        // Whoever writes a blank as `%20` does not write another as `+`.
        ("/v1/entities?filter=equals(attributes.phone,%20'+49')", "validation_failed"),
    ] {
        let answer = ask(query).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (400, &json!(code)),
            "{query}: {}",
            answer.text()
        );
        assert!(
            answer.json()["detail"].as_str().unwrap().contains("`%2B`"),
            "{query}: {}",
            answer.text()
        );
    }
    let without = ask("/v1/entities?filter=gt(attributes.n,)").await;
    assert!(!without.text().contains("%2B"), "{}", without.text());
    let listed = ask("/v1/entities?filter=equals(attributes.phone,+'x')&order_by=id+desc").await;
    assert_eq!(listed.status, 200, "a `+` that can only be a blank is one: {}", listed.text());
    assert_eq!(ask("/v1/entities?filter=equals(attributes.phone,%20'%2B49')").await.status, 200);
}

#[tokio::test]
async fn grpc_takes_no_times_that_json_could_not_say() {
    let world = World::start(Protocol::Grpc).await;
    world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T"}}))
        .await
        .unwrap();
    let channel: Channel = Endpoint::from_shared(format!("http://{}", world.server.addresses.grpc))
        .unwrap()
        .connect_lazy();
    fn with_key<T>(world: &World, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {}", world.key.secret).parse().unwrap());
        request
    }
    fn refused<T: std::fmt::Debug>(answer: Result<T, tonic::Status>, field: &str) {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{field}: {status:?}");
        let faults = status.get_details_bad_request().unwrap().field_violations;
        assert!(faults.iter().any(|fault| fault.field == field), "{field}: {faults:?}");
    }
    for (seconds, nanos) in [(10, -5), (-10, 5), (10, 1_500_000_000), (i64::MAX, 0)] {
        let duration = Some(prost_types::Duration { seconds, nanos });
        let request =
            RequestOffboardingRequest { entity_id: "e".to_owned(), grace_period: duration };
        refused(
            OffboardingServiceClient::new(channel.clone())
                .request_offboarding(with_key(&world, request))
                .await,
            "grace_period",
        );
        let request = StartBulkDeleteRequest {
            entity_type: "T".to_owned(),
            clean_report_within: duration,
            dry_run: true,
            ..Default::default()
        };
        refused(
            BulkDeleteServiceClient::new(channel.clone())
                .start_bulk_delete(with_key(&world, request))
                .await,
            "clean_report_within",
        );
        let policy = RemovalPolicy {
            default_grace_period: duration,
            max_grace_period: duration,
            tombstone_retention: duration.map(|duration| prost_types::Duration {
                seconds: duration.seconds.saturating_mul(86_400),
                ..duration
            }),
            ..Default::default()
        };
        for field in ["default_grace_period", "max_grace_period", "tombstone_retention"] {
            let update_mask = Some(prost_types::FieldMask { paths: vec![field.to_owned()] });
            let request = UpdateRemovalPolicyRequest { policy: Some(policy.clone()), update_mask };
            let answer = RemovalServiceClient::new(channel.clone())
                .update_removal_policy(with_key(&world, request))
                .await;
            refused(answer, &format!("policy.{field}"));
        }
    }
    for (seconds, nanos) in [(59, 1_500_000_000), (0, -1), (i64::MAX, 0)] {
        let created_since = Some(prost_types::Timestamp { seconds, nanos });
        let request = ListTasksRequest { created_since, ..Default::default() };
        refused(
            BulkDeleteServiceClient::new(channel.clone())
                .list_tasks(with_key(&world, request))
                .await,
            "created_since",
        );
    }
    assert_eq!(world.database.rows("offboarding_request"), 0);
}

#[tokio::test]
async fn cells_of_a_table_are_neither_taken_apart_nor_run() {
    let world = World::start(Protocol::Rest).await;
    let types = [
        ("a", "x;y"),
        ("b", "x\ty"),
        ("c", "\n=1"),
        ("d", "＝1+1"),
        ("e", " @x"),
        ("f", "\u{feff}-1"),
        ("g", "x\u{a0}"),
        ("h", "plain text"),
    ];
    for (id, kind) in types {
        // Some of them were taken once, and are not any more.
        world
            .call("EntityService/CreateEntity", json!({"entity": {"entity_id": id, "type": "T"}}))
            .await
            .unwrap();
        world.database.sql(&format!("UPDATE entity SET type = '{kind}' WHERE id = '{id}'"));
    }
    let uris: Vec<_> = types.iter().map(|(id, _)| *id).collect();
    world
        .call("BulkDeleteService/StartBulkDelete", json!({"uris": uris, "mode": "hard"}))
        .await
        .unwrap();
    until("they are removed", || world.database.rows("tombstone") == types.len() as i64).await;
    let table = send(&world, "GET", "/v1/tombstones", &[("accept", "text/csv")], "").await.text();
    let cell = |id: &str| {
        let line = table
            .split("\r\n")
            .find(|line| line.starts_with(&format!("{id},")))
            .unwrap_or_else(|| panic!("no {id} in {table}"));
        let (_, rest) = line.split_once(',').unwrap();
        rest.to_owned()
    };
    for (id, wanted) in [
        ("a", "\"x;y\","),
        ("b", "\"x\ty\","),
        ("c", "\"'\n=1\","),
        ("d", "'＝1+1,"),
        ("e", "' @x,"),
        ("f", "'\u{feff}-1,"),
        ("g", "\"x\u{a0}\","),
        ("h", "plain text,"),
    ] {
        assert!(cell(id).contains(wanted), "{id}: {wanted:?} is not in {:?}", cell(id));
    }
}
