//! Makes a span, a measurement and a line in the log of every call.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body::Frame;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::around::{Around, Inner};
use super::code_of;
use super::methods::Methods;
use super::request_id::RequestId;
use crate::server::client::Client;
use crate::server::within::as_long_as;
use crate::telemetry;

/// The name of a method that does not exist, by the OpenTelemetry semantic conventions.
const OTHER: &str = "_OTHER";

/// Follows each call to the last byte of its response, and reports its outcome: in a span, in the metric `rpc.server.call.duration`, and in a
/// line of the log, at `debug` for probes and at `info` for all else. Never reads metadata but the trace context.
#[derive(Clone, Debug)]
pub struct Trace {
    methods: Methods,
}

impl Trace {
    /// Counts the calls to these methods; a call to any other counts as `_OTHER`.
    pub fn new(methods: Methods) -> Self {
        Trace { methods }
    }
}

impl Around for Trace {
    async fn around<S: Inner>(
        self,
        request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let call = Call::start(&self.methods, &request);
        let span = call.span.clone();
        let traced = async move {
            let mut call = InFlight(Some(call));
            let answer = match inner.call(request).await {
                Ok(answer) => answer,
                Err(error) => {
                    call.finish(Code::Unknown);
                    return Err(error);
                }
            };
            if let Some(code) = code_of(answer.headers()) {
                call.finish(code);
                return Ok(answer);
            }
            Ok(answer.map(|inner| Body::new(TracedBody { inner, call })))
        };
        traced.instrument(span).await
    }
}

/// A call that has not ended.
struct Call {
    span: Span,
    method: String,
    probe: bool,
    started: Instant,
}

impl Call {
    fn start(methods: &Methods, request: &Request<Body>) -> Self {
        let method = methods.find(request.uri().path());
        let name = method.map_or(OTHER, |method| method.name.as_str());
        let probe = method.is_some_and(|method| method.probe);
        let request_id = request.extensions().get().map(|RequestId(id)| id.as_str());
        let client = client_address(request.extensions());
        macro_rules! span {
            ($level:ident) => {
                tracing::span!(
                    tracing::Level::$level,
                    "rpc",
                    otel.name = name,
                    otel.kind = "server",
                    otel.status_code = Empty,
                    "rpc.system.name" = "grpc",
                    "rpc.method" = name,
                    "rpc.response.status_code" = Empty,
                    "error.type" = Empty,
                    request_id,
                    "client.address" = client,
                    // The trace id of the caller, if nobody collects spans.
                    trace_id = Empty,
                    // Of the caller, once it is known: see `Authenticator`.
                    key_id = Empty,
                    // Instead of a key's id, where it has a token; and why that is refused.
                    issuer = Empty,
                    token_faults = Empty,
                    principal_id = Empty,
                    org = Empty,
                    mode = Empty,
                )
            };
        }
        let span = if probe { span!(DEBUG) } else { span!(INFO) };
        telemetry::continue_trace(&span, request.headers());
        Call { span, method: name.to_owned(), probe, started: Instant::now() }
    }

    fn finish(self, code: Code) {
        let Call { span, method, probe, started } = self;
        let duration = started.elapsed();
        let status = name_of(code);
        span.record("rpc.response.status_code", status);
        if is_our_fault(code) {
            span.record("otel.status_code", "error");
            span.record("error.type", status);
        }
        let duration_ms = duration.as_micros() as f64 / 1000.0;
        span.in_scope(|| {
            if probe {
                tracing::debug!(method, status, duration_ms, "call ended");
            } else {
                tracing::info!(method, status, duration_ms, "call ended");
            }
        });
        telemetry::rpc_call(&method, status, duration);
    }
}

/// The address of the client, for the log; `unknown` where a proxy does not say it.
fn client_address(extensions: &Extensions) -> Option<String> {
    let client = Client::of(extensions)?;
    Some(client.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string()))
}

/// A call which, should it be dropped before it has ended, was cancelled by its caller.
struct InFlight(Option<Call>);

impl InFlight {
    fn finish(&mut self, code: Code) {
        if let Some(call) = self.0.take() {
            call.finish(code);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.finish(Code::Cancelled);
    }
}

/// The body of a response, which ends the call when it ends.
struct TracedBody {
    inner: Body,
    call: InFlight,
}

impl http_body::Body for TracedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        // A handler that streams its response works while it is polled for the next message.
        let entered = this.call.0.as_ref().map(|call| call.span.clone().entered());
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        drop(entered);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.call.finish(code_of(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(status)) => this.call.finish(status.code()),
            // Every response of gRPC has trailers, if it has a body at all.
            None => this.call.finish(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    as_long_as!(inner);
}

/// Returns whether the status is an error of the server, by the semantic conventions for gRPC: all others are the caller's.
fn is_our_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// The status as gRPC spells it.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http_body_util::BodyExt;
    use opentelemetry_sdk::trace::SpanData;
    use serde_json::Value;
    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::error::Error;
    use crate::server::layers::testing::{answering, health, ok, request};
    use crate::server::layers::{AroundLayer, RequestIds, refuse};
    use crate::telemetry::LogFormat;
    use crate::telemetry::testing::{Capture, SPAN_ID, TRACE_ID, traceparent};

    const PATH: &str = "/offboard.v1.EntityService/GetEntity";
    const METHOD: &str = "offboard.v1.EntityService/GetEntity";

    fn attribute(span: &SpanData, name: &str) -> Option<String> {
        span.attributes
            .iter()
            .find(|pair| pair.key.as_str() == name)
            .map(|pair| pair.value.to_string())
    }

    async fn trace(
        request: Request<Body>,
        answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Response<Body> {
        let service = AroundLayer(RequestIds)
            .layer(AroundLayer(Trace::new(Methods::served())).layer(answering(answer)));
        service.oneshot(request).await.expect("infallible")
    }

    #[tokio::test]
    async fn a_call_is_a_span_in_the_callers_trace_and_a_line_with_its_ids() {
        let capture = Capture::start("info", LogFormat::Json);
        let mut request = request(PATH);
        *request.headers_mut() = traceparent();
        request.headers_mut().insert("x-request-id", HeaderValue::from_static("mine-1"));
        trace(request, ok).await.into_body().collect().await.expect("a body");

        let spans = capture.spans();
        let [span] = spans.as_slice() else { panic!("one span: {spans:?}") };
        assert_eq!(span.name, METHOD);
        assert_eq!(span.span_context.trace_id().to_string(), TRACE_ID);
        assert_eq!(span.parent_span_id.to_string(), SPAN_ID);
        assert_eq!(attribute(span, "rpc.response.status_code").as_deref(), Some("OK"));
        assert_eq!(attribute(span, "request_id").as_deref(), Some("mine-1"));
        let lines = capture.json_lines();
        let [line] = lines.as_slice() else { panic!("one line: {lines:?}") };
        for (field, value) in [
            ("method", METHOD),
            ("status", "OK"),
            ("request_id", "mine-1"),
            ("trace_id", TRACE_ID),
            ("level", "INFO"),
        ] {
            assert_eq!(line[field], value, "{field}");
        }
        assert!(line["duration_ms"].is_number());
    }

    #[tokio::test]
    async fn a_failure_of_ours_is_an_error_of_the_span_and_a_failure_of_the_caller_is_not() {
        use opentelemetry::trace::Status;
        let capture = Capture::start("off", LogFormat::Json);
        trace(request(PATH), || refuse(Error::unavailable("Not now."))).await;
        trace(request(PATH), || refuse(Error::not_found("entity", "e-1"))).await;
        let spans = capture.spans();
        assert_eq!(attribute(&spans[0], "error.type").as_deref(), Some("UNAVAILABLE"));
        assert!(matches!(spans[0].status, Status::Error { .. }));
        assert_eq!(attribute(&spans[1], "rpc.response.status_code").as_deref(), Some("NOT_FOUND"));
        assert_eq!(spans[1].status, Status::Unset);
    }

    #[tokio::test]
    async fn an_answer_that_the_caller_drops_was_cancelled() {
        let capture = Capture::start("info", LogFormat::Json);
        drop(trace(request(PATH), ok).await);
        assert_eq!(capture.json_lines()[0]["status"], "CANCELLED");
    }

    #[tokio::test]
    async fn an_invented_method_names_no_span() {
        let capture = Capture::start("info", LogFormat::Json);
        trace(request("/invented.Service/Method"), || refuse(Error::not_found("method", "x")))
            .await;
        assert_eq!(capture.spans()[0].name, OTHER);
        assert!(!capture.text().contains("invented"));
    }

    #[tokio::test]
    async fn a_probe_is_reported_at_debug_and_makes_no_span() {
        let (_, health) = health().await;
        let probe = async |capture: &Capture| {
            let service = AroundLayer(Trace::new(Methods::served())).layer(health.clone());
            tonic_health::pb::health_client::HealthClient::new(service)
                .check(tonic_health::pb::HealthCheckRequest::default())
                .await
                .expect("the whole server serves");
            capture.json_lines()
        };
        let capture = Capture::start("info", LogFormat::Json);
        assert_eq!(probe(&capture).await, Vec::<Value>::new());
        assert!(capture.spans().is_empty());
        drop(capture);
        let capture = Capture::start("offboard=debug", LogFormat::Json);
        assert_eq!(probe(&capture).await[0]["status"], "OK");
    }

    #[tokio::test]
    async fn a_secret_is_neither_in_the_log_nor_in_the_span() {
        let capture = Capture::start("trace", LogFormat::Json);
        let mut request = request(PATH);
        request
            .headers_mut()
            .insert("authorization", HeaderValue::from_static("Bearer sk_test_hunter2"));
        request.headers_mut().insert("apikey", HeaderValue::from_static("sk_test_hunter2"));
        trace(request, ok).await.into_body().collect().await.expect("a body");
        assert!(!capture.text().is_empty());
        assert!(!format!("{}{:?}", capture.text(), capture.spans()).contains("hunter2"));
    }
}
