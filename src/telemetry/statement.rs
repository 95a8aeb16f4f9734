//! A span and a measurement for every SQL statement.

use std::fmt::{self, Write};
use std::time::Instant;

use diesel::connection::{DebugQuery, Instrumentation, InstrumentationEvent};
use tracing::Span;
use tracing::field::Empty;

/// How much of a statement is read; the first table of all but the strangest comes earlier.
const HEAD_BYTES: usize = 2048;
/// How much of it where nobody collects spans, and the verb alone is recorded.
const VERB_BYTES: usize = 256;
/// The text that diesel writes between a query and its values.
const BEFORE_BINDS: &str = " -- binds: ";

/// Makes a span of every statement that a connection runs, a child of the span that is current in the thread which runs it.
///
/// The span has the verb and the first table of a statement (`SELECT entities`) and the kind of its error, but neither its text, which can
/// be long, nor any value. For all connections of the process:
///
/// ```
/// # use offboard::telemetry::StatementTracer;
/// diesel::connection::set_default_instrumentation(|| Some(Box::new(StatementTracer::default()))).expect("no one panicked");
/// ```
#[derive(Debug, Default)]
pub struct StatementTracer {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    span: Span,
    operation: String,
    started: Instant,
}

impl Instrumentation for StatementTracer {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        // The other events are about connections, whose URLs contain passwords, and about transactions, whose statements come by
        // themselves.
        match event {
            InstrumentationEvent::StartQuery { query, .. } => self.start(query),
            InstrumentationEvent::FinishQuery { error, .. } => self.finish(error),
            _ => {}
        }
    }
}

impl StatementTracer {
    fn start(&mut self, query: &dyn DebugQuery) {
        let span = tracing::info_span!(
            "db.statement",
            otel.name = Empty,
            otel.kind = "client",
            otel.status_code = Empty,
            "db.system.name" = "postgresql",
            "db.operation.name" = Empty,
            "db.query.summary" = Empty,
            "error.type" = Empty,
        );
        let Summary { operation, table } =
            Summary::of(&head(query, if span.is_disabled() { VERB_BYTES } else { HEAD_BYTES }));
        if !span.is_disabled() {
            let summary =
                table.map_or_else(|| operation.clone(), |table| format!("{operation} {table}"));
            span.record("otel.name", &summary)
                .record("db.query.summary", &summary)
                .record("db.operation.name", &operation);
        }
        self.running = Some(Running { span, operation, started: Instant::now() });
    }

    fn finish(&mut self, error: Option<&diesel::result::Error>) {
        let Some(Running { span, operation, started }) = self.running.take() else { return };
        let error = error.map(kind);
        if let Some(error) = &error {
            span.record("otel.status_code", "error");
            span.record("error.type", error.as_str());
        }
        super::statement(&operation, error.as_deref(), started.elapsed());
    }
}

/// The error in a word. Its message is left out: Postgres quotes values in some.
fn kind(error: &diesel::result::Error) -> String {
    match error {
        diesel::result::Error::DatabaseError(kind, _) => format!("{kind:?}"),
        diesel::result::Error::DeserializationError(_) => "DeserializationError".to_owned(),
        diesel::result::Error::SerializationError(_) => "SerializationError".to_owned(),
        _ => "_OTHER".to_owned(),
    }
}

/// The beginning of the query's text, without its values.
fn head(query: &dyn DebugQuery, bytes: usize) -> String {
    struct Head(String, usize);

    impl Write for Head {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let (text, more) = match text.find(BEFORE_BINDS) {
                Some(end) => (&text[..end], false),
                None => (text, true),
            };
            let room = self.1.saturating_sub(self.0.len());
            let end = (0..=room.min(text.len()))
                .rfind(|end| text.is_char_boundary(*end))
                .unwrap_or_default();
            self.0.push_str(&text[..end]);
            // An error ends the formatting, before it comes to the values.
            if more && self.0.len() < self.1 { Ok(()) } else { Err(fmt::Error) }
        }
    }

    let mut head = Head(String::new(), bytes);
    let _ = write!(head, "{query}");
    head.0
}

struct Summary {
    operation: String,
    table: Option<String>,
}

impl Summary {
    /// The first keyword, and the first name after `FROM`, `INTO`, `UPDATE` or `TABLE`. Nothing after a quote is read, where values are.
    fn of(sql: &str) -> Self {
        let code: String = sql
            .lines()
            .map(|line| line.split("--").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join(" ");
        let code = code.split('\'').next().unwrap_or_default();
        let mut words = code
            .split(|c: char| c.is_whitespace() || "(),;".contains(c))
            .filter(|word| !word.is_empty())
            .peekable();
        let operation = words
            .peek()
            .filter(|word| word.chars().all(|c| c.is_ascii_alphabetic()))
            .map_or("_OTHER".to_owned(), |word| word.to_uppercase());
        let after = words.skip_while(|word| {
            !["from", "into", "update", "table"]
                .iter()
                .any(|keyword| word.eq_ignore_ascii_case(keyword))
        });
        let table =
            after.skip(1).map(|word| word.replace('"', "")).next().filter(|word| is_name(word));
        Summary { operation, table }
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::LogFormat;
    use crate::telemetry::testing::Capture;

    diesel::table! {
        entities (id) {
            id -> Text,
            note -> Text,
        }
    }

    fn summary(sql: &str) -> String {
        let Summary { operation, table } = Summary::of(sql);
        format!("{operation} {}", table.unwrap_or_default())
    }

    #[test]
    fn a_statement_is_reported_by_its_verb_and_its_first_table() {
        assert_eq!(
            summary("SELECT \"entities\".\"id\" FROM \"entities\" WHERE id = $1"),
            "SELECT entities"
        );
        assert_eq!(
            summary("INSERT INTO offboard.events (id) VALUES ($1)"),
            "INSERT offboard.events"
        );
        assert_eq!(summary("update jobs\nset x = 1"), "UPDATE jobs");
        assert_eq!(
            summary(
                "-- Picks the next chunk from nowhere.\nWITH chunk AS (\n  SELECT id\n  FROM entities\n)"
            ),
            "WITH entities"
        );
        assert_eq!(summary("COMMIT"), "COMMIT ");
        assert_eq!(summary(""), "_OTHER ");
    }

    #[test]
    fn a_value_in_the_text_is_not_taken_for_a_table() {
        assert_eq!(summary("SELECT 1 WHERE note = 'letter from alice'"), "SELECT ");
        assert_eq!(summary("SELECT 'x' FROM entities"), "SELECT ");
        assert_eq!(summary("DELETE FROM 42"), "DELETE ");
    }

    #[test]
    fn the_values_of_a_query_are_cut_off() {
        use diesel::prelude::*;
        let query = entities::table.filter(entities::note.eq("hunter2")).select(entities::id);
        let query = diesel::debug_query::<diesel::pg::Pg, _>(&query);
        assert!(
            query.to_string().contains("hunter2"),
            "diesel shows values, or this test means nothing"
        );
        assert!(!head(&query, HEAD_BYTES).contains("hunter2"));
        assert!(head(&query, HEAD_BYTES).contains("FROM \"entities\""));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = "é".repeat(HEAD_BYTES);
        let sql = diesel::sql_query(format!("x{text}"));
        assert!(
            head(&diesel::debug_query::<diesel::pg::Pg, _>(&sql), HEAD_BYTES).len() <= HEAD_BYTES
        );
    }

    #[test]
    fn a_statement_is_a_child_of_the_span_around_it_and_reports_its_error_without_the_message() {
        let capture = Capture::start("trace", LogFormat::Json);
        let mut tracer = StatementTracer::default();
        let sql = diesel::sql_query("DELETE FROM entities");
        let error = diesel::result::Error::DatabaseError(
            diesel::result::DatabaseErrorKind::UniqueViolation,
            Box::new("key (id)=(hunter2) exists".to_owned()),
        );
        tracing::info_span!("rpc").in_scope(|| {
            tracer.start(&diesel::debug_query::<diesel::pg::Pg, _>(&sql));
            tracer.finish(Some(&error));
        });
        let spans = capture.spans();
        let find = |name: &str| spans.iter().find(|span| span.name == name).expect("recorded");
        let statement = find("DELETE entities");
        assert_eq!(statement.parent_span_id, find("rpc").span_context.span_id());
        let attribute = |name: &str| {
            statement
                .attributes
                .iter()
                .find(|pair| pair.key.as_str() == name)
                .map(|pair| pair.value.to_string())
        };
        assert_eq!(attribute("db.operation.name").as_deref(), Some("DELETE"));
        assert_eq!(attribute("error.type").as_deref(), Some("UniqueViolation"));
        assert!(!format!("{statement:?}{}", capture.text()).contains("hunter2"));
    }
}
