//! Offboarding requests by the page, as they move, and when an attempt comes to nothing.

use crate::given::*;
use crate::kit::*;

/// The entities of the requests of a page.
fn entities(page: &Answer) -> Vec<String> {
    page.get("data")
        .as_array()
        .unwrap()
        .iter()
        .map(|request| text(&request["data"]["id"]))
        .collect()
}

scenario! {
    async fn requests_are_listed_by_the_page_the_latest_first(world: &World) {
        for n in 0..7 {
            world.given_entity(&format!("e{n}"), json!({})).await;
            world.offboard(&format!("e{n}"), "3600s").await;
        }
        let all: Vec<String> = (0..7).rev().map(|n| format!("e{n}")).collect();
        let mut seen = Vec::new();
        let mut token = Value::Null;
        for name in ["continuation_token", "page_token", "continuation_token"] {
            let mut request = json!({"page_size": 3});
            if let Some(token) = token.as_str() {
                request[name] = json!(token);
            }
            let page = world.done("OffboardingService/ListOffboardingRequests", request).await;
            assert_eq!(page.get("meta.page_size"), 3);
            seen.extend(entities(&page));
            token = page.get("meta.continuation_token").clone();
            match token.as_str() {
                Some(token) => assert_eq!(page.get("links.next"), &json!(format!("/v1/offboarding/entities?pageSize=3&continuationToken={token}"))),
                None => assert_eq!(page.get("links.next"), &json!(null)),
            }
        }
        assert_eq!((seen, token), (all.clone(), json!(null)));

        let jobs = world.done("RemovalService/ListRemovalJobs", json!({"page_size": 5})).await;
        let ids: Vec<String> = jobs.get("jobs").as_array().unwrap().iter().map(|job| text(&job["entity_id"])).collect();
        assert_eq!(ids, all[..5]);
        let rest = world.done("RemovalService/ListRemovalJobs", json!({"page_token": jobs.get("next_page_token")})).await;
        assert_eq!((rest.get("jobs").as_array().unwrap().len(), rest.get("next_page_token")), (2, &json!("")));
    }

    async fn a_list_is_filtered_and_its_tokens_open_nothing_else(world: &World) {
        for n in 0..4 {
            world.given_entity(&format!("e{n}"), json!({})).await;
        }
        let canceled = id(&world.offboard("e0", "3600s").await);
        world.done("OffboardingService/CancelOffboardingRequest", json!({"offboarding_request_id": canceled})).await;
        world.offboard("e0", "3600s").await;
        world.offboard("e1", "3600s").await;
        world.job_ended(&id(&world.remove("e2").await), "succeeded").await;
        let list = async |request: Value| entities(&world.done("OffboardingService/ListOffboardingRequests", request).await);
        assert_eq!(list(json!({"status": "pending"})).await, ["e1", "e0"]);
        assert_eq!(list(json!({"status": "canceled"})).await, ["e0"]);
        assert_eq!(list(json!({"status": "succeeded", "entity_id": "e2"})).await, ["e2"]);
        assert_eq!(list(json!({"entity_id": "e0"})).await, ["e0", "e0"]);
        assert_eq!(list(json!({"entity_id": "nowhere"})).await, Vec::<String>::new());

        let page = world.done("OffboardingService/ListOffboardingRequests", json!({"page_size": 1})).await;
        let token = text(page.get("meta.continuation_token"));
        let mut tampered = token.clone().into_bytes();
        tampered[9] = if tampered[9] == b'A' { b'B' } else { b'A' };
        let bad = [
            json!({"continuation_token": String::from_utf8(tampered).unwrap()}),
            json!({"continuation_token": token, "status": "pending"}),
            json!({"continuation_token": token, "page_token": token}),
            json!({"page_size": 1001}),
            json!({"entity_id": "no/id"}),
        ];
        for request in bad {
            let refused = world.refused("OffboardingService/ListOffboardingRequests", request.clone()).await;
            assert_eq!(refused.code, "validation_failed", "{request}");
        }
        let foreign = world.refused("RemovalService/ListRemovalJobs", json!({"page_token": token})).await;
        assert_eq!(foreign.faults[0].field, "page_token");
        let stranger = world.client("other", "test", SCOPES);
        let theirs = stranger.call("OffboardingService/ListOffboardingRequests", json!({"page_size": 1, "continuation_token": token})).await;
        assert_eq!(theirs.unwrap_err().code, "validation_failed");
        let theirs = stranger.call("OffboardingService/ListOffboardingRequests", json!({})).await.unwrap();
        assert_eq!(entities(&theirs), Vec::<String>::new());
    }

    async fn a_request_is_watched_through_every_transition_to_its_end(world: &World) {
        world.given_entity("e", json!({})).await;
        let request = id(&world.offboard("e", "1s").await);
        let watch = json!({"offboarding_request_id": request});
        let mut stream = world.client.stream("OffboardingService/WatchOffboardingRequest", watch.clone(), &[]).await.unwrap();
        let mut seen = Vec::new();
        while let Some(message) = stream.next().await {
            seen.push(message.unwrap());
        }
        let statuses: Vec<&str> = seen.iter().map(|request| request["status"].as_str().unwrap()).collect();
        assert_eq!(statuses, ["pending", "running", "succeeded"]);
        assert_eq!(seen[2], world.request(&request).await.json);
        // Of a request that is over there is one word.
        let mut over = world.client.stream("OffboardingService/WatchOffboardingRequest", watch.clone(), &[]).await.unwrap();
        assert_eq!(over.message().await["status"], "succeeded");
        assert!(over.next().await.is_none());

        world.given_entity("kept", json!({})).await;
        let kept = id(&world.offboard("kept", "3600s").await);
        let mut stream = world.client.stream("OffboardingService/WatchOffboardingRequest", json!({"offboarding_request_id": kept}), &[]).await.unwrap();
        assert_eq!(stream.message().await["status"], "pending");
        world.done("OffboardingService/CancelOffboardingRequest", json!({"offboarding_request_id": kept})).await;
        assert_eq!(stream.message().await["status"], "canceled");
        assert!(stream.next().await.is_none());

        let stranger = world.client("other", "test", SCOPES);
        let refused = stranger.stream("OffboardingService/WatchOffboardingRequest", watch, &[]).await.err().expect("it is not theirs");
        assert_eq!(refused.code, "not_found");
    }

    async fn one_that_cannot_be_done_does_not_keep_the_others_and_reports_why(world: &World) {
        // The tombstone of one entity cannot be written, as if a disk had a hole there.
        world.database.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room at /srv/secret' USING ERRCODE = '58000'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON tombstone FOR EACH ROW WHEN (NEW.entity_id = 'bad') EXECUTE FUNCTION refuse()",
        );
        for id in ["a", "bad", "b"] {
            world.given_entity(id, json!({})).await;
        }
        let requests = [id(&world.remove("a").await), id(&world.remove("bad").await), id(&world.remove("b").await)];
        world.job_ended(&requests[0], "succeeded").await;
        world.job_ended(&requests[2], "succeeded").await;
        let bad = world.call_until("RemovalService/GetRemovalJob", json!({"job_id": requests[1]}), |job| !job["next_attempt"].is_null() && !job["last_error"].is_null()).await;
        assert_eq!((bad.get("status"), bad.get("last_error.code")), (&json!("running"), &json!("internal")));
        assert!(!bad.json.to_string().contains("secret"), "{}", bad.json);
        assert!(bad.get("attempts").as_i64().unwrap() >= 1);
        assert!(bad.get("next_attempt").as_i64() > bad.get("started_at").as_i64());
        // The last try.
        world.database.sql("UPDATE offboarding_request SET attempts = 10, due_at = now() WHERE entity_id = 'bad'");
        let failed = world.job_ended(&requests[1], "failed").await;
        assert_eq!((failed.get("error.code"), failed.get("next_attempt")), (&json!("internal"), &json!(null)));
        assert_eq!(world.state("bad").await, "active");
        world.database.sql("DROP TRIGGER refuse ON tombstone");
        world.job_ended(&id(&world.remove("bad").await), "succeeded").await;
        world.database.assert_sound();
    }
}
