//! The members of a portfolio, by the page and all of them.

use crate::kit::*;

const MEMBERS: &str = "PortfolioService/ListPortfolioEntities";
const EXPORT: &str = "PortfolioService/ExportPortfolio";

impl World {
    async fn members(&self, request: Value) -> (Vec<Value>, String) {
        let page = self.call(MEMBERS, request).await.unwrap();
        (
            page.get("entities").as_array().unwrap().clone(),
            page.get("next_page_token").as_str().unwrap().to_owned(),
        )
    }

    async fn export(&self, portfolio: &str) -> MessageStream {
        self.client.stream(EXPORT, json!({"portfolio_id": portfolio}), &[]).await.unwrap()
    }
}

fn ids(entities: &[Value]) -> Vec<&str> {
    entities.iter().map(|entity| entity["id"].as_str().unwrap()).collect()
}

/// Members with two tasks and a note each, made by SQL in a portfolio that is there.
fn given_members(database: &Database, portfolio: &str, count: i64) {
    database.sql(&format!(
        "INSERT INTO entity (realm_id, id, incarnation, type, state, portfolio_id, attached_at)
         SELECT p.realm_id, 'm' || lpad(n::text, 6, '0'), gen_random_uuid(), 'T', 'active', p.id, now() + n % 7 * interval '1 second'
         FROM portfolio p, generate_series(1, {count}) n WHERE p.id = '{portfolio}';
         INSERT INTO dependent (realm_id, entity_id, kind, id)
         SELECT e.realm_id, e.id, CASE WHEN d < 3 THEN 'task' ELSE 'note' END, d::text
         FROM entity e, generate_series(1, 3) d WHERE e.portfolio_id = '{portfolio}';
         UPDATE portfolio SET entity_count = {count}, version = version + 1 WHERE id = '{portfolio}'"
    ));
}

/// How many members do not find room in the buffers on the way to a reader.
const CROWD: u32 = 60_000;

/// That many members, with long ids.
pub fn given_a_crowd(database: &Database, portfolio: &str) {
    database.sql(&format!(
        "INSERT INTO entity (realm_id, id, incarnation, type, state, portfolio_id, attached_at)
         SELECT p.realm_id, rpad('m' || n, 128, '_'), gen_random_uuid(), 'T', 'active', p.id, now()
         FROM portfolio p, generate_series(1, {CROWD}) n WHERE p.id = '{portfolio}';
         UPDATE portfolio SET entity_count = {CROWD}, version = version + 1 WHERE id = '{portfolio}';
         ANALYZE"
    ));
}

/// The ids of the members as the database has them, in the order of attaching.
fn stored(database: &Database, portfolio: &str) -> Vec<String> {
    let ids = format!(
        "SELECT string_agg(id, ' ' ORDER BY attached_at, id) FROM entity WHERE portfolio_id = '{portfolio}'"
    );
    database.text(&ids).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// The ids of all messages up to the summary, which ends the stream.
async fn to_the_end(stream: &mut MessageStream) -> (Vec<String>, Value) {
    let mut ids = Vec::new();
    loop {
        let message = stream.message().await;
        assert_eq!((&message["portfolio"], &message["dependents"]), (&json!(null), &json!({})));
        let these = message["entity_ids"].as_array().unwrap();
        if !message["summary"].is_null() {
            assert!(these.is_empty());
            assert!(stream.next().await.is_none(), "nothing comes behind the summary");
            return (ids, message["summary"].clone());
        }
        assert!((1..=1000).contains(&these.len()));
        ids.extend(these.iter().map(|id| id.as_str().unwrap().to_owned()));
    }
}

scenario! {
    async fn members_are_listed_as_entities_in_the_order_in_which_they_came(world: &World) {
        world.portfolios(&["p", "q"]).await;
        world.entities(&["a", "b", "c", "d", "e"]).await;
        assert_eq!(world.members(json!({"portfolio_id": "p"})).await, (vec![], String::new()));
        world.attach("q", "e").await.unwrap();
        for entity in ["d", "b", "a", "c"] {
            world.attach("p", entity).await.unwrap();
        }
        let (all, token) = world.members(json!({"portfolio_id": "p"})).await;
        assert_eq!((ids(&all), token.as_str()), (vec!["d", "b", "a", "c"], ""));
        assert_eq!(all[1], world.entity("b").await);
        let (first, token) = world.members(json!({"portfolio_id": "p", "page_size": 2})).await;
        assert_eq!(ids(&first), ["d", "b"]);
        // Members that leave or come in between move nobody else.
        world.detach("p", "b").await.unwrap();
        world.attach("p", "e").await.unwrap();
        let (second, token) = world.members(json!({"portfolio_id": "p", "page_size": 2, "page_token": token})).await;
        assert_eq!(ids(&second), ["a", "c"]);
        let (last, token) = world.members(json!({"portfolio_id": "p", "page_size": 1000, "page_token": token})).await;
        assert_eq!((ids(&last), token.as_str()), (vec!["e"], ""));
    }

    async fn pages_of_members_who_came_at_one_moment_leave_none_out(world: &World) {
        world.portfolios(&["p"]).await;
        given_members(&world.database, "p", 1_000);
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let (page, next) = world.members(json!({"portfolio_id": "p", "page_size": 199, "page_token": token})).await;
            seen.extend(ids(&page).into_iter().map(str::to_owned));
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, stored(&world.database, "p"));
    }

    async fn a_page_of_large_members_ends_early(world: &World) {
        world.portfolios(&["p"]).await;
        for n in 0..5 {
            let attributes = json!({"text": "x".repeat(900_000)});
            let entity = json!({"entity_id": format!("e{n}"), "type": "T", "portfolio_id": "p", "attributes": attributes});
            world.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
        }
        let (first, token) = world.members(json!({"portfolio_id": "p", "page_size": 1000})).await;
        let (second, end) = world.members(json!({"portfolio_id": "p", "page_size": 1000, "page_token": token})).await;
        assert_eq!((ids(&first), ids(&second), end.as_str()), (vec!["e0", "e1", "e2"], vec!["e3", "e4"], ""));
    }

    async fn a_page_of_members_that_is_wrong_is_refused(world: &World) {
        world.portfolios(&["p", "q"]).await;
        world.entities(&["a", "b"]).await;
        world.call("PortfolioService/BatchAttachEntities", json!({"portfolio_id": "p", "entity_ids": ["a", "b"]})).await.unwrap();
        let (_, token) = world.members(json!({"portfolio_id": "p", "page_size": 1})).await;
        let refused = world.call(MEMBERS, json!({"portfolio_id": "q", "page_token": token})).await.unwrap_err();
        assert_eq!(refused.faults[0].field, "page_token", "a token leads on in its own portfolio alone");
        let refused = world.call(MEMBERS, json!({"portfolio_id": "p", "page_size": 1001, "page_token": "x"})).await.unwrap_err();
        assert_eq!(refused.faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), ["page_size", "page_token"]);
        assert_eq!(world.call(MEMBERS, json!({"portfolio_id": "r"})).await.unwrap_err().code, "not_found");
    }

    async fn an_export_is_the_portfolio_then_every_member_then_a_summary(world: &World) {
        world.portfolios(&["p", "empty"]).await;
        given_members(&world.database, "p", 2_345);
        world.database.sql("UPDATE entity SET state = 'onboarding' WHERE id = 'm000001'");
        world.entities(&["other"]).await;
        let mut stream = world.export("p").await;
        let first = stream.message().await;
        assert_eq!(first["portfolio"], world.portfolio("p").await);
        assert_eq!(first["dependents"], json!({"note": 2345, "task": 4690}));
        assert_eq!((&first["entity_ids"], &first["summary"]), (&json!([]), &json!(null)));
        let (ids, summary) = to_the_end(&mut stream).await;
        assert_eq!(ids, stored(&world.database, "p"));
        assert_eq!(summary, json!({"entity_count": 2345, "dependent_count": 7035, "version": 2}));
        if world.protocol == Protocol::Rest {
            assert_eq!(stream.header("content-type"), Some("application/x-ndjson"));
        }
        let mut stream = world.export("empty").await;
        assert_eq!((&stream.message().await["dependents"], to_the_end(&mut stream).await.1["entity_count"].clone()), (&json!({}), json!(0)));
    }

    async fn an_export_reports_of_one_moment_whatever_changes_meanwhile(world: &World) {
        world.portfolios(&["p", "q"]).await;
        given_members(&world.database, "p", 20_000);
        let before = stored(&world.database, "p");
        let mut stream = world.export("p").await;
        let first = stream.message().await;
        // The last members leave, and new ones come, while most of the export is still unread.
        let last: Vec<&str> = before[19_000..].iter().map(String::as_str).collect();
        world.call("PortfolioService/BatchAttachEntities", json!({"portfolio_id": "q", "entity_ids": last})).await.unwrap();
        world.entities(&["late"]).await;
        world.attach("p", "late").await.unwrap();
        world.database.sql("DELETE FROM dependent");
        let (ids, summary) = to_the_end(&mut stream).await;
        assert_eq!(ids, before);
        assert_eq!(summary, json!({"entity_count": 20_000, "dependent_count": 60_000, "version": first["portfolio"]["version"]}));
        assert_eq!(world.portfolio("p").await["entity_count"], 19_001);
    }

    async fn a_reader_that_hangs_up_gives_its_turn_back(world: &World) {
        world.portfolios(&["p"]).await;
        given_a_crowd(&world.database, "p");
        for _ in 0..5 {
            let mut stream = world.export("p").await;
            stream.message().await;
        }
        let idle = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'offboard' AND xact_start IS NOT NULL";
        until("no export is under way any more", || world.database.count(idle) == 0).await;
    }

    async fn one_too_many_exports_at_once_are_asked_to_come_later(world: &World) {
        world.portfolios(&["p"]).await;
        given_a_crowd(&world.database, "p");
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut stream = world.export("p").await;
            stream.message().await;
            open.push(stream);
        }
        let Err(refused) = world.client.stream(EXPORT, json!({"portfolio_id": "p"}), &[]).await else { panic!("there was room for a third") };
        assert_eq!((refused.code.as_str(), refused.header("retry-after").is_some()), ("unavailable", world.protocol == Protocol::Rest));
        assert_eq!(world.portfolio("p").await["entity_count"], CROWD, "others are served");
        open.pop();
        let mut stream = world.export("p").await;
        stream.message().await;
        assert_eq!(to_the_end(&mut stream).await.1["entity_count"], CROWD);
    }

    async fn what_is_not_there_or_may_not_be_seen_is_not_reported(world: &World) {
        world.portfolios(&["p"]).await;
        for (portfolio, code) in [("q", "not_found"), ("a b", "validation_failed")] {
            let Err(refused) = world.client.stream(EXPORT, json!({"portfolio_id": portfolio}), &[]).await else { panic!("{portfolio} is exported") };
            assert_eq!(refused.code, code);
        }
        let partial = world.client("acme", "test", &["portfolios:read"]);
        let refused = partial.call(MEMBERS, json!({"portfolio_id": "p"})).await.unwrap_err();
        assert_eq!((refused.code.as_str(), &refused.members["required_scope"]), ("permission_denied", &json!("entities:read")));
        let blind = world.client("acme", "test", &["portfolios:write"]);
        let Err(refused) = blind.stream(EXPORT, json!({"portfolio_id": "p"}), &[]).await else { panic!("it may not be read") };
        assert_eq!(refused.members, json!({"required_scope": "portfolios:read"}).as_object().cloned().unwrap());
    }
}
