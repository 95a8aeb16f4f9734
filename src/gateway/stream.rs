//! Responses of many messages: lines of JSON, or server-sent events or an array for callers who ask for them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use http::{HeaderMap, header};
use prost_reflect::DynamicMessage;
use serde_json::json;
use tonic::Status;

use super::accept::{preferred, weighted};
use super::binding::Binding;
use super::body::JSON_LINES;
use super::exchange::Exchange;
use crate::error::{Error, panic_text};

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream";

/// The framing of the messages of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One a line. A failure is a last line `{"error": problem}`.
    Lines,
    /// Each an event (HTML Living Standard, section 9.2), with the id that the message has for one. A failure is a last event named `error`,
    /// with the problem as its data.
    Events,
    /// Each an element of one JSON array. A failure is a last element `{"error": problem}`, so that the response is JSON in any case.
    Array,
}

/// The media types that callers may ask for by `Accept`.
const OFFERS: [(&str, Framing); 5] = [
    (JSON_LINES, Framing::Lines),
    ("application/jsonl", Framing::Lines),
    ("application/x-jsonlines", Framing::Lines),
    (EVENT_STREAM, Framing::Events),
    (JSON, Framing::Array),
];

impl Framing {
    /// The framing that a request asks for; lines if it names none that there is.
    pub fn of(headers: &HeaderMap) -> Framing {
        preferred(&weighted(headers, header::ACCEPT), &OFFERS).copied().unwrap_or(Framing::Lines)
    }

    /// The media type of the response.
    pub fn media_type(self) -> &'static str {
        match self {
            Framing::Lines => JSON_LINES,
            Framing::Events => EVENT_STREAM,
            Framing::Array => JSON,
        }
    }

    /// The body that reports the messages as they come. It ends with the first failure.
    ///
    /// Where the rule of the route has a `response_body`, a message without it is a sign of life: an empty line, or an event without data,
    /// which gives a client nothing but its id; in an array it is white space.
    pub fn frame(
        self,
        exchange: Exchange,
        messages: impl Stream<Item = Result<DynamicMessage, Status>> + Send + 'static,
    ) -> Body {
        // A panic behind the stream ends it as any other failure does.
        let messages = AssertUnwindSafe(messages).catch_unwind().map(|message| match message {
            Ok(message) => message,
            Err(panic) => {
                Err(Error::internal(format!("panic: {}", panic_text(panic.as_ref()))).into())
            }
        });
        let state = Some(State { exchange, messages: messages.boxed(), begun: false });
        let frames = stream::unfold(state, move |state| async move {
            let mut state = state?;
            let binding = Arc::clone(state.exchange.binding.as_ref()?);
            let before = if self != Framing::Array {
                ""
            } else if state.begun {
                ","
            } else {
                "["
            };
            match state.messages.next().await.map(|message| {
                message
                    .and_then(|message| self.message(&state.exchange, &binding, &message, before))
            }) {
                Some(Ok(frame)) => {
                    // An empty line says nothing.
                    state.begun |= frame.len() > 1;
                    Some((frame, Some(state)))
                }
                Some(Err(status)) => Some((self.failure(&state.exchange, &status, before), None)),
                None if self == Framing::Array => {
                    Some((Bytes::from_static(if state.begun { b"]" } else { b"[]" }), None))
                }
                None => None,
            }
        });
        Body::from_stream(frames.map(Ok::<_, std::convert::Infallible>))
    }

    fn message(
        self,
        exchange: &Exchange,
        binding: &Binding,
        message: &DynamicMessage,
        before: &str,
    ) -> Result<Bytes, Status> {
        let fields = &binding.rpc.schema.message(binding.rpc.output).fields;
        let says_something =
            binding.response_body.is_none_or(|index| message.has_field(&fields[index].descriptor));
        let mut frame = Vec::with_capacity(512);
        if self == Framing::Events
            && let Some(field) =
                fields.iter().find(|field| field.sse_id && message.has_field(&field.descriptor))
        {
            let id = message.get_field(&field.descriptor);
            frame.extend([b"id: ", id.as_str().unwrap_or_default().as_bytes(), b"\n"].concat());
        }
        if says_something {
            // JSON as we write it has no line ends, so it fits one line.
            frame.extend_from_slice(if self == Framing::Events {
                b"data: "
            } else {
                before.as_bytes()
            });
            exchange.write(binding, message, &mut frame)?;
            frame.push(b'\n');
        }
        if self == Framing::Events || !says_something {
            frame.push(b'\n');
        }
        Ok(frame.into())
    }

    fn failure(self, exchange: &Exchange, status: &Status, before: &str) -> Bytes {
        let document = exchange.problem_of(status).document;
        match self {
            Framing::Lines => format!("{}\n", json!({"error": document})).into(),
            Framing::Array => format!("{before}{}]", json!({"error": document})).into(),
            Framing::Events => format!("event: error\ndata: {}\n\n", json!(document)).into(),
        }
    }
}

/// A stream of responses under way.
struct State {
    exchange: Exchange,
    messages: BoxStream<'static, Result<DynamicMessage, Status>>,
    /// True if a message was reported.
    begun: bool,
}
