//! A bulk delete whose filter an index can serve takes the candidates one by one, and deletes what it would delete without.

use diesel::connection::SimpleConnection;

use crate::given::{Account, Many};
use crate::kit::*;

async fn indexed(world: &World, attribute: &str) {
    world.done("AttributeIndexService/CreateAttributeIndex", json!({"attribute": attribute})).await;
    let is_ready = |index: &Value| index["state"] == "ready";
    world
        .call_until(
            "AttributeIndexService/GetAttributeIndex",
            json!({"attribute": attribute}),
            is_ready,
        )
        .await;
}

/// Entities of which every tenth has the name `few`, and their names as an index.
async fn given_names(world: &World, count: i64) {
    world.database.given_many(Many { prefix: "e", count, dependents: 1, portfolio: None });
    world.database.sql("UPDATE entity SET attributes = attributes || jsonb_build_object('name', CASE WHEN (attributes ->> 'n')::int % 10 = 0 THEN 'Few' ELSE 'Many' END)");
    indexed(world, "name").await;
}

fn few(mode: &str) -> Value {
    json!({"mode": mode, "spec": {"objects": {"filter": "equals(attributes.name, few) and exists(attributes.n)", "exclude_list": ["e-000020"]}}})
}

#[tokio::test]
async fn what_is_deleted_by_an_index_is_what_the_filter_says() {
    for mode in ["soft", "hard"] {
        let world = World::start_with(Protocol::Rest, &["--bulk-chunk-size", "7"]).await;
        given_names(&world, 500).await;
        // The index knows the name; the main row decides on the rest, at the moment of the deletion.
        world.database.sql("UPDATE entity SET attributes = attributes - 'n' WHERE id = 'e-000030'");
        world.database.hold("e-000040");
        let task = world.bulk_delete(few(mode)).await;
        let expected = Account { matched: 49, processed: 47, failed: 1, excluded: 1, skipped: 0 };
        assert_eq!(Account::of(&task), expected, "{mode}");
        assert_eq!(task.get("current_state")["number_of_matched_objects"], 49);
        let left = world
            .database
            .rows("entity WHERE attributes ->> 'name' = 'Few' AND deleted_at IS NULL");
        assert_eq!(
            (
                left,
                world
                    .database
                    .rows("entity WHERE attributes ->> 'name' = 'Many' AND deleted_at IS NULL")
            ),
            (3, 450)
        );
        let rows = world.database.rows("attribute_index WHERE value = 'tfew'");
        assert_eq!(rows, if mode == "hard" { 3 } else { 50 }, "{mode}");
        world.database.assert_sound();
    }
}

/// Rows that an index lacks are not found by it: so an index that is in use can be distinguished from one that is not.
#[tokio::test]
async fn an_index_is_used_where_few_may_match() {
    let world = World::start_with(Protocol::Grpc, &["--bulk-chunk-size", "7"]).await;
    given_names(&world, 500).await;
    world.database.sql("DELETE FROM attribute_index WHERE entity_id = 'e-000100'");
    assert_eq!(Account::of(&world.bulk_delete(few("soft")).await).matched, 49);
    assert!(world.sees("e-000100").await);
    // A soft delete keeps its rows, so that a hard one finds what was soft-deleted.
    assert_eq!(Account::of(&world.bulk_delete(few("hard")).await).matched, 49);
    let walked = json!({"mode": "hard", "spec": {"objects": {"filter": "not equals(attributes.name, many)", "exclude_list": ["e-000020"]}}});
    assert_eq!(Account::of(&world.bulk_delete(walked).await).processed, 1);
    assert!(!world.sees("e-000100").await);
}

#[tokio::test]
async fn an_index_that_is_dropped_while_a_task_goes_by_it_costs_no_match() {
    let world =
        World::start_with(Protocol::Grpc, &["--bulk-chunk-size", "5", "--db-lock-timeout", "30"])
            .await;
    given_names(&world, 500).await;
    let mut holder = world.database.connection();
    holder.batch_execute("BEGIN; SELECT FROM entity WHERE id = 'e-000200' FOR UPDATE").unwrap();
    let task = world.schedule(few("hard")).await;
    until("a chunk waits", || world.database.waiting_for_locks() == 1).await;
    world.done("AttributeIndexService/DeleteAttributeIndex", json!({"attribute": "name"})).await;
    until("the index waits for the chunk", || {
        world
            .database
            .rows("attribute_declaration WHERE phase = 'retiring' AND cardinality(waits_for) > 0")
            == 1
    })
    .await;
    assert!(
        world.database.rows("attribute_index WHERE value = 'tfew'") > 30,
        "the chunk has its candidates"
    );
    holder.batch_execute("COMMIT").unwrap();
    let account = Account::of(&world.task_ended(&task).await);
    assert_eq!((account.matched, account.processed, account.excluded), (50, 49, 1));
    until("the index is dropped", || world.database.rows("attribute_declaration") == 0).await;
    assert_eq!((world.database.rows("attribute_index"), world.database.rows("entity")), (0, 451));
    world.database.assert_sound();
}
