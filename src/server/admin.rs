//! The port for operators and their machines: probes and metrics. Neither needs a key, so it is to be reached from within alone.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use serde::Serialize;
use tokio::time::timeout;

/// How long a check may take. Probes give up after a second or more of their own, and a database that hangs is as bad as one that is away.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// What must be right for this replica to be sent calls.
#[derive(Clone, Default)]
pub struct Readiness {
    checks: Vec<Check>,
}

#[derive(Clone)]
struct Check {
    name: &'static str,
    run: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

impl Readiness {
    /// Nothing yet: always ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check. Its error is a sentence for operators, which is answered to whoever asks.
    pub fn with<F>(mut self, name: &'static str, run: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push(Check { name, run: Arc::new(move || run().boxed()) });
        self
    }

    /// Runs all checks at once; takes no longer than the timeout, whatever they do.
    async fn report(&self) -> Report {
        let checks = self.checks.iter().map(async |check| {
            let result = timeout(CHECK_TIMEOUT, (check.run)()).await;
            let detail = result.unwrap_or_else(|_| Err(format!("no answer within {} s", CHECK_TIMEOUT.as_secs()))).err();
            Outcome { name: check.name, ok: detail.is_none(), detail }
        });
        let checks = join_all(checks).await;
        Report { ready: checks.iter().all(|check| check.ok), checks }
    }
}

#[derive(Serialize)]
struct Report {
    ready: bool,
    checks: Vec<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl IntoResponse for Report {
    fn into_response(self) -> Response {
        let status = if self.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = serde_json::to_vec(&self).expect("text and truth values are JSON");
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
    }
}

/// The routes of the port:
///
/// - `/livez`: 200 for as long as the process answers at all; tells nothing of the database, since a restart would not mend that.
/// - `/readyz`: 200 or 503, with the outcome of every check as JSON.
/// - `/metrics`: what `metrics` gives, as Prometheus text.
pub fn router(readiness: Readiness, metrics: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
    let scrape = async move || ([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"))], metrics());
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(async |State(readiness): State<Readiness>| readiness.report().await))
        .route("/metrics", get(scrape))
        .with_state(readiness)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    async fn ask(readiness: Readiness, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).expect("a path");
        let answer = router(readiness, || "offboard_up 1\n".to_owned()).oneshot(request).await.expect("infallible");
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn a_replica_is_ready_when_every_check_passes() {
        let readiness = Readiness::new().with("database", async || Ok(())).with("schema", async || Ok(()));
        let (status, body) = ask(readiness, "/readyz").await;
        assert_eq!(status, StatusCode::OK);
        let checks = json!([{"name": "database", "ok": true}, {"name": "schema", "ok": true}]);
        assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON"), json!({"ready": true, "checks": checks}));
    }

    #[tokio::test]
    async fn the_check_that_fails_is_named() {
        let readiness = Readiness::new().with("database", async || Ok(())).with("schema", async || Err("at version 3, not 4".to_owned()));
        let (status, body) = ask(readiness, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["ready"], false);
        assert_eq!(body["checks"][1], json!({"name": "schema", "ok": false, "detail": "at version 3, not 4"}));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_not_waited_for() {
        let readiness = Readiness::new().with("database", pending).with("schema", async || Ok(()));
        let answer = timeout(Duration::from_secs(3), ask(readiness, "/readyz")).await;
        let (status, body) = answer.expect("an answer in bounded time, of a paused clock");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("no answer within 2 s"), "{body}");
    }

    #[tokio::test]
    async fn a_replica_that_is_not_ready_is_alive() {
        let readiness = Readiness::new().with("database", async || Err("away".to_owned()));
        assert_eq!(ask(readiness, "/livez").await, (StatusCode::OK, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn metrics_are_given_as_text() {
        assert_eq!(ask(Readiness::new(), "/metrics").await, (StatusCode::OK, "offboard_up 1\n".to_owned()));
    }
}
