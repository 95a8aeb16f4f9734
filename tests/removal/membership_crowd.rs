//! Many callers who attach and detach few entities of one portfolio and of few, in two realms at once, so that their calls are done together: what each
//! was told is one place in one order, which the events have.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;

use crate::kit::*;

const CALLERS: usize = 64;
const CALLS: usize = 25;
const ENTITIES: usize = 12;
/// The organisations of the two realms, whose ids are the same.
const REALMS: [&str; 2] = ["acme", "globex"];

fn any(bound: usize) -> usize {
    rand::random_range(0..bound)
}

/// What a caller was told of a change that it asked for.
#[derive(Debug)]
struct Told {
    realm: usize,
    attaches: bool,
    portfolio: String,
    entity: String,
    version: usize,
    count: usize,
    /// The members, if it has asked for them.
    members: Option<BTreeSet<String>>,
}

fn members_of(answer: &Answer) -> BTreeSet<String> {
    let ids = answer.json["entity_ids"].as_array().cloned().unwrap_or_default();
    let members: BTreeSet<String> = ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    assert_eq!(members.len(), ids.len(), "{answer:?}");
    members
}

/// Attaches and detaches at random, and returns what it was told; a detach from a portfolio that the entity is not in is refused.
async fn caller(client: &Client, realm: usize, portfolios: usize) -> Vec<Told> {
    let mut told = Vec::new();
    let mut latest = BTreeMap::new();
    for _ in 0..CALLS {
        let (attaches, full) = (any(2) == 0, any(4) == 0);
        let (portfolio, entity) =
            (format!("p{}", any(portfolios)), format!("e-{:06}", 1 + any(ENTITIES)));
        let method = if attaches { "AttachEntity" } else { "DetachEntity" };
        let request = json!({"portfolio_id": portfolio, "entity_id": entity, "view": if full { "full" } else { "basic" }});
        match client.call(&format!("PortfolioService/{method}"), request).await {
            Ok(answer) => {
                let version = answer.get("version").as_u64().unwrap() as usize;
                let before = latest.insert(portfolio.clone(), version);
                assert!(before <= Some(version), "{answer:?} is older than {before:?}");
                let count = answer.json["entity_count"].as_u64().unwrap_or_default() as usize;
                let members = full.then(|| members_of(&answer));
                told.push(Told { realm, attaches, portfolio, entity, version, count, members });
            }
            Err(refused) => {
                assert!(!attaches && portfolios > 1, "{refused:#?}");
                assert_eq!(refused.code, "state_conflict", "{refused:#?}");
            }
        }
    }
    told
}

/// An event of a membership.
#[derive(Debug, serde::Deserialize)]
struct Step {
    xid: String,
    realm: String,
    attaches: bool,
    portfolio: String,
    entity: String,
    version: usize,
}

/// The members of each portfolio at each of its versions, from the first, by realm.
type History = BTreeMap<(usize, String), Vec<BTreeSet<String>>>;

/// Goes through the events in their order: each must be a step that can be made, to the next version.
fn replay(steps: &[Step], portfolios: usize) -> History {
    let mut history: History = (0..portfolios)
        .flat_map(|n| REALMS.iter().enumerate().map(move |(realm, _)| (realm, format!("p{n}"))))
        .map(|portfolio| (portfolio, vec![BTreeSet::new()]))
        .collect();
    for step in steps {
        let realm = REALMS.iter().position(|org| *org == step.realm).unwrap();
        let versions = history.get_mut(&(realm, step.portfolio.clone())).unwrap();
        let mut members = versions.last().unwrap().clone();
        let changed = if step.attaches {
            members.insert(step.entity.clone())
        } else {
            members.remove(&step.entity)
        };
        assert!(changed, "{step:?} is a step of {members:?}");
        versions.push(members);
        assert_eq!(step.version, versions.len(), "{step:?}");
    }
    history
}

async fn crowd(portfolios: usize) {
    let world = World::start_with(
        Protocol::Rest,
        &["--roles=grpc,gateway", "--rate-limit=0", "--db-lock-timeout=60"],
    )
    .await;
    let keys = REALMS.map(|org| Key::create(&world.database, org, "test", SCOPES));
    let clients = [0, 1].map(|realm: usize| {
        [Protocol::Grpc, Protocol::Rest]
            .map(|protocol| Client::new(&world.server, &keys[realm], protocol))
    });
    for realm in &clients {
        for n in 0..portfolios {
            let portfolio = json!({"portfolio_id": format!("p{n}"), "name": "P"});
            realm[0].call("PortfolioService/CreatePortfolio", portfolio).await.unwrap();
        }
    }
    world.database.sql(&format!(
        "INSERT INTO entity (realm_id, id, incarnation, type, state)
         SELECT r.id, 'e-' || lpad(n::text, 6, '0'), gen_random_uuid(), 'T', 'active'
         FROM realm r, generate_series(1, {ENTITIES}) n WHERE r.org IN ('acme', 'globex')"
    ));
    let callers = (0..CALLERS).map(|n| caller(&clients[n % 2][n / 2 % 2], n % 2, portfolios));
    let told: Vec<Told> = join_all(callers).await.into_iter().flatten().collect();

    let steps = "SELECT jsonb_agg(jsonb_build_object('xid', v.xid::text, 'realm', r.org, 'attaches', v.type = 'portfolio.entity_attached', 'portfolio', v.subjects[1],
                                                     'entity', v.data->'entity_ids'->>0, 'version', (v.data->>'version')::int8) ORDER BY v.seq)
                 FROM event v JOIN realm r ON r.id = v.realm_id WHERE v.type LIKE 'portfolio.entity_%'";
    let steps: Vec<Step> = serde_json::from_str(&world.database.text(steps).unwrap()).unwrap();
    let history = replay(&steps, portfolios);
    for told in &told {
        let versions = &history[&(told.realm, told.portfolio.clone())];
        let members = &versions[told.version - 1];
        assert_eq!(told.count, members.len(), "{told:?}");
        if let Some(shown) = &told.members {
            assert_eq!(shown, members, "{told:?}");
        }
    }
    // Each step was told to a caller who asked for it, with its version, unless the members were read anew after it.
    for (place, step) in steps.iter().enumerate() {
        let asked = told.iter().any(|told| {
            (REALMS[told.realm], told.attaches, &told.portfolio, &told.entity)
                == (step.realm.as_str(), step.attaches, &step.portfolio, &step.entity)
                && (told.version == step.version
                    || told.members.is_some() && told.version > step.version)
        });
        // The first half of a move.
        let moves = !step.attaches
            && steps[place..].iter().any(|next| {
                next.attaches
                    && (&next.xid, &next.realm, &next.entity)
                        == (&step.xid, &step.realm, &step.entity)
            });
        assert!(asked || moves, "nobody was told of {step:?}");
    }
    for ((realm, portfolio), versions) in &history {
        let found = world.database.text(&format!(
            "SELECT jsonb_build_array(p.version, p.entity_count, (SELECT coalesce(jsonb_agg(e.id ORDER BY e.id), '[]') FROM entity e
                                                                  WHERE e.realm_id = p.realm_id AND e.portfolio_id = p.id))
             FROM portfolio p JOIN realm r ON r.id = p.realm_id WHERE r.org = '{}' AND p.id = '{portfolio}'",
            REALMS[*realm]
        ));
        let members = versions.last().unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&found.unwrap()).unwrap(),
            json!([versions.len(), members.len(), members])
        );
    }
    // Each step of an entity is one of its version; a move is one step of two events, both of one transaction.
    assert_eq!(
        world.database.rows(
            "entity e WHERE e.version <> 1 + (SELECT count(*) FROM (
                 SELECT DISTINCT v.xid, CASE WHEN m.moves THEN 'moved' ELSE v.seq::text END
                 FROM event v
                 CROSS JOIN LATERAL (SELECT EXISTS (
                     SELECT FROM event o WHERE o.xid = v.xid AND o.realm_id = v.realm_id AND o.data->'entity_ids' = v.data->'entity_ids' AND o.type <> v.type) AS moves) m
                 WHERE v.realm_id = e.realm_id AND v.type LIKE 'portfolio.entity_%' AND v.data->'entity_ids'->>0 = e.id) s)"
        ),
        0
    );
    // Otherwise nothing of this was put to the test.
    assert!(
        world.database.rows(
            "(SELECT FROM event WHERE type LIKE 'portfolio.entity_%'
              GROUP BY xid, realm_id, subjects HAVING count(DISTINCT type) = 2) t"
        ) > 0,
        "no attach was done together with a detach of the same portfolio"
    );
    world.database.assert_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn attaches_and_detaches_of_one_portfolio_are_as_if_one_came_after_the_other() {
    crowd(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attaches_and_detaches_of_few_portfolios_are_as_if_one_came_after_the_other() {
    crowd(3).await;
}
