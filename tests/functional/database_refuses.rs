//! A database that is there and does not do what it is asked: it takes no changes, it is full, all its connections are taken.

use diesel::connection::SimpleConnection;

use crate::kit::*;
use crate::probes::readiness;

fn set(database: &Database, setting: &str) {
    let name = database.text("SELECT current_database()").unwrap();
    database.sql(&format!("BEGIN READ WRITE; ALTER DATABASE {name} {setting}; COMMIT"));
}

/// Ends the sessions of the server, so that the next begin with the settings of now.
fn end_sessions(database: &Database) {
    let end = "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'offboard') AS ended";
    assert!(database.count(end) > 0);
}

scenario! {
    async fn a_database_that_takes_no_changes_answers_reads_and_changes_when_it_may_again(world: &World) {
        world.entities(&["e"]).await;
        set(&world.database, "SET default_transaction_read_only = on");
        end_sessions(&world.database);
        for n in 0..5 {
            let refused = world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": format!("r{n}"), "type": "test"}})).await.unwrap_err();
            assert_eq!(refused.code, "unavailable", "{refused:?}");
            if world.protocol == Protocol::Rest {
                assert_eq!((refused.http, refused.header("retry-after")), (Some(503), Some("1")));
            }
            world.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
        }
        let mut reported = readiness(&world.server, 200).await;
        for _ in 0..500 {
            if reported.to_string().contains("read only") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            reported = readiness(&world.server, 200).await;
        }
        assert!(reported.to_string().contains("read only: reads are served"), "{reported}");
        // The sessions that are open stay as they began: they have to be left.
        set(&world.database, "RESET default_transaction_read_only");
        let mut last = None;
        for n in 0..300 {
            match world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": format!("w{n}"), "type": "test"}})).await {
                Ok(_) => return,
                Err(failure) => last = Some(failure),
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("changes are refused for ever: {last:?}");
    }

    async fn a_full_disk_is_the_services_trouble_and_not_a_fault(world: &World) {
        world.entities(&["e"]).await;
        // As Postgres says it, in the language of its server.
        world.database.sql(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 RAISE EXCEPTION 'konnte Datei nicht erweitern: kein Platz' USING ERRCODE = '53100'; END $$;
             CREATE TRIGGER no_room BEFORE INSERT ON entity FOR EACH ROW EXECUTE FUNCTION no_room()",
        );
        let refused = world.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "f", "type": "test"}})).await.unwrap_err();
        assert_eq!(refused.code, "unavailable", "{refused:?}");
        assert!(!refused.message.contains("Platz"), "{}", refused.message);
        world.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
        assert!(world.server.log().contains("SQLSTATE 53100"));
    }
}

#[tokio::test]
async fn a_pool_that_is_used_up_makes_no_replica_look_dead() {
    let world = World::start_with(
        Protocol::Rest,
        &["--db-pool-size=2", "--db-lock-timeout=30", "--db-acquire-timeout=30"],
    )
    .await;
    world.entities(&["e"]).await;
    readiness(&world.server, 200).await;
    let mut held = world.database.connection();
    held.batch_execute("BEGIN; SELECT FROM entity FOR UPDATE").unwrap();
    let change = || {
        world.call(
            "EntityService/UpdateEntity",
            json!({"entity_id": "e", "entity": {"attributes": {"a": 1}}}),
        )
    };
    let look = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        for _ in 0..1500 {
            if world.database.count(waiting) > 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(
            world.database.count(waiting) > 0,
            "every connection that the realm may have waits"
        );
        // For longer than a check of the database stays fresh.
        for _ in 0..30 {
            let reported = crate::probes::probe(&world.server, "/readyz").await;
            assert_eq!(reported.status, 200, "{}", reported.text());
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        held.batch_execute("ROLLBACK").unwrap();
    };
    let (one, other, third, ()) = tokio::join!(change(), change(), change(), look);
    for changed in [one, other, third] {
        changed.unwrap();
    }
}

#[tokio::test]
async fn a_filter_that_the_database_cannot_use_is_named_like_any_other() {
    let world = World::start(Protocol::Rest).await;
    world.entities(&["e"]).await;
    // Whoever reads attributes learns that an expression cannot be used.
    world.database.sql(
        "ALTER TABLE entity RENAME TO entity_row;
         CREATE FUNCTION unusable(jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'zu komplex' USING ERRCODE = '2201B'; END $$;
         DO $$ BEGIN EXECUTE (
             SELECT 'CREATE VIEW entity AS SELECT unusable(attributes) AS attributes, ' || string_agg(attname, ', ' ORDER BY attnum) || ' FROM entity_row'
             FROM pg_attribute
             WHERE attrelid = 'entity_row'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'attributes'); END $$;",
    );
    end_sessions(&world.database);
    let filter = "regexp(attributes.a, 'b+')";
    let (list, selection) =
        (json!({"filter": filter}), json!({"spec": {"objects": {"filter": filter}}}));
    for (method, request, field) in [
        ("EntityService/ListEntities", list, "filter"),
        ("BulkDeleteService/StartBulkDelete", selection.clone(), "objects.filter"),
    ] {
        let refused = world.call(method, request).await.unwrap_err();
        let fields: Vec<_> = refused.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!((refused.code.as_str(), fields), ("invalid_filter", vec![field]), "{refused:?}");
    }
    let mut dry = selection;
    dry["dry_run"] = json!(true);
    assert_eq!(
        world.call("BulkDeleteService/StartBulkDelete", dry).await.unwrap_err().faults[0].field,
        "objects.filter"
    );
}
