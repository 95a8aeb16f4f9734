//! `google.api.HttpBody`: bodies that are not JSON, in requests and in answers.

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::HeaderValue;
use http_body_util::BodyExt;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};
use tonic::Status;

use super::binding::{Binding, BodyRule};
use super::body::unreadable;
use super::exchange::Exchange;
use super::request::Target;
use crate::error::Error;

/// What bytes are of which nobody said what they are.
const BYTES: &str = "application/octet-stream";

/// The numbers of the fields of an `HttpBody`.
const CONTENT_TYPE: u32 = 1;
const DATA: u32 = 2;

/// Puts the body of a request into the message, or into the field of it that is the body.
pub fn fill(binding: &Binding, message: &mut DynamicMessage, content_type: &str, data: Bytes) {
    let holder = match binding.body {
        BodyRule::Field(place) => {
            let field = &binding.rpc.schema.message(binding.rpc.input).fields[place];
            message.get_field_mut(&field.descriptor).as_message_mut().expect("the field is a message")
        }
        _ => message,
    };
    holder.set_field_by_number(CONTENT_TYPE, Value::String(content_type.to_owned()));
    holder.set_field_by_number(DATA, Value::Bytes(data));
}

/// The messages of a streamed request: one for each piece of the body as it comes, and at least one, which has what path and query say.
pub fn messages(target: Target, content_type: String, body: Body) -> impl Stream<Item = Result<DynamicMessage, Error>> + Send {
    let state = Some((target, content_type, body, true));
    stream::unfold(state, |state| async move {
        let (target, content_type, mut body, first) = state?;
        let data = loop {
            match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => break data,
                    Err(_) => {}
                },
                Some(Err(error)) => {
                    return Some((Err(unreadable(error)), None));
                }
                None if first => break Bytes::new(),
                None => return None,
            }
        };
        match target.message_of_bytes(&content_type, data) {
            Ok(message) => Some((Ok(message), Some((target, content_type, body, false)))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

/// The media type and the bytes of an answer.
pub fn read(binding: &Binding, message: &DynamicMessage) -> (HeaderValue, Bytes) {
    let field =
        binding.response_body.map(|place| message.get_field(&binding.rpc.schema.message(binding.rpc.output).fields[place].descriptor));
    let holder = field.as_deref().and_then(Value::as_message).unwrap_or(message);
    let content_type = holder.get_field_by_number(CONTENT_TYPE);
    let content_type = content_type.as_deref().and_then(Value::as_str).filter(|text| !text.is_empty());
    let content_type = content_type.and_then(|text| HeaderValue::try_from(text).ok());
    let data = holder.get_field_by_number(DATA).and_then(|data| data.as_bytes().cloned());
    (content_type.unwrap_or(HeaderValue::from_static(BYTES)), data.unwrap_or_default())
}

/// The media type that a request declares for its body.
pub fn declared(given: Option<&HeaderValue>) -> String {
    given.and_then(|value| value.to_str().ok()).unwrap_or(BYTES).to_owned()
}

/// The bytes of a stream of answers, behind those of the first, which decided what they are. A failure breaks the connection off: there is no
/// other way left to tell of it.
pub fn rest(exchange: Exchange, first: Bytes, messages: impl Stream<Item = Result<DynamicMessage, Status>> + Send + 'static) -> Body {
    let rest = messages.map(move |message| match (message, &exchange.binding) {
        (Ok(message), Some(binding)) => Ok(read(binding, &message).1),
        (Ok(_), None) => Ok(Bytes::new()),
        (Err(status), _) => {
            let problem = exchange.problem_of(&status);
            Err(std::io::Error::other(format!("the stream failed: {}", problem.status)))
        }
    });
    Body::from_stream(stream::once(async move { Ok(first) }).chain(rest))
}

/// Whether the type is `google.api.HttpBody`.
pub fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.api.HttpBody"
}
