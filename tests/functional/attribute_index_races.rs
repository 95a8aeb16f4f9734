//! An index is exact when it is ready, whatever was done to entities while it was built.

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use futures::future::join_all;

use crate::attribute_indexes::{assert_exact, found, given, indexed};
use crate::kit::*;

const DECLARE: &str = "AttributeIndexService/CreateAttributeIndex";

async fn set_name(world: &World, entity: &str, name: &str) {
    let request = json!({"entity_id": entity, "entity": {"attributes": {"name": name}}});
    world
        .call("EntityService/UpdateEntity", request)
        .await
        .unwrap_or_else(|failure| panic!("{entity}: {failure:#?}"));
}

async fn is_ready(world: &World) {
    world
        .call_until(
            "AttributeIndexService/GetAttributeIndex",
            json!({"attribute": "name"}),
            |index| index["state"] == "ready",
        )
        .await;
}

/// A transaction that has locked the row which the build will write for an entity, so that the build stops between its read and its write.
/// The build is set not to wait for this one transaction before it begins.
async fn stop_build_at(world: &World, entity: &str, value: &str) -> PgConnection {
    let mut holder = world.database.connection();
    let row = format!(
        "SELECT id, 'name', '{value}', '{entity}' FROM realm WHERE org = 'acme' AND mode = 'test'"
    );
    holder
        .batch_execute(&format!(
            "BEGIN; INSERT INTO attribute_index (realm_id, attribute, value, entity_id) {row}"
        ))
        .unwrap();
    world.call(DECLARE, json!({"attribute": "name"})).await.unwrap();
    until("the build waits", || world.database.waiting_indexes() == 1).await;
    world.database.sql("UPDATE attribute_declaration SET waits_for = '{}'");
    until("the build has read and cannot write", || {
        world.database.waiting_for_locks_by("attribute_index") == 1
    })
    .await;
    holder
}

#[tokio::test]
async fn what_changes_between_the_read_of_a_build_and_its_write_is_indexed_as_it_is() {
    let world = World::start(Protocol::Rest).await;
    given(&world.database, 100, "jsonb_build_object('name', 'old')");
    let mut holder = stop_build_at(&world, "e-000050", "told").await;
    // Entities whose rows the build has written, is about to write, and whose row it waits for.
    for entity in ["e-000001", "e-000050", "e-000099"] {
        set_name(&world, entity, "new").await;
    }
    // There and back again.
    for name in ["new", "old"] {
        set_name(&world, "e-000002", name).await;
        set_name(&world, "e-000098", name).await;
    }
    let clear =
        json!({"entity_id": "e-000003", "entity": {"attributes": {}, "replace_attributes": true}});
    world.call("EntityService/UpdateEntity", clear).await.unwrap();
    for entity in ["e-000004", "e-000097"] {
        world.call("RemovalService/RemoveEntity", json!({"entity_id": entity})).await.unwrap();
    }
    until("two are removed", || world.database.rows("tombstone") == 2).await;
    // One of them comes again, as another.
    world
        .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e-000004", "type": "T", "attributes": {"name": "Again"}}}))
        .await
        .unwrap();
    world
        .call(
            "EntityService/CreateEntity",
            json!({"entity": {"entity_id": "z", "type": "T", "attributes": {"name": "late"}}}),
        )
        .await
        .unwrap();
    holder.batch_execute("ROLLBACK").unwrap();
    is_ready(&world).await;
    assert_exact(&world.database);
    assert_eq!(
        found(&world, "equals(attributes.name, NEW)").await,
        ["e-000001", "e-000050", "e-000099"]
    );
}

/// A transaction without a transaction id and without a snapshot is nobody that `pg_current_snapshot` knows of.
#[tokio::test]
async fn a_writer_that_began_before_the_declaration_is_waited_for() {
    let world = World::start(Protocol::Grpc).await;
    given(&world.database, 10, "jsonb_build_object('name', 'n' || n)");
    let mut writer = world.database.connection();
    writer.batch_execute("BEGIN; SELECT 1").unwrap();
    world.call(DECLARE, json!({"attribute": "name"})).await.unwrap();
    until("the writer is waited for", || world.database.waiting_indexes() == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.database.index_phase().as_deref(), Some("waiting"));
    // It does not know of the declaration, and so writes no rows.
    writer
        .batch_execute(
            "INSERT INTO entity (realm_id, id, incarnation, type, state, attributes)
             SELECT id, 'late', gen_random_uuid(), 'T', 'active', '{\"name\": \"Late\"}' FROM realm WHERE org = 'acme' AND mode = 'test';
             COMMIT",
        )
        .unwrap();
    is_ready(&world).await;
    assert_exact(&world.database);
    assert_eq!(found(&world, "equals(attributes.name, late)").await, ["late"]);
}

#[tokio::test]
async fn a_build_goes_on_where_it_was_when_its_worker_is_killed() {
    let mut world = World::start_with(Protocol::Rest, &["--lease", "1"]).await;
    given(&world.database, 12_000, "jsonb_build_object('name', 'n' || n)");
    let mut holder = stop_build_at(&world, "e-011000", "tn11000").await;
    assert_eq!(world.database.index_progress().as_deref(), Some("walkinge-010000 10000"));
    world.server.kill();
    holder.batch_execute("ROLLBACK").unwrap();
    set_rows_apart(&world.database);
    let server = Server::start_with(&world.database, &["--lease", "1"], &[]).await;
    let client = Client::new(&server, &world.key, world.protocol);
    until("it is ready", || world.database.ready_indexes() == 1).await;
    let index = client
        .call("AttributeIndexService/GetAttributeIndex", json!({"attribute": "name"}))
        .await
        .unwrap();
    assert_eq!(
        (index.get("entities_done"), index.get("rows_written")),
        (&json!(12_000), &json!(12_000)),
        "nothing is read twice"
    );
    assert_exact(&world.database);
}

/// The rows that were written before the kill are those of the first two chunks.
fn set_rows_apart(database: &Database) {
    assert_eq!(database.rows("attribute_index"), 10_000);
}

#[tokio::test]
async fn an_index_that_is_built_while_many_write_is_exact() {
    let world = World::start_with(Protocol::Rest, &["--poll-interval", "0.02"]).await;
    given(&world.database, 20_000, "jsonb_build_object('name', 'n' || n % 7)");
    let protocols = [world.through(Protocol::Grpc), world.through(Protocol::Rest)];
    for round in 0..3 {
        world.call(DECLARE, json!({"attribute": "name"})).await.unwrap();
        let writers = (0..16).map(async |n: usize| {
            let client = &protocols[n % 2];
            let mut written = 0;
            while world.database.ready_indexes() == 0 {
                let entity = format!("e-{:06}", 1 + rand::random::<u32>() % 20_000);
                let name = format!("N{}", rand::random::<u32>() % 7);
                let (method, request) = match rand::random::<u32>() % 4 {
                    0 => ("RemovalService/RemoveEntity", json!({"entity_id": entity})),
                    1 => {
                        ("EntityService/CreateEntity", json!({"entity": {"entity_id": entity, "type": "T", "attributes": {"name": name}}}))
                    }
                    _ => ("EntityService/UpdateEntity", json!({"entity_id": entity, "entity": {"attributes": {"name": name}}})),
                };
                written += i64::from(client.call(method, request).await.is_ok());
            }
            written
        });
        let written: i64 = join_all(writers).await.into_iter().sum();
        println!("round {round}: {written} changes while the index was built");
        until("nothing leaves any more", || world.database.open_requests() == 0).await;
        assert_exact(&world.database);
        world
            .call("AttributeIndexService/DeleteAttributeIndex", json!({"attribute": "name"}))
            .await
            .unwrap();
        until("it was removed", || world.database.rows("attribute_declaration") == 0).await;
        assert_eq!(world.database.rows("attribute_index"), 0);
    }
    indexed(&world, "name").await;
}

/// Whoever declares many attributes of many entities keeps no builder from others: neither between two of its indexes nor within one.
#[tokio::test]
async fn realms_take_turns_in_having_their_indexes_built() {
    let world = World::start_with(Protocol::Grpc, &["--roles", "grpc,gateway"]).await;
    let other = world.client("umbrella", "test", SCOPES);
    given(&world.database, 20_000, "jsonb_build_object('name', 'n' || n)");
    // One of these takes ten seconds to build, and costs nothing.
    world.database.sql(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.attribute = 'name' THEN PERFORM pg_sleep(0.0005); END IF; RETURN NEW; END $$;
         CREATE TRIGGER linger BEFORE INSERT ON attribute_index FOR EACH ROW EXECUTE FUNCTION linger()",
    );
    for attribute in ["name", "b", "c", "d"] {
        world
            .call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": attribute}))
            .await
            .unwrap();
    }
    let _worker = Server::start_with(&world.database, &[], &[]).await;
    let building = "SELECT count(*) FROM attribute_declaration WHERE attribute = 'name' AND phase = 'walking' AND entities_done > 0";
    until("the first is being built", || world.database.count(building) == 1).await;
    other
        .call("AttributeIndexService/CreateAttributeIndex", json!({"attribute": "name"}))
        .await
        .unwrap();
    let ready = |org: &str| {
        format!(
            "SELECT count(*) FROM attribute_declaration d JOIN realm r ON r.id = d.realm_id WHERE r.org = '{org}' AND d.state = 'ready'"
        )
    };
    until("the other has its index", || world.database.count(&ready("umbrella")) == 1).await;
    let first = format!("{} AND d.attribute = 'name'", ready("acme"));
    assert_eq!(
        world.database.count(&first),
        0,
        "it did not wait for the one that was being built before"
    );
    until("so have the first", || world.database.count(&ready("acme")) == 4).await;
    assert_exact(&world.database);
}
