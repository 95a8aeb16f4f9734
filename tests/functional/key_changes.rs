//! How soon a change of a key takes effect, at every replica and also where nobody announces it; and what a known key costs.

use std::time::{Duration, Instant};

use crate::key_management::create;
use crate::kit::*;

/// Within this a change takes effect.
const SOON: Duration = Duration::from_secs(2);

/// Calls until that is refused. No call that began later than a change should take effect was admitted.
async fn refused_soon(client: &Client, changed: Instant) -> Failure {
    loop {
        let begun = Instant::now();
        match client.call("EntityService/ListEntities", json!({})).await {
            Ok(_) => {
                let late = begun.saturating_duration_since(changed);
                assert!(late < SOON, "admitted by a call that began {late:?} after the change");
            }
            Err(failure) => return failure,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A key of acme that may list entities, known to both servers.
async fn known(world: &World, other: &Server) -> (String, String, [Client; 2]) {
    let (key_id, secret) =
        create(&world.client, json!({"scopes": ["entities:read", "portfolios:read"]})).await;
    let elsewhere = Client::new(other, &world.key, world.protocol).with_secret(&secret);
    let clients = [world.client.with_secret(&secret), elsewhere];
    for client in &clients {
        client.call("EntityService/ListEntities", json!({})).await.unwrap();
    }
    (key_id, secret, clients)
}

scenario! {
    async fn a_change_takes_effect_on_every_replica(world: &World) {
        let other = Server::start_with(&world.database, &[], &[]).await;
        let cases = [
            ("RevokeKey", json!({}), "invalid_credentials"),
            ("RotateKey", json!({"overlap": "0s"}), "invalid_credentials"),
            ("UpdateKey", json!({"scopes": ["portfolios:read"]}), "permission_denied"),
            ("UpdateKey", json!({"allowed": ["10.0.0.0/8"]}), "address_not_allowed"),
            ("UpdateAccessPolicy", json!({"allowed": ["10.0.0.0/8"], "allow_lockout": true}), "address_not_allowed"),
        ];
        for (method, mut request, code) in cases {
            let (key_id, _, clients) = known(world, &other).await;
            if method != "UpdateAccessPolicy" {
                request["key_id"] = key_id.into();
            }
            let changed = Instant::now();
            world.call(&format!("AccessService/{method}"), request).await.unwrap();
            let done = Instant::now();
            for client in &clients {
                let refused = refused_soon(client, done).await;
                assert_eq!(refused.code, code, "{method} after {:?}", changed.elapsed());
            }
        }
    }

    /// The announcement of a change is lost: it was written by something that sends none, and the connection that listens is ended.
    async fn a_change_that_nobody_announces_takes_effect_as_soon(world: &World) {
        let other = Server::start_with(&world.database, &[], &[]).await;
        let changes = [
            ("revoked_at = now()", "invalid_credentials"),
            ("scopes = '{portfolios:read}'", "permission_denied"),
            ("secret_sha256 = sha256(id::text::bytea)", "invalid_credentials"),
            ("allowed = '{10.0.0.0/8}'", "address_not_allowed"),
        ];
        for (change, code) in changes {
            let (key_id, _, clients) = known(world, &other).await;
            let listening = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'LISTEN%'";
            world.database.count(listening);
            world.database.sql(&format!("UPDATE api_key SET {change} WHERE id = '{key_id}'"));
            let done = Instant::now();
            for client in &clients {
                assert_eq!(refused_soon(client, done).await.code, code, "{change}");
            }
        }
        // A row that is removed is a key no more.
        let (key_id, _, clients) = known(world, &other).await;
        world.database.sql(&format!("DELETE FROM api_key WHERE id = '{key_id}'"));
        let done = Instant::now();
        for client in &clients {
            assert_eq!(refused_soon(client, done).await.code, "invalid_credentials");
        }
    }

    async fn old_and_new_secret_overlap_for_the_given_time(world: &World) {
        let (key_id, first) = create(&world.client, json!({"scopes": ["entities:read"]})).await;
        let list = async |secret: &str| world.client.with_secret(secret).call("EntityService/ListEntities", json!({})).await;
        list(&first).await.unwrap();
        let rotated = world.call("AccessService/RotateKey", json!({"key_id": key_id, "overlap": "3600s", "expected_version": 1})).await.unwrap();
        let second = rotated.get("secret").as_str().unwrap().to_owned();
        assert_ne!(first, second);
        let shown = (rotated.get("key.secret_prefix"), rotated.get("key.previous_secret_prefix"), rotated.get("key.version"));
        assert_eq!(shown, (&json!(&second[..12]), &json!(&first[..12]), &json!(2)));
        for secret in [&first, &second] {
            list(secret).await.unwrap();
        }
        // Once more: the first one ends, and the key may rotate itself.
        let rotated = world.call("AccessService/RotateKey", json!({"key_id": key_id, "overlap": "3600s"})).await.unwrap();
        let third = rotated.get("secret").as_str().unwrap().to_owned();
        let done = Instant::now();
        assert_eq!(refused_soon(&world.client.with_secret(&first), done).await.code, "invalid_credentials");
        for secret in [&second, &third] {
            list(secret).await.unwrap();
        }
        // The time of the overlap is over.
        world.database.sql(&format!("UPDATE api_key SET previous_expires_at = now() WHERE id = '{key_id}'"));
        assert_eq!(refused_soon(&world.client.with_secret(&second), Instant::now()).await.code, "invalid_credentials");
        list(&third).await.unwrap();
        let key = world.call("AccessService/GetKey", json!({"key_id": key_id})).await.unwrap();
        assert_eq!(key.get("previous_secret_prefix"), &json!(null));
        world.call("AccessService/RevokeKey", json!({"key_id": key_id})).await.unwrap();
        assert_eq!(refused_soon(&world.client.with_secret(&third), Instant::now()).await.code, "invalid_credentials");
    }

    async fn a_key_rotates_and_revokes_itself(world: &World) {
        let (key_id, secret) = create(&world.client, json!({"scopes": ["keys:write", "entities:read"]})).await;
        let own = world.client.with_secret(&secret);
        let rotated = own.call("AccessService/RotateKey", json!({"key_id": key_id, "overlap": "0s"})).await.unwrap();
        assert_eq!(rotated.get("key.is_caller"), true);
        let own = world.client.with_secret(rotated.get("secret").as_str().unwrap());
        let revoked = own.call("AccessService/RevokeKey", json!({"key_id": key_id})).await.unwrap();
        assert_eq!((revoked.get("is_caller"), revoked.get("state")), (&json!(true), &json!("revoked")));
        assert_eq!(refused_soon(&own, Instant::now()).await.code, "invalid_credentials");
    }

    /// What is still in the cache makes no key: the transaction reads the key of the caller again.
    async fn a_key_that_was_revoked_a_moment_ago_makes_no_other(world: &World) {
        for (change, code) in [("revoked_at = now()", "invalid_credentials"), ("scopes = '{keys:write}'", "permission_denied"), ("scopes = '{entities:read}'", "permission_denied")] {
            let (key_id, secret) = create(&world.client, json!({"scopes": ["keys:write", "entities:read"]})).await;
            let manager = world.client.with_secret(&secret);
            manager.call("EntityService/ListEntities", json!({})).await.unwrap();
            world.database.sql(&format!("UPDATE api_key SET {change} WHERE id = '{key_id}'"));
            let refused = manager.call("AccessService/CreateKey", json!({"scopes": ["entities:read"]})).await.unwrap_err();
            assert_eq!(refused.code, code, "{change}");
        }
    }

    async fn streams_end_when_their_key_may_do_less_or_has_another_secret(world: &World) {
        let cases = [
            ("RotateKey", json!({"overlap": "0s"}), "invalid_credentials"),
            ("UpdateKey", json!({"scopes": ["events:read"]}), "permission_denied"),
            ("UpdateKey", json!({"allowed": ["10.0.0.0/8"]}), "address_not_allowed"),
            // The list of the whole realm, as the last: the key that changes it is excluded as well.
            ("UpdateAccessPolicy", json!({"allowed": ["10.0.0.0/8"], "allow_lockout": true}), "address_not_allowed"),
        ];
        for (method, mut request, code) in cases {
            let (key_id, secret) = create(&world.client, json!({"scopes": ["events:read", "entities:read"]})).await;
            let mut stream = world.client.with_secret(&secret).stream("EventService/WatchEvents", json!({}), &[]).await.unwrap();
            if method != "UpdateAccessPolicy" {
                request["key_id"] = key_id.into();
            }
            world.call(&format!("AccessService/{method}"), request).await.unwrap();
            let failure = loop {
                match stream.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(failure)) => break failure,
                    None => panic!("{method}: it ends as if nothing had happened"),
                }
            };
            assert_eq!(failure.code, code, "{method}");
        }
    }
}

/// How often a connection was taken from the pool.
async fn taken(server: &Server) -> f64 {
    let metrics = get(server.addresses.admin, "/metrics").await.unwrap();
    let counts = metrics.lines().filter(|line| line.starts_with("db_client_connection_wait_time"));
    let counts = counts.filter(|line| line.contains("_count"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn a_known_key_costs_no_call_of_the_database() {
    const CALLS: usize = 400;
    let world = World::start(Protocol::Grpc).await;
    let faulty = json!({"entity_id": ""});
    let call = async || {
        let refused = world.call("EntityService/GetEntity", faulty.clone()).await.unwrap_err();
        assert_eq!(refused.code, "validation_failed", "it is authenticated, and asks nothing");
    };
    call().await;
    let (before, begun) = (taken(&world.server).await, Instant::now());
    assert!(before > 0.0, "the key was looked up");
    for _ in 0..CALLS {
        call().await;
    }
    // Workers and keepers ask a few times a second, whoever calls.
    let (asked, seconds) = (taken(&world.server).await - before, begun.elapsed().as_secs_f64());
    assert!(asked < CALLS as f64 / 4.0 + 40.0 * seconds, "{asked} times in {seconds} s");
}
