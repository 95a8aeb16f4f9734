//! Entities are kept as they were given, or refused with every reason.

use std::collections::BTreeSet;

use crate::kit::*;

fn type_of(name: &str) -> Value {
    json!(format!("configuration/entityTypes/{name}"))
}

/// The path of a fault in a new entity, as the listener spells it: by REST the entity is the body itself.
fn at(world: &World, path: &str) -> String {
    match world.protocol {
        Protocol::Grpc => format!("entity.{path}"),
        Protocol::Rest => path.to_owned(),
    }
}

fn fields(failure: &Failure) -> BTreeSet<String> {
    failure.faults.iter().map(|fault| fault.field.clone()).collect()
}

/// The rows of the event table, oldest first: `type subjects`, a line each.
pub fn events(database: &Database) -> String {
    let query = "SELECT string_agg(type || ' ' || array_to_string(subjects, ','), E'\\n' ORDER BY seq) FROM event";
    database.text(query).unwrap_or_default()
}

scenario! {
    async fn an_entity_is_created_with_all_that_it_has_and_found_again(world: &World) {
        let component = "0190a1b2-0000-7000-8000-000000000001";
        let entity = json!({
            "entity_id": "ent_1", "type": type_of("HCP"), "state": "onboarding", "attributes": {"LastName": "Ind", "Tags": ["a", 1, null, true]},
            "components": [component], "crosswalks": [{"system": "CRM", "value": 7}],
            "dependents": [
                {"kind": "assessment", "id": "a1", "data": {"score": 3}},
                {"kind": "assessment", "id": "a2"},
                {"kind": "task", "data": {"open": true}},
            ],
        });
        let created = world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
        assert_seen!("created_whole", created);
        assert_eq!(created.get("updated_at"), created.get("created_at"));
        if world.protocol == Protocol::Rest {
            assert_eq!((created.http, created.header("location")), (Some(201), Some("/v1/entities/ent_1")));
        }
        let found = world.call("EntityService/GetEntity", json!({"entity_id": "ent_1"})).await.unwrap();
        assert_eq!(found.json, created.json);

        let kept = world.database.dependents_with_ids_but_of("task");
        assert_eq!(kept, json!([["assessment", "a1", {"score": 3}], ["assessment", "a2", {}], ["task", "", {"open": true}]]));
        assert_eq!(world.database.crosswalks().as_deref(), Some(r#"[{"value": 7, "system": "CRM"}]"#));
        assert_eq!(world.database.dependents_with_an_id("task"), 1, "an id was made");
        assert_eq!(events(&world.database), "entity.created ent_1");
    }

    async fn an_id_is_made_where_none_is_given(world: &World) {
        let mut ids = BTreeSet::new();
        for _ in 0..2 {
            let created = world.call("EntityService/CreateEntity", json!({"entity": {"type": "T"}})).await.unwrap();
            assert_eq!(created.json["state"], "active", "the state where none is given");
            let id = created.json["id"].as_str().unwrap().to_owned();
            assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
            world.call("EntityService/GetEntity", json!({"entity_id": id})).await.unwrap();
            ids.insert(id);
        }
        assert_eq!(ids.len(), 2);
    }

    async fn every_fault_is_reported_at_once_and_nothing_is_created(world: &World) {
        let entity = json!({
            "entity_id": "a/b", "type": "", "state": "offboarding", "attributes": {"nul": "\u{0}"},
            "components": ["0190a1b2-0000-7000-8000-000000000001", "x"], "crosswalks": [{}, {"\u{0}": 1}], "portfolio_id": "p q",
            "dependents": [{"kind": "Task", "id": "t"}, {"kind": "task", "id": "t"}, {"kind": "task", "id": "t"}, {"kind": "", "id": "ü"}],
        });
        let refused = world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap_err();
        assert_eq!((refused.code.as_str(), refused.faults.len()), ("validation_failed", 11), "{refused:#?}");
        // By REST the place within an object is known.
        let (attribute, crosswalk) = if world.protocol == Protocol::Rest { ("attributes.nul", "crosswalks[1].\u{fffd}") } else { ("attributes", "crosswalks[1]") };
        let expected = [
            "entity_id", "type", "state", attribute, "components[1]", crosswalk, "portfolio_id", "dependents[0].kind",
            "dependents[2].id", "dependents[3].kind", "dependents[3].id",
        ];
        assert_eq!(fields(&refused), expected.iter().map(|path| at(world, path)).collect());
        let kind = |path: &str| refused.faults.iter().find(|fault| fault.field == at(world, path)).unwrap().code.clone();
        assert_eq!((kind("type"), kind("entity_id"), kind("dependents[2].id")), ("required".into(), "invalid".into(), "duplicate".into()));
        assert!(refused.faults.iter().all(|fault| !fault.description.is_empty()));
        assert_eq!((world.database.rows("entity"), world.database.rows("dependent")), (0, 0));
        assert_eq!(events(&world.database), "");

        let nothing = world.call("EntityService/CreateEntity", json!({})).await.unwrap_err();
        assert_eq!(nothing.code, "validation_failed");
        assert_eq!(nothing.faults.len(), 1, "{nothing:#?}");
    }

    async fn an_id_that_is_taken_is_refused_and_what_has_it_stays(world: &World) {
        world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "First"}})).await.unwrap();
        let again = json!({"entity": {"entity_id": "e", "type": "Second", "dependents": [{"kind": "task"}]}});
        let refused = world.call("EntityService/CreateEntity", again).await.unwrap_err();
        assert_seen!("refused_as_taken", refused);
        let found = world.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
        assert_seen!("what_has_the_id", found);
        assert_eq!(world.database.rows("dependent"), 0);
        assert_eq!(events(&world.database), "entity.created e");
    }

    async fn an_entity_is_born_into_a_portfolio_that_is_there(world: &World) {
        let entity = json!({"entity": {"entity_id": "e", "type": "T", "portfolio_id": "p"}});
        let refused = world.call("EntityService/CreateEntity", entity.clone()).await.unwrap_err();
        assert_seen!("refused_without_portfolio", refused);
        assert_eq!(world.database.rows("entity"), 0);

        world.call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "Fund"})).await.unwrap();
        let created = world.call("EntityService/CreateEntity", entity).await.unwrap();
        assert_seen!("born_into_a_portfolio", created);
        let portfolio = world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await.unwrap();
        assert_seen!("portfolio_it_was_born_into", portfolio);
        assert_eq!(events(&world.database), "portfolio.created p\nentity.created e\nportfolio.entity_attached p");
    }

    async fn untidy_text_comes_back_as_it_was(world: &World) {
        let untidy = json!({
            "": "", " ": "\t\r\n", "a.b": "e\u{301} is not é", "\"\\/": "\u{1}\u{1f}\u{7f}\u{85}\u{2028}\u{feff}", "İıß": "\u{202e}olleh",
            "👩‍👩‍👧": ["\u{10ffff}", "\u{d7ff}\u{e000}"], "__proto__": {"constructor": null}, "long": "ü".repeat(70_000),
        });
        let entity = json!({"entity": {"entity_id": "~._-", "type": "Ünïcode/\u{1F408}\u{200d}", "attributes": untidy}});
        world.call("EntityService/CreateEntity", entity.clone()).await.unwrap();
        let found = world.call("EntityService/GetEntity", json!({"entity_id": "~._-"})).await.unwrap();
        assert_eq!(found.json["attributes"], untidy);
        assert_eq!(found.json["type"], entity["entity"]["type"]);
    }

    async fn attributes_may_be_as_deep_as_they_say_and_no_deeper(world: &World) {
        let nested = |levels: usize| (1..levels).fold(json!({"end": 1}), |inner, level| if level % 2 == 0 { json!({"a": inner}) } else { json!({"b": inner}) });
        let create = async |id: &str, attributes: Value| {
            world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": id, "type": "T", "attributes": attributes}})).await
        };
        let created = create("deep", nested(32)).await.unwrap();
        assert_eq!(created.json["attributes"], nested(32));
        let refused = create("deeper", nested(33)).await.unwrap_err();
        assert_eq!((refused.code.as_str(), fields(&refused)), ("validation_failed", BTreeSet::from([at(world, "attributes")])), "{refused:#?}");
        // The generated client for gRPC makes none that is deeper.
        let deepest = if world.protocol == Protocol::Rest { 120 } else { 33 };
        for levels in 33..=deepest {
            let refused = create("deeper", nested(levels)).await.unwrap_err();
            let faults: Vec<_> = refused.faults.iter().map(|fault| (fault.field.clone(), fault.code.as_str())).collect();
            assert_eq!(faults, [(at(world, "attributes"), "too_deep")], "{levels}: {refused:#?}");
            assert!(refused.faults[0].description.contains("32"), "{refused:#?}");
        }
        let wide: Value = (0..2000).map(|n| (format!("k{n}"), json!([[n], {"n": n}]))).collect::<serde_json::Map<_, _>>().into();
        assert_eq!(create("wide", wide.clone()).await.unwrap().json["attributes"], wide);
    }

    async fn what_is_larger_than_a_limit_is_refused_by_name(world: &World) {
        let refused_fields = async |entity: Value| {
            fields(&world.call("EntityService/CreateEntity", json!({ "entity": entity })).await.unwrap_err())
        };
        // An object is not read beyond its limit, which by REST is a fault of the form and reported before those that the service finds.
        let large = json!({"type": "t", "attributes": {"a": "x".repeat(1 << 20)}});
        assert_eq!(refused_fields(large).await, BTreeSet::from([at(world, "attributes")]));
        let many = json!({
            "type": "t".repeat(257), "components": vec!["0190a1b2-0000-7000-8000-000000000001"; 1001], "crosswalks": vec![json!({}); 1001],
        });
        assert_eq!(refused_fields(many).await, ["type", "components", "crosswalks"].iter().map(|path| at(world, path)).collect());
        let longest = json!({"entity": {"entity_id": "i".repeat(128), "type": "ü".repeat(256)}});
        world.call("EntityService/CreateEntity", longest).await.unwrap();
    }

    async fn integers_stay_exact_and_are_written_as_such(world: &World) {
        let numbers = json!({"n": [0, 1, -1, 9_007_199_254_740_991_i64, -9_007_199_254_740_991_i64, 0.1, -2.5, 1e300, 5e-324]});
        world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T", "attributes": numbers}})).await.unwrap();
        let stored = world.database.attribute("n").unwrap();
        assert!(stored.starts_with("[0, 1, -1, 9007199254740991, -9007199254740991, 0.1, -2.5, 1"), "{stored}");
        let found = world.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
        assert_eq!(found.json["attributes"], numbers);
        let bearer = format!("Bearer {}", world.key.secret);
        let reply = http(world.server.addresses.http, "GET", "/v1/entities/e", &[("authorization", bearer.as_str())], "").await;
        assert!(reply.text().contains("[0,1,-1,9007199254740991,-9007199254740991,0.1,-2.5,1e300,5e-324]"), "{}", reply.text());
    }

    async fn a_missing_entity_is_not_found_by_its_name(world: &World) {
        let missing = world.call("EntityService/GetEntity", json!({"entity_id": "ent_Nq3KcAbc"})).await.unwrap_err();
        assert_seen!("missing", missing);
        let impossible = world.call("EntityService/GetEntity", json!({"entity_id": "a b"})).await.unwrap_err();
        assert_seen!("impossible", impossible);
    }
}
