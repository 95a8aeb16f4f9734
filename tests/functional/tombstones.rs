//! Tombstones: they show what became of an entity.

use crate::kit::*;

async fn create(world: &World, id: &str) {
    world
        .call(
            "EntityService/CreateEntity",
            json!({"entity": {"entity_id": id, "type": "T", "attributes": {"secret": 1}}}),
        )
        .await
        .unwrap();
}

async fn bulk_delete(world: &World, id: &str, mode: &str) -> String {
    let task = world
        .call("BulkDeleteService/StartBulkDelete", json!({"uris": [id], "mode": mode}))
        .await
        .unwrap();
    let over = |task: &Value| !task["end_time"].is_null();
    let task = task.get("id").as_str().unwrap().to_owned();
    world.call_until("BulkDeleteService/GetTask", json!({"task_id": task}), over).await;
    task
}

async fn offboard(world: &World, id: &str) -> String {
    let job = world
        .call("RemovalService/RemoveEntity", json!({"entity_id": id}))
        .await
        .unwrap()
        .get("id")
        .as_str()
        .unwrap()
        .to_owned();
    world
        .call_until("RemovalService/GetRemovalJob", json!({"job_id": job}), |job| {
            job["status"] == "succeeded"
        })
        .await;
    job
}

async fn tombstones(world: &World, mut request: Value) -> Vec<Value> {
    let mut seen = Vec::new();
    loop {
        let page = world.call("EntityService/ListTombstones", request.clone()).await.unwrap();
        seen.extend(page.get("tombstones").as_array().unwrap().clone());
        request["page_token"] = page.get("next_page_token").clone();
        if request["page_token"] == "" {
            return seen;
        }
    }
}

scenario! {
    async fn a_hard_removal_leaves_a_tombstone_and_a_soft_one_does_not(world: &World) {
        for id in ["bulk", "job", "soft", "stays"] {
            create(world, id).await;
        }
        world.call("EntityService/UpdateEntity", json!({"entity_id": "bulk", "entity": {"type": "Other"}})).await.unwrap();
        let before = world.call("EntityService/GetEntity", json!({"entity_id": "bulk"})).await.unwrap();
        let incarnation = world.database.incarnation("bulk").unwrap();
        let principal = world.database.principal().unwrap();
        let task = bulk_delete(world, "bulk", "hard").await;
        bulk_delete(world, "soft", "soft").await;
        let job = offboard(world, "job").await;

        let found = tombstones(world, json!({})).await;
        assert_eq!(found.len(), 2, "{found:#?}");
        assert_seen!("tombstones", json!(found));
        for (member, value) in [
            ("incarnation", &json!(incarnation)), ("removed_by", &json!(principal)), ("job_id", &json!(task)),
            ("created_at", before.get("created_at")), ("updated_at", before.get("updated_at")),
        ] {
            assert_eq!(&found[0][member], value, "{member}");
        }
        assert!(found[0]["removed_at"].as_i64() >= before.json["updated_at"].as_i64());
        assert_eq!(found[1]["job_id"], job);
    }

    async fn every_incarnation_of_an_id_has_its_tombstone(world: &World) {
        for id in ["e", "e", "e", "e2", "d"] {
            create(world, id).await;
            bulk_delete(world, id, "hard").await;
        }
        create(world, "e").await;
        for size in [0, 1, 2] {
            let ids: Vec<_> = tombstones(world, json!({"page_size": size})).await.iter().map(|tombstone| tombstone["entity_id"].clone()).collect();
            assert_eq!(ids, ["d", "e", "e", "e", "e2"], "by {size}");
            let of_e = tombstones(world, json!({"entity_id": "e", "page_size": size})).await;
            let removed: Vec<_> = of_e.iter().map(|tombstone| tombstone["removed_at"].as_i64().unwrap()).collect();
            assert_eq!((of_e.len(), removed.is_sorted()), (3, true), "the oldest first, by {size}");
        }
        assert_eq!(tombstones(world, json!({"entity_id": "never"})).await, Vec::<Value>::new());
        let theirs = world.client("umbrella", "test", SCOPES).call("EntityService/ListTombstones", json!({"entity_id": "e"})).await.unwrap();
        assert_eq!(theirs.json, json!({"tombstones": [], "next_page_token": ""}), "another realm's are like none");
    }

    async fn every_fault_of_a_list_of_tombstones_is_reported(world: &World) {
        let refused = world.call("EntityService/ListTombstones", json!({"entity_id": "a b", "page_size": 1_001, "page_token": "x"})).await.unwrap_err();
        let fields: Vec<_> = refused.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["entity_id", "page_size", "page_token"]);
    }
}
