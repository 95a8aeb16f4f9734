//! Requests of REST as they are sent, for tests of what is wrong with them.

use super::{Protocol, Reply, World, http};

/// A world, and its key.
pub struct Rest {
    /// The world.
    pub world: World,
    bearer: String,
}

impl Rest {
    /// Starts one.
    pub async fn start() -> Rest {
        let world = World::start(Protocol::Rest).await;
        let bearer = format!("Bearer {}", world.key.secret);
        Rest { world, bearer }
    }

    /// Sends a request of JSON with the key and more headers; a refusal is to be a problem document.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let own = [
            ("authorization", self.bearer.as_str()),
            ("content-type", "application/json"),
            ("accept", "application/problem+json"),
        ];
        http(
            self.world.server.addresses.http,
            method,
            path,
            &[&own, headers].concat(),
            body.to_owned(),
        )
        .await
    }

    /// The faults of a refused request, each its field, its code and its description.
    pub async fn faults(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Vec<[String; 3]> {
        let reply = self.send(method, path, headers, body).await;
        let document = reply.json();
        assert_eq!(
            (reply.status, document["code"].as_str()),
            (400, Some("validation_failed")),
            "{method} {path} {body}: {}",
            reply.text()
        );
        let faults = document["errors"].as_array().unwrap().iter();
        faults
            .map(|fault| {
                ["field", "code", "description"]
                    .map(|name| fault[name].as_str().unwrap().to_owned())
            })
            .collect()
    }
}
