//! Changes of membership that must look the same, and those that happen at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use offboard::proto::v1::DetachEntityRequest;
use offboard::proto::v1::portfolio_service_client::PortfolioServiceClient;
use tonic_types::StatusExt;

use crate::kit::*;

/// Realms in which a portfolio and an entity may be. All ids are equally long, so that lengths can be compared as well.
struct Scene {
    world: World,
    /// Pairs of a portfolio and an entity of which at least one is missing or invisible, with the reason.
    pairs: Vec<(&'static str, &'static str, &'static str)>,
}

async fn scene(protocol: Protocol) -> Scene {
    let world = World::start(protocol).await;
    world.portfolios(&["pf_mine"]).await;
    world.entities(&["en_mine", "en_gone"]).await;
    for (org, mode, name) in [("umbrella", "test", "orgs"), ("acme", "live", "live")] {
        let other = world.client(org, mode, SCOPES);
        other
            .call(
                "PortfolioService/CreatePortfolio",
                json!({"portfolio_id": format!("pf_{name}"), "name": "Theirs"}),
            )
            .await
            .unwrap();
        let entity = json!({"entity_id": format!("en_{name}"), "type": "T", "portfolio_id": format!("pf_{name}")});
        other.call("EntityService/CreateEntity", json!({"entity": entity})).await.unwrap();
    }
    world.call("RemovalService/RemoveEntity", json!({"entity_id": "en_gone"})).await.unwrap();
    until("the entity is removed", || !world.database.has_entity("en_gone")).await;
    let pairs = vec![
        ("pf_none", "en_mine", "the portfolio is missing"),
        ("pf_mine", "en_none", "the entity is missing"),
        ("pf_none", "en_none", "both are missing"),
        ("pf_mine", "en_gone", "the entity was removed"),
        ("pf_orgs", "en_mine", "the portfolio is of another organisation"),
        ("pf_mine", "en_orgs", "the entity is of another organisation"),
        ("pf_orgs", "en_orgs", "both are of another organisation, where one is in the other"),
        ("pf_live", "en_mine", "the portfolio is of the other mode"),
        ("pf_mine", "en_live", "the entity is of the other mode"),
        ("pf_live", "en_live", "both are of the other mode, where one is in the other"),
    ];
    Scene { world, pairs }
}

fn neutral(text: &str, portfolio: &str, entity: &str) -> String {
    text.replace(portfolio, "PORTFOLIO").replace(entity, "ENTITY")
}

#[tokio::test]
async fn every_reason_not_to_find_a_membership_gives_the_same_bytes_by_rest() {
    let Scene { world, pairs } = scene(Protocol::Rest).await;
    let bearer = format!("Bearer {}", world.key.secret);
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-request-id", "req_same"),
        ("content-type", "application/json"),
    ];
    let address = world.server.addresses.http;
    let (mut detached, mut attached) = (BTreeMap::new(), BTreeMap::new());
    for (portfolio, entity, reason) in &pairs {
        let members = format!("/v1/portfolios/{portfolio}/entities");
        let detach = http(address, "DELETE", &format!("{members}/{entity}"), &headers, "").await;
        let attach =
            http(address, "POST", &members, &headers, json!({"entity_id": entity}).to_string())
                .await;
        for (reply, found) in [(detach, &mut detached), (attach, &mut attached)] {
            assert_eq!(reply.status, 404, "{reason}: {}", reply.text());
            let heads: Vec<_> = reply.headers.iter().filter(|(name, _)| name != "date").collect();
            let answer = format!("{} {heads:?} {}", reply.status, reply.text());
            found.entry(neutral(&answer, portfolio, entity)).or_insert_with(Vec::new).push(*reason);
        }
    }
    assert_eq!(detached.len(), 1, "{detached:#?}");
    assert_eq!(attached.len(), 1, "{attached:#?}");
    assert_eq!(world.database.events_of("portfolio.entity_detached"), 0);
}

#[tokio::test]
async fn every_reason_not_to_find_a_portfolio_gives_the_same_bytes_by_rest() {
    let Scene { world, .. } = scene(Protocol::Rest).await;
    let bearer = format!("Bearer {}", world.key.secret);
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-request-id", "req_same"),
        ("content-type", "application/json"),
    ];
    let many = json!({"entity_ids": ["en_mine"]}).to_string();
    for (method, below, body) in [
        ("GET", "", ""),
        ("HEAD", "", ""),
        ("PATCH", "", r#"{"name":"Ours","expected_version":1}"#),
        ("DELETE", "", ""),
        ("GET", "/entities", ""),
        ("HEAD", "/entities", ""),
        ("POST", "/entities:batchAttach", many.as_str()),
        ("POST", "/entities:batchDetach", many.as_str()),
        ("GET", "/export", ""),
        ("HEAD", "/export", ""),
    ] {
        let mut found = BTreeMap::new();
        for portfolio in ["pf_none", "pf_orgs", "pf_live"] {
            let reply = http(
                world.server.addresses.http,
                method,
                &format!("/v1/portfolios/{portfolio}{below}"),
                &headers,
                body.to_owned(),
            )
            .await;
            assert_eq!(
                (reply.status, reply.body.is_empty()),
                (404, method == "HEAD"),
                "{method} {below}: {}",
                reply.text()
            );
            let heads: Vec<_> = reply.headers.iter().filter(|(name, _)| name != "date").collect();
            let answer = format!("{heads:?} {}", reply.text());
            found
                .entry(neutral(&answer, portfolio, "en_mine"))
                .or_insert_with(Vec::new)
                .push(portfolio);
        }
        assert_eq!(found.len(), 1, "{method} {below}: {found:#?}");
    }
    assert_eq!(world.database.portfolio_versions(), 1 + 2 + 2, "nothing has changed");
}

#[tokio::test]
async fn every_reason_not_to_find_a_membership_gives_the_same_status_by_grpc() {
    let Scene { world, pairs } = scene(Protocol::Grpc).await;
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", world.server.addresses.grpc))
            .unwrap();
    let mut client = PortfolioServiceClient::new(channel.connect_lazy());
    let mut found = BTreeMap::new();
    for (portfolio, entity, reason) in &pairs {
        let message = DetachEntityRequest {
            portfolio_id: (*portfolio).to_owned(),
            entity_id: (*entity).to_owned(),
            ..Default::default()
        };
        let mut request = tonic::Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {}", world.key.secret).parse().unwrap());
        request.metadata_mut().insert("x-request-id", "req_same".parse().unwrap());
        let status = client.detach_entity(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound, "{reason}");
        let mut heads = status.metadata().clone().into_headers();
        heads.remove("date");
        // The metadata of the details are a map, whose order says nothing.
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        let metadata: BTreeMap<_, _> = info.metadata.iter().collect();
        let size = status.details().len();
        let answer = format!(
            "{} {heads:?} {} {metadata:?} {:?} {size}",
            status.message(),
            info.reason,
            details.request_info()
        );
        let rest = (
            details.resource_info(),
            details.bad_request(),
            details.help(),
            details.retry_info(),
            details.debug_info(),
        );
        found
            .entry(neutral(&format!("{answer} {rest:?}"), portfolio, entity))
            .or_insert_with(Vec::new)
            .push(*reason);
    }
    assert_eq!(found.len(), 1, "{found:#?}");
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

const ENTITIES: [&str; 5] = ["e0", "e1", "e2", "e3", "e4"];
const PORTFOLIOS: [&str; 3] = ["p0", "p1", "p2"];

scenario! {
    async fn counts_and_versions_hold_however_many_change_memberships_at_once(world: &World) {
        world.portfolios(&PORTFOLIOS).await;
        world.entities(&ENTITIES).await;
        let client = Arc::new(world.client.clone());
        let at_once = (0..16).map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut dice = Dice(task);
                for _ in 0..40 {
                    let request = json!({"portfolio_id": PORTFOLIOS[dice.roll(3)], "entity_id": ENTITIES[dice.roll(5)]});
                    if dice.roll(3) == 0 {
                        if let Err(failure) = client.call("PortfolioService/DetachEntity", request).await {
                            assert_eq!(failure.code, "state_conflict", "{failure:#?}");
                        }
                    } else {
                        client.call("PortfolioService/AttachEntity", request).await.unwrap();
                    }
                }
            })
        });
        for task in at_once.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        for portfolio in PORTFOLIOS {
            let now = world.portfolio(portfolio).await;
            let number = |query: &str| world.database.count(&query.replace("$1", &format!("'{portfolio}'")));
            assert_eq!(now["entity_count"], number("SELECT count(*) FROM entity WHERE portfolio_id = $1"), "{now}");
            assert_eq!(now["entity_ids"].as_array().unwrap().len() as i64, now["entity_count"].as_i64().unwrap(), "{now}");
            let changes = number("SELECT count(*) FROM event WHERE type LIKE 'portfolio.entity_%' AND subjects = ARRAY[$1]");
            assert!(changes > 0);
            assert_eq!(now["version"], 1 + changes, "every step was recorded, once");
            let gone_wrong = "SELECT count(*) FROM (
                SELECT (data->>'version')::int8 - row_number() OVER (ORDER BY seq) AS ahead
                FROM event WHERE type LIKE 'portfolio.%' AND subjects = ARRAY[$1] AND data ? 'entity_ids') t WHERE ahead <> 1";
            assert_eq!(number(gone_wrong), 0, "the events of a portfolio are in the order of its versions");
        }
        for entity in ENTITIES {
            let steps = format!("SELECT count(DISTINCT xid) FROM event WHERE data->'entity_ids' ? '{entity}'");
            assert_eq!(world.entity(entity).await["version"], 1 + world.database.count(&steps), "a move is one step of the entity");
        }
    }
}
