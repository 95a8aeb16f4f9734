//! Log lines: one a line, as JSON for machines or as text for people, each with the ids by which it is found again.

use std::fmt;
use std::io::Write;

use chrono::{SecondsFormat, Utc};
use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value};
use tracing::field::{Field, FieldSet, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Readable text.
    Text,
}

/// The span fields that every line written within the span carries.
const CARRIED: &[&str] = &[
    "request_id",
    "trace_id",
    "client.address",
    "key_id",
    "issuer",
    "principal_id",
    "org",
    "mode",
    "job_id",
    "token_faults",
];

/// Returns whether a span has any of them.
pub(super) fn has_carried(fields: &FieldSet) -> bool {
    CARRIED.iter().any(|name| fields.field(name).is_some())
}

/// Those of the [`CARRIED`] fields that a span has.
struct Carried(Map<String, Value>);

/// Writes each event as a line, with the trace id and the carried fields of the spans around it.
pub(super) struct LogLayer<W> {
    format: LogFormat,
    writer: W,
}

impl<W> LogLayer<W> {
    pub(super) fn new(format: LogFormat, writer: W) -> Self {
        LogLayer { format, writer }
    }
}

impl<S, W> Layer<S> for LogLayer<W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        carry(|fields| attributes.record(fields), id, &context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        carry(|fields| values.record(fields), id, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = LogLine::of(event);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(Carried(fields)) = span.extensions().get() {
                line.add(fields);
            }
        }
        line.add_trace();
        let mut text = match self.format {
            LogFormat::Json => line.into_json(),
            LogFormat::Text => line.into_text(),
        };
        text.push('\n');
        // There is nowhere left to say that the log cannot be written.
        let _ = self.writer.make_writer_for(event.metadata()).write_all(text.as_bytes());
    }
}

fn carry<S>(record: impl FnOnce(&mut Fields), id: &Id, context: &Context<'_, S>)
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let mut fields = Fields::default();
    record(&mut fields);
    fields.0.retain(|name, _| CARRIED.contains(&name.as_str()));
    if fields.0.is_empty() {
        return;
    }
    let Some(span) = context.span(id) else { return };
    let mut extensions = span.extensions_mut();
    match extensions.get_mut::<Carried>() {
        Some(carried) => carried.0.extend(fields.0),
        None => extensions.insert(Carried(fields.0)),
    }
}

struct LogLine {
    time: String,
    level: &'static str,
    target: String,
    message: String,
    fields: Map<String, Value>,
}

impl LogLine {
    fn of(event: &Event<'_>) -> Self {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut fields = fields.0;
        // Events of the `log` crate come with their origin in fields.
        let target = fields.shift_remove("log.target");
        fields.retain(|name, _| !name.starts_with("log."));
        LogLine {
            time: Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true),
            level: event.metadata().level().as_str(),
            target: target
                .as_ref()
                .and_then(Value::as_str)
                .unwrap_or(event.metadata().target())
                .to_owned(),
            message: fields
                .shift_remove("message")
                .as_ref()
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            fields,
        }
    }

    /// Adds the fields that the line does not have yet: those of the event come before those of its span, and these before the outer spans'.
    fn add(&mut self, fields: &Map<String, Value>) {
        for (name, value) in fields {
            self.fields.entry(name.as_str()).or_insert_with(|| value.clone());
        }
    }

    fn add_trace(&mut self) {
        let context = opentelemetry::Context::current();
        let span = context.span();
        let ids = span.span_context();
        if ids.is_valid() {
            self.fields.insert("trace_id".into(), ids.trace_id().to_string().into());
            self.fields.insert("span_id".into(), ids.span_id().to_string().into());
        }
    }

    fn into_json(self) -> String {
        let mut line = Map::new();
        line.insert("timestamp".into(), self.time.into());
        line.insert("level".into(), self.level.into());
        line.insert("target".into(), self.target.into());
        line.insert("message".into(), self.message.into());
        for (name, value) in self.fields {
            line.entry(name).or_insert(value);
        }
        Value::Object(line).to_string()
    }

    fn into_text(self) -> String {
        let message = self.message.replace(char::is_control, " ");
        let mut text = format!("{} {:>5} {}: {message}", self.time, self.level, self.target);
        for (name, value) in &self.fields {
            let value = match value {
                // A value is quoted when it could be taken for more than one, or for a line of its own.
                Value::String(word)
                    if word.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"') =>
                {
                    word.clone()
                }
                other => other.to_string(),
            };
            text.push_str(&format!(" {name}={value}"));
        }
        text
    }
}

/// Collects fields with their JSON types.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::testing::Capture;

    #[test]
    fn a_line_of_json_carries_the_ids_of_the_request_it_belongs_to() {
        let capture = Capture::start("info", LogFormat::Json);
        let request = tracing::info_span!("rpc", request_id = "req_1", other = "not carried");
        request.in_scope(|| {
            tracing::info_span!("inner").in_scope(|| tracing::warn!(count = 3, "things went wrong"))
        });
        drop(request);

        let lines = capture.json_lines();
        let spans = capture.spans();
        let rpc = spans.iter().find(|span| span.name == "rpc").expect("the span was recorded");
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["message"], "things went wrong");
        assert_eq!(lines[0]["count"], 3);
        assert_eq!(lines[0]["request_id"], "req_1");
        assert_eq!(lines[0]["trace_id"], rpc.span_context.trace_id().to_string());
        assert!(lines[0].get("other").is_none());
    }

    #[test]
    fn a_filter_that_drops_lines_at_info_keeps_the_ids_of_spans_at_info() {
        let capture = Capture::start("warn", LogFormat::Json);
        tracing::info_span!("rpc", request_id = "req_2").in_scope(|| {
            tracing::info!("dropped");
            tracing::error!("kept");
        });
        let lines = capture.json_lines();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["message"], "kept");
        assert_eq!(lines[0]["request_id"], "req_2");
        assert!(lines[0]["trace_id"].is_string());
    }

    #[test]
    fn a_carried_field_may_be_recorded_later() {
        let capture = Capture::start("info", LogFormat::Json);
        let span = tracing::info_span!("job", job_id = tracing::field::Empty);
        span.record("job_id", "job-7");
        span.in_scope(|| tracing::info!("working"));
        assert_eq!(capture.json_lines()[0]["job_id"], "job-7");
    }

    #[test]
    fn a_line_of_text_stays_one_line_whatever_it_says() {
        let capture = Capture::start("info", LogFormat::Text);
        tracing::info!(plain = "word", spaced = "two words\nINFO forged", "first\nsecond");
        let text = capture.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains(r#" INFO offboard::telemetry::logs::tests: first second plain=word spaced="two words\nINFO forged""#),
            "{text}"
        );
    }
}
