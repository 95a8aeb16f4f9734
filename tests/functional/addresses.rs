//! Where keys may be used from: their lists, those of realms, and what is said to whoever comes from elsewhere.

use std::time::Duration;

use crate::key_management::create;
use crate::kit::*;

const POLICY: &str = "AccessService/UpdateAccessPolicy";
const CALL: &str = "EntityService/ListEntities";

/// Calls until the key of the client is admitted, or is not any more.
async fn until_admitted(client: &Client, is: bool) {
    for _ in 0..500 {
        if client.call(CALL, json!({})).await.is_ok() == is {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain until the key is admitted: {is}");
}

scenario! {
    async fn who_comes_from_elsewhere_is_refused_as_who_has_no_key(world: &World) {
        let (_, elsewhere) = create(&world.client, json!({"scopes": ["entities:read"], "allowed": ["192.0.2.0/24", "2001:db8::/32"]})).await;
        let locked = world.client("locked", "test", &["entities:read", "admin"]);
        locked.call(POLICY, json!({"allowed": ["192.0.2.0/24"], "allow_lockout": true})).await.unwrap();
        until_admitted(&locked, false).await;
        for client in [world.client.with_secret(&elsewhere), locked] {
            for (method, request) in [(CALL, json!({})), ("RemovalService/RemoveEntity", json!({"entity_id": "e"}))] {
                // The second call of each is by a key that is remembered.
                let refused = client.call(method, request).await.unwrap_err();
                assert_eq!((refused.code.as_str(), refused.http.unwrap_or(401)), ("address_not_allowed", 401));
            }
        }
        assert!(world.server.log().contains("may not be used from the caller's address"), "the log says why");
    }

    async fn a_realm_and_its_keys_narrow_each_other(world: &World) {
        let policy = world.call("AccessService/GetAccessPolicy", json!({})).await.unwrap();
        assert_eq!(policy.json, json!({"allowed": [], "version": 1, "updated_at": null, "tenant": "acme", "mode": "test"}));
        let local = ["127.0.0.0/8", "::1/128"];
        // Mapped addresses are what they are mapped from; each network is there once, in order.
        let changed = world.call(POLICY, json!({"allowed": ["::1/128", "::ffff:127.0.0.0/104", "127.0.0.0/8"], "expected_version": 1})).await.unwrap();
        assert_eq!((changed.get("allowed"), changed.get("version")), (&json!(local), &json!(2)));
        let same = world.call(POLICY, json!({"allowed": local})).await.unwrap();
        assert_eq!(same.json, changed.json, "nothing has changed");
        let stale = world.call(POLICY, json!({"allowed": ["127.0.0.1/32"], "expected_version": 1})).await.unwrap_err();
        assert_eq!((stale.code.as_str(), &stale.members["current_version"]), ("state_conflict", &json!(2)));
        let (_, inner) = create(&world.client, json!({"scopes": ["entities:read"], "allowed": ["127.0.0.1/32"]})).await;
        let (_, outer) = create(&world.client, json!({"scopes": ["entities:read"], "allowed": ["10.0.0.0/8"]})).await;
        world.client.with_secret(&inner).call(CALL, json!({})).await.unwrap();
        world.client.with_secret(&outer).call(CALL, json!({})).await.unwrap_err();
        // Another realm has its own.
        world.client("acme", "live", &["admin"]).call(CALL, json!({})).await.unwrap();
        let read = world.client("acme", "live", &["keys:read"]).call("AccessService/GetAccessPolicy", json!({})).await.unwrap();
        assert_eq!((read.get("version"), read.get("mode")), (&json!(1), &json!("live")));
        let cleared = match world.protocol {
            Protocol::Grpc => world.call(POLICY, json!({"update_mask": "allowed"})).await,
            Protocol::Rest => world.call(POLICY, json!({"allowed": []})).await,
        };
        assert_eq!(cleared.unwrap().get("allowed"), &json!([]));
        let told = "SELECT string_agg(type || ' ' || (data->>'fields') || ' ' || (data->>'version'), ', ' ORDER BY seq) FROM event WHERE type LIKE 'access%'";
        assert_eq!(world.database.text(told).unwrap(), "access_policy.updated [\"allowed\"] 2, access_policy.updated [\"allowed\"] 3");
        let faulty = world.call(POLICY, json!({"allowed": ["127.0.0.1/8", "x"]})).await.unwrap_err();
        let fields: Vec<&str> = faulty.faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!((faulty.code.as_str(), fields.as_slice()), ("validation_failed", ["allowed[0]", "allowed[1]"].as_slice()));
        let narrow = world.client("acme", "test", &["keys:write", "keys:read"]).call(POLICY, json!({"allowed": local})).await.unwrap_err();
        assert_eq!(&narrow.members["required_scope"], &json!("admin"), "it opens what other keys may do");
    }

    async fn nobody_locks_itself_out_without_saying_so(world: &World) {
        let (key_id, secret) = create(&world.client, json!({"scopes": ["keys:write", "entities:read"]})).await;
        let own = world.client.with_secret(&secret);
        let change = json!({"key_id": key_id, "allowed": ["10.0.0.0/8"]});
        let key = [("idempotency-key", "narrow")];
        let refused = own.call_with("AccessService/UpdateKey", change.clone(), &key).await.unwrap_err();
        assert_eq!(
            (refused.code.as_str(), refused.http.unwrap_or(409), &refused.members["caller_address"]),
            ("caller_excluded", 409, &json!("127.0.0.1"))
        );
        own.call("AccessService/UpdateKey", json!({"key_id": key_id, "allowed": ["127.0.0.0/8"]})).await.unwrap();
        own.call(CALL, json!({})).await.unwrap();
        // What another key may do is no matter of the caller's address.
        let (other, _) = create(&world.client, json!({"scopes": ["keys:write", "entities:read"]})).await;
        own.call("AccessService/UpdateKey", json!({"key_id": other, "allowed": ["10.0.0.0/8"]})).await.unwrap();
        // A name changes, whatever the list.
        own.call("AccessService/UpdateKey", json!({"key_id": key_id, "name": "n"})).await.unwrap();
        let mut meant = change;
        meant["allow_lockout"] = true.into();
        let changed = own.call_with("AccessService/UpdateKey", meant, &key).await.expect("the idempotency key is still free");
        assert_eq!(changed.get("version"), 4);
        until_admitted(&own, false).await;

        let refused = world.call(POLICY, json!({"allowed": ["10.0.0.0/8"]})).await.unwrap_err();
        assert_eq!((refused.code.as_str(), world.database.rows("access_policy")), ("caller_excluded", 0));
        world.call(POLICY, json!({"allowed": ["10.0.0.0/8"], "allow_lockout": true})).await.unwrap();
        until_admitted(&world.client, false).await;
        // Whoever operates the service lets them in again.
        let database = ["--database-url", world.database.url.as_str()];
        let set = |more: &[&str]| offboard(&[&["access-policy"], &database[..], &["set", "--org", "acme"], more].concat());
        let shown = set(&["--allow", "127.0.0.0/8", "--allow", "10.0.0.0/8"]);
        assert!(shown.contains("acme/test") && shown.contains("10.0.0.0/8, 127.0.0.0/8") && shown.contains("version 3"), "{shown}");
        until_admitted(&world.client, true).await;
        let shown: Value = serde_json::from_str(&set(&["--allow", "none", "--json"])).unwrap();
        assert_eq!((&shown["allowed"], &shown["version"]), (&json!([]), &json!(4)));
    }
}

#[tokio::test]
async fn the_policy_is_shown_and_set_on_the_command_line() {
    let world = World::start(Protocol::Grpc).await;
    let server = format!("http://{}", world.server.addresses.grpc);
    let service = ["--server", &server, "--key", &world.key.secret];
    let policy = |arguments: &[&str]| run(&[&["access-policy"], arguments].concat());
    let set = [&["set"], &service[..], &["--allow", "10.0.0.0/8"]].concat();
    let refused = policy(&set);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("127.0.0.1"), "{refused:?}");
    let done =
        policy(&[&set[..], &["--allow", "127.0.0.1/32", "--expected-version", "1"]].concat());
    assert!(done.stdout.contains("10.0.0.0/8, 127.0.0.1/32"), "{done:?}");
    let shown = policy(&[&["get", "--json"], &service[..]].concat());
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["allowed"], json!(["10.0.0.0/8", "127.0.0.1/32"]));
    let done = policy(&[&["set"], &service[..], &["--allow", "none"]].concat());
    assert!(done.stdout.contains("anywhere"), "{done:?}");
    let database = ["--database-url", world.database.url.as_str()];
    for (arguments, code, reported) in [
        (vec!["set", "--org", "acme"], 2, "--allow"),
        (vec!["set", "--org", "acme", "--allow", "10.0.0.1/8"], 2, "10.0.0.0/8"),
        (vec!["set", "--org", "acme", "--allow", "none", "--allow", "10.0.0.0/8"], 2, "none"),
        (vec!["set", "--allow", "10.0.0.0/8"], 2, "--org"),
        (vec!["get", "--org", "nobody"], 1, "nobody"),
    ] {
        let ended = policy(&[&database[..], &arguments[..]].concat());
        assert_eq!(ended.code, Some(code), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(reported), "{arguments:?}: {}", ended.stderr);
    }
    let key = offboard(&["key", "--database-url", &world.database.url, "list", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&key).unwrap()["allowed"], json!([]));
    let own =
        [&["key", "update", &world.key.id], &service[..], &["--allow", "10.0.0.0/8"]].concat();
    assert!(run(&own).stderr.contains("127.0.0.1"));
    offboard(&[&own[..], &["--allow-lockout"]].concat());
}
