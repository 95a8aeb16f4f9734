use std::future::pending;
use std::io::{Read, Write};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use futures::TryFutureExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::server::admin_protocol::AdminProtocol;
use crate::server::listener::Patience;
use crate::server::ports::{Addresses, Port};

impl Readiness {
    /// Adds a check that has nothing to say when all is well.
    fn with<F>(self, name: &'static str, run: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Finding>> + Send + 'static,
    {
        self.with_note(name, move || run().map_ok(|()| None))
    }
}

async fn ask(readiness: Readiness, path: &str) -> (StatusCode, String) {
    tokio::spawn(keep(watch::channel(readiness.clone()).1));
    tokio::task::yield_now().await;
    ask_with(Pulse::new(), readiness, path).await
}

async fn ask_with(pulse: Pulse, readiness: Readiness, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).expect("a path");
    let answer = router(watch::channel(readiness).1, pulse, || "offboard_up 1\n".to_owned())
        .oneshot(request)
        .await
        .expect("infallible");
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
    (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
}

#[tokio::test]
async fn a_replica_is_ready_when_every_check_passes() {
    let readiness =
        Readiness::new().with("database", async || Ok(())).with("schema", async || Ok(()));
    let (status, body) = ask(readiness, "/readyz").await;
    assert_eq!(status, StatusCode::OK);
    let checks = json!([{"name": "database", "ok": true}, {"name": "schema", "ok": true}]);
    assert_eq!(
        serde_json::from_str::<Value>(&body).expect("JSON"),
        json!({"ready": true, "checks": checks})
    );
}

#[tokio::test]
async fn the_check_that_fails_is_named() {
    let readiness = Readiness::new()
        .with("database", async || Ok(()))
        .with("schema", async || Err(Finding::new("schema_behind", "at version 3, not 4")));
    let (status, body) = ask(readiness, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["ready"], false);
    assert_eq!(
        body["checks"][1],
        json!({"name": "schema", "ok": false, "reason": "schema_behind", "detail": "at version 3, not 4"})
    );
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_is_not_waited_for() {
    let readiness = Readiness::new().with("database", pending).with("schema", async || Ok(()));
    let keeper = tokio::spawn(keep(watch::channel(readiness.clone()).1));
    tokio::time::sleep(CHECK_EVERY).await;
    let (_, body) = ask_with(Pulse::new(), readiness.clone(), "/readyz").await;
    assert!(body.contains(r#""reason":"starting""#), "nothing was found yet: {body}");
    tokio::time::sleep(CHECK_TIMEOUT).await;
    keeper.abort();
    let (status, body) = ask_with(Pulse::new(), readiness, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("no response within 2 s"), "{body}");
}

#[tokio::test]
async fn a_replica_that_is_not_ready_is_alive() {
    let readiness = Readiness::new()
        .with("database", async || Err(Finding::new("database_away", "unreachable")));
    assert_eq!(ask(readiness, "/livez").await, (StatusCode::OK, "ok\n".to_owned()));
}

#[tokio::test]
async fn a_process_whose_threads_stand_still_is_not_alive() {
    let long_ago =
        Instant::now().checked_sub(STANDSTILL).expect("a machine that has run for a minute");
    let pulse = Pulse { begun: long_ago, last: Arc::default() };
    let (status, body) = ask_with(pulse.clone(), Readiness::new(), "/livez").await;
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "the threads of calls have stood still for 60 s\n")
    );
    tokio::spawn(pulse.clone().beat());
    tokio::task::yield_now().await;
    assert_eq!(ask_with(pulse, Readiness::new(), "/livez").await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_probe_answers_from_what_was_found_last_and_what_is_so_now() {
    let (drained, checked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (draining, checks) = (drained.clone(), checked.clone());
    let readiness = Readiness::new()
        .with_instant("draining", move || {
            if draining.load(Ordering::Relaxed) == 0 {
                Ok(())
            } else {
                Err(Finding::new("draining", "shutting down"))
            }
        })
        .with("database", move || {
            checks.fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }
        });
    // Kept, since without a sender the checks begin anew.
    let (_sender, current) = watch::channel(readiness.clone());
    let keeper = tokio::spawn(keep(current));
    tokio::time::sleep(CHECK_EVERY * 3 + CHECK_EVERY / 2).await;
    keeper.abort();
    for _ in 0..10 {
        assert_eq!(ask_with(Pulse::new(), readiness.clone(), "/readyz").await.0, StatusCode::OK);
    }
    assert_eq!(
        checked.load(Ordering::Relaxed),
        4,
        "once at first and then every second, however often it is probed"
    );
    drained.store(1, Ordering::Relaxed);
    assert_eq!(
        ask_with(Pulse::new(), readiness, "/readyz").await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn probes_are_answered_while_no_thread_of_calls_runs() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let readiness = Readiness::new().with("database", async || Ok(()));
    let time = Duration::from_secs(30);
    let options = Options::admin(Patience {
        head: time,
        idle: Some(time),
        idle_without_key: None,
        unread: time,
    });
    let current = watch::channel(readiness).1;
    let router = router(current.clone(), Pulse::new(), String::new);
    let port = Port::admin(&Addresses { grpc: None, http: None, admin: address }, None);
    let admin =
        AdminThread::spawn(listener, AdminProtocol::new(router, port, None), current, options)
            .expect("a thread");
    // From here on the only thread of this runtime waits for the responses and runs nothing else.
    for path in ["/livez", "/readyz", "/metrics"] {
        let mut connection = std::net::TcpStream::connect(address).expect("a listener");
        connection
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a timeout that is not zero");
        write!(connection, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .expect("a connection");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    admin.stop();
}

#[tokio::test]
async fn a_start_is_reported_by_its_stage_until_the_service_has_checks_of_its_own() {
    let (stage, stages) = watch::channel(Stage::Starting);
    let (current, seen) = watch::channel(Readiness::of_start(stages));
    tokio::spawn(keep(seen.clone()));
    let reason = || seen.borrow().report().reason();
    assert_eq!(reason(), "starting");
    stage.send_replace(Stage::Migrating);
    assert_eq!(reason(), "migrating");
    let readiness = Readiness::new().with("database", async || Ok(()));
    current.send_replace(readiness.clone());
    assert_eq!(reason(), "starting", "its checks were not made yet");
    readiness.is_ready().await;
    assert_eq!(reason(), READY);
}

#[tokio::test]
async fn metrics_are_given_as_text() {
    assert_eq!(
        ask(Readiness::new(), "/metrics").await,
        (StatusCode::OK, "offboard_up 1\n".to_owned())
    );
}
