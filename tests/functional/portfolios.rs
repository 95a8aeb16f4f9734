//! Portfolios, and the operations that change their members.

use crate::entities::events;
use crate::kit::*;

impl World {
    /// Makes portfolios.
    pub async fn portfolios(&self, ids: &[&str]) {
        for id in ids {
            self.call(
                "PortfolioService/CreatePortfolio",
                json!({"portfolio_id": id, "name": format!("Fund {id}")}),
            )
            .await
            .unwrap();
        }
    }

    /// Makes entities.
    pub async fn entities(&self, ids: &[&str]) {
        let entities: Vec<Value> = ids
            .iter()
            .map(|id| json!({"entity_id": id, "type": "T", "attributes": {"name": id}}))
            .collect();
        let account = self.client.import(&entities).await.unwrap();
        assert_eq!(account.json["created"], ids.len());
    }

    /// Attaches an entity.
    pub async fn attach(&self, portfolio: &str, entity: &str) -> Result<Answer, Failure> {
        self.call(
            "PortfolioService/AttachEntity",
            json!({"portfolio_id": portfolio, "entity_id": entity}),
        )
        .await
    }

    /// Detaches an entity.
    pub async fn detach(&self, portfolio: &str, entity: &str) -> Result<Answer, Failure> {
        self.call(
            "PortfolioService/DetachEntity",
            json!({"portfolio_id": portfolio, "entity_id": entity}),
        )
        .await
    }

    /// A portfolio as it is.
    pub async fn portfolio(&self, id: &str) -> Value {
        self.call("PortfolioService/GetPortfolio", json!({"portfolio_id": id})).await.unwrap().json
    }

    /// An entity as it is.
    pub async fn entity(&self, id: &str) -> Value {
        self.call("EntityService/GetEntity", json!({"entity_id": id})).await.unwrap().json
    }
}

/// Members, number of members and version.
fn membership(portfolio: &Value) -> (Value, i64, i64) {
    (
        portfolio["entity_ids"].clone(),
        portfolio["entity_count"].as_i64().unwrap(),
        portfolio["version"].as_i64().unwrap(),
    )
}

/// Everything of a row but what a change of membership changes.
fn untouched(database: &Database, entity: &str) -> Value {
    let columns = "to_jsonb(e) - ARRAY['portfolio_id', 'attached_at', 'version', 'updated_at']";
    let hangs = "(SELECT jsonb_agg(to_jsonb(d) ORDER BY d.kind, d.id) FROM dependent d WHERE d.entity_id = e.id)";
    let row = database.text(&format!(
        "SELECT jsonb_build_array({columns}, {hangs}) FROM entity e WHERE e.id = '{entity}'"
    ));
    serde_json::from_str(&row.unwrap()).unwrap()
}

scenario! {
    async fn a_portfolio_has_every_member_from_the_start(world: &World) {
        let request = json!({
            "portfolio_id": "pf_S4dGqL2c", "name": "Studio Fund I", "shared_registered_agent_id": "ra_X8nB5wPq",
            "shared_compliance_calendar": true, "metadata": {"tier": {"n": [1, null]}},
        });
        let created = world.call("PortfolioService/CreatePortfolio", request).await.unwrap();
        assert_seen!("created_whole", created);
        assert_eq!(created.get("updated_at"), created.get("created_at"));
        assert_eq!(world.portfolio("pf_S4dGqL2c").await, created.json);
        if world.protocol == Protocol::Rest {
            assert_eq!((created.http, created.header("location")), (Some(201), Some("/v1/portfolios/pf_S4dGqL2c")));
        }
        let bare = world.call("PortfolioService/CreatePortfolio", json!({"name": "Bare"})).await.unwrap();
        assert_seen!("created_with_a_name_alone", bare);
        assert_eq!(world.portfolio(bare.json["id"].as_str().unwrap()).await, bare.json);
    }

    async fn a_portfolio_that_is_wrong_or_there_already_is_refused(world: &World) {
        let wrong = json!({"portfolio_id": "a/b", "shared_registered_agent_id": "x".repeat(129), "metadata": {"a": "\u{0}"}});
        let refused = world.call("PortfolioService/CreatePortfolio", wrong).await.unwrap_err();
        let fields: Vec<_> = refused.faults.iter().map(|fault| fault.field.as_str()).collect();
        // By REST the place within an object is known, before the service reads the rest.
        let expected = match world.protocol {
            Protocol::Rest => ["metadata.a", "portfolio_id", "name", "shared_registered_agent_id"],
            Protocol::Grpc => ["portfolio_id", "name", "shared_registered_agent_id", "metadata"],
        };
        assert_eq!((refused.code.as_str(), fields), ("validation_failed", expected.to_vec()));
        world.portfolios(&["p"]).await;
        let again = world.call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "Other"})).await.unwrap_err();
        assert_seen!("refused_as_taken", again);
        assert_eq!(world.portfolio("p").await["name"], "Fund p");
        assert_eq!(events(&world.database), "portfolio.created p");
    }

    async fn attach_makes_a_member_once(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["e"]).await;
        let attached = world.attach("p", "e").await.unwrap();
        assert_seen!("attached", attached);
        let (portfolio, entity) = (world.portfolio("p").await, world.entity("e").await);
        assert_eq!(attached.json, portfolio);
        assert_eq!((&entity["portfolio_id"], &entity["version"]), (&json!("p"), &json!(2)));
        let reported = events(&world.database);
        let again = world.attach("p", "e").await.unwrap();
        assert_eq!((&again.json, &world.entity("e").await), (&portfolio, &entity), "again changes nothing");
        assert_eq!(events(&world.database), reported);
        assert!(reported.ends_with("entity.created e\nportfolio.entity_attached p"), "{reported}");
    }

    async fn attach_moves_a_member_of_another_portfolio_and_both_step(world: &World) {
        world.portfolios(&["p", "q"]).await;
        world.entities(&["e", "f"]).await;
        world.attach("p", "e").await.unwrap();
        world.attach("p", "f").await.unwrap();
        let moved = world.attach("q", "e").await.unwrap();
        assert_eq!(membership(&moved.json), (json!(["e"]), 1, 2));
        assert_eq!(membership(&world.portfolio("p").await), (json!(["f"]), 1, 4));
        assert_eq!((&world.entity("e").await["portfolio_id"], &world.entity("e").await["version"]), (&json!("q"), &json!(3)));
        let reported = events(&world.database);
        assert!(reported.ends_with("portfolio.entity_detached p\nportfolio.entity_attached q"), "{reported}");
        let data = "SELECT data FROM event WHERE type = 'portfolio.entity_detached'";
        let data: Value = serde_json::from_str(&world.database.text(data).unwrap()).unwrap();
        assert_eq!(data, json!({"entity_ids": ["e"], "version": 4}));
    }

    async fn detach_changes_the_link_the_versions_and_the_dates_alone(world: &World) {
        world.portfolios(&["p"]).await;
        let entity = json!({"entity_id": "e", "type": "T", "state": "onboarding", "attributes": {"a": [1]}, "crosswalks": [{"b": 2}],
            "components": ["0190a1b2-0000-7000-8000-000000000001"], "dependents": [{"kind": "task", "id": "t", "data": {"c": 3}}]});
        world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
        world.entities(&["f"]).await;
        world.attach("p", "e").await.unwrap();
        world.attach("p", "f").await.unwrap();
        let (portfolio, entity, rest) = (world.portfolio("p").await, world.entity("e").await, untouched(&world.database, "e"));

        let detached = world.detach("p", "e").await.unwrap();
        assert_eq!(detached.http, (world.protocol == Protocol::Rest).then_some(200));
        assert_eq!(membership(&detached.json), (json!(["f"]), 1, 4));
        assert_eq!(detached.json, world.portfolio("p").await);
        let after = world.entity("e").await;
        let mut expected = entity.clone();
        for (name, value) in [("portfolio_id", json!(null)), ("version", json!(3)), ("updated_at", after["updated_at"].clone())] {
            expected[name] = value;
        }
        assert_eq!(after, expected);
        assert!(after["updated_at"].as_i64() >= entity["updated_at"].as_i64());
        assert_eq!(untouched(&world.database, "e"), rest);
        let mut expected = portfolio.clone();
        for name in ["entity_ids", "entity_count", "version", "updated_at"] {
            expected[name] = detached.json[name].clone();
        }
        assert_eq!(detached.json, expected);
        assert_eq!(world.database.events_of_subject("portfolio.entity_detached", "p"), 1);
    }

    async fn the_basic_view_leaves_the_members_out_and_nothing_else(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["e", "f", "g"]).await;
        let basic = async |method: &str, mut request: Value| {
            request["view"] = json!("basic");
            world.call(&format!("PortfolioService/{method}"), request).await.unwrap().json
        };
        let as_shown = async |shown: &Value| {
            let mut expected = world.portfolio("p").await;
            assert_eq!(expected["entity_ids"].as_array().unwrap().len(), expected["entity_count"].as_i64().unwrap() as usize);
            expected["entity_ids"] = json!([]);
            assert_eq!(*shown, expected);
        };
        as_shown(&basic("AttachEntity", json!({"portfolio_id": "p", "entity_id": "e"})).await).await;
        as_shown(&basic("AttachEntity", json!({"portfolio_id": "p", "entity_id": "e"})).await).await;
        as_shown(&basic("BatchAttachEntities", json!({"portfolio_id": "p", "entity_ids": ["f", "g"]})).await["portfolio"]).await;
        as_shown(&basic("DetachEntity", json!({"portfolio_id": "p", "entity_id": "e"})).await).await;
        as_shown(&basic("DetachEntity", json!({"portfolio_id": "p", "entity_id": "e"})).await).await;
        as_shown(&basic("BatchDetachEntities", json!({"portfolio_id": "p", "entity_ids": ["f"]})).await["portfolio"]).await;
        as_shown(&basic("UpdatePortfolio", json!({"portfolio_id": "p", "name": "New"})).await).await;
        as_shown(&basic("GetPortfolio", json!({"portfolio_id": "p"})).await).await;
        as_shown(&basic("ListPortfolios", json!({})).await["portfolios"][0]).await;
        assert_eq!(world.portfolio("p").await["entity_ids"], json!(["g"]));
        let full = json!({"portfolio_id": "p", "view": "full"});
        assert_eq!(world.call("PortfolioService/GetPortfolio", full).await.unwrap().json["entity_ids"], json!(["g"]));
    }

    async fn detach_of_what_is_in_no_portfolio_is_no_change(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["e"]).await;
        let never = world.detach("p", "e").await.unwrap();
        assert_eq!(membership(&never.json), (json!([]), 0, 1));
        world.attach("p", "e").await.unwrap();
        let (first, reported) = (world.detach("p", "e").await.unwrap(), events(&world.database));
        let entity = world.entity("e").await;
        let second = world.detach("p", "e").await.unwrap();
        assert_eq!((first.http, &first.json), (second.http, &second.json));
        assert_eq!((world.entity("e").await, events(&world.database)), (entity, reported));
    }

    async fn detach_from_another_portfolio_names_the_one_it_is_in(world: &World) {
        world.portfolios(&["p", "pf_other"]).await;
        world.entities(&["e"]).await;
        world.attach("pf_other", "e").await.unwrap();
        let before = (world.portfolio("p").await, world.portfolio("pf_other").await, world.entity("e").await, events(&world.database));
        let refused = world.detach("p", "e").await.unwrap_err();
        assert_seen!("refused_as_elsewhere", refused);
        assert_eq!(refused.http.unwrap_or(409), 409);
        assert_eq!((world.portfolio("p").await, world.portfolio("pf_other").await, world.entity("e").await, events(&world.database)), before);
    }

    async fn members_are_in_the_order_in_which_they_came(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["a", "b", "c"]).await;
        for entity in ["c", "a", "b"] {
            world.attach("p", entity).await.unwrap();
        }
        assert_eq!(world.portfolio("p").await["entity_ids"], json!(["c", "a", "b"]));
        world.detach("p", "c").await.unwrap();
        let back = world.attach("p", "c").await.unwrap();
        assert_eq!(back.json["entity_ids"], json!(["a", "b", "c"]), "who comes back is the last");
    }

    async fn a_thousand_members_are_shown_and_all_are_counted(world: &World) {
        world.portfolios(&["p"]).await;
        let ids: Vec<String> = (0..1005).map(|n| format!("e{:04}", (n * 7) % 1005)).collect();
        let entities: Vec<Value> = ids.iter().map(|id| json!({"entity_id": id, "type": "T", "portfolio_id": "p"})).collect();
        world.client.import(&entities).await.unwrap();
        let shown = world.portfolio("p").await;
        assert_eq!(shown["entity_count"], 1005);
        assert_eq!(shown["entity_ids"], json!(ids[..1000]), "in the order of the file");
        let detached = world.detach("p", &ids[0]).await.unwrap();
        assert_eq!((&detached.json["entity_count"], &detached.json["entity_ids"]), (&json!(1004), &json!(ids[1..1001])));
        world.entities(&["late"]).await;
        let attached = world.attach("p", "late").await.unwrap();
        assert_eq!((&attached.json["entity_count"], &attached.json["entity_ids"]), (&json!(1005), &json!(ids[1..1001])));
    }

    async fn an_entity_that_is_being_offboarded_joins_no_portfolio(world: &World) {
        world.portfolios(&["p", "q"]).await;
        world.entities(&["e", "f"]).await;
        world.attach("p", "e").await.unwrap();
        let mut requests = Vec::new();
        for entity in ["e", "f"] {
            let asked = json!({"entity_id": entity, "grace_period": "3600s"});
            requests.push(world.call("OffboardingService/RequestOffboarding", asked).await.unwrap().json["id"].clone());
        }
        for entity in ["e", "f"] {
            let refused = world.attach("q", entity).await.unwrap_err();
            assert_seen!(format!("refused_{entity}_that_is_leaving"), refused);
        }
        assert_eq!(membership(&world.portfolio("q").await), (json!([]), 0, 1));
        assert_eq!(world.attach("p", "e").await.unwrap().json["entity_ids"], json!(["e"]), "it is a member already, so nothing is asked of it");
        world.call("OffboardingService/CancelOffboardingRequest", json!({"offboarding_request_id": requests[0]})).await.unwrap();
        world.attach("q", "e").await.unwrap();
        assert_eq!(world.entity("e").await["portfolio_id"], "q");
    }
}
