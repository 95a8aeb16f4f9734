//! Indexes over attributes that do not say what the entities say: found, reported, and set right.

use std::collections::BTreeMap;

use crate::consistency::reported;
use crate::given::{Many, text};
use crate::kit::*;

async fn given_index(world: &World, attribute: &str) {
    world.done("AttributeIndexService/CreateAttributeIndex", json!({"attribute": attribute})).await;
    let ready = |index: &Value| index["state"] == "ready";
    world
        .call_until(
            "AttributeIndexService/GetAttributeIndex",
            json!({"attribute": attribute}),
            ready,
        )
        .await;
}

async fn found(world: &World, filter: &str) -> Vec<String> {
    let page = world
        .done("EntityService/ListEntities", json!({"filter": filter, "page_size": 1000}))
        .await;
    page.get("entities").as_array().unwrap().iter().map(|entity| text(&entity["id"])).collect()
}

scenario! {
    async fn an_index_that_does_not_say_what_the_entities_say_is_set_right(world: &World) {
        let database = &world.database;
        database.given_many(Many { prefix: "e", count: 20, dependents: 0, portfolio: None });
        given_index(world, "n").await;
        world.assert_clean().await;
        let realm = database.realm();
        database.sql(&format!(
            "DELETE FROM attribute_index WHERE entity_id = 'e-000003';
             UPDATE attribute_index SET entity_id = 'e-000005' WHERE entity_id = 'e-000004';
             INSERT INTO attribute_index (realm_id, attribute, value, entity_id)
             VALUES ({realm}, 'n', 'tghost', 'ghost'), ({realm}, 'undeclared', 'tx', 'e-000006')"
        ));
        assert_eq!(found(world, "equals(attributes.n, 3)").await, Vec::<String>::new(), "what is not indexed is not found");
        let subjects = ["e-000003", "e-000004", "e-000005", "e-000006", "ghost"].map(|id| format!("attribute_index {id}"));

        let report = world.check(json!({"fix": false})).await;
        assert_eq!(reported(&report), (json!({"attribute_index": 5}), 0));
        assert_eq!(world.findings(&report).await, subjects.clone().map(|subject| (subject, false)).into_iter().collect::<BTreeMap<_, _>>());
        assert_eq!(found(world, "equals(attributes.n, 3)").await, Vec::<String>::new());

        let repair = world.check(json!({})).await;
        assert_eq!(reported(&repair), (json!({"attribute_index": 5}), 5));
        assert_eq!(repair.get("status"), "completed");
        for n in [3, 4, 5] {
            assert_eq!(found(world, &format!("equals(attributes.n, {n})")).await, [format!("e-{n:06}")]);
        }
        assert_eq!(database.rows("attribute_index"), 20);
        assert_eq!(database.text("SELECT string_agg(id, ' ' ORDER BY id) FROM entity WHERE version > 1").unwrap(), "e-000003 e-000004");
        world.assert_clean().await;
    }
}

/// A soft-deleted entity keeps its rows, and data that changes all the time is consistent at every moment.
#[tokio::test]
async fn an_index_in_use_has_no_findings_while_entities_change() {
    let world = World::start_with(Protocol::Grpc, &["--poll-interval", "0.05"]).await;
    world.database.given_many(Many { prefix: "e", count: 500, dependents: 0, portfolio: None });
    given_index(&world, "n").await;
    world.bulk_delete(json!({"mode": "soft", "uris": ["e-000001"]})).await;
    let client = world.through(Protocol::Grpc);
    let changes = async {
        for n in 0..150 {
            let id = format!("e-{:06}", 2 + n % 40);
            let _ = client
                .call(
                    "EntityService/UpdateEntity",
                    json!({"entity_id": id, "entity": {"attributes": {"n": n}}}),
                )
                .await;
            if n % 10 == 0 {
                let _ = client
                    .call(
                        "RemovalService/RemoveEntity",
                        json!({"entity_id": format!("e-{:06}", 100 + n)}),
                    )
                    .await;
            }
        }
    };
    let checks = async {
        for round in 0..4 {
            assert_eq!(reported(&world.check(json!({"fix": round % 2 == 0})).await).0, json!({}));
        }
    };
    tokio::join!(changes, checks);
    world.assert_clean().await;
}
