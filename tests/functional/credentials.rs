//! A caller shows one credential, once.

use crate::kit::*;
use crate::refusals::{exchanged, request};

scenario! {
    async fn two_credentials_are_refused(world: &World) {
        let other = Key::create(&world.database, "other", "test", SCOPES);
        let list = |secret: String| async move { world.client.call_with("PortfolioService/ListPortfolios", json!({}), &[("apikey", &secret)]).await };
        list(world.key.secret.clone()).await.expect("the same key in both headers");
        assert_eq!(list(other.secret.clone()).await.unwrap_err().code, "invalid_credentials");
        assert_eq!(list("nothing".to_owned()).await.unwrap_err().code, "invalid_credentials");
    }
}

#[tokio::test]
async fn a_credential_is_given_once() {
    let world = World::start(Protocol::Rest).await;
    let (one, other) = (
        format!("authorization: Bearer {}\r\n", world.key.secret),
        "authorization: Bearer nothing\r\n",
    );
    let apikey = format!("apikey: {}\r\n", world.key.secret);
    for headers in [
        format!("{one}{other}"),
        format!("{other}{one}"),
        format!("{one}{one}"),
        format!("{apikey}apikey: nothing\r\n"),
    ] {
        let reply =
            exchanged(world.server.addresses.http, &request("GET /v1/portfolios", &headers, ""))
                .await;
        assert_eq!(
            (reply.status, reply.json()["code"].as_str()),
            (401, Some("invalid_credentials")),
            "{}",
            reply.text()
        );
    }
}
