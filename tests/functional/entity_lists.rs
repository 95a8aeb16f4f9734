//! Lists of entities: what is on them, in which order, and that pages stay right while rows are added and removed.

use crate::kit::*;

/// Ids and, where it is not `now()`, how many seconds ago they were created.
fn given(world: &World, entities: &[(&str, i64)]) {
    for (id, age) in entities {
        world.database.sql(&format!(
            "INSERT INTO entity (realm_id, id, incarnation, type, state, attributes, created_at)
             SELECT id, '{id}', gen_random_uuid(), 'T', 'active', jsonb_build_object('Age', {age}), timestamptz '2026-01-01' - interval '{age} s'
             FROM realm WHERE org = 'acme' AND mode = 'test'"
        ));
    }
}

fn ids(page: &Answer) -> Vec<String> {
    page.get("entities")
        .as_array()
        .unwrap()
        .iter()
        .map(|entity| entity["id"].as_str().unwrap().to_owned())
        .collect()
}

fn token(page: &Answer) -> String {
    page.get("next_page_token").as_str().unwrap().to_owned()
}

async fn list(world: &World, request: Value) -> Answer {
    world
        .call("EntityService/ListEntities", request)
        .await
        .unwrap_or_else(|failure| panic!("{failure:#?}"))
}

/// All pages of a list, and on how many they were.
async fn all(world: &World, mut request: Value) -> (Vec<String>, usize) {
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let page = list(world, request.clone()).await;
        seen.extend(ids(&page));
        pages += 1;
        request["page_token"] = json!(token(&page));
        if request["page_token"] == "" {
            return (seen, pages);
        }
    }
}

scenario! {
    async fn a_list_shows_what_is_visible_in_full(world: &World) {
        assert_eq!(list(world, json!({})).await.json, json!({"entities": [], "next_page_token": "", "warnings": []}));
        let entity = json!({"entity_id": "e", "type": "T", "attributes": {"a": [1]}, "components": ["0190a1b2-0000-7000-8000-000000000001"]});
        world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
        given(world, &[("deleted", 1)]);
        world.database.sql("UPDATE entity SET deleted_at = now(), deleted_by = gen_random_uuid() WHERE id = 'deleted'");
        world.call("EntityService/PlaceHold", json!({"entity_id": "e", "reason": "audit"})).await.unwrap();
        let one = world.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
        assert_eq!(list(world, json!({})).await.get("entities"), &json!([one.json]));
        let theirs = world.client("umbrella", "test", SCOPES).call("EntityService/ListEntities", json!({})).await.unwrap();
        assert_eq!(theirs.get("entities"), &json!([]), "other realms are other worlds");
    }

    async fn every_order_goes_through_all_pages(world: &World) {
        given(world, &[("c", 3), ("a", 1), ("e", 2), ("b", 2), ("d", 2), ("B", 9)]);
        let orders = [
            ("", ["B", "a", "b", "c", "d", "e"]),
            ("id", ["B", "a", "b", "c", "d", "e"]),
            ("id desc", ["e", "d", "c", "b", "a", "B"]),
            ("created_at", ["B", "c", "b", "d", "e", "a"]),
            ("created_at desc", ["a", "e", "d", "b", "c", "B"]),
        ];
        for (order, expected) in orders {
            for (size, pages) in [(0, 1), (1, 6), (2, 3), (4, 2), (6, 1), (1_000, 1)] {
                let (seen, count) = all(world, json!({"order_by": order, "page_size": size})).await;
                assert_eq!((seen.as_slice(), count), (expected.map(str::to_owned).as_slice(), pages), "{order} by {size}");
            }
        }
    }

    async fn a_filter_chooses_what_is_on_every_page(world: &World) {
        let many: Vec<_> = (0..30).map(|n| (format!("e-{n:02}"), n)).collect();
        given(world, &many.iter().map(|(id, age)| (id.as_str(), *age)).collect::<Vec<_>>());
        let wanted = json!({"filter": "in(attributes.Age, 3, 14, 27) or equals(uri, 'entities/e-05')", "page_size": 2});
        assert_eq!(all(world, wanted.clone()).await, (["e-03", "e-05", "e-14", "e-27"].map(str::to_owned).to_vec(), 2));
        let mut latest = wanted;
        latest["order_by"] = json!("created_at desc");
        latest["page_size"] = json!(3);
        assert_eq!(all(world, latest).await.0, ["e-03", "e-05", "e-14", "e-27"].map(str::to_owned), "the youngest first");
        assert_eq!(all(world, json!({"filter": "equals(type, Other)"})).await, (Vec::new(), 1));
        let refused = world.call("EntityService/ListEntities", json!({"filter": "equals(LastName, x)"})).await.unwrap_err();
        assert_eq!((refused.code.as_str(), &refused.members["position"]), ("invalid_filter", &json!(7)));
    }

    async fn every_fault_of_a_list_is_reported_at_once(world: &World) {
        let request = json!({"page_size": 1_001, "page_token": "x", "order_by": "version", "filter": "x".repeat(70_000)});
        // By REST such a filter is longer than a URL may be.
        let request = if world.protocol == Protocol::Rest { json!({"page_size": 1_001, "page_token": "x", "order_by": "version"}) } else { request };
        let refused = world.call("EntityService/ListEntities", request).await.unwrap_err();
        let fields: Vec<_> = refused.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields[..3], ["page_size", "page_token", "order_by"], "{refused:#?}");
        assert_eq!(fields.get(3).copied().unwrap_or("filter"), "filter");
        assert!(refused.faults[2].description.contains("`created_at desc`"), "it says what is possible: {refused:#?}");
    }

    async fn a_token_opens_the_list_that_it_came_from_and_no_other(world: &World) {
        given(world, &[("a", 1), ("b", 2), ("c", 3)]);
        let request = json!({"filter": "exists(attributes.Age)", "order_by": "id desc", "page_size": 1});
        let token = token(&list(world, request.clone()).await);
        let with = |changes: Value| {
            let mut changed = request.clone();
            changed["page_token"] = json!(token);
            changed.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            changed
        };
        assert_eq!(ids(&list(world, with(json!({}))).await), ["b"]);
        assert_eq!(ids(&list(world, with(json!({"page_size": 2}))).await), ["b", "a"], "the size may change");
        let mut tampered = token.clone().into_bytes();
        let middle = tampered.len() / 2;
        tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
        let tampered = String::from_utf8(tampered).unwrap();
        let others = [
            with(json!({"filter": "missing(attributes.Nothing)"})),
            with(json!({"filter": ""})),
            with(json!({"order_by": "id"})),
            with(json!({"page_token": tampered})),
            with(json!({"page_token": &token[1..]})),
            with(json!({"page_token": format!("{token}A")})),
        ];
        for other in others {
            let refused = world.call("EntityService/ListEntities", other.clone()).await.expect_err(&other.to_string());
            assert_eq!((refused.code.as_str(), refused.faults[0].field.as_str()), ("validation_failed", "page_token"), "{other}");
            assert!(refused.http.is_none_or(|http| http == 400));
        }
        let stranger = world.client("umbrella", "test", SCOPES);
        let refused = stranger.call("EntityService/ListEntities", with(json!({}))).await.unwrap_err();
        assert_eq!(refused.faults[0].field, "page_token", "a token of another realm");
        let of_others = json!({"page_token": token, "page_size": 1});
        assert!(world.call("EntityService/ListTombstones", of_others).await.is_err(), "a token of another list");
    }

    async fn what_stays_is_on_exactly_one_page_whatever_comes_and_goes(world: &World) {
        for order in ["id", "id desc", "created_at", "created_at desc"] {
            world.database.sql("DELETE FROM entity");
            let many: Vec<_> = (0..40).map(|n| (format!("stays-{n:02}"), n / 3)).collect();
            given(world, &many.iter().map(|(id, age)| (id.as_str(), *age)).collect::<Vec<_>>());
            let mut request = json!({"order_by": order, "page_size": 4});
            let mut seen = Vec::new();
            for round in 0.. {
                let page = list(world, request.clone()).await;
                seen.extend(ids(&page));
                if token(&page).is_empty() {
                    break;
                }
                request["page_token"] = json!(token(&page));
                // Before, among and after the ids of the page; and the very entity that the page ended with is removed, one way or the
                // other.
                given(world, &[(&format!("a-{round}"), 100), (&format!("stays-{round:02}x"), round), (&format!("z-{round}"), -1)]);
                let last = seen.last().unwrap().clone();
                let away = if round % 2 == 0 { "DELETE FROM entity" } else { "UPDATE entity SET deleted_at = now(), deleted_by = incarnation" };
                world.database.sql(&format!("{away} WHERE id = '{last}'"));
                assert!(round < 100, "it has no end");
            }
            let mut once = seen.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), seen.len(), "{order}: nothing is seen twice");
            assert!(many.iter().all(|(id, _)| seen.contains(id)), "{order}: nothing that was there is missed");
        }
    }
}
