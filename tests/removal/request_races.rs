//! Many callers request and cancel offboardings of a few entities at once, so that their calls are done together.

use futures::future::join_all;

use crate::given::{Many, id};
use crate::kit::*;

const ENTITIES: i64 = 8;
const CALLERS: usize = 64;
const CALLS: usize = 40;

fn any(bound: usize) -> usize {
    rand::random_range(0..bound)
}

/// What one caller was told: how many requests it made, and how many it canceled.
#[derive(Debug, Default)]
struct Done {
    made: i64,
    canceled: i64,
}

/// Requests and cancels at random. What it is told is what a caller by itself would be told of the moment.
async fn caller(client: &Client) -> Done {
    let mut done = Done::default();
    let mut known: Option<String> = None;
    for _ in 0..CALLS {
        match (any(3), &known) {
            (0, Some(request)) => {
                let asked = json!({"offboarding_request_id": request});
                match client.call("OffboardingService/CancelOffboardingRequest", asked).await {
                    Ok(canceled) => {
                        assert_eq!(canceled.get("status"), "canceled");
                        done.canceled += 1;
                    }
                    // Somebody else was first.
                    Err(refused) => {
                        assert_eq!(refused.code, "not_cancelable", "{refused:#?}");
                        assert_eq!(refused.members["current_state"], "Canceled");
                    }
                }
                known = None;
            }
            (1, Some(request)) => {
                let asked = json!({"offboarding_request_id": request});
                let found =
                    client.call("OffboardingService/GetOffboardingRequest", asked).await.unwrap();
                assert_eq!(id(&found), *request);
            }
            _ => {
                let entity = format!("e-{:06}", 1 + any(ENTITIES as usize));
                let method =
                    ["OffboardingService/RequestOffboarding", "RemovalService/RemoveEntity"]
                        [any(2)];
                let made = client.call(method, json!({"entity_id": entity})).await.unwrap();
                assert!(matches!(made.http, Some(200..=202)), "{made:#?}");
                done.made += i64::from(made.http != Some(200));
                known = Some(id(&made));
            }
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_done_together_are_as_if_one_came_after_the_other() {
    // Nothing is removed here, and another organisation has entities with the same ids.
    let world =
        World::start_with(Protocol::Rest, &["--roles", "grpc,gateway", "--rate-limit", "0"]).await;
    let other = world.client("other", "test", &["admin"]);
    world.database.given_many(Many {
        prefix: "e",
        count: ENTITIES,
        dependents: 0,
        portfolio: None,
    });
    for n in 1..=ENTITIES {
        let entity = json!({"entity": {"entity_id": format!("e-{n:06}"), "type": "T"}});
        other.call("EntityService/CreateEntity", entity).await.unwrap();
    }
    let callers = (0..CALLERS).map(|n| caller(if n % 2 == 0 { &world.client } else { &other }));
    let done = join_all(callers).await;
    let (made, canceled) = done
        .iter()
        .fold((0, 0), |(made, canceled), done| (made + done.made, canceled + done.canceled));
    let database = &world.database;
    assert!(made > ENTITIES && canceled > ENTITIES, "{done:?}");
    assert_eq!(database.rows("offboarding_request"), made);
    assert_eq!(database.rows("offboarding_request WHERE status = 'canceled'"), canceled);
    assert_eq!(database.rows("event WHERE type = 'entity.offboarding_requested'"), made);
    assert_eq!(database.rows("event WHERE type = 'entity.offboarding_canceled'"), canceled);
    // Each change of an entity is a step of its version, and the events have them in order without a gap.
    assert_eq!(
        database.rows(
            "(SELECT v.type, v.version, row_number() OVER (PARTITION BY v.realm_id, v.subjects ORDER BY v.seq) AS nth
              FROM (SELECT *, (data ->> 'version')::int8 AS version FROM event WHERE type LIKE 'entity.offboarding_%') v) v
             WHERE v.version <> v.nth + 1 OR v.type <> (ARRAY['entity.offboarding_canceled', 'entity.offboarding_requested'])[1 + v.nth % 2]"
        ),
        0
    );
    assert_eq!(
        database.rows(
            "entity e
             WHERE e.version <> 1 + (SELECT count(*) FROM event v WHERE v.realm_id = e.realm_id AND v.subjects = ARRAY[e.id] AND v.type LIKE 'entity.offboarding_%')
                OR (e.state = 'offboarding') <> EXISTS (SELECT FROM offboarding_request r WHERE r.realm_id = e.realm_id AND r.entity_id = e.id AND r.status = 'pending')"
        ),
        0
    );
    database.assert_sound();
}
