//! Many memberships at once: a result an item, and each portfolio steps once.

use crate::kit::*;

const ATTACH: &str = "PortfolioService/BatchAttachEntities";
const DETACH: &str = "PortfolioService/BatchDetachEntities";

impl World {
    /// Attaches or detaches many.
    async fn batch(
        &self,
        method: &str,
        portfolio: &str,
        entities: &[&str],
    ) -> Result<Answer, Failure> {
        self.call(method, json!({"portfolio_id": portfolio, "entity_ids": entities})).await
    }
}

/// `ID outcome` or `ID code` of each item.
fn outcomes(answer: &Answer) -> Vec<String> {
    let results = answer.get("results").as_array().unwrap().iter();
    let word = |result: &Value| match &result["error"]["code"] {
        Value::String(code) => {
            assert_eq!(result["outcome"], "failed");
            code.clone()
        }
        _ => result["outcome"].as_str().unwrap().to_owned(),
    };
    results
        .map(|result| format!("{} {}", result["entity_id"].as_str().unwrap(), word(result)))
        .collect()
}

/// Members and version of a portfolio.
async fn members_and_version(world: &World, portfolio: &str) -> (Value, i64) {
    let portfolio = world.portfolio(portfolio).await;
    assert_eq!(
        portfolio["entity_ids"].as_array().unwrap().len() as i64,
        portfolio["entity_count"].as_i64().unwrap()
    );
    (portfolio["entity_ids"].clone(), portfolio["version"].as_i64().unwrap())
}

/// The events of memberships since an event, oldest first: `type portfolio members version`.
fn reported(database: &Database, since: i64) -> Vec<String> {
    let query = format!(
        "SELECT string_agg(concat_ws(' ', type, subjects[1], data ->> 'entity_ids', data ->> 'version'), E'\\n' ORDER BY seq)
         FROM event WHERE seq > {since} AND type LIKE 'portfolio.entity_%'"
    );
    database.text(&query).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn now(database: &Database) -> i64 {
    database.count("SELECT coalesce(max(seq), 0) FROM event")
}

scenario! {
    async fn a_batch_attaches_and_moves_and_each_portfolio_steps_once(world: &World) {
        world.portfolios(&["p", "q", "r"]).await;
        world.entities(&["a", "b", "c", "d", "e"]).await;
        for (portfolio, entity) in [("q", "b"), ("q", "c"), ("r", "d"), ("p", "e")] {
            world.attach(portfolio, entity).await.unwrap();
        }
        let since = now(&world.database);
        let done = world.batch(ATTACH, "p", &["d", "e", "a", "c", "b", "a"]).await.unwrap();
        assert_eq!(done.http.unwrap_or(200), 200);
        // In the order of the request, behind who was there.
        assert_seen!("attached_and_moved", done);
        members_and_version(world, "p").await;
        assert_eq!((members_and_version(world, "q").await, members_and_version(world, "r").await), ((json!([]), 4), (json!([]), 3)));
        assert_eq!(*done.get("portfolio"), world.portfolio("p").await);
        assert_eq!(reported(&world.database, since), [
            r#"portfolio.entity_detached q ["c", "b"] 4"#,
            r#"portfolio.entity_detached r ["d"] 3"#,
            r#"portfolio.entity_attached p ["d", "a", "c", "b"] 3"#,
        ]);
        let versions = world.database.entity_versions();
        assert_eq!(versions.as_deref(), Some("23332"), "each that moved has stepped once");
        let back = world.attach("q", "d").await.unwrap();
        assert_eq!(back.json["entity_ids"], json!(["d"]));
    }

    async fn a_batch_detaches_and_the_portfolio_steps_once(world: &World) {
        world.portfolios(&["p", "q"]).await;
        world.entities(&["a", "b", "c", "d", "free"]).await;
        world.batch(ATTACH, "p", &["a", "b", "c"]).await.unwrap();
        world.attach("q", "d").await.unwrap();
        let since = now(&world.database);
        let done = world.batch(DETACH, "p", &["c", "free", "d", "none", "a", "c"]).await.unwrap();
        assert_seen!("detached_as_a_batch", done);
        assert_eq!((members_and_version(world, "p").await, members_and_version(world, "q").await), ((json!(["b"]), 3), (json!(["d"]), 2)));
        assert_eq!(*done.get("portfolio"), world.portfolio("p").await);
        assert_eq!(reported(&world.database, since), [r#"portfolio.entity_detached p ["c", "a"] 3"#]);
        assert_eq!((&world.entity("a").await["portfolio_id"], &world.entity("a").await["version"]), (&json!(null), &json!(3)));
    }

    async fn entities_that_cannot_be_attached_are_reported_and_the_others_are_attached(world: &World) {
        world.portfolios(&["p", "q"]).await;
        world.entities(&["a", "leaving", "soft", "member"]).await;
        world.attach("p", "member").await.unwrap();
        for entity in ["leaving", "member"] {
            let asked = json!({"entity_id": entity, "grace_period": "3600s"});
            world.call("OffboardingService/RequestOffboarding", asked).await.unwrap();
        }
        world.call("BulkDeleteService/StartBulkDelete", json!({"uris": ["soft"]})).await.unwrap();
        until("it is deleted", || world.database.entities_deleted() == 1).await;
        let done = world.batch(ATTACH, "p", &["none", "leaving", "a", "soft", "member"]).await.unwrap();
        assert_seen!("attached_but_for_some", done);
        let (never, gone) = (&done.get("results")[0]["error"], &done.get("results")[3]["error"]);
        assert_eq!(never.to_string().replace("none", "ID"), gone.to_string().replace("soft", "ID"));
        assert_eq!(members_and_version(world, "p").await, (json!(["member", "a"]), 3));
    }

    async fn a_batch_that_changes_nothing_is_no_change(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["a", "b"]).await;
        world.batch(ATTACH, "p", &["a", "b"]).await.unwrap();
        let (portfolio, entity, since) = (world.portfolio("p").await, world.entity("a").await, now(&world.database));
        let again = world.batch(ATTACH, "p", &["b", "none", "a"]).await.unwrap();
        assert_seen!("attached_again", again);
        assert_eq!(*again.get("portfolio"), portfolio);
        assert_eq!(outcomes(&world.batch(DETACH, "p", &["none"]).await.unwrap()), ["none not_found"]);
        assert_eq!((world.portfolio("p").await, world.entity("a").await, now(&world.database)), (portfolio, entity, since));
    }

    async fn a_batch_that_is_wrong_or_has_no_portfolio_changes_nothing(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["a"]).await;
        for method in [ATTACH, DETACH] {
            let fields = async |entities: Value| {
                let refused = world.call(method, json!({"portfolio_id": "p", "entity_ids": entities})).await.unwrap_err();
                assert_eq!(refused.code, "validation_failed");
                refused.faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
            };
            assert_eq!(fields(json!([])).await, ["entity_ids"]);
            assert_eq!(fields(json!(vec!["a"; 1001])).await, ["entity_ids"]);
            assert_eq!(fields(json!(["a", "b c", "a", ""])).await, ["entity_ids[1]", "entity_ids[3]"]);
            assert_eq!(fields(json!(vec!["b/c"; 1000])).await.len(), 20, "as many as fit into an answer");
            let missing = world.batch(method, "q", &["a"]).await.unwrap_err();
            assert_eq!((missing.code.as_str(), missing.message.contains("portfolio with id `q`")), ("not_found", true));
        }
        assert_eq!((members_and_version(world, "p").await, &world.entity("a").await["version"]), ((json!([]), 1), &json!(1)));
    }

    async fn a_thousand_change_at_once(world: &World) {
        world.portfolios(&["p", "q"]).await;
        let ids: Vec<String> = (0..1000).map(|n| format!("e{:03}", (n * 7) % 1000)).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        world.entities(&ids).await;
        let attached = world.batch(ATTACH, "p", &ids).await.unwrap();
        assert!(attached.get("results").as_array().unwrap().iter().all(|result| result["outcome"] == "ok"));
        assert_eq!(members_and_version(world, "p").await, (json!(ids), 2));
        world.batch(ATTACH, "q", &ids[500..]).await.unwrap();
        assert_eq!((members_and_version(world, "p").await, members_and_version(world, "q").await), ((json!(ids[..500]), 3), (json!(ids[500..]), 2)));
        let detached = world.batch(DETACH, "q", &ids).await.unwrap();
        let conflicts = detached.get("results").as_array().unwrap().iter().filter(|result| result["error"]["code"] == "state_conflict");
        assert_eq!((conflicts.count(), members_and_version(world, "q").await), (500, (json!([]), 3)));
    }

    async fn a_batch_sent_again_with_its_key_is_done_once(world: &World) {
        world.portfolios(&["p"]).await;
        world.entities(&["a", "b"]).await;
        let request = json!({"portfolio_id": "p", "entity_ids": ["a", "none", "b"]});
        let send = || world.client.call_with(ATTACH, request.clone(), &[("idempotency-key", "k1")]);
        let (first, second) = (send().await.unwrap(), send().await.unwrap());
        assert_eq!((&first.json, second.header("idempotent-replayed")), (&second.json, Some("true")));
        assert_eq!(members_and_version(world, "p").await, (json!(["a", "b"]), 2));
    }
}
