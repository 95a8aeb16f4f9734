//! Watching while many entities go.

use std::collections::HashSet;

use crate::given::{Many, id};
use crate::kit::*;

const COUNT: usize = 50_000;

scenario! {
    async fn every_entity_of_a_large_bulk_delete_is_sent_once(world: &World) {
        world.database.given_many(Many { prefix: "e", count: COUNT as i64, dependents: 0, portfolio: None });
        // Earlier changes of some of them, recorded by one row of many.
        world.database.sql(
            "INSERT INTO event (realm_id, type, subjects, principal_id)
             SELECT realm_id, 'entity.created', array_agg(id ORDER BY id), gen_random_uuid() FROM entity WHERE id LIKE '%50' GROUP BY realm_id",
        );
        let mut stream = world.client.stream("EventService/WatchEvents", json!({"from": "beginning"}), &[]).await.unwrap();
        let task = world.schedule(json!({"mode": "hard", "entity_type": "HCP"})).await;
        let (mut ids, mut created, mut deleted) = (HashSet::new(), HashSet::new(), HashSet::new());
        let mut last_cursor = None;
        loop {
            let event = match stream.message().await["event"].take() {
                Value::Null => continue,
                event => event,
            };
            let word = |name: &str| event[name].as_str().unwrap().to_owned();
            assert!(ids.insert(word("id")), "{event} came twice");
            match word("type").as_str() {
                "entity.created" => assert!(created.insert(word("subject"))),
                "entity.deleted" => {
                    assert!(!word("subject").ends_with("50") || created.contains(&word("subject")), "{event} came before the entity was created");
                    assert!(deleted.insert(word("subject")));
                }
                "bulk_delete.ended" => break,
                _ => assert_eq!(word("subject"), task),
            }
            // A caller that is cut off in the middle continues where it was.
            if deleted.len() == COUNT / 2 && last_cursor.is_none() {
                let cursor = word("cursor");
                stream = world.client.stream("EventService/WatchEvents", json!({"cursor": cursor}), &[]).await.unwrap();
                last_cursor = Some(cursor);
            }
        }
        assert_eq!((created.len(), deleted.len()), (COUNT / 100, COUNT));
        assert!(last_cursor.is_some());
    }

    async fn however_much_happens_a_watch_ends_with_its_key(world: &World) {
        world.given_entity("kept", json!({})).await;
        let request = id(&world.offboard("kept", "3600s").await);
        world.database.given_many(Many { prefix: "e", count: 3_000, dependents: 0, portfolio: None });
        // Several chunks a second, for half a minute.
        let task = world.schedule(json!({"mode": "hard", "entity_type": "HCP", "max_objects_per_second": 100})).await;
        let key = Key::create(&world.database, "acme", "test", &["entities:read", "events:read"]);
        let client = Client::new(&world.server, &key, world.protocol);
        let watched = [
            ("BulkDeleteService/WatchTask", json!({"task_id": task})),
            ("OffboardingService/WatchOffboardingRequest", json!({"offboarding_request_id": request})),
            ("EventService/WatchEvents", json!({})),
        ];
        let mut streams = Vec::new();
        for (method, request) in watched {
            streams.push((method, client.stream(method, request, &[]).await.unwrap()));
        }
        until("the task is at work", || world.database.rows("tombstone") > 0).await;
        offboard(&["key", "revoke", &key.id, "--yes", "--database-url", &world.database.url]);
        for (method, stream) in &mut streams {
            let failure = loop {
                match stream.next().await.expect("no stream ends without a word") {
                    Ok(_) => {}
                    Err(failure) => break failure,
                }
            };
            assert_eq!(failure.code, "invalid_credentials", "{method}");
            assert_eq!(world.database.rows("bulk_delete WHERE ended_at IS NULL"), 1, "{method} ended with the task");
        }
    }
}
