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

pub fn members(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap_or_else(|| panic!("no object: {value}"))
        .keys()
        .map(String::as_str)
        .collect()
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
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let id = accepted.json()["id"].as_str().unwrap().to_owned();
    assert!(uuid::Uuid::parse_str(&id).is_ok());
    let location = format!("/v5/entities/jobs/{id}");
    assert_eq!(accepted.header("location"), Some(location.as_str()));
    assert!(accepted.header("retry-after").unwrap().parse::<u32>().is_ok());

    let done = caller.get_until(&location, "status", "succeeded").await;
    let expected = [
        "id",
        "entity_id",
        "status",
        "created_at",
        "started_at",
        "finished_at",
        "removed",
        "error",
        "attempts",
        "last_error",
        "next_attempt",
    ];
    assert_eq!(members(&done), expected);
    assert_eq!(
        (&done["id"], &done["entity_id"], &done["error"]),
        (&json!(id), &json!("ent_1"), &json!(null))
    );
    assert!(
        ["created_at", "started_at", "finished_at"].iter().all(|name| is_time(&done[name])),
        "{done}"
    );
    for (kind, count) in [("assessments", 2), ("tasks", 1), ("data_overrides", 1), ("notes", 1)] {
        assert_eq!(done["removed"][kind], count, "{done}");
    }

    let again = caller.send("DELETE", "/v5/entities/ent_1", None);
    assert_eq!(
        (again.status, &again.json()["id"], again.header("location")),
        (200, &json!(id), Some(location.as_str()))
    );
    let never = caller.send("DELETE", "/v5/entities/ent_never", None);
    assert_eq!((never.status, &never.json()["code"]), (404, &json!("not_found")));
    for (entity, state) in [("ent_new", "onboarding"), ("ent_held", "on_hold")] {
        let refused = caller.send("DELETE", &format!("/v5/entities/{entity}"), None);
        let problem = refused.json();
        assert_eq!(
            (refused.status, &problem["code"], &problem["current_state"]),
            (409, &json!("invalid_state_transition"), &json!(state))
        );
        assert!(
            problem["attempted_transition"].is_string()
                && problem["allowed_transitions"].is_array(),
            "{problem}"
        );
    }
    assert_eq!(caller.get("/v5/entities/jobs/0190a1b2-0000-7000-8000-000000000001").status, 404);
    let reader = Key::create(&world.database, "acme", "test", &["entities:read"]);
    let reader = Caller { world: &world, credential: format!("apikey: {}", reader.secret) };
    let denied = reader.send("DELETE", "/v5/entities/ent_1", None);
    assert_eq!(
        (denied.status, &denied.json()["required_scope"]),
        (403, &json!("entities:offboard"))
    );
    let nobody = Caller { world: &world, credential: "X-Nothing: 1".to_owned() };
    assert_eq!(nobody.send("DELETE", "/v5/entities/ent_1", None).status, 401);
}

#[tokio::test]
async fn portfolio_membership() {
    let world = World::start(Protocol::Rest).await;
    let caller = bearer(&world);
    let body = r#"{"portfolio_id":"pf_S4dGqL2c","name":"Studio Fund I","shared_registered_agent_id":"ra_X8nB5wPq","shared_compliance_calendar":true}"#;
    let created = caller.send("POST", "/v1/portfolios", Some(body));
    assert_eq!(
        (created.status, created.header("location")),
        (201, Some("/v1/portfolios/pf_S4dGqL2c")),
        "{}",
        created.text()
    );
    let portfolio = created.json();
    let mut names = members(&portfolio);
    names.sort_unstable();
    let mut expected = vec![
        "id",
        "object",
        "mode",
        "name",
        "shared_registered_agent_id",
        "shared_compliance_calendar",
        "entity_ids",
        "version",
        "metadata",
        "created_at",
        "updated_at",
        "entity_count",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(
        (&portfolio["object"], &portfolio["mode"], &portfolio["version"]),
        (&json!("portfolio"), &json!("test"), &json!(1))
    );
    assert!(is_time(&portfolio["created_at"]) && is_time(&portfolio["updated_at"]), "{portfolio}");

    let bare = caller
        .send("POST", "/v1/portfolios", Some(r#"{"name":"Bare","portfolio_id":"pf_bare"}"#))
        .json();
    assert_eq!(
        (&bare["shared_registered_agent_id"], &bare["entity_ids"], &bare["metadata"]),
        (&json!(null), &json!([]), &json!({}))
    );

    let entity = caller.send(
        "POST",
        "/v1/entities",
        Some(r#"{"entity_id":"ent_Nq3KcAbc","type":"Company"}"#),
    );
    assert_eq!(entity.status, 201, "{}", entity.text());
    let expected = [
        "id",
        "object",
        "mode",
        "type",
        "state",
        "attributes",
        "components",
        "portfolio_id",
        "hold",
        "version",
        "created_at",
        "updated_at",
    ];
    assert_eq!(members(&entity.json()), expected);
    assert_eq!(
        (&entity.json()["portfolio_id"], &entity.json()["hold"], &entity.json()["state"]),
        (&json!(null), &json!(null), &json!("active"))
    );

    let attached = caller.send(
        "POST",
        "/v1/portfolios/pf_S4dGqL2c/entities",
        Some(r#"{"entity_id":"ent_Nq3KcAbc"}"#),
    );
    assert_eq!(
        (attached.status, &attached.json()["entity_ids"]),
        (200, &json!(["ent_Nq3KcAbc"])),
        "{}",
        attached.text()
    );
    let elsewhere = caller.send("DELETE", "/v1/portfolios/pf_bare/entities/ent_Nq3KcAbc", None);
    let problem = elsewhere.json();
    assert_eq!((elsewhere.status, &problem["code"]), (409, &json!("state_conflict")));
    assert_eq!(problem["current_portfolio_id"], "pf_S4dGqL2c");
    assert!(problem["detail"].as_str().unwrap().contains("pf_S4dGqL2c"), "{problem}");
    let detached = caller.send("DELETE", "/v1/portfolios/pf_S4dGqL2c/entities/ent_Nq3KcAbc", None);
    let shown = (
        detached.status,
        detached.json()["version"].clone(),
        detached.json()["entity_ids"].clone(),
    );
    assert_eq!(shown, (200, json!(3), json!([])));
    let again = caller.send("DELETE", "/v1/portfolios/pf_S4dGqL2c/entities/ent_Nq3KcAbc", None);
    assert_eq!((again.status, again.text()), (200, detached.text()));
    assert_eq!(caller.get("/v1/portfolios/pf_S4dGqL2c").text(), detached.text());
    let missing = caller.send("DELETE", "/v1/portfolios/pf_S4dGqL2c/entities/ent_missing", None);
    assert_eq!(
        (missing.status, missing.header("content-type")),
        (404, Some("application/problem+json"))
    );
}
