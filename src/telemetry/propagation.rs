//! The W3C trace context in headers.

use http::{HeaderMap, HeaderName};
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, global};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";
/// The field of a span that has the trace id of its caller.
const TRACE_ID: &str = "trace_id";

/// Makes the span, which must not have been entered yet, a child of the one that the headers `traceparent` and `tracestate` name. Does
/// nothing within another span: a call made in process continues the trace that it is part of. Where nobody collects spans, its `trace_id`
/// is recorded alone.
pub fn continue_trace(span: &Span, headers: &HeaderMap) {
    if !headers.contains_key(TRACEPARENT) || Context::current().span().span_context().is_valid() {
        return;
    }
    let parent =
        global::get_text_map_propagator(|propagator| propagator.extract(&Incoming(headers)));
    if parent.span().span_context().is_valid() {
        let trace_id = parent.span().span_context().trace_id();
        // Fails for a span that nobody collects, which then has no parent to be given.
        if span.set_parent(parent).is_err() {
            span.record(TRACE_ID, trace_id.to_string());
        }
    }
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::LogFormat;
    use crate::telemetry::testing::{Capture, SPAN_ID, TRACE_ID, traceparent};

    #[test]
    fn the_trace_of_the_headers_goes_on() {
        let capture = Capture::start("info", LogFormat::Json);
        let headers = traceparent();
        let span = tracing::info_span!("rpc");
        continue_trace(&span, &headers);
        drop(span);

        let spans = capture.spans();
        assert_eq!(spans[0].span_context.trace_id().to_string(), TRACE_ID);
        assert_eq!(spans[0].parent_span_id.to_string(), SPAN_ID);
    }

    #[test]
    fn where_nobody_collects_spans_a_line_has_the_trace_id_that_the_caller_sent() {
        let capture = Capture::without_traces("info", LogFormat::Json);
        let span = tracing::info_span!("rpc", trace_id = tracing::field::Empty);
        continue_trace(&span, &traceparent());
        span.in_scope(|| tracing::info!("working"));
        assert_eq!(capture.json_lines()[0]["trace_id"], TRACE_ID);
        assert!(tracing::info_span!("db.statement").is_disabled(), "it has nothing for the log");
    }

    #[test]
    fn a_call_made_within_a_span_stays_in_its_trace() {
        let capture = Capture::start("info", LogFormat::Json);
        tracing::info_span!("http").in_scope(|| {
            let span = tracing::info_span!("rpc");
            continue_trace(&span, &traceparent());
            drop(span);
        });
        let spans = capture.spans();
        let find = |name: &str| spans.iter().find(|span| span.name == name).expect("recorded");
        assert_eq!(find("rpc").parent_span_id, find("http").span_context.span_id());
    }
}
