//! Where the service is reached below a path of a proxy, every path that it reports is one that its callers can follow.

use crate::kit::*;

const BASE: &str = "/platform/offboard";

struct Proxied {
    world: World,
    bearer: String,
}

impl Proxied {
    async fn start() -> Proxied {
        let world = World::start_with(
            Protocol::Rest,
            &["--public-url", &format!("https://api.example.com{BASE}/")],
        )
        .await;
        let bearer = format!("Bearer {}", world.key.secret);
        Proxied { world, bearer }
    }

    /// Sends what a caller sends to a path below the base, as the proxy passes it on.
    async fn send(&self, method: &str, path: &str, body: &str, more: &[(&str, &str)]) -> Reply {
        let path = path.strip_prefix(BASE).unwrap_or_else(|| panic!("{path} leads past the proxy"));
        let mut headers =
            vec![("authorization", self.bearer.as_str()), ("content-type", "application/json")];
        headers.extend(more);
        http(self.world.server.addresses.http, method, path, &headers, body.to_owned()).await
    }

    /// Makes something, and returns where the response says that it is; it must be there.
    async fn made(&self, method: &str, path: &str, body: &str) -> String {
        let reply = self.send(method, &format!("{BASE}{path}"), body, &[]).await;
        assert!((200..300).contains(&reply.status), "{method} {path}: {}", reply.text());
        let location = reply
            .header("location")
            .unwrap_or_else(|| panic!("{method} {path} has no location"))
            .to_owned();
        assert_eq!(self.send("GET", &location, "", &[]).await.status, 200, "{location}");
        location
    }
}

#[tokio::test]
async fn every_location_begins_with_its_path() {
    let proxied = Proxied::start().await;
    assert_eq!(
        proxied.made("POST", "/v1/portfolios", r#"{"portfolio_id":"p","name":"P"}"#).await,
        format!("{BASE}/v1/portfolios/p")
    );
    assert_eq!(
        proxied.made("POST", "/v1/entities", r#"{"entity_id":"e","type":"T"}"#).await,
        format!("{BASE}/v1/entities/e")
    );
    proxied.made("POST", "/v1/entities", r#"{"entity_id":"f","type":"T"}"#).await;
    proxied.made("POST", "/v1/attribute-indexes", r#"{"attribute":"'First name'"}"#).await;
    let request = proxied
        .made("POST", "/v1/offboarding/entities", r#"{"entityId":"e","gracePeriod":"3600s"}"#)
        .await;
    assert!(request.starts_with(&format!("{BASE}/v1/offboarding/entities/")), "{request}");
    let job = proxied.made("DELETE", "/v5/entities/f", "").await;
    assert!(job.starts_with(&format!("{BASE}/v5/entities/jobs/")), "{job}");
    assert_eq!(proxied.made("DELETE", "/v5/entities/f", "").await, job, "known already");
}

#[tokio::test]
async fn an_answer_that_is_reported_again_begins_with_it_too() {
    let proxied = Proxied::start().await;
    for _ in 0..2 {
        let body = r#"{"entity_id":"e","type":"T"}"#;
        let reply = proxied
            .send("POST", &format!("{BASE}/v1/entities"), body, &[("idempotency-key", "k")])
            .await;
        assert_eq!(
            (reply.status, reply.header("location")),
            (201, Some(format!("{BASE}/v1/entities/e").as_str()))
        );
    }
}

#[tokio::test]
async fn links_to_next_pages_lead_there() {
    let proxied = Proxied::start().await;
    for n in 0..3 {
        proxied
            .made("POST", "/v1/entities", &format!(r#"{{"entity_id":"e{n}","type":"T"}}"#))
            .await;
        proxied
            .made(
                "POST",
                "/v1/offboarding/entities",
                &format!(r#"{{"entityId":"e{n}","gracePeriod":"3600s"}}"#),
            )
            .await;
    }
    let (mut next, mut pages) =
        (format!("{BASE}/v1/offboarding/entities?pageSize=1&status=Pending"), 0);
    loop {
        let page = proxied.send("GET", &next, "", &[]).await.json();
        pages += 1;
        match page["links"]["next"].as_str() {
            Some(link) => next = link.to_owned(),
            None => break,
        }
    }
    assert_eq!(pages, 3);

    let uris = proxied
        .send(
            "POST",
            &format!("{BASE}/api/acme/entities/_deleteByUris"),
            r#"["e0","e1","e2"]"#,
            &[],
        )
        .await;
    let task = uris.json()["id"].as_str().unwrap().to_owned();
    proxied
        .world
        .call_until("BulkDeleteService/GetTask", json!({"task_id": task}), |task| {
            !task["end_time"].is_null()
        })
        .await;
    let (mut next, mut table) =
        (format!("{BASE}/api/acme/tasks/{task}/failures?pageSize=1"), String::new());
    loop {
        let page = proxied.send("GET", &next, "", &[("accept", "text/csv")]).await;
        assert_eq!(page.status, 200, "{}", page.text());
        table.push_str(&page.text());
        match page.header("link") {
            Some(link) => {
                next = link
                    .strip_prefix('<')
                    .and_then(|link| link.strip_suffix(">; rel=\"next\""))
                    .unwrap()
                    .to_owned()
            }
            None => break,
        }
    }
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        (lines.len(), lines[0]),
        (4, "entityId,reason,message,time"),
        "the pages are one table: {table}"
    );
}

#[tokio::test]
async fn what_is_published_begins_with_it() {
    let proxied = Proxied::start().await;
    let document = proxied.send("GET", &format!("{BASE}/openapi.json"), "", &[]).await.json();
    assert_eq!(document["servers"], json!([{"url": format!("https://api.example.com{BASE}")}]));
    let problem = proxied.send("GET", &format!("{BASE}/v1/entities/none"), "", &[]).await.json();
    assert_eq!(problem["type"], format!("https://api.example.com{BASE}/errors/not_found"));
    assert_eq!(problem["doc_url"], format!("https://api.example.com{BASE}/errors#not_found"));
    // Pages refer to each other from where they are.
    for path in ["/docs", "/errors", "/errors/not_found"] {
        let page = proxied
            .send("GET", &format!("{BASE}{path}"), "", &[("accept", "text/html")])
            .await
            .text();
        assert!(!page.contains("=\"/"), "{path}: {page}");
    }
}
