//! The port for operators and their machines: probes and metrics. Neither needs a key, so it is to be reached from within alone.
//!
//! It is served by a thread of its own, so that a probe has its response at once however busy the threads of calls are. Slow checks, such as
//! asking the database, are done beside the probes, every second, and probes report the last results.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::listener::{self, Answer, Options};
use crate::telemetry;

/// How long a check may take. Probes give up after a second or more of their own, and a database that hangs is as bad as an unreachable
/// one.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two rounds of checks.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The check of a start that is not over.
const START: &str = "start";
/// How often the threads of calls show that they run.
const BEAT: Duration = Duration::from_secs(1);
/// After this time without a sign of them the process is not alive: no load explains it, and a restart repairs it.
const STANDSTILL: Duration = Duration::from_secs(60);

/// The conditions under which calls may be routed to this replica.
#[derive(Clone, Default)]
pub struct Readiness {
    instant: Vec<InstantCheck>,
    checks: Vec<Check>,
    found: watch::Sender<Option<Vec<Outcome>>>,
    /// The reason that was found last.
    reason: watch::Sender<Option<&'static str>>,
}

/// The readiness of now, for the probes: that of the start, and then that of the service.
pub type Current = watch::Receiver<Readiness>;

/// How far a start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The database is opened, and what is served is made.
    Starting,
    /// The schema is brought up to date.
    Migrating,
}

impl Stage {
    fn finding(self) -> Finding {
        match self {
            Stage::Starting => {
                Finding::new("starting", "starts: the database was not looked at yet")
            }
            Stage::Migrating => Finding::new("migrating", "brings the schema up to date"),
        }
    }
}

#[derive(Clone)]
struct InstantCheck {
    name: &'static str,
    run: Arc<dyn Fn() -> Result<(), Finding> + Send + Sync>,
}

#[derive(Clone)]
struct Check {
    name: &'static str,
    run: Arc<dyn Fn() -> BoxFuture<'static, Result<Option<Finding>, Finding>> + Send + Sync>,
}

/// Why a check fails, or a notice though it passes. Anybody may read it, so it reveals no causes.
#[derive(Clone, Debug)]
pub struct Finding {
    reason: &'static str,
    detail: String,
}

impl Finding {
    /// A reason for machines, in lower snake case, and a sentence for operators.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Finding { reason, detail: detail.into() }
    }
}

/// A notice about a replica that is ready.
const READY: &str = "ready";

impl Readiness {
    /// Nothing yet: always ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// That of a start, which is not over.
    pub fn of_start(stage: watch::Receiver<Stage>) -> Self {
        Readiness::new().with_instant(START, move || Err(stage.borrow().finding()))
    }

    /// Adds a check that is made for every probe, so it must take no time.
    pub fn with_instant(
        mut self,
        name: &'static str,
        run: impl Fn() -> Result<(), Finding> + Send + Sync + 'static,
    ) -> Self {
        self.instant.push(InstantCheck { name, run: Arc::new(run) });
        self
    }

    /// Adds a check that is made every second, as long as [`Readiness::keep`] runs. It may have something to say also when all is well.
    pub fn with_note<F>(
        mut self,
        name: &'static str,
        run: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Option<Finding>, Finding>> + Send + 'static,
    {
        self.checks.push(Check { name, run: Arc::new(move || run().boxed()) });
        self
    }

    /// Makes the checks again and again, until it is dropped. `reported` is what the metric says.
    async fn keep(&self, reported: &mut &'static str) {
        loop {
            self.found.send_replace(Some(self.check().await));
            let reason = self.report().reason();
            telemetry::readiness(reason, (reason != *reported).then_some(*reported));
            *reported = reason;
            self.reason.send_replace(Some(reason));
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }

    /// Waits until the replica is ready for the first time.
    pub async fn is_ready(&self) {
        // The sender is kept, so that the wait cannot end by losing it.
        let _ = self.reason.subscribe().wait_for(|reason| *reason == Some(READY)).await;
    }

    /// Makes all checks at once; takes no longer than the timeout, whatever they do.
    async fn check(&self) -> Vec<Outcome> {
        let checks = self.checks.iter().map(async |check| {
            let result = timeout(CHECK_TIMEOUT, (check.run)()).await;
            let result = result.unwrap_or_else(|_| {
                Err(Finding::new(
                    "no_answer",
                    format!("no response within {} s", CHECK_TIMEOUT.as_secs()),
                ))
            });
            Outcome::new(check.name, result)
        });
        join_all(checks).await
    }

    /// The last results, and what is true at this instant. Waits for nothing: before the first round of checks is over, the start is not.
    fn report(&self) -> Report {
        let found = self.found.borrow().clone();
        let found =
            found.unwrap_or_else(|| vec![Outcome::new(START, Err(Stage::Starting.finding()))]);
        let instant =
            self.instant.iter().map(|check| Outcome::new(check.name, (check.run)().map(|()| None)));
        let checks: Vec<_> = instant.chain(found).collect();
        Report { ready: checks.iter().all(|check| check.ok), checks }
    }
}

/// Makes the checks of the readiness of now, until it is dropped.
async fn keep(mut current: Current) {
    let mut reported = READY;
    loop {
        let readiness = current.borrow_and_update().clone();
        tokio::select! {
            () = readiness.keep(&mut reported) => {}
            changed = current.changed() => if changed.is_err() { readiness.keep(&mut reported).await },
        }
    }
}

/// Shows that the threads of calls run. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Pulse {
    begun: Instant,
    /// Milliseconds after the beginning.
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// A pulse that beats from now on.
    pub fn new() -> Self {
        Pulse { begun: Instant::now(), last: Arc::default() }
    }

    /// Beats until it is dropped; to be run by the threads that it is the pulse of.
    pub async fn beat(self) {
        loop {
            self.last.store(self.now(), Ordering::Relaxed);
            tokio::time::sleep(BEAT).await;
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.last.load(Ordering::Relaxed)))
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Serialize)]
struct Report {
    ready: bool,
    checks: Vec<Outcome>,
}

#[derive(Clone, Debug, Serialize)]
struct Outcome {
    name: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Outcome {
    fn new(name: &'static str, result: Result<Option<Finding>, Finding>) -> Self {
        let ok = result.is_ok();
        let (reason, detail) =
            result.unwrap_or_else(Some).map(|Finding { reason, detail }| (reason, detail)).unzip();
        Outcome { name, ok, reason, detail }
    }
}

impl Report {
    /// Why the replica is not ready, by the first check that fails.
    fn reason(&self) -> &'static str {
        self.checks.iter().find(|check| !check.ok).and_then(|check| check.reason).unwrap_or(READY)
    }
}

impl IntoResponse for Report {
    fn into_response(self) -> Response {
        let status = if self.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = serde_json::to_vec(&self).expect("text and truth values are JSON");
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body)
            .into_response()
    }
}

/// The routes of the port:
///
/// - `/livez`: 200 for as long as the threads of calls run at all; reports nothing of the database, since a restart would not repair that.
/// - `/readyz`: 200 or 503, with the outcome of every check as JSON.
/// - `/metrics`: what `metrics` gives, as Prometheus text.
pub fn router(
    current: Current,
    pulse: Pulse,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Router {
    let scrape = async move || {
        // There may be much to write, and a probe must not wait for it.
        let text = tokio::task::spawn_blocking(metrics).await.unwrap_or_default();
        (
            [(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            )],
            text,
        )
    };
    let alive = async move || match pulse.silence() {
        silence if silence < STANDSTILL => (StatusCode::OK, "ok\n".to_owned()),
        silence => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the threads of calls have stood still for {} s\n", silence.as_secs()),
        ),
    };
    Router::new()
        .route("/livez", get(alive))
        .route("/readyz", get(async |State(current): State<Current>| current.borrow().report()))
        .route("/metrics", get(scrape))
        .with_state(current)
}

/// The thread that serves the port.
#[derive(Debug)]
pub struct AdminThread {
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl AdminThread {
    /// Serves the port and makes the checks of the readiness of now.
    pub fn spawn(
        listener: TcpListener,
        protocol: impl Answer,
        current: Current,
        options: Options,
    ) -> std::io::Result<Self> {
        let listener = listener.into_std()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                let listener = match TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "the admin listener ended"),
                };
                tokio::select! {
                    // It serves to the very end.
                    () = listener::serve(listener, protocol, options, CancellationToken::new()) => {}
                    () = keep(current) => {}
                    () = stopped.cancelled() => {}
                }
            });
            // A check that hangs in the database is left behind.
            runtime.shutdown_background();
        })?;
        Ok(AdminThread { stop, thread })
    }

    /// Ends it.
    pub fn stop(self) {
        self.stop.cancel();
        if self.thread.join().is_err() {
            tracing::warn!("the admin thread did not end well");
        }
    }
}

#[cfg(test)]
mod tests;
