//! Every metric of the service, behind functions that need no OpenTelemetry type. Names and attributes are those of the OpenTelemetry semantic
//! conventions where they have one, and start with `offboard.` where not. Times are in seconds.

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter};
use opentelemetry::{KeyValue, global};
use tracing::Instrument;

use super::NAME;

/// Buckets for whole calls, as the semantic conventions advise.
const CALL_SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Buckets for what a call is made of: statements and waits.
const STEP_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0];

/// Made at first use, from the provider that [`super::init`] installs; before that, measurements are dropped.
static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::new(&global::meter(NAME)));

struct Metrics {
    rpc_call: Histogram<f64>,
    http_request: Histogram<f64>,
    pool_wait: Histogram<f64>,
    statement: Histogram<f64>,
    jobs_claimed: Counter<u64>,
    jobs_finished: Counter<u64>,
    leases_lost: Counter<u64>,
    entities_deleted: Counter<u64>,
    chunk_duration: Histogram<f64>,
    chunk_objects: Counter<u64>,
    events_published: Counter<u64>,
    publish_failures: Counter<u64>,
    limits_reached: Counter<u64>,
    tokens_refused: Counter<u64>,
    auth_file_reads: Counter<u64>,
    jwks_fetches: Counter<u64>,
    jwks_age: Gauge<f64>,
    clock_ahead: Gauge<f64>,
    readiness: Gauge<u64>,
    body_memory: UpDownCounter<i64>,
    response_memory: UpDownCounter<i64>,
}

impl Metrics {
    fn new(meter: &Meter) -> Self {
        let seconds = |name: &'static str, description: &'static str, buckets: &[f64]| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(buckets.to_vec())
                .build()
        };
        let count = |name: &'static str, unit: &'static str, description: &'static str| {
            meter.u64_counter(name).with_unit(unit).with_description(description).build()
        };
        Metrics {
            rpc_call: seconds("rpc.server.call.duration", "Duration of gRPC calls, to the last byte of the response", CALL_SECONDS),
            http_request: seconds("http.server.request.duration", "Duration of HTTP requests at the REST listener", CALL_SECONDS),
            pool_wait: seconds("db.client.connection.wait_time", "Time to get a database connection from the pool", STEP_SECONDS),
            statement: seconds("db.client.operation.duration", "Duration of SQL statements", STEP_SECONDS),
            jobs_claimed: count("offboard.jobs.claimed", "{job}", "Jobs that this replica took on"),
            jobs_finished: count("offboard.jobs.finished", "{job}", "Jobs that this replica ended, by outcome"),
            leases_lost: count("offboard.jobs.leases_lost", "{lease}", "Jobs that another replica took over from this one"),
            entities_deleted: count("offboard.entities.deleted", "{entity}", "Entities deleted, by mode"),
            chunk_duration: seconds("offboard.chunk.duration", "Duration of one chunk of a job, with its commit", STEP_SECONDS),
            chunk_objects: count("offboard.chunk.objects", "{object}", "Objects that chunks of jobs processed"),
            events_published: count("offboard.publisher.events", "{event}", "Events that were published and acknowledged, by publisher"),
            publish_failures: count("offboard.publisher.failures", "{attempt}", "Attempts to publish that failed, by publisher and error"),
            body_memory: meter
                .i64_up_down_counter("offboard.body.memory")
                .with_unit("By")
                .with_description("Memory of bodies while they are received and decoded")
                .build(),
            response_memory: meter
                .i64_up_down_counter("offboard.response.memory")
                .with_unit("By")
                .with_description("Memory that responses take from when they are built until they are written")
                .build(),
            limits_reached: count("offboard.limit.reached", "{time}", "How often a limit of `docs/limits.md` was reached, by its name"),
            tokens_refused: count("offboard.token.refused", "{fault}", "Faults of tokens that were refused, by reason"),
            auth_file_reads: count("offboard.auth_file.reads", "{time}", "How often the file of `--auth-file` was read again because it had changed, by outcome"),
            jwks_fetches: count("offboard.jwks.fetches", "{fetch}", "Fetches of the keys of issuers, by issuer and outcome"),
            jwks_age: meter
                .f64_gauge("offboard.jwks.age")
                .with_unit("s")
                .with_description("How long ago the keys in use of an issuer were fetched, by issuer")
                .build(),
            readiness: meter
                .u64_gauge("offboard.readiness")
                .with_description("1 for why the replica is not ready, or for `ready`; 0 for what was so before")
                .build(),
            clock_ahead: meter
                .f64_gauge("offboard.clock.ahead")
                .with_unit("s")
                .with_description("How far the clock of this process is ahead of the database's, which is the one that counts")
                .build(),
        }
    }
}

/// A gRPC call has ended. `method` is `package.Service/Method`, or `_OTHER` when there is none of that name; `status` is the name of the
/// status, such as `NOT_FOUND`.
pub fn rpc_call(method: &str, status: &'static str, duration: Duration) {
    let attributes = [
        KeyValue::new("rpc.system.name", "grpc"),
        KeyValue::new("rpc.method", method.to_owned()),
        KeyValue::new("rpc.response.status_code", status),
    ];
    METRICS.rpc_call.record(duration.as_secs_f64(), &attributes);
}

/// A request at the REST listener has ended. `route` is the template, such as `/v1/entities/{id}`, never the path itself, and empty when no
/// route matched.
pub fn http_request(method: &http::Method, route: &str, status: u16, duration: Duration) {
    // A caller may invent methods, and each would become a time series of its own.
    let method = match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE"
        | "PATCH") => known.to_owned(),
        _ => "_OTHER".to_owned(),
    };
    let mut attributes = vec![
        KeyValue::new("http.request.method", method),
        KeyValue::new("http.response.status_code", i64::from(status)),
    ];
    if !route.is_empty() {
        attributes.push(KeyValue::new("http.route", route.to_owned()));
    }
    METRICS.http_request.record(duration.as_secs_f64(), &attributes);
}

/// Someone waited this long for a database connection.
pub fn pool_wait(duration: Duration) {
    METRICS
        .pool_wait
        .record(duration.as_secs_f64(), &[KeyValue::new("db.client.connection.pool.name", NAME)]);
}

/// Waits for a database connection by `acquire`: in a span of its own, and measured by [`pool_wait`].
pub async fn waiting_for_pool<F: Future>(acquire: F) -> F::Output {
    let started = Instant::now();
    let acquired = acquire
        .instrument(tracing::info_span!("db.pool.wait", "db.client.connection.pool.name" = NAME))
        .await;
    pool_wait(started.elapsed());
    acquired
}

/// A statement has ended. `operation` is its first keyword; `error` is its error in a word.
pub fn statement(operation: &str, error: Option<&str>, duration: Duration) {
    let mut attributes = vec![
        KeyValue::new("db.system.name", "postgresql"),
        KeyValue::new("db.operation.name", operation.to_owned()),
    ];
    if let Some(error) = error {
        attributes.push(KeyValue::new("error.type", error.to_owned()));
    }
    METRICS.statement.record(duration.as_secs_f64(), &attributes);
}

/// The connections of a pool, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolState {
    /// Connections in use.
    pub used: u32,
    /// Connections open and free.
    pub idle: u32,
    /// Callers waiting for a connection.
    pub waiting: u32,
    /// The most connections that the pool opens.
    pub max: u32,
}

/// Has the state of the database pool read whenever metrics are collected. To be called once.
pub fn observe_pool(read: impl Fn() -> PoolState + Send + Sync + 'static) {
    let (meter, read) = (global::meter(NAME), Arc::new(read));
    const POOL: &str = "db.client.connection.pool.name";
    let state = |state: &'static str| {
        [KeyValue::new(POOL, NAME), KeyValue::new("db.client.connection.state", state)]
    };
    let count = Arc::clone(&read);
    meter
        .i64_observable_up_down_counter("db.client.connection.count")
        .with_unit("{connection}")
        .with_description("Open database connections, by state")
        .with_callback(move |observer| {
            let now = count();
            observer.observe(i64::from(now.used), &state("used"));
            observer.observe(i64::from(now.idle), &state("idle"));
        })
        .build();
    let waiting = Arc::clone(&read);
    meter
        .i64_observable_up_down_counter("db.client.connection.pending_requests")
        .with_unit("{request}")
        .with_description("Callers waiting for a database connection")
        .with_callback(move |observer| {
            observer.observe(i64::from(waiting().waiting), &[KeyValue::new(POOL, NAME)])
        })
        .build();
    meter
        .i64_observable_up_down_counter("db.client.connection.max")
        .with_unit("{connection}")
        .with_description("The most database connections that the pool opens")
        .with_callback(move |observer| {
            observer.observe(i64::from(read().max), &[KeyValue::new(POOL, NAME)])
        })
        .build();
}

/// This replica has taken on a job.
pub fn job_claimed(kind: &'static str) {
    METRICS.jobs_claimed.add(1, &[KeyValue::new("offboard.job.kind", kind)]);
}

/// This replica has ended a job; `outcome` says how: `succeeded`, `failed`, ...
pub fn job_finished(kind: &'static str, outcome: &'static str) {
    METRICS.jobs_finished.add(
        1,
        &[KeyValue::new("offboard.job.kind", kind), KeyValue::new("offboard.job.outcome", outcome)],
    );
}

/// Another replica has taken over a job of this one.
pub fn lease_lost(kind: &'static str) {
    METRICS.leases_lost.add(1, &[KeyValue::new("offboard.job.kind", kind)]);
}

/// Entities were deleted, and the transaction is committed. `mode` is `soft` or `hard`.
pub fn entities_deleted(mode: &'static str, count: u64) {
    METRICS.entities_deleted.add(count, &[KeyValue::new("offboard.delete.mode", mode)]);
}

/// A chunk of a job is committed: it processed this many objects in this time.
pub fn chunk(kind: &'static str, objects: u64, duration: Duration) {
    let attributes = [KeyValue::new("offboard.job.kind", kind)];
    METRICS.chunk_duration.record(duration.as_secs_f64(), &attributes);
    METRICS.chunk_objects.add(objects, &attributes);
}

/// The attribute that names a publisher.
const PUBLISHER: &str = "offboard.publisher.name";

/// Events were published, and are acknowledged.
pub fn events_published(publisher: &'static str, count: u64) {
    METRICS.events_published.add(count, &[KeyValue::new(PUBLISHER, publisher)]);
}

/// An attempt to publish has failed; `error` says in a word why: `disconnected`, `timeout`, ...
pub fn publish_failed(publisher: &'static str, error: &'static str) {
    METRICS
        .publish_failures
        .add(1, &[KeyValue::new(PUBLISHER, publisher), KeyValue::new("error.type", error)]);
}

/// How far a publisher is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PublisherLag {
    /// Events that are not published yet.
    pub events: u64,
    /// For how long the oldest of them has waited.
    pub seconds: f64,
}

/// Has the lag of a publisher read whenever metrics are collected. To be called once for a publisher.
pub fn observe_publisher(
    publisher: &'static str,
    read: impl Fn() -> PublisherLag + Send + Sync + 'static,
) {
    let (meter, read) = (global::meter(NAME), Arc::new(read));
    let attributes = [KeyValue::new(PUBLISHER, publisher)];
    let (events, labels) = (Arc::clone(&read), attributes.clone());
    meter
        .u64_observable_gauge("offboard.publisher.lag")
        .with_unit("{event}")
        .with_description("Events that are not published yet, by publisher")
        .with_callback(move |observer| observer.observe(events().events, &labels))
        .build();
    meter
        .f64_observable_gauge("offboard.publisher.lag_time")
        .with_unit("s")
        .with_description(
            "For how long the oldest event that is not published has waited, by publisher",
        )
        .with_callback(move |observer| observer.observe(read().seconds, &attributes))
        .build();
}

/// A limit was reached; `name` is that of `docs/limits.md`.
pub fn limit_reached(name: &'static str) {
    METRICS.limits_reached.add(1, &[KeyValue::new("offboard.limit.name", name)]);
}

/// A token was refused, for this reason among others.
pub fn token_refused(reason: &'static str) {
    METRICS.tokens_refused.add(1, &[KeyValue::new("offboard.token.fault", reason)]);
}

/// The file of issuers was read again, and has no faults, or has some.
pub fn auth_file_read(is_sound: bool) {
    METRICS.auth_file_reads.add(1, &[outcome(is_sound)]);
}

/// The attribute that names an issuer of tokens: one of the file, never one that a caller names.
const ISSUER: &str = "offboard.token.issuer";

/// The keys of an issuer were fetched, or could not be.
pub fn jwks_fetched(issuer: &str, went_well: bool) {
    METRICS.jwks_fetches.add(1, &[KeyValue::new(ISSUER, issuer.to_owned()), outcome(went_well)]);
}

/// The keys of an issuer that are in use were fetched this long ago.
pub fn jwks_age(issuer: &str, age: Duration) {
    METRICS.jwks_age.record(age.as_secs_f64(), &[KeyValue::new(ISSUER, issuer.to_owned())]);
}

fn outcome(went_well: bool) -> KeyValue {
    KeyValue::new("offboard.outcome", if went_well { "succeeded" } else { "failed" })
}

/// The replica is ready, or is not for this reason; `before` is the reason until now, if that was another.
pub fn readiness(reason: &'static str, before: Option<&'static str>) {
    let attribute = |reason: &'static str| [KeyValue::new("offboard.readiness.reason", reason)];
    METRICS.readiness.record(1, &attribute(reason));
    if let Some(before) = before {
        METRICS.readiness.record(0, &attribute(before));
    }
}

/// The clock of this process is so many seconds ahead of the database's.
pub fn clock_ahead(seconds: f64) {
    METRICS.clock_ahead.record(seconds, &[]);
}

/// Bodies have so many bytes more, or fewer.
pub fn body_memory(bytes: i64) {
    METRICS.body_memory.add(bytes, &[]);
}

/// Responses take so many bytes more, or fewer.
pub fn response_memory(bytes: i64) {
    METRICS.response_memory.add(bytes, &[]);
}
