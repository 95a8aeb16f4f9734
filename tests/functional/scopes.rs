//! A scope allows the same by every way: what a key may not read it does not see in the answers of what it may change, nor in events,
//! previews and answers that are reported again; and what it may not change it does not change by another call.

use crate::kit::*;

const REPLAYED: &str = "idempotent-replayed";

/// The data of the latest event of a type.
async fn event(client: &Client, name: &str) -> Value {
    let answer = client.call("EventService/ListEvents", json!({"types": [name]})).await.unwrap();
    answer.json["events"].as_array().unwrap().last().unwrap()["data"].clone()
}

fn refused_for(refused: &Failure, scope: &str) {
    assert_eq!(
        (refused.code.as_str(), &refused.members["required_scope"]),
        ("permission_denied", &json!(scope)),
        "{refused:#?}"
    );
    assert_eq!(refused.http.unwrap_or(403), 403);
}

scenario! {
    async fn which_portfolios_there_are_is_said_to_who_may_see_them(world: &World) {
        world.portfolios(&["merger-with-initech", "fund"]).await;
        for (id, portfolio) in [("in", Some("fund")), ("out", None)] {
            let entity = json!({"entity_id": id, "type": "T", "portfolio_id": portfolio});
            world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
        }
        let warned = async |client: &Client, filter: &str| {
            let list = client.call("EntityService/ListEntities", json!({"filter": filter})).await.unwrap().json["warnings"].to_string();
            let start = json!({"spec": {"objects": {"filter": filter}}, "mode": "soft", "dry_run": true});
            let looked = client.call("BulkDeleteService/StartBulkDelete", start).await.unwrap();
            (list, looked.get("preview.warnings").to_string())
        };
        let reader = world.client("acme", "test", &["entities:read", "entities:delete"]);
        let mut said = Vec::new();
        for portfolio in ["merger-with-initech", "merger-with-initec0"] {
            for filter in [format!("equals(portfolio, '{portfolio}')"), format!("equals(portfolio, '{}')", portfolio.to_uppercase())] {
                let (list, dry_run) = warned(&reader, &filter).await;
                for warnings in [list, dry_run] {
                    assert!(warnings.contains("no entity is in the portfolio"), "{warnings}");
                    said.push(warnings.to_lowercase().replace(portfolio, "-"));
                }
            }
        }
        said.sort();
        said.dedup();
        assert!(said.len() <= 2, "what is there without a member is as what is not: {said:?}");
        // What a member shows is no secret.
        let (list, dry_run) = warned(&reader, "equals(portfolio, 'fundd')").await;
        assert!(list.contains("did you mean `fund`") && dry_run.contains("did you mean `fund`"), "{list} {dry_run}");
        assert!(!warned(&reader, "equals(portfolio, 'fund')").await.0.contains("unknown_value"));
        let (list, _) = warned(&world.client, "equals(portfolio, 'merger-with-initec0')").await;
        assert!(list.contains("there is no portfolio") && list.contains("did you mean `merger-with-initech`"), "{list}");
        assert!(!warned(&world.client, "equals(portfolio, 'merger-with-initech')").await.0.contains("unknown_value"));
    }
}

scenario! {
    async fn who_may_not_make_members_cannot_do_so_by_creating_them(world: &World) {
        world.portfolios(&["p"]).await;
        let writer = world.client("acme", "test", &["entities:write"]);
        let entity = |portfolio: &str| json!({"type": "T", "portfolio_id": portfolio});
        let mut reported = Vec::new();
        for portfolio in ["p", "nowhere"] {
            let one = writer.call("EntityService/CreateEntity", json!({"entity": entity(portfolio)})).await.unwrap_err();
            let batch = json!({"requests": [{"entity": {"type": "T"}}, {"entity": entity(portfolio)}]});
            let many = writer.call("EntityService/BatchCreateEntities", batch).await.unwrap_err();
            refused_for(&one, "portfolios:write");
            refused_for(&many, "portfolios:write");
            let imported = writer.import(&[entity(portfolio), json!({"type": "T"})]).await.unwrap().json.to_string();
            assert!(imported.contains("permission_denied") && !imported.contains("not_found"), "{imported}");
            reported.push((one.reported().to_string(), many.reported().to_string()));
        }
        assert_eq!(reported[0], reported[1], "nobody learns which portfolios there are");
        assert_eq!(world.database.rows("entity"), 2, "lines without a portfolio are imported");
        assert_eq!(world.database.entity_count(), 0);
        let both = world.client("acme", "test", &["entities:write", "portfolios:write"]);
        both.call("EntityService/CreateEntity", json!({"entity": entity("p")})).await.unwrap();
        assert_eq!(world.database.entity_count(), 1);
    }

    async fn a_hold_of_an_admin_is_released_by_an_admin(world: &World) {
        world.entities(&["e"]).await;
        let place = json!({"entity_id": "e", "reason": "audit"});
        let (writer, admin) = (world.client("acme", "test", &["holds:place", "holds:release"]), world.client("acme", "test", &["admin"]));
        admin.call("EntityService/PlaceHold", place.clone()).await.unwrap();
        refused_for(&writer.call("EntityService/ReleaseHold", json!({"entity_id": "e"})).await.unwrap_err(), "admin");
        assert_eq!(writer.call("EntityService/PlaceHold", place.clone()).await.unwrap_err().code, "invalid_state_transition");
        assert_eq!(world.database.held(), 1);
        admin.call("EntityService/ReleaseHold", json!({"entity_id": "e"})).await.unwrap();
        // Whoever may place and release holds does so with their own, and an admin releases any.
        for releaser in [&writer, &admin] {
            writer.call("EntityService/PlaceHold", place.clone()).await.unwrap();
            releaser.call("EntityService/ReleaseHold", json!({"entity_id": "e"})).await.unwrap();
        }
    }

    async fn events_show_no_more_than_the_key_could_read(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["e"]).await;
        world.call("EntityService/PlaceHold", json!({"entity_id": "e", "reason": "secret"})).await.unwrap();
        world.call("EntityService/PutDependent", json!({"entity_id": "e", "kind": "task", "dependent_id": "t", "data": {}})).await.unwrap();
        world.call("PortfolioService/AttachEntity", json!({"portfolio_id": "p", "entity_id": "e"})).await.unwrap();
        world.call("RemovalService/UpdateRemovalPolicy", json!({"policy": {"max_grace_period": "7200s"}, "update_mask": "maxGracePeriod"})).await.unwrap();
        let filter = json!({"spec": {"objects": {"filter": "equals(attributes.name, 'secret')"}}, "max_objects_per_second": 1, "allow_unknown_attributes": true});
        world.call("BulkDeleteService/StartBulkDelete", filter).await.unwrap();
        // As an earlier version wrote them.
        world.database.sql(r#"UPDATE event SET data = data || '{"reason": "secret"}' WHERE type = 'entity.held';
            UPDATE event SET data = jsonb_set(data, '{parameters,filter}', '"secret"') WHERE type = 'bulk_delete.scheduled'"#);

        let client_with = |more: &[&str]| world.client("acme", "test", &[&["events:read"], more].concat());
        let (events, entities, portfolios) = (client_with(&[]), client_with(&["entities:read"]), client_with(&["portfolios:read"]));
        // Type, member, who sees it: of events alone, with entities, with portfolios.
        let cases = [
            ("entity.held", "version", [true, true, true]),
            ("entity.held", "principal_id", [true, true, true]),
            ("entity.held", "reason", [false, false, false]),
            ("entity.updated", "dependent", [false, true, false]),
            ("portfolio.entity_attached", "entity_ids", [false, false, true]),
            ("portfolio.entity_attached", "version", [true, true, true]),
            ("bulk_delete.scheduled", "parameters", [false, true, false]),
            ("removal_policy.updated", "max_grace_period", [false, false, false]),
        ];
        for (name, member, seen) in cases {
            for (client, seen) in [&events, &entities, &portfolios].into_iter().zip(seen) {
                let data = event(client, name).await;
                assert_eq!(!data[member].is_null(), seen, "{member} of {name}: {data}");
            }
        }
        let policies = client_with(&["policies:read"]);
        assert_eq!(event(&policies, "removal_policy.updated").await["max_grace_period"], "7200s");
        // Nor by trying a filter, nor in a stream.
        let guess = json!({"filter": "equals(data.entity_ids, 'e')"});
        for (client, matches) in [(&events, 0), (&portfolios, 1)] {
            let found = client.call("EventService/ListEvents", guess.clone()).await.unwrap();
            assert_eq!(found.json["events"].as_array().unwrap().len(), matches);
        }
        for client in [&events, &entities, &portfolios] {
            let mut stream = client.stream("EventService/WatchEvents", json!({"from": "beginning"}), &[]).await.unwrap();
            let mut reported = String::new();
            while !reported.contains("bulk_delete.scheduled") {
                reported.push_str(&stream.message().await.to_string());
            }
            assert!(!reported.contains("secret"), "{reported}");
            assert_eq!(reported.contains("entity_ids"), std::ptr::eq(client, &portfolios));
        }
    }

    async fn a_refusal_reports_no_more_than_the_key_could_read(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["e", "f"]).await;
        for entity in ["e", "f"] {
            world.call("PortfolioService/AttachEntity", json!({"portfolio_id": "p", "entity_id": entity})).await.unwrap();
        }
        let clients = [(vec!["portfolios:write"], None), (vec!["portfolios:write", "portfolios:read"], Some(2))];
        for (scopes, count) in clients {
            let refused = world.client("acme", "test", &scopes).call("PortfolioService/DeletePortfolio", json!({"portfolio_id": "p"})).await.unwrap_err();
            assert_eq!(refused.code, "portfolio_not_empty");
            assert_eq!(refused.members.get("entity_count"), count.map(Value::from).as_ref(), "{refused:#?}");
            assert_eq!(refused.message.contains('2'), count.is_some(), "{refused:#?}");
        }
    }

    async fn what_a_key_changes_it_does_not_read(world: &World) {
        world.portfolios(&["p"]).await;
        let components = ["0190aaaa-0000-7000-8000-00000000000a"];
        let entity = json!({"entity_id": "e", "type": "T", "attributes": {"x": "secret"}, "components": components, "portfolio_id": "p"});
        world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
        world.call("EntityService/PlaceHold", json!({"entity_id": "e", "reason": "secret"})).await.unwrap();
        world.call("PortfolioService/UpdatePortfolio", json!({"portfolio_id": "p", "metadata": {"x": "secret"}})).await.unwrap();

        let update = json!({"entity_id": "e", "entity": {"type": "U"}});
        let (attach, other) = (json!({"portfolio_id": "p", "entity_id": "e"}), json!({"portfolio_id": "p", "shared_compliance_calendar": true}));
        let calls = [
            ("entities:write", "entities:read", "EntityService/UpdateEntity", update, "secret"),
            ("portfolios:write", "portfolios:read", "PortfolioService/AttachEntity", attach, "secret"),
            ("portfolios:write", "portfolios:read", "PortfolioService/UpdatePortfolio", other, "secret"),
        ];
        for (scope, reading, method, request, secret) in calls {
            let (alone, reader) = (world.client("acme", "test", &[scope]), world.client("acme", "test", &[scope, reading]));
            let seen = reader.call(method, request.clone()).await.unwrap().json;
            assert!(seen.to_string().contains(secret), "{method}: {seen}");
            let answer = alone.call(method, request.clone()).await.unwrap().json;
            assert!(!answer.to_string().contains(secret), "{method}: {answer}");
            // The second time nothing changes.
            let version = |answer: &Value| answer["version"].as_i64().or_else(|| answer["version"].as_str()?.parse().ok()).unwrap();
            assert_eq!((&answer["id"], version(&answer)), (&seen["id"], version(&seen)), "{method}");
        }
        // A caller's own values are shown.
        let writer = world.client("acme", "test", &["entities:write"]);
        let own = json!({"entity": {"type": "T", "attributes": {"x": "mine"}}});
        assert_eq!(writer.call("EntityService/CreateEntity", own).await.unwrap().json["attributes"], json!({"x": "mine"}));

        let (offboarder, both) = (world.client("acme", "test", &["entities:offboard"]), world.client("acme", "test", &["entities:offboard", "entities:read"]));
        world.call("EntityService/ReleaseHold", json!({"entity_id": "e"})).await.unwrap();
        let ask = json!({"entity_id": "e", "grace_period": "3600s"});
        // The components of a request are the entity's, and not what its caller has said: the first answer and those behind it are alike.
        for (client, shown) in [(&offboarder, json!(null)), (&both, json!(components))] {
            let asked = client.call("OffboardingService/RequestOffboarding", ask.clone()).await.unwrap().json;
            let reported = &asked["data"]["components"];
            assert_eq!(if reported == &json!([]) { &Value::Null } else { reported }, &shown);
        }
    }

    async fn deleting_is_no_way_to_look(world: &World) {
        world.entities(&["e"]).await;
        let deleter = world.client("acme", "test", &["entities:delete"]);
        let dry = json!({"spec": {"objects": {"entity_type": "T"}}, "dry_run": true});
        refused_for(&deleter.call("BulkDeleteService/StartBulkDelete", dry.clone()).await.unwrap_err(), "entities:read");
        world.client("acme", "test", &["entities:delete", "entities:read"]).call("BulkDeleteService/StartBulkDelete", dry).await.unwrap();
        // The task of somebody else, by way of a change.
        let filter = json!({"spec": {"objects": {"filter": "equals(attributes.name, 'secret')"}}, "max_objects_per_second": 1, "allow_unknown_attributes": true});
        let theirs = world.call("BulkDeleteService/StartBulkDelete", filter.clone()).await.unwrap();
        let own = deleter.call("BulkDeleteService/StartBulkDelete", filter).await.unwrap();
        for (task, shown) in [(theirs, false), (own, true)] {
            let pace = json!({"task_id": task.json["id"], "max_objects_per_second": 1});
            let answer = deleter.call("BulkDeleteService/UpdateTask", pace).await;
            // It may be over by now.
            let reported = answer.map_or_else(|failure| failure.reported().to_string(), |answer| answer.json.to_string());
            assert!(shown || !reported.contains("secret"), "{reported}");
        }
    }

    /// Nor is a slip in a filter: who may not see entities does not learn what their attributes are called.
    async fn a_slip_reports_no_names_to_who_may_not_see_them(world: &World) {
        world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T", "attributes": {"Name": "Ann"}}})).await.unwrap();
        let slip = json!({"spec": {"objects": {"filter": "missing(attributes.Naem)"}}});
        for (scopes, nearest) in [(["entities:delete"].as_slice(), None), (&["entities:delete", "entities:read"], Some(&json!(["Name"])))] {
            let refusal = world.client("acme", "test", scopes).call("BulkDeleteService/StartBulkDelete", slip.clone()).await.unwrap_err();
            assert_eq!((refusal.code.as_str(), refusal.members.get("nearest")), ("unknown_attribute", nearest));
            assert_eq!(refusal.reported().to_string().contains("Name"), nearest.is_some());
        }
    }

    async fn an_answer_that_is_reported_again_shows_what_the_key_may_see_by_then(world: &World) {
        world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T", "attributes": {"x": "secret"}}})).await.unwrap();
        let key = Key::create(&world.database, "acme", "test", &["entities:write", "entities:read"]);
        let client = Client::new(&world.server, &key, world.protocol);
        let update = json!({"entity_id": "e", "entity": {"type": "U"}});
        let first = client.call_with("EntityService/UpdateEntity", update.clone(), &[("idempotency-key", "k")]).await.unwrap();
        assert_eq!(first.json["attributes"]["x"], "secret");
        world.database.sql(&format!("UPDATE api_key SET scopes = ARRAY['entities:write'] WHERE id = '{}'", key.id));
        // Another server has not seen the key before.
        let server = Server::start_with(&world.database, &[], &[]).await;
        let again = Client::new(&server, &key, world.protocol).call_with("EntityService/UpdateEntity", update, &[("idempotency-key", "k")]).await.unwrap();
        assert_eq!((again.header(REPLAYED), &again.json["version"]), (Some("true"), &first.json["version"]));
        assert!(!again.json.to_string().contains("secret"), "{}", again.json);
    }

    async fn the_log_reports_who_called_also_who_was_refused(world: &World) {
        let reader = Key::create(&world.database, "acme", "live", &["entities:read"]);
        let listed = Key::create_with(&world.database, "acme", "test", &["admin"], &["--allow", "192.0.2.0/24"]);
        let revoked = Key::create(&world.database, "acme", "test", &["admin"]);
        offboard(&["key", "--database-url", &world.database.url, "revoke", &revoked.id, "--yes"]);
        let (outcomes, create) = ([(&reader, "permission_denied"), (&listed, "invalid_credentials"), (&revoked, "invalid_credentials")], json!({"entity": {"type": "T"}}));
        for (n, (key, code)) in outcomes.into_iter().enumerate() {
            let client = Client::new(&world.server, key, world.protocol);
            let request_id = format!("refused-{n}");
            let refused = client.call_with("EntityService/CreateEntity", create.clone(), &[("x-request-id", &request_id)]).await.unwrap_err();
            assert_eq!(refused.code, code);
            let principal = world.database.principal_of(&key.id).unwrap();
            let line = |log: &str| log.lines().find(|line| line.contains("call ended") && line.contains(&request_id)).map(str::to_owned);
            until("the call is in the log", || line(&world.server.log()).is_some()).await;
            let line: Value = serde_json::from_str(&line(&world.server.log()).unwrap()).unwrap();
            let mode = if code == "permission_denied" { "live" } else { "test" };
            assert_eq!((&line["key_id"], &line["principal_id"], &line["org"], &line["mode"]), (&json!(key.id), &json!(principal), &json!("acme"), &json!(mode)));
            assert!(!world.server.log().contains(&key.secret));
        }
    }
}
