//! Portfolios by the page, what they say of themselves, and their end.

use std::sync::Arc;

use futures::future::join_all;

use crate::entities::events;
use crate::kit::*;

const LIST: &str = "PortfolioService/ListPortfolios";
const UPDATE: &str = "PortfolioService/UpdatePortfolio";
const DELETE: &str = "PortfolioService/DeletePortfolio";

/// The portfolios of a page, and the token of the next.
async fn page(world: &World, request: Value) -> (Vec<Value>, String) {
    let page = world.call(LIST, request).await.unwrap();
    (
        page.get("portfolios").as_array().unwrap().clone(),
        page.get("next_page_token").as_str().unwrap().to_owned(),
    )
}

fn ids(portfolios: &[Value]) -> Vec<&str> {
    portfolios.iter().map(|portfolio| portfolio["id"].as_str().unwrap()).collect()
}

fn fields(failure: &Failure) -> Vec<&str> {
    failure.faults.iter().map(|fault| fault.field.as_str()).collect()
}

/// The data of the last event of a type.
fn reported(database: &Database, event: &str) -> Value {
    let data = database
        .text(&format!("SELECT data FROM event WHERE type = '{event}' ORDER BY seq DESC LIMIT 1"));
    serde_json::from_str(&data.expect("there is such an event")).unwrap()
}

scenario! {
    async fn portfolios_are_listed_in_the_order_of_their_ids_as_each_is_by_itself(world: &World) {
        assert_eq!(page(world, json!({})).await, (vec![], String::new()));
        world.portfolios(&["c", "a", "b", "B"]).await;
        world.entities(&["e", "f"]).await;
        world.attach("b", "f").await.unwrap();
        world.attach("b", "e").await.unwrap();
        let (all, token) = page(world, json!({})).await;
        assert_eq!((ids(&all), token.as_str()), (vec!["B", "a", "b", "c"], ""));
        for portfolio in &all {
            assert_eq!(*portfolio, world.portfolio(portfolio["id"].as_str().unwrap()).await);
        }
        assert_eq!(all[2]["entity_ids"], json!(["f", "e"]));
    }

    async fn pages_go_on_where_the_last_one_ended_while_portfolios_come_and_go(world: &World) {
        world.portfolios(&["a", "c", "e", "g"]).await;
        let (first, token) = page(world, json!({"page_size": 2})).await;
        assert_eq!(ids(&first), ["a", "c"]);
        world.portfolios(&["b", "d"]).await;
        world.call(DELETE, json!({"portfolio_id": "c"})).await.unwrap();
        let (second, token) = page(world, json!({"page_size": 2, "page_token": token})).await;
        assert_eq!(ids(&second), ["d", "e"]);
        let (last, token) = page(world, json!({"page_size": 100, "page_token": token})).await;
        assert_eq!((ids(&last), token.as_str()), (vec!["g"], ""));
    }

    async fn a_page_of_portfolios_that_is_wrong_is_refused(world: &World) {
        world.portfolios(&["a", "b"]).await;
        for (request, faults) in [
            (json!({"page_size": 101}), vec!["page_size"]),
            (json!({"page_size": -1, "page_token": "x"}), vec!["page_size", "page_token"]),
        ] {
            assert_eq!(fields(&world.call(LIST, request).await.unwrap_err()), faults);
        }
        let (_, mut token) = page(world, json!({"page_size": 1})).await;
        let last = if token.pop() == Some('A') { 'B' } else { 'A' };
        token.push(last);
        assert_eq!(fields(&world.call(LIST, json!({"page_token": token})).await.unwrap_err()), ["page_token"]);
    }

    async fn a_page_ends_early_when_its_portfolios_show_many_members(world: &World) {
        world.portfolios(&["x"]).await;
        let realm = world.database.count("SELECT realm_id FROM portfolio");
        // 30 portfolios of 1,000 members each, one of more, and one of none.
        world.database.sql(&format!(
            "INSERT INTO portfolio (realm_id, id, name, entity_count)
             SELECT {realm}, 'p' || lpad(n::text, 2, '0'), 'Fund', CASE WHEN n = 3 THEN 1005 ELSE 1000 END FROM generate_series(1, 30) n;
             INSERT INTO entity (realm_id, id, incarnation, type, state, portfolio_id, attached_at)
             SELECT {realm}, p.id || '-' || lpad(m::text, 4, '0'), gen_random_uuid(), 'T', 'active', p.id, now()
             FROM portfolio p, generate_series(1, p.entity_count) m"
        ));
        let (mut seen, mut sizes, mut token) = (Vec::new(), Vec::new(), String::new());
        loop {
            let (portfolios, next) = page(world, json!({"page_size": 100, "page_token": token})).await;
            sizes.push(portfolios.len());
            for portfolio in portfolios {
                let shown = portfolio["entity_ids"].as_array().unwrap().len() as i64;
                assert_eq!(shown, portfolio["entity_count"].as_i64().unwrap().min(1000), "{}", portfolio["id"]);
                seen.push(portfolio["id"].as_str().unwrap().to_owned());
            }
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(sizes, [20, 11]);
        let all: Vec<_> = (1..=30).map(|n| format!("p{n:02}")).chain(["x".to_owned()]).collect();
        assert_eq!(seen, all);
    }

    async fn an_update_changes_what_is_given_and_nothing_else(world: &World) {
        let made = json!({"portfolio_id": "p", "name": "Old", "shared_registered_agent_id": "ra_1", "metadata": {"a": 1, "b": {"c": 2}}});
        world.call("PortfolioService/CreatePortfolio", made).await.unwrap();
        world.entities(&["e"]).await;
        world.attach("p", "e").await.unwrap();
        let mut expected = world.portfolio("p").await;
        let entity = world.entity("e").await;
        for (change, version, changed) in [
            (json!({"name": "New"}), 3, json!(["name"])),
            (json!({"shared_compliance_calendar": true, "expected_version": 3}), 4, json!(["shared_compliance_calendar"])),
            (json!({"metadata": {"b": null}}), 5, json!(["metadata"])),
            (json!({"name": "Newer", "shared_registered_agent_id": "ra_2"}), 6, json!(["name", "shared_registered_agent_id"])),
            // A member that has the value already is not reported as changed.
            (json!({"name": "Newer", "shared_registered_agent_id": "ra_3", "metadata": {"b": null}}), 7, json!(["shared_registered_agent_id"])),
        ] {
            let mut request = change.clone();
            request["portfolio_id"] = json!("p");
            let updated = world.call(UPDATE, request).await.unwrap();
            assert!(updated.json["updated_at"].as_i64() >= expected["updated_at"].as_i64());
            expected["version"] = json!(version);
            expected["updated_at"] = updated.json["updated_at"].clone();
            for (name, value) in change.as_object().unwrap().iter().filter(|(name, _)| *name != "expected_version") {
                expected[name] = value.clone();
            }
            assert_eq!(updated.json, expected);
            assert_eq!(updated.http.unwrap_or(200), 200);
            assert_eq!(world.portfolio("p").await, expected);
            assert_eq!(reported(&world.database, "portfolio.updated"), json!({"fields": changed, "version": version}));
        }
        assert_eq!(world.entity("e").await, entity);
        assert_eq!(world.database.events_of_subject("portfolio.updated", "p"), 5);
    }

    async fn an_update_that_changes_nothing_is_no_step_and_no_event(world: &World) {
        let made = json!({"portfolio_id": "p", "name": "Fund", "shared_registered_agent_id": "ra_1", "metadata": {"a": {"b": [1, null]}}});
        world.call("PortfolioService/CreatePortfolio", made).await.unwrap();
        world.entities(&["e"]).await;
        world.attach("p", "e").await.unwrap();
        let before = world.portfolio("p").await;
        let events = || world.database.events_of("portfolio.updated");
        for same in [
            json!({"name": "Fund"}),
            json!({"shared_registered_agent_id": "ra_1", "shared_compliance_calendar": false, "expected_version": 2}),
            json!({"metadata": {"a": {"b": [1, null]}}}),
        ] {
            let mut request = same.clone();
            request["portfolio_id"] = json!("p");
            let updated = world.call(UPDATE, request).await.unwrap();
            assert_eq!((&updated.json, events()), (&before, 0), "{same}");
            if world.protocol == Protocol::Rest {
                let tag = updated.headers.iter().find(|(name, _)| name == "etag").map(|(_, value)| value.as_str());
                assert_eq!(tag, Some("\"2\""));
            }
        }
        let stale = json!({"portfolio_id": "p", "name": "Fund", "expected_version": 1});
        assert_eq!(world.call(UPDATE, stale).await.unwrap_err().code, "state_conflict", "also where nothing would change");
        // Equal, and not the same to whoever reads it.
        world.database.sql("UPDATE portfolio SET metadata = '{\"n\": 1.0}'");
        let shorter = world.call(UPDATE, json!({"portfolio_id": "p", "metadata": {"n": 1}})).await.unwrap();
        assert_eq!((&shorter.json["version"], events()), (&json!(3), 1));
    }

    async fn null_clears_what_can_be_empty(world: &World) {
        let made = json!({"portfolio_id": "p", "name": "Fund", "shared_registered_agent_id": "ra_1", "metadata": {"a": 1}});
        world.call("PortfolioService/CreatePortfolio", made).await.unwrap();
        // By gRPC, null is what the mask names and the message does not contain.
        let clear = |mut request: Value, names: &[&str]| {
            request["portfolio_id"] = json!("p");
            match world.protocol {
                Protocol::Grpc => {
                    let names = names.iter().map(|name| spelling::lower_camel(name)).collect::<Vec<_>>();
                    request["update_mask"] = json!(names.join(","));
                }
                Protocol::Rest => {
                    for name in names {
                        request.as_object_mut().unwrap().entry(*name).or_insert(Value::Null);
                    }
                }
            }
            world.call(UPDATE, request)
        };
        let cleared = clear(json!({"expected_version": 1}), &["shared_registered_agent_id"]).await.unwrap();
        assert_seen!("cleared_of_one", cleared);
        let cleared = clear(json!({"name": "Other"}), &["name", "metadata"]).await.unwrap();
        assert_seen!("cleared_and_renamed", cleared);
        for needed in ["name", "shared_compliance_calendar"] {
            let refused = clear(json!({}), &[needed]).await.unwrap_err();
            assert_eq!((refused.code.as_str(), fields(&refused)), ("validation_failed", vec![needed]));
        }
        assert_eq!(world.portfolio("p").await["version"], 3);
    }

    async fn an_update_that_expects_another_version_changes_nothing(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["e"]).await;
        world.attach("p", "e").await.unwrap();
        let (before, reported) = (world.portfolio("p").await, events(&world.database));
        for expected in [1, 3] {
            let request = json!({"portfolio_id": "p", "name": "Mine", "expected_version": expected});
            let refused = world.call(UPDATE, request).await.unwrap_err();
            assert_seen!(format!("refused_of_version_{expected}"), refused);
            assert_eq!(refused.http.unwrap_or(409), 409);
        }
        assert_eq!((world.portfolio("p").await, events(&world.database)), (before, reported));
    }

    async fn an_update_with_faults_or_of_nothing_is_refused(world: &World) {
        world.portfolios(&["p"]).await;
        let before = world.portfolio("p").await;
        let wrong = json!({"portfolio_id": "p", "name": "", "shared_registered_agent_id": "x".repeat(129), "metadata": {"a": "\u{0}"}});
        let refused = world.call(UPDATE, wrong).await.unwrap_err();
        // By REST the place within an object is known, before the service reads the rest.
        let expected = match world.protocol {
            Protocol::Rest => ["metadata.a", "name", "shared_registered_agent_id"],
            Protocol::Grpc => ["name", "shared_registered_agent_id", "metadata"],
        };
        assert_eq!((refused.code.as_str(), fields(&refused)), ("validation_failed", expected.to_vec()));
        for nothing in [json!({"portfolio_id": "p"}), json!({"portfolio_id": "p", "expected_version": 1})] {
            let refused = world.call(UPDATE, nothing).await.unwrap_err();
            assert_eq!((refused.code.as_str(), fields(&refused)), ("validation_failed", vec![if world.protocol == Protocol::Rest { "body" } else { "update_mask" }]));
            assert!(refused.message.contains("`name`, `shared_registered_agent_id`, `shared_compliance_calendar`, `metadata`"));
        }
        let missing = world.call(UPDATE, json!({"portfolio_id": "q", "name": "x", "expected_version": 7})).await.unwrap_err();
        assert_eq!(missing.code, "not_found");
        assert_eq!(world.portfolio("p").await, before);
    }

    async fn of_many_updates_that_expect_one_version_one_is_done(world: &World) {
        world.portfolios(&["p"]).await;
        let updates = (0..8).map(|n| world.call(UPDATE, json!({"portfolio_id": "p", "name": format!("n{n}"), "expected_version": 1})));
        let outcomes = join_all(updates).await;
        let done: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(done.len(), 1);
        assert_eq!(world.portfolio("p").await, done[0].json);
        for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!((refused.code.as_str(), &refused.members["current_version"]), ("state_conflict", &json!(2)));
        }
    }

    async fn an_empty_portfolio_is_deleted_and_its_id_is_free_again(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["e"]).await;
        world.attach("p", "e").await.unwrap();
        let refused = world.call(DELETE, json!({"portfolio_id": "p"})).await.unwrap_err();
        assert_seen!("refused_as_not_empty", refused);
        assert_eq!(refused.http.unwrap_or(409), 409);
        world.detach("p", "e").await.unwrap();
        let deleted = world.call(DELETE, json!({"portfolio_id": "p"})).await.unwrap();
        assert_eq!((deleted.http.unwrap_or(204), deleted.json), (204, json!({})));
        assert_eq!(reported(&world.database, "portfolio.deleted"), json!({"version": 4}));
        for method in ["PortfolioService/GetPortfolio", DELETE] {
            assert_eq!(world.call(method, json!({"portfolio_id": "p"})).await.unwrap_err().code, "not_found");
        }
        assert_eq!(world.attach("p", "e").await.unwrap_err().code, "not_found");
        assert_eq!(world.database.events_of("portfolio.deleted"), 1);
        world.portfolios(&["p"]).await;
        assert_eq!((&world.portfolio("p").await["version"], &world.entity("e").await["portfolio_id"]), (&json!(1), &json!(null)));
    }

    async fn a_portfolio_whose_members_were_all_removed_is_empty(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["soft", "hard"]).await;
        for (entity, mode) in [("soft", "soft"), ("hard", "hard")] {
            world.attach("p", entity).await.unwrap();
            world.call("BulkDeleteService/StartBulkDelete", json!({"uris": [entity], "mode": mode})).await.unwrap();
            until("it is deleted", || world.database.entity_count() == 0).await;
        }
        assert_eq!(world.portfolio("p").await["entity_ids"], json!([]));
        assert_eq!(world.database.members(), 0);
        world.call(DELETE, json!({"portfolio_id": "p"})).await.unwrap();
    }

    async fn no_member_is_left_in_a_portfolio_that_was_deleted_meanwhile(world: &World) {
        let entities: Vec<String> = (0..8).map(|n| format!("e{n}")).collect();
        world.entities(&entities.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let client = Arc::new(world.client.clone());
        for round in 0..25 {
            world.portfolios(&["p"]).await;
            let attach = entities.iter().enumerate().map(|(n, entity)| {
                let single = json!({"portfolio_id": "p", "entity_id": entity});
                let batch = json!({"portfolio_id": "p", "entity_ids": [entity]});
                if n % 2 == 0 { ("PortfolioService/AttachEntity", single) } else { ("PortfolioService/BatchAttachEntities", batch) }
            });
            let delete = (0..4).map(|_| (DELETE, json!({"portfolio_id": "p"})));
            let mut calls: Vec<_> = attach.zip(delete.clone().chain(delete)).flat_map(|(attach, delete)| [attach, delete]).collect();
            calls.rotate_left(round % 16);
            let calls = calls.into_iter().map(|(method, request)| {
                let client = client.clone();
                tokio::spawn(async move { (method, client.call(method, request).await) })
            });
            let mut attached = 0;
            for call in calls.collect::<Vec<_>>() {
                match call.await.unwrap() {
                    (DELETE, Ok(_)) => {}
                    (DELETE, Err(refused)) => assert!(["portfolio_not_empty", "not_found"].contains(&refused.code.as_str()), "{refused:#?}"),
                    (_, Ok(_)) => attached += 1,
                    (_, Err(refused)) => assert_eq!(refused.code, "not_found"),
                }
            }
            let members = world.database.members_of("p");
            assert_eq!(members, attached, "who was recorded success is a member");
            let counted = world.database.text("SELECT entity_count FROM portfolio WHERE id = 'p'");
            assert_eq!(counted.unwrap_or("0".to_owned()), members.to_string());
            for entity in &entities {
                let _ = world.detach("p", entity).await;
            }
            let _ = world.call(DELETE, json!({"portfolio_id": "p"})).await;
        }
    }
}
