//! Captures spans and log lines for tests.

use std::io;
use std::sync::{Arc, LazyLock, Mutex};

use http::{HeaderMap, HeaderValue};
use opentelemetry::global;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use serde_json::Value;
use tracing::Dispatch;
use tracing::dispatcher::DefaultGuard;
use tracing_subscriber::Registry;

use super::{LogFormat, Options};

/// The trace of [`traceparent`].
pub(crate) const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
/// The parent span of [`traceparent`].
pub(crate) const SPAN_ID: &str = "b7ad6b7169203331";

/// Headers with a trace context.
pub(crate) fn traceparent() -> HeaderMap {
    let value =
        HeaderValue::try_from(format!("00-{TRACE_ID}-{SPAN_ID}-01")).expect("digits and dashes");
    HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), value)])
}

/// While there is but one dispatcher, `tracing` decides for all threads by the one that asks first, which may be that of a test without a log.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Registry::default()));

/// The log and the traces of this thread, for as long as the capture exists.
pub(crate) struct Capture {
    log: Buffer,
    spans: Recorder,
    traces: SdkTracerProvider,
    _default: DefaultGuard,
}

impl Capture {
    pub(crate) fn start(log_filter: &str, log_format: LogFormat) -> Self {
        Self::with(log_filter, log_format, true)
    }

    /// Where nobody collects spans.
    pub(crate) fn without_traces(log_filter: &str, log_format: LogFormat) -> Self {
        Self::with(log_filter, log_format, false)
    }

    fn with(log_filter: &str, log_format: LogFormat, collects: bool) -> Self {
        LazyLock::force(&ANOTHER);
        global::set_text_map_propagator(TraceContextPropagator::new());
        let log = Buffer::default();
        let spans = Recorder::default();
        let traces = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
        let options = Options {
            log_filter: log_filter.into(),
            log_format,
            log_queue_bytes: 1 << 20,
            otlp_endpoint: None,
            service_instance: "test".into(),
        };
        let writer = log.clone();
        let dispatch =
            super::subscriber(&options, collects.then_some(&traces), move || writer.clone())
                .expect("a subscriber");
        Capture { log, spans, traces, _default: tracing::dispatcher::set_default(&dispatch) }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.log.0.lock().expect("no panic").clone()).expect("UTF-8")
    }

    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The spans that have ended.
    pub(crate) fn spans(&self) -> Vec<SpanData> {
        self.traces.force_flush().expect("flush");
        self.spans.0.lock().expect("no panic").clone()
    }
}

#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Recorder {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("no panic").extend(batch);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
