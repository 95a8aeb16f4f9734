//! Keys: what opens a listener, what does not, and what becomes of secrets.

use crate::kit::*;

scenario! {
    async fn a_hard_delete_asks_for_a_scope_of_its_own(world: &World) {
        let client = world.client("acme", "test", &["entities:delete"]);
        for dry_run in [false, true] {
            let request = json!({"entity_type": "T", "mode": "hard", "dry_run": dry_run});
            let refused = client.call("BulkDeleteService/StartBulkDelete", request).await.unwrap_err();
            assert_eq!((refused.code.as_str(), &refused.members["required_scope"]), ("permission_denied", &json!("entities:delete_hard")));
        }
        assert_eq!(world.database.rows("bulk_delete"), 0);
    }

    async fn a_credential_that_opens_nothing_is_refused_alike_for_every_method(world: &World) {
        let expired = Key::create_with(&world.database, "acme", "test", &["admin"], &["--expires-in-days", "1"]);
        world.database.sql(&format!("UPDATE api_key SET expires_at = now() WHERE id = '{}'", expired.id));
        let revoked = Key::create(&world.database, "acme", "test", &["admin"]);
        offboard(&["key", "--database-url", &world.database.url, "revoke", &revoked.id, "--yes"]);
        let other_world = world.key.secret.replace("sk_test_", "sk_live_");
        let longer = format!("{}x", world.key.secret);
        let unknown = format!("sk_test_{}", "A".repeat(43));
        let bad = [expired.secret.as_str(), &revoked.secret, &other_world, &longer, &unknown, "sk_test_", "password", "é"];
        let mut reported = std::collections::BTreeSet::new();
        for secret in bad.iter().filter(|secret| secret.is_ascii()) {
            let refused = world.client.with_secret(secret).call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap_err();
            assert_eq!((refused.code.as_str(), refused.http.unwrap_or(401)), ("invalid_credentials", 401), "{secret}");
            reported.insert(refused.reported().to_string());
        }
        assert_eq!(reported.len(), 1, "nobody learns what is wrong with a credential: {reported:#?}");
    }

    async fn a_revoked_key_ends_on_a_running_server(world: &World) {
        let key = Key::create(&world.database, "acme", "test", &["admin"]);
        let client = Client::new(&world.server, &key, world.protocol);
        client.call("PortfolioService/CreatePortfolio", json!({"portfolio_id": "p", "name": "Fund"})).await.unwrap();
        offboard(&["key", "revoke", &key.id, "--yes", "--database-url", &world.database.url]);
        let mut refused = None;
        for _ in 0..500 {
            match client.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await {
                Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                Err(failure) => {
                    refused = Some(failure);
                    break;
                }
            }
        }
        assert_eq!(refused.expect("the key ends").code, "invalid_credentials");
        world.call("PortfolioService/GetPortfolio", json!({"portfolio_id": "p"})).await.unwrap();
        let again = run(&["key", "revoke", &key.id, "--yes", "--database-url", &world.database.url]);
        assert_eq!(again.code, Some(1));
        assert!(again.stderr.contains(&key.id), "{}", again.stderr);
    }

    async fn a_key_may_be_bound_to_addresses(world: &World) {
        let bound = |networks: &[&str]| {
            let more: Vec<&str> = networks.iter().flat_map(|network| ["--allow", network]).collect();
            Client::new(&world.server, &Key::create_with(&world.database, "acme", "test", &["admin"], &more), world.protocol)
        };
        let request = json!({"name": "Fund"});
        let far = bound(&["10.0.0.0/8", "2001:db8::/32"]);
        let refused = far.call("PortfolioService/CreatePortfolio", request.clone()).await.unwrap_err();
        assert_eq!((refused.code.as_str(), refused.http.unwrap_or(401)), ("invalid_credentials", 401));
        for forged in ["x-forwarded-for", "x-real-ip", "forwarded"] {
            let refused = far.call_with("PortfolioService/CreatePortfolio", request.clone(), &[(forged, "10.1.2.3")]).await.unwrap_err();
            assert_eq!(refused.code, "invalid_credentials", "{forged} is the caller's own word");
        }
        bound(&["10.0.0.0/8", "127.0.0.0/8"]).call("PortfolioService/CreatePortfolio", request).await.unwrap();
    }

    async fn a_secret_is_nowhere_but_with_its_owner(world: &World) {
        for rpc in rpcs() {
            let _ = world.client.call_any(&rpc, example(&rpc), &[]).await;
        }
        let wrong = format!("sk_test_{}", "Zq".repeat(22));
        world.client.with_secret(&wrong).call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap_err();
        let random = world.key.secret.strip_prefix("sk_test_").unwrap();
        let database_password = url::Url::parse(&world.database.url).unwrap().password().map(str::to_owned);
        let kept = world.database.text("SELECT string_agg(k::text, ' ') FROM api_key k").unwrap();
        let listed = offboard(&["key", "list", "--database-url", &world.database.url]);
        let listed_json = offboard(&["key", "list", "--json", "--org", "acme", "--database-url", &world.database.url]);
        let log = world.server.log();
        assert!(log.contains("call ended"), "{log}");
        for (place, text) in [("database", &kept), ("list", &listed), ("list as JSON", &listed_json), ("log", &log)] {
            assert!(!text.contains(&random[..20]) && !text.contains(&random[20..]), "the secret is in the {place}: {text}");
        }
        assert!(!log.contains(&wrong[8..]), "nor is a wrong one");
        assert!(!log.contains(&format!(":{}@", database_password.unwrap())), "nor the password of the database");
        assert!(listed.contains(&world.key.id) && listed_json.contains(&world.key.secret[..12]), "the list distinguishes keys: {listed}");
    }
}

#[tokio::test]
async fn either_header_shows_a_key_at_either_listener_and_none_is_asked_for() {
    let world = World::start(Protocol::Rest).await;
    let bearer = format!("Bearer {}", world.key.secret);
    world.portfolios(&["p"]).await;
    let request = json!({"portfolio_id": "p"});
    for (name, value) in [
        ("authorization", bearer.as_str()),
        ("authorization", &bearer.replace("Bearer", "bearer")),
        ("apikey", &world.key.secret),
    ] {
        let reply =
            http(world.server.addresses.http, "GET", "/v1/portfolios/p", &[(name, value)], "")
                .await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        let header = format!("{name}: {value}");
        let address = world.server.addresses.grpc.to_string();
        grpcurl(&[
            "-H",
            &header,
            "-d",
            &request.to_string(),
            &address,
            "offboard.v1.PortfolioService/GetPortfolio",
        ])
        .unwrap();
    }
    let none = http(world.server.addresses.http, "GET", "/v1/portfolios/p", &[], "").await;
    assert_eq!((none.status, &none.json()["code"]), (401, &json!("authentication_required")));
    assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    let wrong = http(
        world.server.addresses.http,
        "GET",
        "/v1/portfolios/p",
        &[("authorization", "Basic YTpi")],
        "",
    )
    .await;
    assert_eq!(
        (wrong.status, &wrong.json()["code"], wrong.header("www-authenticate")),
        (401, &json!("invalid_credentials"), Some("Bearer"))
    );
    let odd =
        http(world.server.addresses.http, "GET", "/v1/portfolios/p", &[("apikey", "sk_tést")], "")
            .await;
    assert_eq!((odd.status, &odd.json()["code"]), (401, &json!("invalid_credentials")));
    let address = world.server.addresses.grpc.to_string();
    let complaint = grpcurl(&[
        "-d",
        &request.to_string(),
        &address,
        "offboard.v1.PortfolioService/GetPortfolio",
    ])
    .unwrap_err();
    assert!(
        complaint.contains("Unauthenticated") && complaint.contains("AUTHENTICATION_REQUIRED"),
        "{complaint}"
    );
}

#[tokio::test]
async fn a_key_that_cannot_be_made_is_refused_with_a_reason() {
    let database = database().await;
    let create =
        |more: &[&str]| run(&[&["key", "--database-url", &database.url, "create"], more].concat());
    for (arguments, code, reported) in [
        (vec!["--org", "a/b", "--scope", "admin"], 2, "--org"),
        (vec!["--org", "acme", "--scope", "everything"], 2, "entities:offboard"),
        (vec!["--org", "acme"], 2, "--scope"),
        (vec!["--org", "acme", "--scope", "admin", "--mode", "prod"], 2, "live"),
        (vec!["--org", "acme", "--scope", "admin", "--allow", "10.0.0.0/33"], 2, "--allow"),
        (
            vec!["--org", "acme", "--scope", "admin", "--expires-in-days", "0"],
            2,
            "--expires-in-days",
        ),
    ] {
        let ended = create(&arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(reported), "{arguments:?}: {}", ended.stderr);
    }
    assert_eq!(database.rows("api_key"), 0);
    assert_eq!(offboard(&["key", "list", "--database-url", &database.url]), "");
}
