//! Keys as callers manage them: what is shown, what is given, and what is kept.

use crate::kit::*;

const REPLAYED: &str = "idempotent-replayed";

/// A key that a call has made: its id, and the secret that was shown.
pub async fn create(client: &Client, request: Value) -> (String, String) {
    let created = client.call("AccessService/CreateKey", request).await.unwrap();
    let text = |path: &str| created.get(path).as_str().unwrap().to_owned();
    (text("key.id"), text("secret"))
}

async fn refused(client: &Client, method: &str, request: Value) -> Failure {
    let method = format!("AccessService/{method}");
    client.call(&method, request.clone()).await.expect_err(&format!("{method} {request}"))
}

fn lacks(failure: &Failure, scope: &str) {
    assert_eq!(
        (failure.code.as_str(), &failure.members["required_scope"]),
        ("permission_denied", &json!(scope)),
        "{failure:#?}"
    );
}

scenario! {
    async fn a_key_is_made_shown_changed_and_revoked(world: &World) {
        let end = chrono::Utc::now().timestamp_millis() / 1000 * 1000 + 3_600_000;
        let text = chrono::DateTime::from_timestamp_millis(end).unwrap().to_rfc3339();
        let request = json!({
            "name": "etl", "email": "etl@example.com", "scopes": ["portfolios:read", "entities:read"],
            "allowed": ["127.0.0.0/8", "10.0.0.0/8"], "expires_at": text,
        });
        let created = world.call("AccessService/CreateKey", request).await.unwrap();
        assert_eq!(created.http.unwrap_or(201), 201);
        let (key, secret) = (created.get("key").clone(), created.get("secret").as_str().unwrap().to_owned());
        let key_id = key["id"].clone();
        assert_eq!(created.header("location").unwrap(), format!("/v1/keys/{}", key_id.as_str().unwrap()));
        let shown = json!({
            "object": "key", "mode": "test", "state": "active", "name": "etl", "email": "etl@example.com", "version": 1,
            "scopes": ["entities:read", "portfolios:read"], "allowed": ["10.0.0.0/8", "127.0.0.0/8"], "expires_at": end,
            "secret_prefix": &secret[..12], "previous_secret_prefix": null, "previous_secret_expires_at": null, "revoked_at": null,
            "last_used_at": null, "is_caller": false, "api_version": "2026-11-01",
        });
        for (name, value) in shown.as_object().unwrap() {
            assert_eq!(&key[name], value, "{name}");
        }
        let found = world.call("AccessService/GetKey", json!({"key_id": key_id})).await.unwrap();
        assert_eq!(found.json, key);
        let own = world.call("AccessService/GetKey", json!({"key_id": world.key.id})).await.unwrap();
        assert_eq!(own.get("is_caller"), true);

        let caller = world.client.with_secret(&secret);
        caller.call("EntityService/ListEntities", json!({})).await.unwrap();
        assert_eq!(caller.call("EventService/ListEvents", json!({})).await.unwrap_err().code, "permission_denied");

        let change = json!({"key_id": key_id, "name": "load", "email": null, "update_mask": "name,email", "expected_version": 1});
        let changed = match world.protocol {
            Protocol::Grpc => world.call("AccessService/UpdateKey", change).await,
            // By REST the members of the body are the mask.
            Protocol::Rest => world.call("AccessService/UpdateKey", json!({"key_id": key_id, "name": "load", "email": null, "expected_version": 1})).await,
        };
        let changed = changed.unwrap();
        assert_eq!((changed.get("name"), changed.get("email"), changed.get("version")), (&json!("load"), &json!(null), &json!(2)));
        assert_eq!(changed.get("scopes"), &key["scopes"], "what is not named stays");
        let same = world.call("AccessService/UpdateKey", json!({"key_id": key_id, "name": "load"})).await.unwrap();
        assert_eq!(same.json, changed.json, "nothing has changed");
        let stale = refused(&world.client, "UpdateKey", json!({"key_id": key_id, "name": "x", "expected_version": 1})).await;
        assert_eq!((stale.code.as_str(), &stale.members["current_version"]), ("state_conflict", &json!(2)));

        let revoked = world.call("AccessService/RevokeKey", json!({"key_id": key_id})).await.unwrap();
        assert_eq!((revoked.get("state"), revoked.get("version")), (&json!("revoked"), &json!(3)));
        let again = world.call("AccessService/RevokeKey", json!({"key_id": key_id})).await.unwrap();
        assert_eq!(again.json, revoked.json, "it is revoked once");
        for (method, request) in [("UpdateKey", json!({"key_id": key_id, "name": "x"})), ("RotateKey", json!({"key_id": key_id, "overlap": "0s"}))] {
            let refused = refused(&world.client, method, request).await;
            assert_eq!((refused.code.as_str(), &refused.members["current_state"]), ("invalid_state_transition", &json!("revoked")));
        }
        let told = "SELECT string_agg(type || ' ' || coalesce(data->>'fields', '') || ' ' || (data->>'version'), ', ' ORDER BY seq) FROM event";
        assert_eq!(world.database.text(told).unwrap(), "key.created  1, key.updated [\"name\", \"email\"] 2, key.revoked  3");
    }

    async fn nobody_gives_what_they_do_not_have(world: &World) {
        let manager = world.client("acme", "test", &["keys:write", "keys:read", "entities:read"]);
        let (narrow, _) = create(&manager, json!({"scopes": ["entities:read", "keys:write"]})).await;
        lacks(&refused(&manager, "CreateKey", json!({"scopes": ["entities:read", "events:read"]})).await, "events:read");
        lacks(&refused(&manager, "CreateKey", json!({"scopes": ["admin"]})).await, "admin");
        lacks(&refused(&manager, "UpdateKey", json!({"key_id": narrow, "scopes": ["holds:place"]})).await, "holds:place");
        // Nor a part of what others gave: an end, an address and a secret are parts of a key.
        let (wide, secret) = create(&world.client, json!({"scopes": ["entities:read", "admin"], "allowed": ["10.0.0.0/8"]})).await;
        for (method, request) in [
            ("UpdateKey", json!({"key_id": wide, "name": "mine"})),
            ("UpdateKey", json!({"key_id": wide, "scopes": ["entities:read"]})),
            ("RotateKey", json!({"key_id": wide, "overlap": "0s"})),
        ] {
            lacks(&refused(&manager, method, request).await, "admin");
        }
        let own = world.call("AccessService/ListKeys", json!({"filter": "contains(scopes, 'keys:write') and contains(scopes, 'keys:read') and not contains(scopes, admin)"})).await.unwrap();
        lacks(&refused(&manager, "UpdateKey", json!({"key_id": own.get("keys")[0]["id"], "scopes": ["admin"]})).await, "admin");
        assert_eq!(world.client.with_secret(&secret).call("AccessService/ListKeys", json!({})).await.unwrap_err().code, "invalid_credentials");
        // To revoke gives nothing to anybody.
        manager.call("AccessService/RevokeKey", json!({"key_id": wide})).await.unwrap();
        // A key that may only manage keys sees none of what it changes.
        let blind = world.client("acme", "test", &["keys:write"]);
        let (plain, _) = create(&world.client, json!({"name": "secret name", "scopes": ["keys:write"], "email": "a@example.com"})).await;
        let answer = blind.call("AccessService/UpdateKey", json!({"key_id": plain, "api_version": "2026-11-01"})).await;
        let answer = answer.unwrap();
        assert_eq!((answer.get("name"), answer.get("email"), answer.get("scopes")), (&json!(""), &json!(null), &json!([])));
        assert_eq!(answer.get("version"), 1);
    }

    async fn every_fault_of_a_key_is_named_and_nothing_is_made(world: &World) {
        let wrong = json!({"name": "x".repeat(257), "email": "nobody", "scopes": ["all"], "allowed": ["10.0.0.1/8"], "expires_at": "1970-01-01T00:00:00Z", "api_version": "2020-01-01"});
        let faulty = refused(&world.client, "CreateKey", wrong).await;
        let fields: Vec<&str> = faulty.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["name", "email", "scopes[0]", "allowed[0]", "expires_at", "api_version"]);
        assert_eq!(refused(&world.client, "RotateKey", json!({"key_id": world.key.id})).await.faults[0].field, "overlap");
        assert_eq!(refused(&world.client, "GetKey", json!({"key_id": "mine"})).await.code, "validation_failed");
        assert_eq!(refused(&world.client, "ListKeys", json!({"order_by": "name"})).await.faults[0].field, "order_by");
        assert_eq!(world.database.count("SELECT count(*) FROM api_key"), 1);
    }

    async fn a_call_that_is_sent_again_shows_no_secret_and_none_is_kept(world: &World) {
        let key = [("idempotency-key", "k")];
        let request = json!({"scopes": ["entities:read"]});
        let first = world.client.call_with("AccessService/CreateKey", request.clone(), &key).await.unwrap();
        let again = world.client.call_with("AccessService/CreateKey", request, &key).await.unwrap();
        assert_eq!((again.header(REPLAYED), again.get("key"), again.get("secret")), (Some("true"), first.get("key"), &json!(null)));
        let rotate = json!({"key_id": first.get("key.id"), "overlap": "3600s"});
        let rotate_key = [("idempotency-key", "r")];
        let rotated = world.client.call_with("AccessService/RotateKey", rotate.clone(), &rotate_key).await.unwrap();
        let again = world.client.call_with("AccessService/RotateKey", rotate, &rotate_key).await.unwrap();
        assert_eq!((again.header(REPLAYED), again.get("secret")), (Some("true"), &json!(null)));
        assert_eq!(world.database.count("SELECT count(*) FROM event WHERE type = 'key.rotated'"), 1);
        let kept = ["api_key", "event"].map(|table| world.database.text(&format!("SELECT string_agg(t::text, ' ') FROM {table} t")).unwrap());
        let answers = world.database.text("SELECT string_agg(encode(answer, 'escape'), ' ') FROM idempotency_key").unwrap();
        for secret in [first.get("secret"), rotated.get("secret")] {
            let random = &secret.as_str().unwrap()[8..];
            for text in [&kept[0], &kept[1], &answers, &world.server.log()] {
                assert!(!text.contains(&random[4..20]) && !text.contains(&random[20..]), "{text}");
            }
        }
    }

    async fn keys_are_listed_in_order_by_pages_and_by_filter(world: &World) {
        let mut ids = vec![world.key.id.clone()];
        for n in 0..4 {
            ids.push(create(&world.client, json!({"name": format!("k{n}"), "scopes": ["entities:read"]})).await.0);
        }
        world.call("AccessService/RevokeKey", json!({"key_id": ids[2]})).await.unwrap();
        world.database.sql(&format!("UPDATE api_key SET expires_at = now() WHERE id = '{}'", ids[3]));
        for order_by in ["", "created_at desc"] {
            let (mut found, mut token) = (Vec::new(), json!(""));
            loop {
                let page = world.call("AccessService/ListKeys", json!({"page_size": 2, "page_token": token, "order_by": order_by})).await.unwrap();
                found.extend(page.get("keys").as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()));
                assert!(!page.json.to_string().contains(&world.key.secret[12..]));
                token = page.get("next_page_token").clone();
                if token == "" {
                    break;
                }
            }
            if !order_by.is_empty() {
                found.reverse();
            }
            assert_eq!(found, ids, "{order_by}");
        }
        for (filter, expected) in [
            ("equals(state, revoked)", vec![2]),
            ("equals(state, expired)", vec![3]),
            ("equals(state, active) and startsWith(name, 'k')", vec![1, 4]),
            ("contains(scopes, admin)", vec![0]),
            ("missing(last_used_at) and equals(version, 2)", vec![2]),
        ] {
            let found = world.call("AccessService/ListKeys", json!({"filter": filter})).await.unwrap();
            let found: Vec<usize> = found.get("keys").as_array().unwrap().iter()
                .map(|key| ids.iter().position(|id| key["id"] == **id).unwrap()).collect();
            assert_eq!(found, expected, "{filter}");
        }
        assert_eq!(refused(&world.client, "ListKeys", json!({"filter": "equals(secret, x)"})).await.code, "invalid_filter");
    }

    async fn the_last_use_of_a_key_is_kept_to_the_minute(world: &World) {
        let (key_id, secret) = create(&world.client, json!({"scopes": ["entities:read"]})).await;
        let (unused, _) = create(&world.client, json!({"scopes": ["entities:read"]})).await;
        let before = chrono::Utc::now().timestamp_millis() / 60_000 * 60_000;
        world.client.with_secret(&secret).call("EntityService/ListEntities", json!({})).await.unwrap();
        let used = world.call_until("AccessService/GetKey", json!({"key_id": key_id}), |key| !key["last_used_at"].is_null()).await;
        let minute = used.get("last_used_at").as_i64().unwrap();
        assert!(minute % 60_000 == 0 && (before..=before + 120_000).contains(&minute), "{minute}");
        assert_eq!(used.get("version"), 1, "a use is no change");
        let unused = world.call("AccessService/GetKey", json!({"key_id": unused})).await.unwrap();
        assert_eq!(unused.get("last_used_at"), &json!(null));
    }
}

#[tokio::test]
async fn a_realm_has_so_many_keys_that_have_not_ended() {
    let world = World::start_with(Protocol::Rest, &["--keys-per-realm=2"]).await;
    let request = json!({"scopes": ["entities:read"]});
    let (key_id, _) = create(&world.client, request.clone()).await;
    let full = refused(&world.client, "CreateKey", request.clone()).await;
    assert_eq!((full.code.as_str(), &full.members["limit"]), ("limit_reached", &json!(2)));
    // Another realm has its own, and what has ended does not count.
    create(&world.client("umbrella", "test", &["admin"]), request.clone()).await;
    world.database.sql(&format!("UPDATE api_key SET expires_at = now() WHERE id = '{key_id}'"));
    create(&world.client, request).await;
    let back = json!({"key_id": key_id, "update_mask": "expiresAt"});
    let through_grpc = world.through(Protocol::Grpc);
    assert_eq!(refused(&through_grpc, "UpdateKey", back).await.code, "limit_reached");
    let metrics = get(world.server.addresses.admin, "/metrics").await.unwrap();
    let counted = |line: &str| line.contains("limit_reached") && line.contains("\"keys\"");
    assert!(metrics.lines().any(counted), "{metrics}");
}

#[tokio::test]
async fn keys_that_ended_long_ago_are_removed() {
    let database = database().await;
    let keys = ["90 days 1 hour", "89 days"].map(|age| {
        let key = Key::create(&database, "acme", "test", &["admin"]);
        database.sql(&format!(
            "UPDATE api_key SET revoked_at = now() - interval '{age}' WHERE id = '{}'",
            key.id
        ));
        key
    });
    let world = Key::create(&database, "acme", "test", &["admin"]);
    let _server = Server::start_with(&database, &[], &[]).await;
    until("the older one is removed", || database.count("SELECT count(*) FROM api_key") == 2).await;
    for kept in [&keys[1], &world] {
        assert_eq!(
            database.count(&format!("SELECT count(*) FROM api_key WHERE id = '{}'", kept.id)),
            1
        );
    }
}

#[tokio::test]
async fn a_migration_leaves_keys_what_they_could_do() {
    let database = database().await;
    let text = include_str!("../../migrations/00000000000032_key_management/up.sql");
    let update = text.split_once("UPDATE api_key k").unwrap().1;
    let cases = [
        ("{entities:read}", "{entities:read,consistency:read,policies:read}"),
        (
            "{entities:write,entities:delete}",
            "{entities:write,entities:delete,consistency:check,holds:place,holds:release}",
        ),
        ("{portfolios:read,events:read}", "{portfolios:read,events:read}"),
        ("{admin}", "{admin}"),
    ];
    for (before, after) in cases {
        let key = Key::create(&database, "acme", "test", &["admin"]);
        database.sql(&format!("UPDATE api_key SET scopes = '{before}' WHERE id = '{}'", key.id));
        for _ in 0..2 {
            database.sql(&format!("UPDATE api_key k{update}"));
            let scopes =
                database.text(&format!("SELECT scopes::text FROM api_key WHERE id = '{}'", key.id));
            assert_eq!(scopes.unwrap(), after);
        }
    }
}

#[tokio::test]
async fn the_command_manages_keys_of_a_running_service() {
    let world = World::start(Protocol::Grpc).await;
    let server = format!("http://{}", world.server.addresses.grpc);
    let key = |action: &[&str]| {
        let ended =
            run(&[&["key"], action, &["--server", &server, "--key", &world.key.secret]].concat());
        assert_eq!(ended.code, Some(0), "{action:?}: {}", ended.stderr);
        ended.stdout
    };
    let as_json = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let created = as_json(key(&[
        "create",
        "--scope",
        "entities:read,events:read",
        "--name",
        "cli",
        "--allow",
        "127.0.0.0/8",
        "--json",
    ]));
    let (key_id, secret) = (
        created["key"]["id"].as_str().unwrap().to_owned(),
        created["secret"].as_str().unwrap().to_owned(),
    );
    world.client.with_secret(&secret).call("EntityService/ListEntities", json!({})).await.unwrap();
    let shown = key(&["get", &key_id]);
    assert!(
        shown.contains("acme (test)")
            && shown.contains("entities:read, events:read")
            && !shown.contains(&secret[12..]),
        "{shown}"
    );
    let listed = key(&["list", "--filter", "equals(name, 'cli')"]);
    assert!(listed.contains(&key_id) && listed.lines().count() == 1, "{listed}");
    let changed = as_json(key(&[
        "update",
        &key_id,
        "--scope",
        "entities:read",
        "--allow",
        "none",
        "--expires-in-days",
        "7",
        "--json",
    ]));
    assert_eq!(
        (&changed["scopes"], &changed["allowed"], &changed["name"]),
        (&json!(["entities:read"]), &json!([]), &json!("cli"))
    );
    assert!(changed["expires_at"].is_string());
    let rotated = as_json(key(&["rotate", &key_id, "--overlap", "1h", "--json"]));
    let renewed = rotated["secret"].as_str().unwrap();
    for secret in [&secret, renewed] {
        world
            .client
            .with_secret(secret)
            .call("EntityService/ListEntities", json!({}))
            .await
            .unwrap();
    }
    assert!(key(&["revoke", &key_id, "--yes"]).contains("is revoked"));
    // Without the service it is the database, and one must be meant.
    let unclear =
        run(&["key", "create", "--scope", "admin", "--database-url", &world.database.url]);
    assert!(unclear.code == Some(2) && unclear.stderr.contains("--org"), "{}", unclear.stderr);
    let keyless = run(&["key", "list", "--server", &server]);
    assert!(keyless.code == Some(1) && keyless.stderr.contains("--key"), "{}", keyless.stderr);
    let denied = run(&[
        "key",
        "rotate",
        &key_id,
        "--overlap",
        "soon",
        "--server",
        &server,
        "--key",
        &world.key.secret,
    ]);
    assert!(denied.stderr.contains("--overlap"), "{}", denied.stderr);
}
