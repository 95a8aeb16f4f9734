//! The four REST contracts by a caller of theirs: `curl`, with methods, paths, headers, statuses and spellings as they are written.

use crate::kit::*;

/// A caller of one contract, who shows the key in its way.
pub struct Caller<'a> {
    world: &'a World,
    pub credential: String,
}

impl Caller<'_> {
    pub fn send(&self, method: &str, path: &str, body: Option<&str>) -> Reply {
        let url = format!("http://{}{path}", self.world.server.addresses.http);
        let mut arguments = vec!["-X", method, "-H", &self.credential];
        if let Some(body) = body {
            arguments.extend(["-H", "Content-Type: application/json", "--data-raw", body]);
        }
        arguments.push(&url);
        curl(&arguments)
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, None)
    }

    /// Asks until a member of the response has a value.
    pub async fn get_until(&self, path: &str, member: &str, value: &str) -> Value {
        for _ in 0..300 {
            let reply = self.get(path);
            assert_eq!(reply.status, 200, "{}", reply.text());
            if reply.json()[member] == value {
                return reply.json();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{path} never has {member} {value}: {}", self.get(path).text());
    }
}

pub fn bearer(world: &World) -> Caller<'_> {
    Caller { world, credential: format!("Authorization: Bearer {}", world.key.secret) }
}

pub fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        text.ends_with('Z') && chrono::DateTime::parse_from_rfc3339(text).is_ok()
    })
}

#[tokio::test]
async fn removal() {
    let world = World::start(Protocol::Rest).await;
    let caller = Caller { world: &world, credential: format!("apikey: {}", world.key.secret) };
    let dependents = json!([{"kind": "assessment"}, {"kind": "assessment"}, {"kind": "task"}, {"kind": "data_override"}, {"kind": "note"}]);
    for (id, state) in [("ent_1", "active"), ("ent_new", "onboarding"), ("ent_held", "active")] {
        let entity = json!({"entity": {"entity_id": id, "type": "T", "state": state, "dependents": dependents}});
        world.call("EntityService/CreateEntity", entity).await.unwrap();
    }
    world
        .database
        .sql("UPDATE entity SET hold_reason = 'audit', hold_placed_by = gen_random_uuid(), hold_placed_at = now() WHERE id = 'ent_held'");

    let accepted = caller.send("DELETE", "/v5/entities/ent_1", None);
    assert_seen!("removal_accepted", accepted);
    let id = accepted.json()["id"].as_str().unwrap().to_owned();
    assert!(uuid::Uuid::parse_str(&id).is_ok());
    let location = format!("/v5/entities/jobs/{id}");
    assert_eq!(accepted.header("location"), Some(location.as_str()));
    assert!(accepted.header("retry-after").unwrap().parse::<u32>().is_ok());

    let done = caller.get_until(&location, "status", "succeeded").await;
    assert_seen!("removal_succeeded", done);
    assert_eq!(done["id"], id);

    let again = caller.send("DELETE", "/v5/entities/ent_1", None);
    assert_eq!(
        (again.status, &again.json()["id"], again.header("location")),
        (200, &json!(id), Some(location.as_str()))
    );
    let never = caller.send("DELETE", "/v5/entities/ent_never", None);
    assert_seen!("removal_of_what_never_was", never);
    for (entity, state) in [("ent_new", "onboarding"), ("ent_held", "on_hold")] {
        let refused = caller.send("DELETE", &format!("/v5/entities/{entity}"), None);
        assert_seen!(format!("removal_refused_as_{state}"), refused);
    }
    assert_eq!(caller.get("/v5/entities/jobs/0190a1b2-0000-7000-8000-000000000001").status, 404);
    let reader = Key::create(&world.database, "acme", "test", &["entities:read"]);
    let reader = Caller { world: &world, credential: format!("apikey: {}", reader.secret) };
    let denied = reader.send("DELETE", "/v5/entities/ent_1", None);
    assert_seen!("removal_denied", denied);
    let nobody = Caller { world: &world, credential: "X-Nothing: 1".to_owned() };
    assert_eq!(nobody.send("DELETE", "/v5/entities/ent_1", None).status, 401);
}

#[tokio::test]
async fn portfolio_membership() {
    let world = World::start(Protocol::Rest).await;
    let caller = bearer(&world);
    let body = r#"{"portfolio_id":"pf_S4dGqL2c","name":"Studio Fund I","shared_registered_agent_id":"ra_X8nB5wPq","shared_compliance_calendar":true}"#;
    let created = caller.send("POST", "/v1/portfolios", Some(body));
    assert_seen!("portfolio_created", created);

    let bare =
        caller.send("POST", "/v1/portfolios", Some(r#"{"name":"Bare","portfolio_id":"pf_bare"}"#));
    assert_seen!("portfolio_with_a_name_alone", bare);

    let entity = caller.send(
        "POST",
        "/v1/entities",
        Some(r#"{"entity_id":"ent_Nq3KcAbc","type":"Company"}"#),
    );
    assert_seen!("entity_created", entity);

    let attached = caller.send(
        "POST",
        "/v1/portfolios/pf_S4dGqL2c/entities",
        Some(r#"{"entity_id":"ent_Nq3KcAbc"}"#),
    );
    assert_seen!("attached", attached);
    let elsewhere = caller.send("DELETE", "/v1/portfolios/pf_bare/entities/ent_Nq3KcAbc", None);
    assert_seen!("detached_elsewhere", elsewhere);
    let detached = caller.send("DELETE", "/v1/portfolios/pf_S4dGqL2c/entities/ent_Nq3KcAbc", None);
    assert_seen!("detached", detached);
    let again = caller.send("DELETE", "/v1/portfolios/pf_S4dGqL2c/entities/ent_Nq3KcAbc", None);
    assert_eq!((again.status, again.text()), (200, detached.text()));
    assert_eq!(caller.get("/v1/portfolios/pf_S4dGqL2c").text(), detached.text());
    let missing = caller.send("DELETE", "/v1/portfolios/pf_S4dGqL2c/entities/ent_missing", None);
    assert_seen!("detached_what_is_missing", missing);
}
