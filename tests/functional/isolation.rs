//! Two organisations, and two modes of one, cannot see each other: an id of another realm looks like one that never was.

use crate::kit::*;

/// The resources of a realm: an id of every kind.
#[derive(Clone)]
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

impl Ids {
    /// Ids of things that never were.
    fn never(name: &str) -> Ids {
        Ids {
            portfolio: format!("pf_none_{name}"),
            entity: format!("en_none_{name}"),
            request: "0190a1b2-0000-7000-8000-000000000001".to_owned(),
            task: "0190a1b2-0000-7000-8000-000000000002".to_owned(),
            attribute: format!("at_none_{name}"),
            key: "0190a1b2-0000-7000-8000-000000000003".to_owned(),
        }
    }

    fn of(&self, thing: Thing) -> &str {
        match thing {
            Thing::Entity => &self.entity,
            Thing::Portfolio => &self.portfolio,
            Thing::Request => &self.request,
            Thing::Task => &self.task,
            Thing::Index => &self.attribute,
            Thing::Key => &self.key,
        }
    }

    fn all(&self) -> [&str; 6] {
        [&self.portfolio, &self.entity, &self.request, &self.task, &self.attribute, &self.key]
    }
}

/// Members that may name what is not there: the call answers, and finds nothing by them. A member that is not here and gives no new thing its id is
/// refused as `not_found`.
const FINDS_NOTHING: &[(&str, &str)] = &[
    ("EntityService/ImportEntities", "entity.portfolio_id"),
    ("EntityService/ListTombstones", "entity_id"),
    ("EventService/ListEvents", "subject"),
    ("EventService/WatchEvents", "subject"),
    ("OffboardingService/ListOffboardingRequests", "entity_id"),
    ("PortfolioService/BatchAttachEntities", "entity_ids"),
    ("PortfolioService/BatchDetachEntities", "entity_ids"),
    ("RemovalService/ListRemovalJobs", "entity_id"),
];

/// It has several ways to select, one at a time, and tasks that answer later: see its own scenario.
const APART: &str = "BulkDeleteService/StartBulkDelete";

/// A call that names things of others.
struct Call {
    rpc: Rpc,
    request: Value,
    /// The members that name things of others; the rest names things of the caller's.
    theirs: Vec<Place>,
}

impl Call {
    fn of(&self, ids: &Ids) -> Value {
        let mut request = self.request.clone();
        self.theirs.iter().for_each(|place| place.put(&mut request, ids.of(place.thing)));
        request
    }

    /// True if it answers, whatever the ids are.
    fn finds_nothing(&self) -> bool {
        self.theirs.iter().all(|place| {
            place.is_new || FINDS_NOTHING.contains(&(self.rpc.name.as_str(), place.name().as_str()))
        })
    }

    /// True if it makes things with the ids, which later calls would find.
    fn makes_them(&self) -> bool {
        self.finds_nothing() && self.theirs.iter().any(|place| place.is_new)
    }
}

/// Every call of every RPC that names one thing of others or more, in every way to mix them with those of the caller's: first those that make
/// nothing.
fn calls(own: &Ids) -> Vec<Call> {
    let mut calls = Vec::new();
    for rpc in rpcs().into_iter().filter(|rpc| rpc.name != APART) {
        let places = rpc.places();
        for chosen in 1..1_usize << places.len() {
            let is_theirs = |n: usize| chosen & (1 << n) != 0;
            let mut request = example(&rpc);
            let mut theirs = Vec::new();
            for (n, place) in places.iter().enumerate() {
                if is_theirs(n) {
                    theirs.push(place.clone());
                } else if place.is_new {
                    let new = format!("new_{}", calls.len());
                    place.put(&mut request, &new);
                } else {
                    place.put(&mut request, own.of(place.thing));
                }
            }
            calls.push(Call { rpc: rpc.clone(), request, theirs });
        }
    }
    for (method, more) in [
        ("EntityService/UpdateEntity", json!({"entity": {"type": "New", "expected_version": 7}})),
        ("PortfolioService/UpdatePortfolio", json!({"name": "Ours", "expected_version": 1})),
        ("AccessService/UpdateKey", json!({"name": "Ours", "expected_version": 7})),
    ] {
        let rpc = rpcs().into_iter().find(|rpc| rpc.name == method).unwrap();
        let theirs = rpc.places();
        calls.push(Call { rpc, request: more, theirs });
    }
    calls.sort_by_key(Call::makes_them);
    calls
}

/// All that a caller learns, with the names of its headers.
fn learned(outcome: &Result<Answer, Failure>) -> Value {
    let (headers, learned) = match outcome {
        Ok(answer) => (&answer.headers, json!({"http": answer.http, "answer": answer.seen()})),
        Err(failure) => (&failure.headers, failure.reported()),
    };
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    json!([learned, names])
}

/// The same of ids that never were, where it says an id of another realm.
fn as_of_never(learned: &Value, theirs: &Ids, never: &Ids) -> String {
    let pairs = theirs.all().into_iter().zip(never.all());
    pairs.fold(learned.to_string(), |text, (theirs, never)| text.replace(theirs, never))
}

/// The realm of the caller.
const OWN: &str = "(SELECT id FROM realm WHERE org = 'acme' AND mode = 'test')";

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
            let never = Ids::never(name);
            let free = format!("free_{name}");
            world.entities(&[free.as_str()]).await;
            let own = Ids { entity: free, ..own.clone() };
            let before = stored(&world.database, org, mode);
            for call in calls(&own) {
                let names: Vec<String> = call.theirs.iter().map(Place::name).collect();
                let what = format!("{} by {names:?}", call.rpc.name);
                let one = world.client.call_any(&call.rpc, call.of(&theirs), &[]).await;
                let other = world.client.call_any(&call.rpc, call.of(&never), &[]).await;
                if call.makes_them() {
                    world.database.sql(&format!("DELETE FROM entity WHERE id = '{}' OR realm_id = {OWN} AND id = '{}'", never.entity, theirs.entity));
                }
                match &one {
                    Ok(answer) => assert!(call.finds_nothing(), "{what}: {answer:#?}"),
                    Err(failure) => assert_eq!((failure.code.as_str(), call.finds_nothing()), ("not_found", false), "{what}: {failure:#?}"),
                }
                assert_eq!(as_of_never(&learned(&one), &theirs, &never), learned(&other).to_string(), "{what}");
            }
            let mixed = async |entity: &str| world.call("EntityService/BatchGetEntities", json!({"entity_ids": [own.entity, entity]})).await;
            let one = mixed(&theirs.entity).await;
            let other = mixed(&never.entity).await;
            assert_eq!(as_of_never(&learned(&one), &theirs, &never), learned(&other).to_string());
            assert_eq!(one.unwrap_err().code, "not_found");
            assert_eq!(stored(&world.database, org, mode), before, "nothing of theirs has changed");
        }
    }

    async fn a_bulk_delete_finds_nothing_of_another_realm(world: &World) {
        let places = rpcs().into_iter().find(|rpc| rpc.name == APART).unwrap().places();
        let ways: Vec<String> = places.iter().map(Place::name).collect();
        assert_eq!(ways, ["spec.objects.uri_list", "spec.objects.exclude_list", "uris"], "each is tried here");
        for (org, mode, name) in [("umbrella", "test", "orgs"), ("acme", "live", "live")] {
            let theirs = fill(&world.client(org, mode, SCOPES), name).await;
            let never = Ids::never(name);
            let before = stored(&world.database, org, mode);
            let deleted = async |ids: &Ids, place: &Place| {
                let mut request = json!({});
                if place.name().ends_with("exclude_list") {
                    request = json!({"spec": {"objects": {"filter": "equals(type, 'Nothing')"}, "allow_missing_excludes": true}});
                }
                place.put(&mut request, ids.of(place.thing));
                let task = world.call(APART, request).await.unwrap();
                let over = |task: &Value| !task["end_time"].is_null();
                let ended = world.call_until("BulkDeleteService/GetTask", json!({"task_id": task.get("id")}), over).await;
                assert_eq!(ended.get("current_state.number_of_processed_objects"), 0, "{}", place.name());
                learned(&Ok(ended))
            };
            for place in &places {
                let (one, other) = (deleted(&theirs, place).await, deleted(&never, place).await);
                assert_eq!(as_of_never(&one, &theirs, &never), other.to_string(), "{}", place.name());
            }
            assert_eq!(stored(&world.database, org, mode), before, "nothing of theirs has changed");
        }
    }

    async fn lists_show_what_is_of_the_realm_and_report_nothing_of_others(world: &World) {
        fill(&world.client("umbrella", "test", SCOPES), "orgs").await;
        world.client("umbrella", "test", SCOPES).call("EntityService/CreateEntity", json!({"entity": {"entity_id": "gone", "type": "T"}})).await.unwrap();
        world.client("umbrella", "test", SCOPES).call("RemovalService/RemoveEntity", json!({"entity_id": "gone"})).await.unwrap();
        until("an entity of theirs is gone", || world.database.rows("tombstone") == 1).await;
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
        until("one entity is gone", || world.database.rows("entity") == 2).await;
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
        let calls: Vec<Rpc> = rpcs().into_iter().filter(|rpc| rpc.member("tenant").is_some()).collect();
        assert!(!calls.is_empty());
        // What they name is there: the tenant alone is wrong.
        let examples = world.given_examples().await;
        let tasks = world.database.rows("bulk_delete");
        let refusals = async || {
            let mut refusals = Vec::new();
            for rpc in &calls {
                let mut request = examples.of(rpc);
                request["tenant"] = json!("umbrella");
                let refused = world.client.call_any(rpc, request, &[]).await.expect_err(&rpc.name);
                assert_eq!(refused.code, "not_found", "{}", rpc.name);
                refusals.push(refused.reported());
            }
            refusals
        };
        let refused = refusals().await;
        world.client("umbrella", "test", SCOPES);
        assert_eq!(refused, refusals().await, "whether there is such an organisation is nobody's business");
        assert_eq!(world.database.rows("bulk_delete"), tasks);
    }
}
