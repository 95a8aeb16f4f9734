//! One entity and all that hangs on it, by a job: the contracts of removal and of offboarding are two views of one system.

use crate::given::{assert_status, id};
use crate::kit::*;

const GOING: &str = "entity.created entity.offboarding_requested entity.offboarded";

scenario! {
    async fn a_removal_takes_the_entity_and_all_that_hangs_on_it(world: &World) {
        let component = "0190aaaa-0000-7000-8000-000000000001";
        world.given_portfolio("p").await;
        let dependents = ["assessment", "assessment", "task", "data_override", "note"].map(|kind| json!({"kind": kind}));
        world.given_entity("e", json!({"portfolio_id": "p", "dependents": dependents, "components": [component]})).await;
        world.given_entity("other", json!({"portfolio_id": "p", "dependents": [{"kind": "task"}]})).await;
        let before = world.done("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await;
        let row = "SELECT concat_ws(' ', id, incarnation, type, version + 1, created_at) FROM entity WHERE id = 'e'";
        let row = world.database.text(row).unwrap();

        let asked = world.remove("e").await;
        let job = id(&asked);
        assert_status(&asked, 202);
        if world.protocol == Protocol::Rest {
            assert_eq!(asked.header("location"), Some(format!("/v5/entities/jobs/{job}").as_str()));
            assert_eq!(asked.header("retry-after"), Some("1"));
        }
        let ended = world.job_ended(&job, "succeeded").await;

        assert_eq!(ended.get("removed"), &json!({"assessments": 2, "tasks": 1, "data_overrides": 1, "notes": 1}));
        assert_eq!((ended.get("entity_id"), ended.get("error")), (&json!("e"), &Value::Null));
        assert!(ended.get("created_at").as_i64() <= ended.get("started_at").as_i64());
        assert!(ended.get("started_at").as_i64() <= ended.get("finished_at").as_i64());
        assert!(!world.sees("e").await && world.sees("other").await);
        assert_eq!(world.database.rows("dependent WHERE entity_id = 'e'"), 0);
        assert_eq!(world.database.rows("dependent"), 1, "what hangs on another entity stays");

        let after = world.done("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await;
        assert_eq!((after.get("entity_count"), after.get("entity_ids")), (&json!(1), &json!(["other"])));
        assert_eq!(after.get("version").as_i64().unwrap(), before.get("version").as_i64().unwrap() + 1);

        let tombstone = "SELECT concat_ws(' ', entity_id, incarnation, type, version, created_at) FROM tombstone";
        assert_eq!(world.database.text(tombstone).unwrap(), row);
        let signed = format!("tombstone t JOIN offboarding_request r ON r.id = t.job_id
            WHERE t.job_kind = 'offboarding' AND t.removed_by = r.principal_id AND r.id = '{job}'");
        assert_eq!(world.database.rows(&signed), 1);
        assert_eq!(world.database.history("e"), GOING);
        let attached = "portfolio.entity_attached portfolio.entity_attached";
        assert_eq!(world.database.history("p"), format!("portfolio.created {attached} portfolio.entity_detached"));

        let request = world.request(&job).await;
        assert_eq!(request.get("status"), "succeeded");
        assert_eq!(request.get("data"), &json!({"id": "e", "components": [component]}));
        assert_eq!(request.get("finished"), ended.get("finished_at"));
        world.database.assert_sound();
    }

    async fn a_removal_of_a_bare_entity_counts_the_known_kinds_as_none(world: &World) {
        world.given_entity("e", json!({})).await;
        let job = world.job_ended(&id(&world.remove("e").await), "succeeded").await;
        assert_eq!(job.get("removed"), &json!({"assessments": 0, "tasks": 0, "data_overrides": 0}));
    }

    async fn a_removal_asked_for_again_is_the_same_job_also_when_it_is_done(world: &World) {
        world.given_entity("e", json!({})).await;
        let job = id(&world.remove("e").await);
        world.job_ended(&job, "succeeded").await;
        for _ in 0..2 {
            let again = world.remove("e").await;
            assert_eq!((id(&again), again.get("status")), (job.clone(), &json!("succeeded")));
            assert_status(&again, 200);
            if world.protocol == Protocol::Rest {
                assert_eq!(again.header("location"), Some(format!("/v5/entities/jobs/{job}").as_str()));
            }
        }
        let gone = world.refused("OffboardingService/RequestOffboarding", json!({"entity_id": "e"})).await;
        assert_eq!(gone.code, "not_found", "this contract knows no entity that was removed");
        assert_eq!(world.database.history("e"), GOING);
    }

    async fn a_request_waits_out_its_grace_period_and_is_one_for_both_contracts(world: &World) {
        world.given_entity("e", json!({})).await;
        let asked = world.offboard("e", "3600s").await;
        assert_status(&asked, 201);
        assert_eq!((asked.get("status"), asked.get("started"), asked.get("finished")), (&json!("pending"), &Value::Null, &Value::Null));
        let (created, due) = (asked.get("created").as_i64().unwrap(), asked.get("execute_after").as_i64().unwrap());
        assert_eq!(due - created, 3_600_000);
        assert_eq!(world.state("e").await, "offboarding");

        let again = world.offboard("e", "5s").await;
        assert_status(&again, 200);
        assert_eq!(again.json, asked.json, "the first request stands as it is");
        let removal = world.remove("e").await;
        assert_status(&removal, 200);
        assert_eq!((id(&removal), removal.get("status")), (id(&asked), &json!("pending")));
        assert_eq!(removal.get("removed"), &json!({}), "nothing is removed yet");
        assert_eq!(world.database.rows("offboarding_request"), 1);
        assert_eq!(world.database.history("e"), "entity.created entity.offboarding_requested");
    }

    async fn a_grace_period_ends_in_the_removal(world: &World) {
        world.given_entity("e", json!({})).await;
        let asked = world.offboard("e", "0.5s").await;
        let job = world.job_ended(&id(&asked), "succeeded").await;
        assert!(job.get("started_at").as_i64() >= asked.get("execute_after").as_i64());
        assert!(!world.sees("e").await);
    }

    async fn a_canceled_request_leaves_the_entity_active(world: &World) {
        world.given_portfolio("p").await;
        world.given_entity("e", json!({"portfolio_id": "p", "dependents": [{"kind": "task"}]})).await;
        let asked = id(&world.offboard("e", "3600s").await);
        let cancel = json!({"offboarding_request_id": asked});
        let canceled = world.done("OffboardingService/CancelOffboardingRequest", cancel.clone()).await;
        assert_status(&canceled, 200);
        assert_eq!((id(&canceled), canceled.get("status")), (asked.clone(), &json!("canceled")));
        assert_eq!(canceled.get("data"), &json!({"id": "e", "components": []}));
        assert_eq!(canceled.get("finished").is_i64(), world.protocol == Protocol::Grpc, "by REST the contract allows no other member");
        assert!(world.request(&asked).await.get("finished").is_i64());
        assert_eq!(world.state("e").await, "active");
        assert_eq!(world.database.rows("entity WHERE id = 'e' AND portfolio_id = 'p' AND version = 3"), 1);
        assert_eq!(world.database.rows("dependent WHERE entity_id = 'e'"), 1);

        let again = world.refused("OffboardingService/CancelOffboardingRequest", cancel).await;
        assert_eq!((again.code.as_str(), again.members["current_state"].as_str()), ("not_cancelable", Some("Canceled")));
        assert!(again.http.is_none_or(|http| http == 400));

        let removal = world.remove("e").await;
        assert_status(&removal, 202);
        assert_ne!(id(&removal), asked, "after a canceled job a new one is made");
        world.job_ended(&id(&removal), "succeeded").await;
        world.job_ended(&asked, "canceled").await;
        let reported = "entity.created entity.offboarding_requested entity.offboarding_canceled entity.offboarding_requested entity.offboarded";
        assert_eq!(world.database.history("e"), reported);
        world.database.assert_sound();
    }

    async fn an_entity_added_again_is_another_one(world: &World) {
        world.given_entity("e", json!({"attributes": {"round": 1}})).await;
        let first = id(&world.remove("e").await);
        world.job_ended(&first, "succeeded").await;
        world.given_entity("e", json!({"attributes": {"round": 2}})).await;
        assert_eq!(world.state("e").await, "active");
        let removal = world.remove("e").await;
        assert_status(&removal, 202);
        let second = id(&removal);
        assert_ne!(second, first);
        world.job_ended(&second, "succeeded").await;
        world.job_ended(&first, "succeeded").await;
        assert_eq!(id(&world.remove("e").await), second, "the latest job is the answer");
        assert_eq!(world.database.removed_incarnations("e"), 2);
        world.database.assert_sound();
    }

    async fn a_job_answers_for_the_entity_that_it_removed_and_for_no_other_of_its_id(world: &World) {
        for (n, mode) in ["soft", "hard", "hard"].into_iter().enumerate() {
            let entity = format!("e{n}");
            world.given_entity(&entity, json!({})).await;
            let job = id(&world.remove(&entity).await);
            world.job_ended(&job, "succeeded").await;
            world.given_entity(&entity, json!({})).await;
            world.bulk_delete(json!({"mode": mode, "uris": [entity]})).await;
            if n == 2 {
                // As retention does, which takes nothing off what is known of jobs.
                world.database.sql("DELETE FROM tombstone");
            }
            let asked = json!({"entity_id": entity});
            for method in ["RemovalService/RemoveEntity", "OffboardingService/RequestOffboarding", "RemovalService/PreviewRemoval"] {
                assert_eq!(world.refused(method, asked.clone()).await.code, "not_found", "{mode} {method}");
            }
            world.job_ended(&job, "succeeded").await;
            let jobs = world.done("RemovalService/ListRemovalJobs", asked).await;
            assert_eq!(jobs.get("jobs").as_array().unwrap().len(), 1, "what was done stays readable");
        }
        // A third entity with the id has a job of its own, which is its job also after its removal.
        world.given_entity("e1", json!({})).await;
        let removal = world.remove("e1").await;
        assert_status(&removal, 202);
        world.job_ended(&id(&removal), "succeeded").await;
        let again = world.remove("e1").await;
        assert_status(&again, 200);
        assert_eq!(id(&again), id(&removal));
    }

    async fn a_job_that_ended_otherwise_answers_for_nobody(world: &World) {
        world.given_entity("e", json!({})).await;
        world.job_ended(&id(&world.remove("e").await), "succeeded").await;
        world.given_entity("e", json!({})).await;
        let canceled = id(&world.offboard("e", "3600s").await);
        world.done("OffboardingService/CancelOffboardingRequest", json!({"offboarding_request_id": canceled})).await;
        world.bulk_delete(json!({"mode": "hard", "uris": ["e"]})).await;
        assert_eq!(world.refused("RemovalService/RemoveEntity", json!({"entity_id": "e"})).await.code, "not_found");
    }

    async fn a_removal_is_found_by_its_entity_and_not_by_the_clock(world: &World) {
        world.given_entity("e", json!({})).await;
        let first = id(&world.remove("e").await);
        world.job_ended(&first, "succeeded").await;
        // As if the clock had stepped back since.
        world.database.sql("UPDATE offboarding_request SET created_at = created_at + interval '1 day', finished_at = finished_at + interval '1 day'");
        world.given_entity("e", json!({})).await;
        let waiting = id(&world.offboard("e", "3600s").await);
        assert_eq!(id(&world.remove("e").await), waiting);
        world.done("OffboardingService/CancelOffboardingRequest", json!({"offboarding_request_id": waiting})).await;
        let second = id(&world.remove("e").await);
        world.job_ended(&second, "succeeded").await;
        assert_eq!(id(&world.remove("e").await), second);
    }

    async fn a_hold_placed_while_the_request_waits_ends_it(world: &World) {
        world.given_entity("e", json!({"dependents": [{"kind": "task"}]})).await;
        let asked = id(&world.offboard("e", "1s").await);
        world.database.hold("e");
        let job = world.job_ended(&asked, "failed").await;
        assert_eq!(job.get("error.code"), "on_hold");
        assert_eq!(world.request(&asked).await.get("error"), job.get("error"));
        assert_eq!(world.state("e").await, "active");
        assert_eq!(world.database.rows("dependent WHERE entity_id = 'e'"), 1);
        assert_eq!(world.database.history("e"), "entity.created entity.offboarding_requested entity.offboarding_failed");
        world.database.sql("UPDATE entity SET hold_reason = NULL, hold_placed_by = NULL, hold_placed_at = NULL, version = version + 1");
        let removal = world.remove("e").await;
        assert_status(&removal, 202);
        assert_ne!(id(&removal), asked, "after a failed job a new one is made");
        world.job_ended(&id(&removal), "succeeded").await;
        world.database.assert_sound();
    }
}

#[tokio::test]
async fn components_are_a_list_or_null_on_the_wire() {
    let world = World::start(Protocol::Rest).await;
    let component = "0190aaaa-0000-7000-8000-000000000001";
    world.given_entity("with", json!({"components": [component]})).await;
    world.given_entity("without", json!({})).await;
    for (entity, components) in [("with", json!([component])), ("without", Value::Null)] {
        let bearer = format!("Bearer {}", world.key.secret);
        let asked = world.offboard(entity, "60s").await;
        let path = format!("/v1/offboarding/entities/{}", id(&asked));
        let reply =
            http(world.server.addresses.http, "GET", &path, &[("authorization", &bearer)], "")
                .await;
        let request = reply.json();
        assert_eq!(request["data"], json!({"id": entity, "components": components}));
        assert_eq!((&request["status"], &request["error"]), (&json!("Pending"), &Value::Null));
    }
}

/// With so long a poll interval only the wake-up can be what starts a job.
#[tokio::test]
async fn a_lone_request_on_an_idle_server_is_taken_up_by_its_wake_up() {
    let world =
        World::start_with(Protocol::Grpc, &["--lease", "600", "--poll-interval", "600"]).await;
    for n in 0..20 {
        let entity = format!("e{n}");
        world.given_entity(&entity, json!({})).await;
        world.job_ended(&id(&world.remove(&entity).await), "succeeded").await;
    }
    let median = "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - created_at) * 1000)
        FROM offboarding_request";
    println!("taken up after {:.5} ms (median of 20)", world.database.text(median).unwrap());
}
