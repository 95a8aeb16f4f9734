//! Watching while many entities go.

use std::collections::HashSet;

use crate::given::Many;
use crate::kit::*;

const COUNT: usize = 50_000;

scenario! {
    async fn every_entity_of_a_large_bulk_delete_is_told_once(world: &World) {
        world.database.given_many(Many { prefix: "e", count: COUNT as i64, dependents: 0, portfolio: None });
        // What happened to some of them before, told by one row of many.
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
            // A caller that is cut off in the middle goes on where it was.
            if deleted.len() == COUNT / 2 && last_cursor.is_none() {
                let cursor = word("cursor");
                stream = world.client.stream("EventService/WatchEvents", json!({"cursor": cursor}), &[]).await.unwrap();
                last_cursor = Some(cursor);
            }
        }
        assert_eq!((created.len(), deleted.len()), (COUNT / 100, COUNT));
        assert!(last_cursor.is_some());
    }
}
