//! Answers of many messages: lines of JSON, or server-sent events for those who ask for them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use http::{HeaderMap, header};
use prost_reflect::DynamicMessage;
use serde_json::json;
use tonic::Status;

use super::binding::Binding;
use super::body::JSON_LINES;
use super::exchange::Exchange;
use super::panic_message;
use crate::error::Error;

const EVENT_STREAM: &str = "text/event-stream";

/// How the messages of a stream are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One a line. A failure is a last line `{"error": problem}`.
    Lines,
    /// Each an event (HTML Living Standard, section 9.2), with the id that the message has for one. A failure is a last event named `error`,
    /// with the problem as its data.
    Events,
}

impl Framing {
    /// The framing that a request asks for.
    pub fn of(headers: &HeaderMap) -> Framing {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut ranges = accepted.flat_map(|value| value.split(',')).map(|range| range.split(';').next().unwrap_or_default().trim());
        if ranges.any(|range| range.eq_ignore_ascii_case(EVENT_STREAM)) { Framing::Events } else { Framing::Lines }
    }

    /// The media type of the answer.
    pub fn media_type(self) -> &'static str {
        match self {
            Framing::Lines => JSON_LINES,
            Framing::Events => EVENT_STREAM,
        }
    }

    /// The body that tells the messages as they come. It ends with the first failure.
    ///
    /// Where the rule of the route has a `response_body`, a message without it is a sign of life: an empty line, or an event without data,
    /// which tells a client nothing but its id.
    pub fn frame(self, exchange: Exchange, messages: impl Stream<Item = Result<DynamicMessage, Status>> + Send + 'static) -> Body {
        // A panic behind the stream ends it as any other failure does.
        let messages = AssertUnwindSafe(messages).catch_unwind().map(|message| match message {
            Ok(message) => message,
            Err(panic) => Err(Error::internal(panic_message(panic.as_ref())).into()),
        });
        let state = Some((exchange, messages.boxed()));
        let frames = stream::unfold(state, move |state| async move {
            let (exchange, mut messages) = state?;
            let binding = Arc::clone(exchange.binding.as_ref()?);
            match messages.next().await?.and_then(|message| self.message(&exchange, &binding, &message)) {
                Ok(frame) => Some((frame, Some((exchange, messages)))),
                Err(status) => Some((self.failure(&exchange, &status), None)),
            }
        });
        Body::from_stream(frames.map(Ok::<_, std::convert::Infallible>))
    }

    fn message(self, exchange: &Exchange, binding: &Binding, message: &DynamicMessage) -> Result<Bytes, Status> {
        let fields = &binding.rpc.schema.message(binding.rpc.output).fields;
        let says_something = binding.response_body.is_none_or(|place| message.has_field(&fields[place].descriptor));
        let mut frame = Vec::with_capacity(512);
        if self == Framing::Events
            && let Some(field) = fields.iter().find(|field| field.sse_id && message.has_field(&field.descriptor))
        {
            let id = message.get_field(&field.descriptor);
            frame.extend([b"id: ", id.as_str().unwrap_or_default().as_bytes(), b"\n"].concat());
        }
        if says_something {
            // JSON as we write it has no line ends, so one line holds it.
            frame.extend_from_slice(if self == Framing::Events { b"data: " } else { b"" });
            exchange.write(binding, message, &mut frame)?;
            frame.push(b'\n');
        }
        if self == Framing::Events || !says_something {
            frame.push(b'\n');
        }
        Ok(frame.into())
    }

    fn failure(self, exchange: &Exchange, status: &Status) -> Bytes {
        let document = exchange.problem_of(status).document;
        match self {
            Framing::Lines => format!("{}\n", json!({"error": document})).into(),
            Framing::Events => format!("event: error\ndata: {}\n\n", json!(document)).into(),
        }
    }
}
