//! The filter language in every list: each has its own properties, and refuses those of others.

use crate::kit::*;

/// The lists, each with what else it must be asked with, and the path of an id in what is listed.
const LISTS: &[(&str, &str, &str)] = &[
    ("AccessService/ListKeys", "keys", "/name"),
    ("EntityService/ListEntities", "entities", "/id"),
    ("PortfolioService/ListPortfolioEntities", "entities", "/id"),
    ("EntityService/ListDependents", "dependents", "/id"),
    ("EntityService/ListTombstones", "tombstones", "/entity_id"),
    ("AttributeIndexService/ListAttributeIndexes", "attribute_indexes", "/attribute"),
    ("PortfolioService/ListPortfolios", "portfolios", "/id"),
    ("OffboardingService/ListOffboardingRequests", "data", "/data/id"),
    ("RemovalService/ListRemovalJobs", "jobs", "/entity_id"),
    ("EventService/ListEvents", "events", "/subject"),
    ("BulkDeleteService/ListTasks", "tasks", "/name"),
    ("BulkDeleteService/ListTaskHistory", "tasks", "/name"),
];

fn request(list: &str, filter: &str) -> Value {
    match list {
        "PortfolioService/ListPortfolioEntities" => json!({"portfolio_id": "p", "filter": filter}),
        "EntityService/ListDependents" => json!({"entity_id": "a", "filter": filter}),
        _ => json!({"filter": filter}),
    }
}

#[test]
fn every_list_with_a_filter_is_filtered_here() {
    // What these list is of one task: see what tasks report.
    let of_a_task = ["BulkDeleteService/ListTaskFailures", "BulkDeleteService/ListTaskFindings"];
    let is_here = |list: &str| LISTS.iter().any(|(name, ..)| *name == list);
    for rpc in rpcs() {
        let lists = rpc.method.name().starts_with("List") && rpc.member("filter").is_some();
        let is_known = is_here(&rpc.name) || of_a_task.contains(&rpc.name.as_str());
        assert_eq!(is_known, lists, "{} has a row in LISTS", rpc.name);
    }
}

/// The ids of what a list shows, in their order.
async fn listed(world: &World, list: &str, filter: &str) -> Vec<String> {
    let (_, rows, id) = LISTS.iter().find(|(name, ..)| *name == list).unwrap();
    let answer = world
        .call(list, request(list, filter))
        .await
        .unwrap_or_else(|failure| panic!("{list} {filter}: {failure:#?}"));
    answer
        .get(rows)
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row.pointer(id).unwrap().as_str().unwrap().to_owned())
        .collect()
}

/// Fails unless the list shows these for each filter.
async fn shows(world: &World, list: &str, cases: &[(&str, &[&str])]) {
    for (filter, expected) in cases {
        assert_eq!(listed(world, list, filter).await, *expected, "{list} {filter}");
    }
}

async fn create(world: &World, entity: Value) {
    world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
}

/// Two portfolios, three entities, one of them leaving.
async fn given(world: &World) {
    world
        .call(
            "PortfolioService/CreatePortfolio",
            json!({"portfolio_id": "p", "name": "Studio Fund I", "metadata": {"tier": 2}}),
        )
        .await
        .unwrap();
    world
        .call(
            "PortfolioService/CreatePortfolio",
            json!({"portfolio_id": "q", "name": "Bridge Fund", "metadata": {"tier": [1, 5]}}),
        )
        .await
        .unwrap();
    let dependents = json!([{"kind": "task", "id": "t1", "data": {"title": "Call the bank"}}, {"kind": "assessment", "id": "a1", "data": {"score": 7}}]);
    create(
        world,
        json!({"entity_id": "a", "type": "HCP", "portfolio_id": "p", "attributes": {"Name": "Ann Lee"}, "dependents": dependents}),
    )
    .await;
    create(world, json!({"entity_id": "b", "type": "HCO", "portfolio_id": "p", "crosswalks": [{"type": "crm"}], "state": "onboarding"}))
        .await;
    create(
        world,
        json!({"entity_id": "c", "type": "HCP", "attributes": {"Name": "Bo", "Rank": 10}}),
    )
    .await;
    world
        .call(
            "OffboardingService/RequestOffboarding",
            json!({"entity_id": "c", "grace_period": "3600s"}),
        )
        .await
        .unwrap();
}

scenario! {
    async fn entities_are_listed_by_everything_that_they_have(world: &World) {
        given(world).await;
        shows(world, "EntityService/ListEntities", &[
            ("equals(state, onboarding)", &["b"]),
            ("missing(portfolio)", &["c"]),
            ("in(portfolio, P, q) and startsWith(type, hc)", &["a", "b"]),
            ("gt(crosswalks_count, 0)", &["b"]),
            ("gte(createdTime, '2024-01-01') and lt(attributes.Rank, 10.5)", &["c"]),
            ("lt(updated_at, 1704067200000)", &[]),
            ("containsWordStartingWith(attributes.Name, le) or regexp(attributes.Name, 'B.')", &["a", "c"]),
            ("exists(uri) or exists(type) and missing(type)", &["a", "b", "c"]),
        ]).await;
        shows(world, "PortfolioService/ListPortfolioEntities", &[("equals(attributes.Name.count, 0)", &["b"]), ("not equals(state, onboarding)", &["a"]), ("", &["a", "b"])]).await;
        let missing = world.call("PortfolioService/ListPortfolioEntities", json!({"portfolio_id": "none", "filter": "exists(type)"})).await.unwrap_err();
        assert_eq!(missing.code, "not_found");
    }

    async fn what_hangs_on_an_entity_is_listed_by_its_kind_and_data(world: &World) {
        given(world).await;
        shows(world, "EntityService/ListDependents", &[
            ("fullText(data.title, BANK)", &["t1"]),
            ("gt(data.score, 6) and equals(kind, assessment)", &["a1"]),
            ("missing(data.score)", &["t1"]),
            ("lt(createdTime, '2024-01-01')", &[]),
        ]).await;
    }

    async fn portfolios_are_listed_by_name_count_and_metadata(world: &World) {
        given(world).await;
        shows(world, "PortfolioService/ListPortfolios", &[
            ("equals(entityCount, 2)", &["p"]),
            ("lt(entity_count, 2)", &["q"]),
            ("contains(name, 'fund?i')", &["p"]),
            ("range(metadata.tier, 2, 5)", &["p", "q"]),
            ("equals(sharedComplianceCalendar, false) and missing(sharedRegisteredAgentId) and startsWith(id, q)", &["q"]),
        ]).await;
        let page = world.call("PortfolioService/ListPortfolios", json!({"filter": "exists(name)", "page_size": 1})).await.unwrap();
        let token = page.get("next_page_token").clone();
        let rest = world.call("PortfolioService/ListPortfolios", json!({"filter": "exists(name)", "page_token": token})).await.unwrap();
        assert_eq!(rest.get("portfolios")[0]["id"], "q");
        let refused = world.call("PortfolioService/ListPortfolios", json!({"filter": "exists(id)", "page_token": token})).await.unwrap_err();
        assert_eq!(refused.code, "validation_failed", "a token is of its filter");
    }

    async fn attribute_indexes_are_listed_by_what_has_become_of_them(world: &World) {
        given(world).await;
        world.call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": "Address.City"})).await.unwrap();
        let ready = crate::attribute_indexes::indexed(world, "Name").await;
        world.call_until("AttributeIndexService/GetAttributeIndex", json!({"attribute": "Address.City"}), |index| index["state"] == "ready").await;
        world.database.sql("UPDATE attribute_declaration SET created_at = '2024-05-01' WHERE attribute = 'Name'");
        let then = format!("equals(readyTime, {})", ready.get("ready_at"));
        shows(world, "AttributeIndexService/ListAttributeIndexes", &[
            ("", &["Address.City", "Name"]),
            ("equals(state, READY) and missing(errorCode)", &["Address.City", "Name"]),
            ("not equals(state, ready)", &[]),
            ("startsWith(attribute, name) or equals(attribute, 'Address')", &["Name"]),
            ("gt(rowsWritten, 0) and equals(entities_done, 3) and equals(entitiesTotal, 3)", &["Name"]),
            ("lt(createdTime, '2024-06-01')", &["Name"]),
            (&format!("{then} and equals(attribute, Name)"), &["Name"]),
            ("missing(readyTime)", &[]),
        ]).await;
        let request = |token: &Value| json!({"filter": "exists(attribute)", "page_size": 1, "page_token": token});
        let page = world.call("AttributeIndexService/ListAttributeIndexes", request(&json!(""))).await.unwrap();
        let token = page.get("next_page_token").clone();
        let rest = world.call("AttributeIndexService/ListAttributeIndexes", request(&token)).await.unwrap();
        assert_eq!((&rest.get("attribute_indexes")[0]["attribute"], rest.get("next_page_token")), (&json!("Name"), &json!("")));
        let others = json!({"filter": "equals(state, ready)", "page_token": token});
        let refused = world.call("AttributeIndexService/ListAttributeIndexes", others).await.unwrap_err();
        assert_eq!(refused.code, "validation_failed", "a token is of its filter");
    }

    async fn keys_are_listed_by_name_scopes_and_state(world: &World) {
        for key in [
            json!({"name": "alpha", "scopes": ["entities:read"], "expires_at": "2099-01-01T00:00:00Z"}),
            json!({"name": "beta", "scopes": ["portfolios:read", "events:read"], "email": "b@example.com"}),
        ] {
            world.call("AccessService/CreateKey", key).await.unwrap();
        }
        let beta = world.call("AccessService/ListKeys", json!({"filter": "equals(name, beta)"})).await.unwrap();
        let beta = beta.get("keys")[0]["id"].clone();
        world.call("AccessService/RevokeKey", json!({"key_id": beta})).await.unwrap();
        shows(world, "AccessService/ListKeys", &[
            ("startsWith(name, al)", &["alpha"]),
            ("exists(email)", &["beta"]),
            ("contains(scopes, 'portfolios:*') and not equals(name, '')", &["beta"]),
            ("equals(state, revoked) and exists(revokedTime)", &["beta"]),
            ("exists(expiresTime) and equals(state, active) and equals(version, 1)", &["alpha"]),
            ("lt(createdTime, '2024-01-01')", &[]),
        ]).await;
    }

    async fn removals_are_listed_by_what_they_came_to(world: &World) {
        given(world).await;
        for list in ["OffboardingService/ListOffboardingRequests", "RemovalService/ListRemovalJobs"] {
            shows(world, list, &[
                ("equals(status, Pending) and missing(started)", &["c"]),
                ("equals(uri, 'entities/c')", &["c"]),
                ("lt(executeAfter, '2024-01-01') or exists(finished)", &[]),
                ("equals(attempts, 0)", &["c"]),
            ]).await;
        }
        let request = json!({"filter": "equals(status, 'pending')", "page_size": 1, "status": "Pending"});
        let page = world.call("OffboardingService/ListOffboardingRequests", request).await.unwrap();
        assert_eq!(page.get("data").as_array().unwrap().len(), 1);
        let id = world.call("RemovalService/RemoveEntity", json!({"entity_id": "a"})).await.unwrap().get("id").clone();
        world.call_until("RemovalService/GetRemovalJob", json!({"job_id": id}), |job| job["status"] == "succeeded").await;
        shows(world, "EntityService/ListTombstones", &[
            ("equals(jobKind, offboarding) and equals(type, HCP)", &["a"]),
            ("range(removedTime, '2024-01-01', '9999-01-01') and gte(version, 1)", &["a"]),
            ("not equals(entityId, A)", &[]),
            ("lt(removed_at, 0)", &[]),
        ]).await;
    }

    async fn events_are_listed_by_what_they_report(world: &World) {
        given(world).await;
        shows(world, "EventService/ListEvents", &[
            ("startsWith(type, 'portfolio.c')", &["p", "q"]),
            ("regexp(type, 'entity[.]c.*') and in(subject, a, c)", &["a", "c"]),
            ("exists(data.offboarding_request_id)", &["c"]),
            ("lt(time, '2024-01-01')", &[]),
        ]).await;
    }

    async fn no_list_takes_a_property_that_it_does_not_know(world: &World) {
        let examples = world.given_examples().await;
        for rpc in rpcs().into_iter().filter(|rpc| rpc.member("filter").is_some()) {
            let list = rpc.name.as_str();
            let request = |filter: &str| {
                let mut request = examples.of(&rpc);
                request["filter"] = json!(filter);
                request
            };
            for (filter, position) in [("missing(Nonsense)", 8), ("exists(", 7), ("near(id, x)", 0)] {
                let refused = world.call(list, request(filter)).await.unwrap_err();
                assert_eq!((refused.code.as_str(), &refused.members["position"]), ("invalid_filter", &json!(position)), "{list} {filter}");
            }
        }
        let refused = world.call("PortfolioService/ListPortfolios", json!({"filter": "exists(attributes.Name)", "page_size": 1})).await.unwrap_err();
        assert_eq!(refused.code, "invalid_filter");
    }
}

scenario! {
    async fn tasks_are_listed_and_counted_by_everything_that_they_have(world: &World) {
        given(world).await;
        world.call("EntityService/PlaceHold", json!({"entity_id": "a", "reason": "audit"})).await.unwrap();
        let started = world.call("BulkDeleteService/StartBulkDelete", json!({"uris": ["a", "b", "none"]})).await.unwrap();
        let id = started.get("id").as_str().unwrap().to_owned();
        let over = |task: &Value| task["status"].as_str().unwrap().starts_with("completed");
        world.call_until("BulkDeleteService/GetTask", json!({"task_id": id}), over).await;
        world.database.sql("INSERT INTO dependent (realm_id, entity_id, kind, id) SELECT id, 'gone', 'task', 't' FROM realm WHERE org = 'acme' AND mode = 'test'");
        let check = world.call("BulkDeleteService/CheckConsistency", json!({"fix": false})).await.unwrap().get("id").as_str().unwrap().to_owned();
        world.call_until("BulkDeleteService/GetTask", json!({"task_id": check}), over).await;

        let name = started.get("name").as_str().unwrap().to_owned();
        shows(world, "BulkDeleteService/ListTasks", &[("exists(id)", &[])]).await;
        shows(world, "BulkDeleteService/ListTaskHistory", &[
            ("exists(mode)", &[&name]),
            ("equals(mode, soft) and equals(status, COMPLETED_WITH_ERRORS) and missing(entityType)", &[&name]),
            (&format!("equals(id, {id}) and exists(endTime)"), &[&name]),
            ("lt(createdTime, '2024-01-01')", &[]),
        ]).await;
        for (filter, total) in [("", 2), ("exists(mode)", 1), ("gt(start_time, '2024-01-01')", 2), ("missing(created_by)", 0)] {
            let counted = world.call("BulkDeleteService/CountTaskHistory", json!({"filter": filter})).await.unwrap();
            assert_eq!(counted.json["total"], total, "{filter}");
        }
        for (list, task, rows, column, filter, expected) in [
            ("ListTaskFailures", &id, "failures", "entity_id", "", vec!["a", "b", "none"]),
            ("ListTaskFailures", &id, "failures", "entity_id", "equals(reason, on_hold)", vec!["a"]),
            ("ListTaskFailures", &id, "failures", "entity_id", "not equals(uri, 'entities/a') and gt(time, 0)", vec!["b", "none"]),
            ("ListTaskFindings", &check, "findings", "subject", "equals(kind, orphan_dependent) and equals(mended, false)", vec!["gone"]),
            ("ListTaskFindings", &check, "findings", "subject", "equals(kind, portfolio_count)", vec![]),
        ] {
            let page = world.call(&format!("BulkDeleteService/{list}"), json!({"task_id": task, "filter": filter})).await.unwrap();
            let found: Vec<_> = page.get(rows).as_array().unwrap().iter().map(|row| row[column].as_str().unwrap()).collect();
            assert_eq!(found, expected, "{list} {filter}");
        }
        for list in ["ListTaskFailures", "ListTaskFindings"] {
            let refused = world.call(&format!("BulkDeleteService/{list}"), json!({"task_id": id, "filter": "equals(colour, red)"})).await.unwrap_err();
            assert_eq!(refused.code, "invalid_filter", "{list}");
        }
    }
}
