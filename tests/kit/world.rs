//! All that most scenarios need, at once.

use std::time::Duration;

use serde_json::Value;

use super::{Answer, Client, Database, Failure, Key, Protocol, SCOPES, Server, database};

/// A database, a server on it, and a client with a key of `acme` in mode `test` with every scope. Dropped in this order: client,
/// server, database.
pub struct World {
    /// The client.
    pub client: Client,
    /// The server.
    pub server: Server,
    /// The key of the client.
    pub key: Key,
    /// The listener of the client.
    pub protocol: Protocol,
    /// The database.
    pub database: Database,
}

impl World {
    /// Starts one.
    pub async fn start(protocol: Protocol) -> World {
        World::start_with(protocol, &[]).await
    }

    /// Starts one whose server gets more arguments.
    pub async fn start_with(protocol: Protocol, arguments: &[&str]) -> World {
        let database = database().await;
        let key = Key::create(&database, "acme", "test", SCOPES);
        let server = Server::start_with(&database, arguments, &[]).await;
        let client = Client::new(&server, &key, protocol);
        World { client, server, key, protocol, database }
    }

    /// Calls a method as the client.
    pub async fn call(&self, method: &str, request: Value) -> Result<Answer, Failure> {
        self.client.call(method, request).await
    }

    /// A client through the same listener with another key.
    pub fn client(&self, org: &str, mode: &str, scopes: &[&str]) -> Client {
        Client::new(&self.server, &Key::create(&self.database, org, mode, scopes), self.protocol)
    }

    /// A client with the same key through another listener.
    pub fn through(&self, protocol: Protocol) -> Client {
        Client::new(&self.server, &self.key, protocol)
    }

    /// Calls a read method until its answer is as it should be, and returns that; fails after half a minute with the last answer.
    pub async fn call_until(
        &self,
        method: &str,
        request: Value,
        done: impl Fn(&Value) -> bool,
    ) -> Answer {
        let mut last = None;
        for _ in 0..1500 {
            let answer = self
                .call(method, request.clone())
                .await
                .unwrap_or_else(|failure| panic!("{method} failed: {failure:#?}"));
            if done(&answer.json) {
                return answer;
            }
            last = Some(answer);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("waited in vain for {method} {request}; last: {last:#?}");
    }
}

/// Waits until a condition is true; fails after half a minute.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited in vain until {what}");
}
