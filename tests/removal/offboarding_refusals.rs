//! Entities that cannot be offboarded, and how the caller learns why.

use crate::given::id;
use crate::kit::*;

async fn both_refuse(world: &World, entity: &str) -> [Failure; 2] {
    let request = json!({"entity_id": entity});
    [
        world.refused("RemovalService/RemoveEntity", request.clone()).await,
        world.refused("OffboardingService/RequestOffboarding", request).await,
    ]
}

scenario! {
    async fn an_entity_that_is_onboarding_stays(world: &World) {
        world.given_entity("e", json!({"state": "onboarding"})).await;
        for refusal in both_refuse(world, "e").await {
            assert_eq!(refusal.code, "invalid_state_transition");
            assert_eq!(refusal.members["current_state"], "onboarding");
            assert_eq!(refusal.members["attempted_transition"], "offboard");
            assert!(refusal.http.is_none_or(|http| http == 409));
        }
        assert_eq!(world.database.rows("offboarding_request"), 0);
        assert_eq!(world.database.history("e"), "entity.created");
    }

    async fn an_entity_on_hold_stays(world: &World) {
        world.given_entity("e", json!({})).await;
        world.database.hold("e");
        for refusal in both_refuse(world, "e").await {
            assert_eq!(refusal.code, "invalid_state_transition");
            assert_eq!(refusal.members["current_state"], "on_hold");
            assert!(refusal.http.is_none_or(|http| http == 409));
        }
        assert_eq!(world.database.rows("offboarding_request"), 0);
    }

    async fn what_is_missing_or_invisible_is_not_found_whatever_the_reason(world: &World) {
        world.given_entity("deleted", json!({})).await;
        world.bulk_delete(json!({"uris": ["deleted"], "mode": "soft"})).await;
        let request = json!({"entity": {"entity_id": "foreign", "type": "HCP"}});
        for (org, mode) in [("globex", "test"), ("acme", "live")] {
            world.client(org, mode, SCOPES).call("EntityService/CreateEntity", request.clone()).await.unwrap();
        }
        let [mut of_removal, mut of_offboarding] = both_refuse(world, "missing").await.map(|failure| failure.reported().to_string());
        for entity in ["deleted", "foreign"] {
            let [removal, offboarding] = both_refuse(world, entity).await.map(|failure| {
                assert_eq!(failure.code, "not_found");
                assert!(failure.http.is_none_or(|http| http == 404));
                failure.reported().to_string().replace(entity, "missing")
            });
            assert_eq!((&removal, &offboarding), (&of_removal, &of_offboarding));
            (of_removal, of_offboarding) = (removal, offboarding);
        }
        assert_eq!(world.database.rows("entity WHERE state = 'offboarding'"), 0);
    }

    async fn a_job_of_another_world_and_an_id_that_is_none_are_not_found(world: &World) {
        world.given_entity("e", json!({})).await;
        let asked = id(&world.offboard("e", "3600s").await);
        let stranger = world.client("globex", "test", SCOPES);
        let live = world.client("acme", "live", SCOPES);
        let unknown = "0190aaaa-0000-7000-8000-000000000001";
        for (caller, id) in [(&stranger, asked.as_str()), (&live, &asked), (&world.client, unknown), (&world.client, "x")] {
            for (method, request) in [
                ("RemovalService/GetRemovalJob", json!({"job_id": id})),
                ("OffboardingService/GetOffboardingRequest", json!({"offboarding_request_id": id})),
                ("OffboardingService/CancelOffboardingRequest", json!({"offboarding_request_id": id})),
            ] {
                let refusal = caller.call(method, request).await.unwrap_err();
                assert_eq!((refusal.code.as_str(), refusal.http.unwrap_or(404)), ("not_found", 404), "{method} {id}");
            }
        }
        assert_eq!(world.request(&asked).await.get("status"), "pending");
    }

    async fn a_grace_period_is_from_none_to_90_days(world: &World) {
        world.given_entity("e", json!({})).await;
        for grace in ["-1s", "-0.000000001s", "7776000.001s", "7862400s"] {
            let request = json!({"entity_id": "e", "grace_period": grace});
            let refusal = world.refused("OffboardingService/RequestOffboarding", request).await;
            assert_eq!((refusal.code.as_str(), refusal.faults.len()), ("validation_failed", 1), "{grace}");
            assert_eq!(refusal.faults[0].field, "grace_period");
        }
        assert_eq!(world.state("e").await, "active");
        let longest = world.offboard("e", "7776000s").await;
        let waits = longest.get("execute_after").as_i64().unwrap() - longest.get("created").as_i64().unwrap();
        assert_eq!(waits, 90 * 24 * 3600 * 1000);
    }

    async fn every_fault_of_a_request_is_reported(world: &World) {
        let request = json!({"entity_id": "a b", "grace_period": "-1s"});
        let refusal = world.refused("OffboardingService/RequestOffboarding", request).await;
        let fields: Vec<_> = refusal.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["entity_id", "grace_period"]);
    }

    async fn a_key_without_the_scope_removes_nothing(world: &World) {
        world.given_entity("e", json!({})).await;
        let others: Vec<_> = SCOPES.iter().copied().filter(|scope| !["entities:offboard", "admin"].contains(scope)).collect();
        let reader = world.client("acme", "test", &others);
        for method in ["RemovalService/RemoveEntity", "OffboardingService/RequestOffboarding"] {
            let refusal = reader.call(method, json!({"entity_id": "e"})).await.unwrap_err();
            assert_eq!(refusal.code, "permission_denied");
            assert_eq!(refusal.members["required_scope"], "entities:offboard");
        }
        assert_eq!(world.state("e").await, "active");
    }
}

#[tokio::test]
async fn a_grace_period_that_is_no_duration_is_a_fault() {
    let world = World::start(Protocol::Rest).await;
    world.given_entity("e", json!({})).await;
    for grace in [json!("x"), json!("5"), json!(5), json!("")] {
        let refusal = world
            .refused(
                "OffboardingService/RequestOffboarding",
                json!({"entity_id": "e", "grace_period": grace}),
            )
            .await;
        assert_eq!(
            (refusal.code.as_str(), refusal.http),
            ("validation_failed", Some(400)),
            "{grace}"
        );
        assert_eq!(refusal.faults[0].field, "grace_period");
    }
    assert_eq!(world.state("e").await, "active");
}
