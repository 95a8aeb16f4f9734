//! Traces, metrics and logs, and the W3C trace context in and out.
//!
//! Spans and events are made with the `tracing` macros anywhere in the crate; metrics with the free functions of this module, so that no other
//! room needs an OpenTelemetry type. [`init`] decides where all of it is sent: log lines to standard error by a thread of their own, spans and metrics to an OTLP collector
//! if there is one, metrics to [`Telemetry::prometheus_text`] always. Without a collector there are no spans of OpenTelemetry; a line of the log then has
//! the trace id that its caller sent.
//!
//! Nothing here ever sees a secret: headers are read for the trace context alone, and of a statement its verb and its table are recorded,
//! without its text and values.

mod alone;
mod logs;
mod metrics;
mod propagation;
mod queue;
mod seldom;
mod statement;
#[cfg(test)]
pub(crate) mod testing;

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tonic::transport::ClientTlsConfig;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::error::panic_text;

pub use logs::LogFormat;
pub use metrics::{
    PoolState, PublisherLag, auth_file_read, body_memory, chunk, clock_ahead, entities_deleted,
    events_published, http_request, job_claimed, job_finished, jwks_age, jwks_fetched, lease_lost,
    limit_reached, observe_pool, observe_publisher, pool_wait, publish_failed, readiness,
    response_memory, rpc_call, statement, token_refused, waiting_for_pool,
};
pub use propagation::continue_trace;
pub use seldom::Seldom;
pub use statement::StatementTracer;

/// The name of the instrumentation scope, of the service, and the target that every span and event of this crate starts with.
const NAME: &str = "offboard";

/// How long one export to the collector, and the last flush, may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time of the last flush if no time is left.
const LEAST_FLUSH: Duration = Duration::from_millis(100);

/// The settings of telemetry.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which log lines are written, in the syntax of `tracing_subscriber`'s `EnvFilter`: `info`, `info,offboard::jobs=debug`, ...
    /// Traces do not depend on it.
    pub log_filter: String,
    /// How a log line looks.
    pub log_format: LogFormat,
    /// How many bytes of log lines wait to be written.
    pub log_queue_bytes: usize,
    /// Where to send spans and metrics by OTLP over gRPC, such as `http://localhost:4317`. `None`: nowhere.
    pub otlp_endpoint: Option<String>,
    /// Distinguishes this replica from the others; becomes `service.instance.id`.
    pub service_instance: String,
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The log filter cannot be read.
    #[error("the log filter `{filter}` cannot be read")]
    Filter {
        /// As it was given.
        filter: String,
        /// The faults of it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The OTLP exporter cannot be made, for instance because the endpoint is not an address.
    #[error("spans and metrics cannot be exported to `{endpoint}`")]
    Exporter {
        /// As it was given.
        endpoint: String,
        /// The faults of it.
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// The Prometheus exporter cannot be made.
    #[error("metrics cannot be exported as Prometheus text")]
    Prometheus(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// There is no thread for the log.
    #[error("the log cannot be written")]
    Log(#[from] io::Error),
    /// Telemetry was started before in this process.
    #[error("telemetry is started already")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
}

/// The running telemetry of the process.
#[derive(Debug)]
pub struct Telemetry {
    /// If somebody collects spans.
    traces: Option<SdkTracerProvider>,
    meters: SdkMeterProvider,
    registry: prometheus::Registry,
}

/// The queue of the process's log, once there is one.
static LOG: OnceLock<queue::Queue> = OnceLock::new();

/// How long a panic waits for its line to be written: it may be the end of the process.
const LAST_LINE: Duration = Duration::from_millis(100);

/// Waits until the log is written so far, for no longer than this. Returns whether it is.
pub fn flush_log(time: Duration) -> bool {
    LOG.get().is_none_or(|log| log.flush(time))
}

/// Writes a line for the person at the terminal to standard error, behind what was logged. Where nobody reads, that is waited for no longer than this.
pub fn note(line: &str, time: Duration) {
    use io::Write;
    match LOG.get() {
        Some(log) => {
            log.push(format!("{line}\n").as_bytes());
            log.flush(time);
        }
        // A standard error that cannot be written to can be logged nowhere.
        None => drop(writeln!(io::stderr().lock(), "{line}")),
    }
}

/// Starts telemetry for the whole process: once, before anything else is logged, and inside a Tokio runtime, in which the exporter's
/// connection stays.
pub fn init(options: &Options) -> Result<Telemetry, InitError> {
    let telemetry = Telemetry::new(options)?;
    let log = match LOG.get() {
        Some(log) => log.clone(),
        None => queue::Queue::start(options.log_queue_bytes)?,
    };
    let subscriber = subscriber(options, telemetry.traces.as_ref(), log.clone())?;
    // First, since it alone can fail, and a failure must leave what runs as it is.
    subscriber.try_init()?;
    // It is set once: the subscriber is.
    let _ = LOG.set(log);
    if let Some(traces) = &telemetry.traces {
        global::set_tracer_provider(traces.clone());
    }
    global::set_meter_provider(telemetry.meters.clone());
    global::set_text_map_propagator(TraceContextPropagator::new());
    log_panics();
    Ok(telemetry)
}

impl Telemetry {
    fn new(options: &Options) -> Result<Self, InitError> {
        let resource = Resource::builder()
            .with_service_name(NAME)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", options.service_instance.clone()))
            .build();
        let registry = prometheus::Registry::new();
        let prometheus = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()?;

        let mut traces = None;
        let mut meters =
            SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(prometheus);
        if let Some(endpoint) = &options.otlp_endpoint {
            let failed = |source| InitError::Exporter { endpoint: endpoint.clone(), source };
            let (mut spans, mut metrics) =
                (SpanExporter::builder().with_tonic(), MetricExporter::builder().with_tonic());
            if endpoint.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
                // The exporter would speak TLS and trust nobody.
                let tls = || ClientTlsConfig::new().with_native_roots();
                (spans, metrics) = (spans.with_tls_config(tls()), metrics.with_tls_config(tls()));
            }
            let spans = spans
                .with_endpoint(endpoint)
                .with_timeout(EXPORT_TIMEOUT)
                .build()
                .map_err(failed)?;
            let metrics = metrics
                .with_endpoint(endpoint)
                .with_timeout(EXPORT_TIMEOUT)
                .build()
                .map_err(failed)?;
            traces = Some(
                SdkTracerProvider::builder()
                    .with_resource(resource)
                    .with_batch_exporter(spans)
                    .build(),
            );
            meters = meters.with_periodic_exporter(metrics);
        }
        Ok(Telemetry { traces, meters: meters.build(), registry })
    }

    /// Every metric in the Prometheus text format, version 0.0.4.
    pub fn prometheus_text(&self) -> String {
        prometheus_text(&self.registry)
    }

    /// A function that gives [`Telemetry::prometheus_text`], for the listener that serves scrapes.
    pub fn prometheus(&self) -> impl Fn() -> String + Clone + Send + Sync + 'static {
        let registry = self.registry.clone();
        move || prometheus_text(&registry)
    }

    /// Sends the rest and ends the exporters; gives up at an instant, and after a few seconds in any case, since an unreachable collector
    /// must not delay the end of the process.
    pub async fn shutdown(self, ends: Instant) {
        let time =
            ends.saturating_duration_since(Instant::now()).clamp(LEAST_FLUSH, EXPORT_TIMEOUT);
        let (traces, meters) = (self.traces, self.meters);
        let flushed = async {
            tokio::join!(
                tokio::task::spawn_blocking(
                    move || traces.map_or(Ok(()), |traces| traces.shutdown_with_timeout(time))
                ),
                tokio::task::spawn_blocking(move || meters.shutdown_with_timeout(time)),
            )
        };
        match tokio::time::timeout(time, flushed).await {
            Ok((Ok(Ok(())), Ok(Ok(())))) => {}
            Ok((Ok(Err(error)), _) | (_, Ok(Err(error)))) => {
                tracing::warn!(%error, "the last spans and metrics may be lost")
            }
            Ok(_) | Err(_) => tracing::warn!("the last spans and metrics may be lost"),
        }
    }
}

fn prometheus_text(registry: &prometheus::Registry) -> String {
    prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_else(|error| {
        tracing::error!(%error, "metrics cannot be written as text");
        String::new()
    })
}

/// Joins the log and the traces. The log filter chooses events alone: all spans of this crate that have something for the log reach it, since a line at
/// `warn` needs the request id of a span at `info`. Traces take this crate's spans at `info` and above, so that probes, which are at `debug`, make
/// none.
fn subscriber<W>(
    options: &Options,
    traces: Option<&SdkTracerProvider>,
    writer: W,
) -> Result<tracing::Dispatch, InitError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let log = logs::LogLayer::new(options.log_format, writer);
    let Some(traces) = traces else {
        return Ok(Registry::default().with(alone::Alone::new(log_filter(options)?, log)).into());
    };
    let traced = Targets::new().with_target(NAME, LevelFilter::INFO);
    let traces = tracing_opentelemetry::layer()
        .with_tracer(traces.tracer(NAME))
        .with_location(false)
        .with_threads(false)
        .with_filter(traced);
    Ok(Registry::default().with(traces).with(log.with_filter(log_filter(options)?)).into())
}

/// The lines that reach the log.
fn log_filter<S: Subscriber>(
    options: &Options,
) -> Result<impl Filter<S> + Send + Sync + 'static, InitError> {
    let failed = |source| InitError::Filter { filter: options.log_filter.clone(), source };
    let filter = EnvFilter::builder().parse(&options.log_filter).map_err(failed)?;
    // A filter without spans uses the cheaper of the two: it need not know the present spans.
    let plain = options
        .log_filter
        .parse::<Targets>()
        .ok()
        .filter(|_| !options.log_filter.trim().is_empty());
    let events: Box<dyn Filter<S> + Send + Sync> = match plain {
        Some(plain) if !options.log_filter.contains(['[', '{']) => Box::new(plain),
        _ => Box::new(filter),
    };
    let is_event =
        filter_fn(|metadata| metadata.is_event()).with_max_level_hint(LevelFilter::TRACE);
    let spans = filter_fn(|metadata| {
        metadata.is_span()
            && metadata.target().starts_with(NAME)
            && logs::has_carried(metadata.fields())
    });
    // At `trace` the NATS client logs what it sends to the server, and that begins with its password.
    let silent = filter_fn(|metadata| {
        !(metadata.target().starts_with("async_nats") && *metadata.level() == Level::TRACE)
    });
    // OpenTelemetry logs at `info` that it was started, which is nothing to know, least of all before a refusal to start.
    let quiet = !options.log_filter.contains("opentelemetry");
    let quiet = filter_fn(move |metadata| {
        !(quiet
            && metadata.target().starts_with("opentelemetry")
            && *metadata.level() > Level::WARN)
    });
    Ok(is_event
        .and(events)
        .and(silent)
        .and(quiet)
        .or(spans.with_max_level_hint(LevelFilter::TRACE)))
}

/// Makes a panic a line of the log, with the ids of the request that it happened in, instead of loose text on standard error.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(panic = panic_text(panic.payload()), location, "panicked");
        flush_log(LAST_LINE);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            log_filter: "info".into(),
            log_format: LogFormat::Json,
            log_queue_bytes: 1 << 20,
            otlp_endpoint: None,
            service_instance: "replica-1".into(),
        }
    }

    #[test]
    fn a_log_filter_that_cannot_be_read_is_named() {
        let options = Options { log_filter: "offboard=loud".into(), ..options() };
        let error = subscriber(&options, None, io::sink).expect_err("`loud` is not a level");
        assert_eq!(error.to_string(), "the log filter `offboard=loud` cannot be read");
    }

    #[tokio::test]
    async fn an_endpoint_that_is_no_address_is_named() {
        let options = Options { otlp_endpoint: Some("not an address".into()), ..options() };
        let error = Telemetry::new(&options).expect_err("that is not an address");
        assert_eq!(error.to_string(), "spans and metrics cannot be exported to `not an address`");
    }

    #[test]
    fn the_metrics_say_which_replica_they_are_of() {
        let telemetry = Telemetry::new(&options()).expect("telemetry");
        let text = telemetry.prometheus_text();
        assert!(
            text.contains(r#"service_name="offboard""#)
                && text.contains(r#"service_instance_id="replica-1""#),
            "{text}"
        );
    }
}
