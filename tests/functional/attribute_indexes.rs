//! Declared attributes: how an index is built, what it is used for, that it changes no response, and how it is dropped.

use crate::entities::events;
use crate::kit::*;

/// Declares an attribute and waits until its index is in use.
pub async fn indexed(world: &World, attribute: &str) -> Answer {
    world
        .call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": attribute}))
        .await
        .unwrap_or_else(|failure| panic!("{failure:#?}"));
    let is_ready = |index: &Value| index["state"] == "ready";
    world
        .call_until(
            "AttributeIndexService/GetAttributeIndex",
            json!({"attribute": attribute}),
            is_ready,
        )
        .await
}

/// Makes entities by SQL, as they were before the attribute was declared: the ids are `e-000001` and so on.
pub fn given(database: &Database, count: i64, attributes: &str) {
    database.sql(&format!(
        "INSERT INTO entity (realm_id, id, incarnation, type, state, attributes, created_at, updated_at)
         SELECT r.id, 'e-' || lpad(n::text, 6, '0'), gen_random_uuid(), 'T', 'active', {attributes}, now() - interval '1 day', now() - interval '1 day'
         FROM realm r, generate_series(1, {count}) n WHERE org = 'acme' AND mode = 'test'"
    ));
}

/// The index of the attribute `name`, which is a text wherever there is one, has a row for each entity that has it, and no other.
#[track_caller]
pub fn assert_exact(database: &Database) {
    let rows = "SELECT realm_id, value, entity_id FROM attribute_index WHERE attribute = 'name'";
    let due = "SELECT realm_id, 't' || lower(attributes ->> 'name'), id FROM entity WHERE attributes ? 'name'";
    let reported =
        |rows: &str| database.text(&format!("SELECT string_agg(r::text, ' ') FROM ({rows}) r"));
    assert_eq!(reported(&format!("({due}) EXCEPT ({rows})")), None, "missing rows");
    assert_eq!(reported(&format!("({rows}) EXCEPT ({due})")), None, "stale rows");
}

/// The matches of a filter: ids, in one page.
pub async fn found(world: &World, filter: &str) -> Vec<String> {
    let page = world
        .call("EntityService/ListEntities", json!({"filter": filter, "page_size": 1000}))
        .await;
    let page = page.unwrap_or_else(|failure| panic!("{filter}: {failure:#?}"));
    page.get("entities")
        .as_array()
        .unwrap()
        .iter()
        .map(|entity| entity["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn create(world: &World, id: &str, attributes: Value) {
    let entity = json!({"entity_id": id, "type": "T", "attributes": attributes});
    world
        .call("EntityService/CreateEntity", json!({"entity": entity}))
        .await
        .unwrap_or_else(|failure| panic!("{id}: {failure:#?}"));
}

/// The values that the rows of an entity have.
fn rows(database: &Database, entity: &str) -> String {
    database
        .text(&format!(
            "SELECT string_agg(attribute || '=' || value, ' ' ORDER BY attribute, value) FROM attribute_index WHERE entity_id = '{entity}'"
        ))
        .unwrap_or_default()
}

scenario! {
    async fn an_entity_with_very_many_values_has_one_row_and_is_found_by_each(world: &World) {
        indexed(world, "codes").await;
        let (few, many): (Vec<_>, Vec<_>) = ((0..1_000).map(|n| json!(format!("c{n}"))).collect(), (0..100_000).map(|n| json!(format!("c{n}"))).collect());
        create(world, "few", json!({"codes": few})).await;
        create(world, "many", json!({"codes": many})).await;
        create(world, "none", json!({"codes": "x"})).await;
        let count = |id: &str| world.database.index_rows_of_entity(id);
        assert_eq!((count("few"), count("many"), count("none")), (1_000, 1, 1));
        for (filter, expected) in [
            ("equals(attributes.codes, c7)", vec!["few", "many"]),
            ("in(attributes.codes, c99999, x)", vec!["many", "none"]),
            ("startsWith(attributes.codes, c5000)", vec!["many"]),
            ("gte(attributes.codes, d)", vec!["none"]),
            ("equals(attributes.codes, nothing)", vec![]),
        ] {
            assert_eq!(found(world, filter).await, expected, "{filter}");
        }
        let less = json!({"entity_id": "many", "entity": {"attributes": {"codes": ["a", "b"]}}});
        world.call("EntityService/UpdateEntity", less).await.unwrap();
        assert_eq!(rows(&world.database, "many"), "codes=ta codes=tb");
    }

    async fn an_index_is_declared_built_listed_and_dropped(world: &World) {
        given(&world.database, 30, "jsonb_build_object('name', 'n' || n % 10, 'Address', jsonb_build_object('City', 'Bonn'))");
        let created = world.call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": "'Address'.City"})).await.unwrap();
        assert_eq!((created.get("attribute"), created.get("state")), (&json!("Address.City"), &json!("building")));
        if let Some(http) = created.http {
            assert_eq!((http, created.header("location"), created.header("retry-after")), (202, Some("/v1/attribute-indexes/Address.City"), Some("1")));
        }
        let ready = indexed(world, "name").await;
        assert_eq!((ready.get("entities_done"), ready.get("entities_total"), ready.get("rows_written")), (&json!(30), &json!(30), &json!(30)));
        assert!(ready.get("ready_at").is_number() && ready.get("created_at").is_number() && ready.get("error").is_null(), "{ready:#?}");
        world.call_until("AttributeIndexService/GetAttributeIndex", json!({"attribute": "Address.City"}), |index| index["state"] == "ready").await;
        assert_exact(&world.database);

        let first = world.call("AttributeIndexService/ListAttributeIndexes", json!({"page_size": 1})).await.unwrap();
        assert_eq!(first.get("attribute_indexes")[0]["attribute"], "Address.City");
        let next = json!({"page_size": 1, "page_token": first.get("next_page_token")});
        let second = world.call("AttributeIndexService/ListAttributeIndexes", next).await.unwrap();
        assert_eq!((second.get("attribute_indexes"), second.get("next_page_token")), (&json!([ready.json]), &json!("")));

        let dropped = world.call("AttributeIndexService/DeleteAttributeIndex", json!({"attribute": "name"})).await.unwrap();
        assert_eq!((dropped.get("state"), dropped.http.unwrap_or(202)), (&json!("dropping"), 202));
        until("it was removed", || world.database.rows("attribute_declaration") == 1).await;
        assert_eq!(world.database.index_rows_of("name"), 0);
        assert_eq!(world.database.rows("attribute_index"), 30, "the other index stays");
        for method in ["GetAttributeIndex", "DeleteAttributeIndex"] {
            let refused = world.call(&format!("AttributeIndexService/{method}"), json!({"attribute": "name"})).await.unwrap_err();
            assert_eq!(refused.code, "not_found", "{method}");
        }
        let mut reported: Vec<String> = events(&world.database).lines().map(str::to_owned).collect();
        reported.sort();
        let expected = ["created Address.City", "created name", "deleted name", "ready Address.City", "ready name"];
        assert_eq!(reported, expected.map(|event| format!("attribute_index.{event}")));
        indexed(world, "name").await;
    }

    async fn a_declaration_that_cannot_be_is_refused_and_changes_nothing(world: &World) {
        for (attribute, code) in [("", "required"), ("a b", "invalid"), ("a) or exists(attributes.b", "invalid"), ("a..b", "invalid"), ("x\0", "too_long")] {
            // By REST a null character is refused before; the path of a method has none of the empty name.
            let refused = world.call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": attribute})).await.unwrap_err();
            assert_eq!(refused.code, "validation_failed", "{attribute:?}");
            assert_eq!((refused.faults[0].field.as_str(), refused.faults[0].code.as_str()), ("attribute", code), "{attribute:?}");
        }
        let long = world.call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": "a".repeat(257)})).await.unwrap_err();
        assert_eq!(long.faults[0].code, "too_long");
        for n in 0..16 {
            world.call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": format!("a{n}")})).await.unwrap();
        }
        let twice = world.call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": "'a3'"})).await.unwrap_err();
        assert_eq!((twice.code.as_str(), twice.http.unwrap_or(409)), ("already_exists", 409));
        let full = world.call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": "b"})).await.unwrap_err();
        assert_eq!((full.code.as_str(), &full.members["limit"]), ("limit_reached", &json!(16)));
        assert_eq!(world.database.rows("attribute_declaration"), 16);
        let other = world.client("umbrella", "test", SCOPES);
        other.call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": "b"})).await.unwrap();
    }

    async fn a_name_with_other_characters_has_its_place_in_a_path(world: &World) {
        create(world, "e", json!({"First name": "Ada", "a/b": 1})).await;
        for (attribute, canonical) in [("'First name'", "'First name'"), ("'a/b'", "a/b")] {
            let ready = indexed(world, attribute).await;
            assert_eq!((ready.get("attribute"), ready.get("rows_written")), (&json!(canonical), &json!(1)));
        }
        assert_eq!(found(world, "equals(attributes.'First name', ADA) and equals(attributes.'a/b', 1)").await, ["e"]);
    }

    async fn whoever_writes_an_entity_writes_its_rows(world: &World) {
        for attribute in ["name", "Address.City", "n"] {
            indexed(world, attribute).await;
        }
        create(world, "one", json!({"name": "Ada", "Address": [{"City": "Köln"}, {"City": ["BONN", "Bonn"]}, {"City": ""}], "n": -2.5})).await;
        assert_eq!(rows(&world.database, "one"), "Address.City=t Address.City=tbonn Address.City=tköln n=n3ffbffffffffffff name=tada");
        let batch = ["two", "three"].map(|id| json!({"entity": {"entity_id": id, "type": "T", "attributes": {"name": id, "other": 1}}}));
        world.call("EntityService/BatchCreateEntities", json!({"requests": batch})).await.unwrap();
        let line = |id: &str, name: &str| json!({"entity_id": id, "type": "T", "attributes": {"name": name}});
        let lines = [line("four", "4"), line("one", "1"), line("four", "4"), line("four", "IV")];
        world.client.import(&lines).await.unwrap();
        assert_exact(&world.database);
        assert_eq!(world.database.index_rows("one", "name"), 1, "a line that was not new changes nothing");

        let update = async |attributes: Value, replace: bool| {
            let entity = json!({"attributes": attributes, "replace_attributes": replace});
            world.call("EntityService/UpdateEntity", json!({"entity_id": "one", "entity": entity})).await.unwrap();
            rows(&world.database, "one")
        };
        assert_eq!(update(json!({"name": "Bea", "n": [true, "x", null, {"y": 1}]}), false).await, "Address.City=t Address.City=tbonn Address.City=tköln n=ttrue n=tx name=tbea");
        assert_eq!(update(json!({"Address": {"City": "Bonn"}, "n": null}), false).await, "Address.City=tbonn name=tbea");
        assert_eq!(update(json!({"other": "z"}), true).await, "");
        world.call("RemovalService/RemoveEntity", json!({"entity_id": "two"})).await.unwrap();
        until("an entity is removed", || world.database.rows("tombstone") == 1).await;
        assert_eq!(rows(&world.database, "two"), "");
        assert_exact(&world.database);
    }

    async fn a_list_has_the_same_entities_with_an_index_and_without(world: &World) {
        let names = [
            json!("Ada"), json!("ADA"), json!("ada lovelace"), json!("É"), json!("é"), json!("ς"), json!("10"), json!("10.0"), json!(10), json!(10.5), json!(-1),
            json!(1e21), json!(0), json!(true), json!("true"), json!(""), json!(null), json!({}), json!({"First": "Ada"}), json!(["x", "Ada"]), json!([["Ada"], 10]),
            json!("x".repeat(300)), json!("\u{10ffff}"), json!("a'b\\c"), json!([]),
        ];
        for (n, name) in names.iter().enumerate() {
            create(world, &format!("e{n:02}"), json!({"name": name, "half": n % 2})).await;
        }
        create(world, "none", json!({})).await;
        let long = format!("startsWith(attributes.name, '{}')", "X".repeat(256));
        let filters = [
            "equals(attributes.name, ada)", "equalsCaseSensitive(attributes.name, ADA)", "equals(attributes.name, É)", "equals(attributes.name, Σ)",
            "equals(attributes.name, 10)", "equals(attributes.name, '1e1')", "equals(attributes.name, '')", "equals(attributes.name, TRUE)",
            "in(attributes.name, 'ada', 10, 'x')", "in(attributes.name, '1e21,-1,0')", "startsWith(attributes.name, ad)", "startsWith(attributes.name, 1)",
            "startsWith(attributes.name, '-')", "startsWith(attributes.name, '\u{10ffff}')", "startsWith(attributes.name, t)", "equals(attributes.name.First, ada)",
            "equals(attributes.name, ada) and equals(attributes.half, 0)", "equals(attributes.name, ada) or equals(attributes.half, 1)",
            "equals(attributes.name, ada) or startsWith(attributes.name, 10)", "equals(attributes.name, nobody)", "not equals(attributes.name, ada)",
            "exists(attributes.name)", "missing(attributes.name)", "equals(attributes.name, ada) and not equals(attributes.half, 0)", "equals(attributes.name, 'a\\'b\\\\c')",
            long.as_str(),
        ];
        let mut before = Vec::new();
        for filter in filters {
            before.push(found(world, filter).await);
        }
        assert!(before.iter().filter(|found| !found.is_empty()).count() > 20);
        for attribute in ["name", "half", "name.First"] {
            indexed(world, attribute).await;
            for (filter, before) in filters.iter().zip(&before) {
                assert_eq!(&found(world, filter).await, before, "{filter}, with an index of {attribute}");
            }
        }
    }

    async fn a_page_by_an_index_is_in_order_and_leads_to_the_next(world: &World) {
        given(&world.database, 50, "jsonb_build_object('name', 'n' || n % 2)");
        world.database.sql("UPDATE entity SET created_at = created_at - make_interval(secs => right(id, 6)::int * 7 % 50)");
        let mut expected = Vec::new();
        for step in 0..2 {
            for order in ["id", "id desc", "created_at", "created_at desc"] {
                let (mut seen, mut request) = (Vec::new(), json!({"filter": "equals(attributes.name, n1)", "order_by": order, "page_size": 7}));
                loop {
                    let page = world.call("EntityService/ListEntities", request.clone()).await.unwrap();
                    seen.extend(page.get("entities").as_array().unwrap().iter().map(|entity| entity["id"].clone()));
                    request["page_token"] = page.get("next_page_token").clone();
                    if request["page_token"] == "" {
                        break;
                    }
                }
                assert_eq!(seen.len(), 25, "{order}");
                if step == 0 { expected.push(seen) } else { assert_eq!(seen, expected.remove(0), "{order}") }
            }
            if step == 0 {
                indexed(world, "name").await;
            }
        }
    }

    /// Rows that an index lacks are not found by it: so an index that is in use can be distinguished from one that is not.
    async fn only_an_index_that_is_ready_is_used(world: &World) {
        given(&world.database, 20, "jsonb_build_object('name', 'n' || n % 2)");
        let blind = |database: &Database| database.sql("DELETE FROM attribute_index WHERE entity_id = 'e-000001'");
        indexed(world, "name").await;
        assert_eq!(found(world, "equals(attributes.name, n1)").await.len(), 10);
        blind(&world.database);
        assert_eq!(found(world, "equals(attributes.name, n1)").await.len(), 9);
        assert_eq!(found(world, "exists(attributes.name)").await.len(), 20);
        let reader = world.database.connection();
        let mut reader = reader;
        diesel::connection::SimpleConnection::batch_execute(&mut reader, "BEGIN; SELECT 1").unwrap();
        world.call("AttributeIndexService/DeleteAttributeIndex", json!({"attribute": "name"})).await.unwrap();
        assert_eq!(found(world, "equals(attributes.name, n1)").await.len(), 10);
        until("those who may use it are waited for", || {
            world.database.retiring_indexes_that_wait() == 1
        }).await;
        assert_eq!(world.database.rows("attribute_index"), 19);
        let again = world.call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": "name"})).await.unwrap_err();
        assert_eq!(again.code, "already_exists");
        diesel::connection::SimpleConnection::batch_execute(&mut reader, "COMMIT").unwrap();
        until("it was removed", || world.database.rows("attribute_declaration") == 0).await;
        assert_eq!(world.database.rows("attribute_index"), 0);
    }
}
