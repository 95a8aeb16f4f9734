//! The portfolio in the response to a change of membership is current, whichever replica is asked and whatever happened in between.

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::kit::*;

/// The first members of a portfolio, in attach order.
fn first_members(database: &Database, portfolio: &str) -> Vec<String> {
    let members = format!(
        "SELECT e.id FROM entity e WHERE e.portfolio_id = '{portfolio}' ORDER BY e.attached_at, e.id LIMIT 1000"
    );
    let joined = database
        .text(&format!("SELECT string_agg(m.id, ',') FROM ({members}) m"))
        .unwrap_or_default();
    joined.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect()
}

fn assert_shows(world: &World, answer: &Answer, portfolio: &str, after: &str) {
    let shown: Vec<String> = answer
        .get("entity_ids")
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    assert!(
        shown == first_members(&world.database, portfolio),
        "{portfolio} shows others than it has after {after}"
    );
    let row =
        format!("SELECT entity_count || ' ' || version FROM portfolio WHERE id = '{portfolio}'");
    let reported = format!("{} {}", answer.get("entity_count"), answer.get("version"));
    assert_eq!(world.database.text(&row).as_deref(), Some(reported.as_str()), "after {after}");
}

scenario! {
    async fn a_change_shows_the_first_members_as_they_are(world: &World) {
        world.portfolios(&["large", "small"]).await;
        let entities: Vec<Value> = (0..1045)
            .map(|n| json!({"entity_id": format!("e{n:04}"), "type": "T", "portfolio_id": if n < 1015 { "large" } else { "small" }}))
            .collect();
        world.client.import(&entities).await.unwrap();
        let second = Server::start_with(&world.database, &[], &[]).await;
        let clients = [world.client.clone(), Client::new(&second, &world.key, world.protocol)];
        let mut random = rand::rng();
        // Around the edge of what is shown: members come into view, and the last that there is leaves.
        for n in 0..80 {
            let portfolio = if random.random_bool(0.9) { "large" } else { "small" };
            let members = first_members(&world.database, portfolio);
            let member = match n % 3 {
                0 => members.last(),
                1 => members.first(),
                _ => members.choose(&mut random),
            };
            let Some(entity) = member.cloned() else { continue };
            let client = clients.choose(&mut random).unwrap();
            let request = json!({"portfolio_id": portfolio, "entity_id": entity});
            let answer = client.call("PortfolioService/DetachEntity", request.clone()).await.unwrap();
            assert_shows(world, &answer, portfolio, "a detach");
            if random.random_bool(0.5) {
                let to = if random.random_bool(0.8) { portfolio } else { "small" };
                let request = json!({"portfolio_id": to, "entity_id": entity});
                let answer = client.call("PortfolioService/AttachEntity", request).await.unwrap();
                assert_shows(world, &answer, to, "an attach");
            }
            if random.random_bool(0.1) {
                let two: Vec<&String> = members.iter().take(2).collect();
                client.call("PortfolioService/BatchDetachEntities", json!({"portfolio_id": portfolio, "entity_ids": two})).await.unwrap();
            }
        }
        assert!(world.database.entity_count_of("large") < 1000, "the edge was crossed");
    }
}
