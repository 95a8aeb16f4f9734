//! The preview of a removal, and the removal policy of a realm.

use crate::given::*;
use crate::kit::*;

impl World {
    async fn preview(&self, entity: &str) -> Answer {
        self.done("RemovalService/PreviewRemoval", json!({"entity_id": entity})).await
    }

    /// Changes the policy by what the object names; by gRPC the mask says the same.
    pub async fn decide(&self, policy: Value) -> Result<Answer, Failure> {
        let mut request = json!({"policy": policy});
        if self.protocol == Protocol::Grpc {
            let camel = |name: &String| {
                let mut parts = name.split('_');
                let first = parts.next().unwrap().to_owned();
                parts.fold(first, |text, part| text + &part[..1].to_uppercase() + &part[1..])
            };
            let mut names: Vec<String> = Vec::new();
            for (name, value) in policy.as_object().unwrap() {
                match value.as_object().filter(|members| !members.is_empty()) {
                    Some(members) => names.extend(
                        members.keys().map(|member| format!("{}.{}", camel(name), camel(member))),
                    ),
                    None => names.push(camel(name)),
                }
            }
            request["update_mask"] = json!(names.join(","));
        }
        self.call("RemovalService/UpdateRemovalPolicy", request).await
    }
}

/// The codes of the blockers.
fn blockers(preview: &Answer) -> Vec<String> {
    preview
        .get("blockers")
        .as_array()
        .unwrap()
        .iter()
        .map(|blocker| text(&blocker["code"]))
        .collect()
}

scenario! {
    async fn a_preview_shows_what_would_be_removed_and_changes_nothing(world: &World) {
        let component = "0190a1b2-0000-7000-8000-000000000001";
        let dependents = json!([
            {"kind": "task", "id": "t1"}, {"kind": "task", "id": "t2"}, {"kind": "data_override", "id": "d"}, {"kind": "note", "id": "n"},
        ]);
        world.given_portfolio("p").await;
        world.given_entity("e", json!({"dependents": dependents, "components": [component], "portfolio_id": "p"})).await;
        let reported = world.database.rows("event");
        let preview = world.preview("e").await;
        assert_eq!(preview.get("removable"), true);
        assert_eq!(preview.get("blockers"), &json!([]));
        assert_eq!(preview.get("dependents"), &json!({"assessments": 0, "tasks": 2, "data_overrides": 1, "notes": 1}));
        assert_eq!((preview.get("components"), preview.get("portfolio_id")), (&json!([component]), &json!("p")));
        assert_eq!(world.database.rows("event"), reported);
        assert_eq!(world.state("e").await, "active");
        // The removal has the effect of the preview.
        let job = world.job_ended(&id(&world.remove("e").await), "succeeded").await;
        assert_eq!(job.get("removed"), preview.get("dependents"));
        assert_eq!(world.refused("RemovalService/PreviewRemoval", json!({"entity_id": "e"})).await.code, "not_found");
    }

    async fn a_preview_shows_every_blocker(world: &World) {
        world.given_entity("new", json!({"state": "onboarding"})).await;
        world.given_entity("held", json!({})).await;
        world.given_entity("leaving", json!({})).await;
        world.database.hold("held");
        world.database.hold("new");
        let request = id(&world.offboard("leaving", "3600s").await);
        assert_eq!(blockers(&world.preview("new").await), ["onboarding", "on_hold"]);
        let held = world.preview("held").await;
        assert_eq!((blockers(&held), held.get("removable")), (vec!["on_hold".to_owned()], &json!(false)));
        assert!(text(&held.get("blockers")[0]["message"]).contains("audit"), "the reason is reported");
        let leaving = world.preview("leaving").await;
        assert_eq!((blockers(&leaving), &leaving.get("blockers")[0]["job_id"]), (vec!["offboarding".to_owned()], &json!(request)));
    }

    async fn nobody_sees_a_preview_of_what_is_not_theirs(world: &World) {
        world.given_entity("e", json!({})).await;
        for (org, mode) in [("acme", "live"), ("other", "test")] {
            let stranger = world.client(org, mode, SCOPES);
            let mine = stranger.call("RemovalService/PreviewRemoval", json!({"entity_id": "e"})).await.unwrap_err();
            let nothing = stranger.call("RemovalService/PreviewRemoval", json!({"entity_id": "x"})).await.unwrap_err();
            assert_eq!(mine.reported().to_string(), nothing.reported().to_string().replace("`x`", "`e`").replace("\"x\"", "\"e\""));
        }
    }

    async fn the_policy_decides_the_grace_period_and_its_maximum(world: &World) {
        let policy = world.done("RemovalService/GetRemovalPolicy", json!({})).await;
        let none = json!({"default_grace_period": "0s", "max_grace_period": "7776000s", "tombstone_retention": null, "request_retention": null, "filter_retention": null, "mail_domains": [], "min_grace_period": "0s", "hard_delete": null, "soft_delete": null, "tenant": "acme", "mode": "test"});
        assert_eq!(policy.json, none);
        let decided = world.decide(json!({"default_grace_period": "600s", "max_grace_period": "3600s"})).await.unwrap();
        assert_eq!((decided.get("default_grace_period"), decided.get("max_grace_period")), (&json!("600s"), &json!("3600s")));
        assert_eq!(world.database.history("acme"), "removal_policy.updated");

        for id in ["a", "b", "c", "d"] {
            world.given_entity(id, json!({})).await;
        }
        let after = |request: &Answer| request.get("execute_after").as_i64().unwrap() - request.get("created").as_i64().unwrap();
        let by_default = world.done("OffboardingService/RequestOffboarding", json!({"entity_id": "a"})).await;
        assert_eq!((after(&by_default), by_default.get("status")), (600_000, &json!("pending")));
        assert_eq!(world.preview("b").await.get("default_grace_period"), "600s");
        // Contract A has no word for a grace period, so the default applies there too.
        let job = id(&world.remove("b").await);
        assert_eq!(after(&world.request(&job).await), 600_000);
        assert_eq!(after(&world.offboard("c", "3600s").await), 3_600_000);
        let too_long = world.refused("OffboardingService/RequestOffboarding", json!({"entity_id": "d", "grace_period": "3601s"})).await;
        assert_eq!((too_long.code.as_str(), too_long.faults[0].field.as_str()), ("validation_failed", "grace_period"));
        assert_eq!(world.state("d").await, "active");
        world.job_ended(&id(&world.offboard("d", "0s").await), "succeeded").await;
    }

    async fn a_policy_with_faults_is_refused_and_what_is_set_to_null_goes_back(world: &World) {
        let refused = world.decide(json!({"default_grace_period": "-1s", "tombstone_retention": "5s"})).await.unwrap_err();
        let fields: Vec<&str> = refused.faults.iter().map(|fault| fault.field.trim_start_matches("policy.")).collect();
        assert_eq!((refused.code.as_str(), fields), ("validation_failed", vec!["default_grace_period", "tombstone_retention"]));
        assert_eq!(world.decide(json!({})).await.unwrap_err().code, "validation_failed");
        world.decide(json!({"tombstone_retention": "86400s", "default_grace_period": "60s"})).await.unwrap();
        let shorter = world.decide(json!({"max_grace_period": "30s"})).await.unwrap_err();
        assert_eq!(shorter.code, "validation_failed", "the default would be longer than the maximum");
        let back = world.decide(json!({"tombstone_retention": null})).await.unwrap();
        assert_eq!((back.get("tombstone_retention"), back.get("default_grace_period")), (&json!(null), &json!("60s")));
        let reader = world.client("acme", "test", &["entities:read"]);
        let denied = reader.call("RemovalService/UpdateRemovalPolicy", json!({"policy": {}})).await.unwrap_err();
        assert_eq!(denied.code, "permission_denied");
        let other = world.client("other", "test", SCOPES);
        assert_eq!(other.call("RemovalService/GetRemovalPolicy", json!({})).await.unwrap().json["default_grace_period"], "0s");
    }

    async fn a_change_of_demands_leaves_those_that_it_does_not_name(world: &World) {
        let demanded = |expected: bool, most: Value, preview: Value| {
            json!({"expected_count": expected, "max_objects": most, "preview_within": preview, "clean_report_within": null})
        };
        let set = world.decide(json!({"hard_delete": {"expected_count": true, "max_objects": 5, "preview_within": "3600s"}})).await.unwrap();
        assert_eq!(set.get("hard_delete"), &demanded(true, json!(5), json!("3600s")));
        let looser = world.decide(json!({"hard_delete": {"max_objects": 7}})).await.unwrap();
        assert_eq!(looser.get("hard_delete"), &demanded(true, json!(7), json!("3600s")));
        let less = world.decide(json!({"hard_delete": {"max_objects": null, "expected_count": false}})).await.unwrap();
        assert_eq!(less.get("hard_delete"), &demanded(false, json!(null), json!("3600s")));
        let nothing = world.decide(json!({"hard_delete": {}})).await.unwrap_err();
        assert_eq!((nothing.code.as_str(), nothing.faults[0].field.trim_start_matches("policy.")), ("validation_failed", "hard_delete"));
        // A policy that was read may be sent back, and names its realm.
        let read = world.done("RemovalService/GetRemovalPolicy", json!({})).await;
        assert_eq!((read.get("tenant"), read.get("mode")), (&json!("acme"), &json!("test")));
        assert_eq!(world.decide(read.json.clone()).await.unwrap().json, read.json);
        // Named itself, the whole of it is replaced.
        let whole = json!({"policy": {"hard_delete": {"max_objects": 9}}, "update_mask": "hardDelete"});
        let whole = world.done("RemovalService/UpdateRemovalPolicy", whole).await;
        assert_eq!(whole.get("hard_delete"), &demanded(false, json!(9), json!(null)));
        world.decide(json!({"tombstone_retention": "86400s", "soft_delete": {"preview_within": "1.5s"}})).await.unwrap();
        let events = world.done("EventService/ListEvents", json!({"types": ["removal_policy.updated"]})).await;
        let mut last = events.get("events").as_array().unwrap().last().unwrap()["data"].clone();
        last.as_object_mut().unwrap().remove("principal_id");
        assert_eq!(last, json!({
            "default_grace_period": "0s", "max_grace_period": "7776000s", "min_grace_period": "0s", "tombstone_retention": "86400s", "mail_domains": [],
            "hard_delete": {"max_objects": 9}, "soft_delete": {"preview_within": "1.500s"},
        }));
        assert_eq!(world.decide(json!({"hard_delete": null})).await.unwrap().get("hard_delete"), &json!(null));
    }

    async fn a_filter_is_kept_for_as_long_as_the_policy_says(world: &World) {
        let filter = json!({"spec": {"objects": {"filter": "equals(attributes.name, 'canary')"}}, "mode": "hard"});
        let (old, new) = (world.bulk_delete(filter.clone()).await, world.bulk_delete(filter).await);
        world.decide(json!({"filter_retention": "86400s"})).await.unwrap();
        let old = id(&old);
        world.database.sql(&format!("UPDATE bulk_delete SET ended_at = now() - interval '25 hours' WHERE id = '{old}'"));
        let _server = Server::start_with(&world.database, &["--roles=grpc,gateway"], &[]).await;
        let kept = async |id: &str| {
            let task = world.done("BulkDeleteService/GetTask", json!({"task_id": id})).await;
            task.get("parameters").get("filter").is_some()
        };
        until("the old filter is removed", || world.database.count("SELECT count(*) FROM bulk_delete WHERE filter = ''") == 1).await;
        assert_eq!((kept(&old).await, kept(&id(&new)).await), (false, true));
        let row = world.database.text(&format!("SELECT b::text FROM bulk_delete b WHERE id = '{old}'")).unwrap();
        assert!(!row.contains("canary"), "{row}");
    }

    async fn what_has_had_its_time_goes_and_nothing_else(world: &World) {
        for id in ["old", "new", "live"] {
            world.given_entity(id, json!({})).await;
        }
        for id in ["old", "new"] {
            world.job_ended(&self::id(&world.remove(id).await), "succeeded").await;
        }
        let live = id(&world.offboard("live", "3600s").await);
        let stranger = world.client("other", "test", SCOPES);
        stranger.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "old", "type": "T"}})).await.unwrap();
        stranger.call("RemovalService/RemoveEntity", json!({"entity_id": "old"})).await.unwrap();
        until("the stranger's entity is removed", || world.database.rows("tombstone") == 3).await;
        world.decide(json!({"tombstone_retention": "86400s", "request_retention": "86400s"})).await.unwrap();
        world.database.sql(
            "UPDATE tombstone SET removed_at = now() - interval '25 hours' WHERE entity_id = 'old';
             UPDATE offboarding_request SET created_at = now() - interval '3 days', started_at = now() - interval '25 hours',
                    finished_at = now() - interval '25 hours' WHERE entity_id = 'old'",
        );
        // A server checks when it starts, and then every minute.
        let _server = Server::start_with(&world.database, &["--roles=grpc,gateway"], &[]).await;
        until("what is old is removed", || world.database.rows("tombstone") == 2 && world.database.rows("offboarding_request") == 3).await;
        assert_eq!(world.database.rows("tombstone WHERE entity_id = 'new'"), 1);
        assert_eq!(world.database.rows("tombstone WHERE entity_id = 'old'"), 1, "that of the other realm, which keeps its own for ever");
        assert_eq!(world.request(&live).await.get("status"), "pending");
        let gone = world.refused("RemovalService/RemoveEntity", json!({"entity_id": "old"})).await;
        assert_eq!(gone.code, "not_found", "nobody remembers that it was there");
    }
}

#[tokio::test]
async fn a_preview_names_the_bulk_deletes_that_select_the_entity() {
    // Nobody works, so the tasks stay.
    let world = World::start_with(Protocol::Rest, &["--roles=grpc,gateway"]).await;
    world.given_entity("e", json!({"attributes": {"Name": "Ann"}})).await;
    world.given_entity("other", json!({"attributes": {"Name": "Bob"}})).await;
    let by_filter = world
        .schedule(json!({"spec": {"objects": {"filter": "equals(attributes.Name, ann)"}}}))
        .await;
    let by_type = world.schedule(json!({"spec": {"objects": {"entity_type": "HCP", "exclude_list": ["entities/other"]}}})).await;
    let by_list = world.schedule(json!({"uris": ["entities/other"]})).await;
    // A check reads all of them and deletes none.
    world.done("BulkDeleteService/CheckConsistency", json!({})).await;
    let reported = |preview: &Answer| -> Vec<String> {
        let blockers = preview.get("blockers").as_array().unwrap().iter();
        blockers
            .map(|blocker| format!("{} {}", text(&blocker["code"]), text(&blocker["job_id"])))
            .collect()
    };
    let preview = world.preview("e").await;
    assert_eq!(
        reported(&preview),
        [format!("bulk_delete {by_filter}"), format!("bulk_delete {by_type}")]
    );
    assert_eq!(preview.get("removable"), true);
    assert_eq!(reported(&world.preview("other").await), [format!("bulk_delete {by_list}")]);
}
