//! Two organisations, and two modes of one, cannot see each other: an id of another realm looks like one that never was.

use crate::kit::*;

/// The resources of a realm: an id of every kind.
struct Ids {
    portfolio: String,
    entity: String,
    request: String,
    task: String,
    attribute: String,
    key: String,
}

async fn fill(client: &Client, name: &str) -> Ids {
    let call =
        async |method: &str, request: Value| client.call(method, request).await.unwrap().json;
    let (portfolio, entity) = (format!("pf_{name}"), format!("en_{name}"));
    call("PortfolioService/CreatePortfolio", json!({"portfolio_id": portfolio, "name": "Fund"}))
        .await;
    call(
        "EntityService/CreateEntity",
        json!({"entity": {"entity_id": entity, "type": "T", "portfolio_id": portfolio}}),
    )
    .await;
    call(
        "EntityService/PutDependent",
        json!({"entity_id": entity, "kind": "task", "dependent_id": "t", "data": {"of": name}}),
    )
    .await;
    let asked = call(
        "OffboardingService/RequestOffboarding",
        json!({"entity_id": entity, "grace_period": "3600s"}),
    )
    .await;
    let task =
        call("BulkDeleteService/StartBulkDelete", json!({"uris": ["entities/nobody"]})).await;
    let index = call(
        "AttributeIndexService/CreateAttributeIndex",
        json!({"attribute": format!("at_{name}")}),
    )
    .await;
    let key = call("AccessService/CreateKey", json!({"scopes": ["entities:read"]})).await;
    let text = |value: &Value| value["id"].as_str().unwrap().to_owned();
    Ids {
        key: text(&key["key"]),
        portfolio,
        entity,
        request: text(&asked),
        task: text(&task),
        attribute: index["attribute"].as_str().unwrap().to_owned(),
    }
}

/// Every call that names an id.
fn calls(ids: &Ids, own_portfolio: &str, own_entity: &str) -> Vec<(&'static str, Value)> {
    let Ids { portfolio, entity, request, task, attribute, key } = ids;
    vec![
        ("EntityService/GetEntity", json!({"entity_id": entity})),
        (
            "EntityService/CreateEntity",
            json!({"entity": {"entity_id": "new", "type": "T", "portfolio_id": portfolio}}),
        ),
        (
            "EntityService/BatchCreateEntities",
            json!({"requests": [{"entity": {"entity_id": "new", "type": "T", "portfolio_id": portfolio}}]}),
        ),
        ("EntityService/BatchGetEntities", json!({"entity_ids": [entity]})),
        ("EntityService/BatchGetEntities", json!({"entity_ids": [own_entity, entity]})),
        ("EntityService/UpdateEntity", json!({"entity_id": entity, "entity": {"type": "New"}})),
        (
            "EntityService/UpdateEntity",
            json!({"entity_id": entity, "entity": {"type": "New", "expected_version": 7}}),
        ),
        ("EntityService/CompleteOnboarding", json!({"entity_id": entity})),
        ("EntityService/PlaceHold", json!({"entity_id": entity, "reason": "audit"})),
        ("EntityService/ReleaseHold", json!({"entity_id": entity})),
        (
            "EntityService/PutDependent",
            json!({"entity_id": entity, "kind": "task", "dependent_id": "t", "data": {}}),
        ),
        (
            "EntityService/GetDependent",
            json!({"entity_id": entity, "kind": "task", "dependent_id": "t"}),
        ),
        ("EntityService/ListDependents", json!({"entity_id": entity})),
        (
            "EntityService/DeleteDependent",
            json!({"entity_id": entity, "kind": "task", "dependent_id": "t"}),
        ),
        ("PortfolioService/GetPortfolio", json!({"portfolio_id": portfolio})),
        ("PortfolioService/UpdatePortfolio", json!({"portfolio_id": portfolio, "name": "Ours"})),
        (
            "PortfolioService/UpdatePortfolio",
            json!({"portfolio_id": portfolio, "name": "Ours", "expected_version": 1}),
        ),
        ("PortfolioService/DeletePortfolio", json!({"portfolio_id": portfolio})),
        (
            "PortfolioService/BatchAttachEntities",
            json!({"portfolio_id": portfolio, "entity_ids": [own_entity]}),
        ),
        (
            "PortfolioService/BatchDetachEntities",
            json!({"portfolio_id": portfolio, "entity_ids": [entity]}),
        ),
        ("PortfolioService/ListPortfolioEntities", json!({"portfolio_id": portfolio})),
        ("PortfolioService/AttachEntity", json!({"portfolio_id": portfolio, "entity_id": entity})),
        (
            "PortfolioService/AttachEntity",
            json!({"portfolio_id": portfolio, "entity_id": own_entity}),
        ),
        (
            "PortfolioService/AttachEntity",
            json!({"portfolio_id": own_portfolio, "entity_id": entity}),
        ),
        ("PortfolioService/DetachEntity", json!({"portfolio_id": portfolio, "entity_id": entity})),
        (
            "PortfolioService/DetachEntity",
            json!({"portfolio_id": own_portfolio, "entity_id": entity}),
        ),
        ("RemovalService/RemoveEntity", json!({"entity_id": entity})),
        ("RemovalService/GetRemovalJob", json!({"job_id": request})),
        ("OffboardingService/RequestOffboarding", json!({"entity_id": entity})),
        ("OffboardingService/GetOffboardingRequest", json!({"offboarding_request_id": request})),
        ("OffboardingService/CancelOffboardingRequest", json!({"offboarding_request_id": request})),
        ("AttributeIndexService/GetAttributeIndex", json!({"attribute": attribute})),
        ("AttributeIndexService/DeleteAttributeIndex", json!({"attribute": attribute})),
        ("BulkDeleteService/GetTask", json!({"task_id": task})),
        ("BulkDeleteService/ListTaskExcludes", json!({"task_id": task})),
        ("BulkDeleteService/ListTaskFailures", json!({"task_id": task})),
        ("BulkDeleteService/ListTaskFindings", json!({"task_id": task})),
        ("AccessService/GetKey", json!({"key_id": key})),
        ("AccessService/UpdateKey", json!({"key_id": key, "name": "Ours"})),
        ("AccessService/UpdateKey", json!({"key_id": key, "name": "Ours", "expected_version": 7})),
        ("AccessService/RotateKey", json!({"key_id": key, "overlap": "0s"})),
        ("AccessService/RevokeKey", json!({"key_id": key})),
    ]
}

/// All that a realm has, but for what its own workers do.
fn stored(database: &Database, org: &str, mode: &str) -> Option<String> {
    let realm = format!("(SELECT id FROM realm WHERE org = '{org}' AND mode = '{mode}')");
    let tables = ["entity", "dependent", "portfolio", "offboarding_request"];
    let rows = tables
        .map(|table| format!("SELECT t::text AS row FROM {table} t WHERE realm_id = {realm}"))
        .join(" UNION ALL ");
    database.text(&format!("SELECT string_agg(row, E'\\n' ORDER BY row) FROM ({rows}) AS rows"))
}

scenario! {
    async fn an_id_of_another_realm_is_like_one_that_never_was(world: &World) {
        let own = fill(&world.client, "home").await;
        for (org, mode, name) in [("umbrella", "test", "orgs"), ("acme", "live", "live")] {
            let theirs = fill(&world.client(org, mode, SCOPES), name).await;
            let never = Ids {
                portfolio: "pf_none".to_owned(),
                entity: "en_none".to_owned(),
                request: "0190a1b2-0000-7000-8000-000000000001".to_owned(),
                task: "0190a1b2-0000-7000-8000-000000000002".to_owned(),
                attribute: "at_none".to_owned(),
                key: "0190a1b2-0000-7000-8000-000000000003".to_owned(),
            };
            world.database.sql("DELETE FROM entity WHERE id = 'free'");
            world.entities(&["free"]).await;
            let before = stored(&world.database, org, mode);
            let known = calls(&theirs, &own.portfolio, "free");
            let unknown = calls(&never, &own.portfolio, "free");
            for ((method, theirs_request), (_, none)) in known.into_iter().zip(unknown) {
                let one = world.call(method, theirs_request).await.expect_err(method);
                let other = world.call(method, none).await.expect_err(method);
                assert_eq!(one.code, "not_found", "{method}");
                let mut reported = one.reported().to_string();
                for (id, never) in [
                    (&theirs.portfolio, &never.portfolio),
                    (&theirs.entity, &never.entity),
                    (&theirs.request, &never.request),
                    (&theirs.task, &never.task),
                    (&theirs.attribute, &never.attribute),
                    (&theirs.key, &never.key),
                ] {
                    reported = reported.replace(id, never);
                }
                assert_eq!(reported, other.reported().to_string(), "{method}");
                let names = |failure: &Failure| failure.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
                assert_eq!(names(&one), names(&other), "{method}");
            }
            assert_eq!(stored(&world.database, org, mode), before, "nothing of theirs has changed");
        }
    }

    async fn lists_show_what_is_of_the_realm_and_report_nothing_of_others(world: &World) {
        fill(&world.client("umbrella", "test", SCOPES), "orgs").await;
        world.client("umbrella", "test", SCOPES).call("EntityService/CreateEntity", json!({"entity": {"entity_id": "gone", "type": "T"}})).await.unwrap();
        world.client("umbrella", "test", SCOPES).call("RemovalService/RemoveEntity", json!({"entity_id": "gone"})).await.unwrap();
        until("an entity of theirs is gone", || world.database.count("SELECT count(*) FROM tombstone") == 1).await;
        let empty = json!({"entities": [], "next_page_token": "", "warnings": []});
        for (theirs, never) in [("equals(uri, en_orgs)", "equals(uri, en_none)"), ("exists(uri)", "missing(uri)")] {
            for filter in [theirs, never] {
                let found = world.call("EntityService/ListEntities", json!({"filter": filter})).await.unwrap();
                assert_eq!(found.json, empty, "{filter}");
            }
        }
        for entity in ["gone", "never"] {
            let found = world.call("EntityService/ListTombstones", json!({"entity_id": entity})).await.unwrap();
            assert_eq!(found.json, json!({"tombstones": [], "next_page_token": ""}), "{entity}");
        }
    }

    async fn tasks_are_listed_counted_and_reported_in_their_own_realm_alone(world: &World) {
        fill(&world.client, "home").await;
        let mut principals = Vec::new();
        for (org, mode, name) in [("umbrella", "test", "orgs"), ("acme", "live", "live")] {
            let client = world.client(org, mode, SCOPES);
            let theirs = fill(&client, name).await;
            let task = client.call("BulkDeleteService/GetTask", json!({"task_id": theirs.task})).await.unwrap();
            principals.push(task.get("created_by").clone());
        }
        world.call_until("BulkDeleteService/CountTaskHistory", json!({}), |history| history["total"] == 1).await;
        let listed = world.call("BulkDeleteService/ListTaskHistory", json!({})).await.unwrap();
        assert_eq!(listed.get("tasks").as_array().unwrap().len(), 1);
        for principal in principals.iter().chain([&json!("0190a1b2-0000-7000-8000-000000000003")]) {
            for (list, count) in [("ListTasks", "CountTasks"), ("ListTaskHistory", "CountTaskHistory")] {
                let call = async |method: &str| world.call(&format!("BulkDeleteService/{method}"), json!({"created_by": principal})).await.unwrap().json;
                assert_eq!((call(list).await, call(count).await), (json!({"tasks": []}), json!({"total": 0})), "{list} of {principal}");
            }
        }
        for method in ["ListTasks", "CountTasks", "ListTaskHistory", "CountTaskHistory"] {
            let refused = world.call(&format!("BulkDeleteService/{method}"), json!({"tenant": "umbrella"})).await.unwrap_err();
            assert_eq!(refused.code, "not_found", "{method}");
        }
    }

    async fn an_item_of_a_batch_of_another_realm_is_like_one_that_never_was(world: &World) {
        let own = fill(&world.client, "home").await;
        for (org, mode, name) in [("umbrella", "test", "orgs"), ("acme", "live", "live")] {
            let theirs = fill(&world.client(org, mode, SCOPES), name).await;
            let before = stored(&world.database, org, mode);
            for method in ["PortfolioService/BatchAttachEntities", "PortfolioService/BatchDetachEntities"] {
                let reported = async |entity: &str| {
                    let answer = world.call(method, json!({"portfolio_id": own.portfolio, "entity_ids": [entity]})).await.unwrap();
                    answer.json.to_string().replace(entity, "ENTITY")
                };
                let (one, other) = (reported(&theirs.entity).await, reported("en_none").await);
                assert!(one.contains("not_found"), "{one}");
                assert_eq!(one, other, "{method}");
            }
            assert_eq!(stored(&world.database, org, mode), before, "nothing of theirs has changed");
        }
    }

    async fn lists_and_exports_hold_what_is_of_the_realm_alone(world: &World) {
        let own = fill(&world.client, "home").await;
        let mut tokens = Vec::new();
        for (org, mode, name) in [("umbrella", "test", "orgs"), ("acme", "live", "live")] {
            let client = world.client(org, mode, SCOPES);
            let theirs = fill(&client, name).await;
            fill(&client, &format!("{name}2")).await;
            let page = client.call("PortfolioService/ListPortfolios", json!({"page_size": 1})).await.unwrap();
            tokens.push(page.get("next_page_token").clone());
            let reported = async |portfolio: &str| {
                let Err(refused) = world.client.stream("PortfolioService/ExportPortfolio", json!({"portfolio_id": portfolio}), &[]).await else {
                    panic!("{portfolio} was exported");
                };
                refused.reported().to_string().replace(portfolio, "PORTFOLIO")
            };
            assert_eq!(reported(&theirs.portfolio).await, reported("pf_none").await);
        }
        let listed = world.call("PortfolioService/ListPortfolios", json!({})).await.unwrap();
        let ids: Vec<_> = listed.get("portfolios").as_array().unwrap().iter().map(|portfolio| portfolio["id"].clone()).collect();
        assert_eq!(ids, [json!(own.portfolio)]);
        for token in tokens {
            let refused = world.call("PortfolioService/ListPortfolios", json!({"page_token": token})).await.unwrap_err();
            assert_eq!(refused.faults[0].field, "page_token", "a token is good in its own realm alone");
        }
    }

    async fn the_same_ids_live_apart_in_every_realm(world: &World) {
        let clients = [world.client.clone(), world.client("acme", "live", SCOPES), world.client("umbrella", "test", SCOPES)];
        for (n, client) in clients.iter().enumerate() {
            client.call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": format!("Fund {n}")})).await.unwrap();
            let entity = json!({"entity_id": "e", "type": "T", "portfolio_id": "p", "attributes": {"n": n}});
            client.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
        }
        clients[0].call("PortfolioService/DetachEntity", json!({"portfolio_id": "p", "entity_id": "e"})).await.unwrap();
        clients[1].call("RemovalService/RemoveEntity", json!({"entity_id": "e"})).await.unwrap();
        until("one entity is gone", || world.database.count("SELECT count(*) FROM entity") == 2).await;
        let count = async |client: &Client| {
            let portfolio = client.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await.unwrap();
            (portfolio.json["mode"].clone(), portfolio.json["name"].clone(), portfolio.json["entity_count"].clone())
        };
        assert_eq!(count(&clients[0]).await, (json!("test"), json!("Fund 0"), json!(0)));
        assert_eq!(count(&clients[1]).await, (json!("live"), json!("Fund 1"), json!(0)));
        assert_eq!(count(&clients[2]).await, (json!("test"), json!("Fund 2"), json!(1)));
        let entity = clients[2].call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
        assert_eq!((&entity.json["attributes"], &entity.json["portfolio_id"]), (&json!({"n": 2}), &json!("p")));
        let realms = "SELECT string_agg(realm_id || ' ' || type, ',' ORDER BY seq) FROM event WHERE type LIKE 'portfolio.entity_detached'";
        let first = world.database.text("SELECT id FROM realm WHERE org = 'acme' AND mode = 'test'").unwrap();
        assert!(world.database.text(realms).unwrap().starts_with(&format!("{first} portfolio.entity_detached")), "events are of their realm");
    }

    async fn another_tenant_s_name_in_the_path_is_not_found(world: &World) {
        let refused = world.call("BulkDeleteService/StartBulkDelete", json!({"tenant": "umbrella", "uris": ["e"]})).await.unwrap_err();
        world.client("umbrella", "test", SCOPES);
        let there_now = world.call("BulkDeleteService/StartBulkDelete", json!({"tenant": "umbrella", "uris": ["e"]})).await.unwrap_err();
        assert_eq!(refused.code, "not_found");
        assert_eq!(refused.reported(), there_now.reported(), "whether there is such an organisation is nobody's business");
        assert_eq!(world.database.count("SELECT count(*) FROM bulk_delete"), 0);
    }
}
