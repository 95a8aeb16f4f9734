//! `google.api.HttpBody`: bodies that are not JSON, in requests and in responses.

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::HeaderValue;
use prost_reflect::{DynamicMessage, Value};
use tonic::Status;

use super::binding::{Binding, BodyRule};
use super::exchange::Exchange;

/// The media type of bytes that nobody has declared.
const BYTES: &str = "application/octet-stream";

/// The numbers of the fields of an `HttpBody`.
const CONTENT_TYPE: u32 = 1;
const DATA: u32 = 2;

/// Puts the body of a request into the message, or into the field of it that is the body.
pub fn fill(binding: &Binding, message: &mut DynamicMessage, content_type: &str, data: Bytes) {
    let holder = match binding.body {
        BodyRule::Field(index) => {
            let field = &binding.rpc.schema.message(binding.rpc.input).fields[index];
            message
                .get_field_mut(&field.descriptor)
                .as_message_mut()
                .expect("the field is a message")
        }
        _ => message,
    };
    holder.set_field_by_number(CONTENT_TYPE, Value::String(content_type.to_owned()));
    holder.set_field_by_number(DATA, Value::Bytes(data));
}

/// The media type and the bytes of a response.
pub fn read(binding: &Binding, message: &DynamicMessage) -> (HeaderValue, Bytes) {
    let field = binding.response_body.map(|index| {
        message.get_field(&binding.rpc.schema.message(binding.rpc.output).fields[index].descriptor)
    });
    let holder = field.as_deref().and_then(Value::as_message).unwrap_or(message);
    let content_type = holder.get_field_by_number(CONTENT_TYPE);
    let content_type =
        content_type.as_deref().and_then(Value::as_str).filter(|text| !text.is_empty());
    let content_type = content_type.and_then(|text| HeaderValue::try_from(text).ok());
    let data = holder.get_field_by_number(DATA).and_then(|data| data.as_bytes().cloned());
    (content_type.unwrap_or(HeaderValue::from_static(BYTES)), data.unwrap_or_default())
}

/// The media type that a request declares for its body.
pub fn declared(given: Option<&HeaderValue>) -> String {
    given.and_then(|value| value.to_str().ok()).unwrap_or(BYTES).to_owned()
}

/// The bytes of a stream of responses, after those of the first, which decided its form. A failure breaks the connection off: there is no
/// other way left to report it.
pub fn rest(
    exchange: Exchange,
    first: Bytes,
    messages: impl Stream<Item = Result<DynamicMessage, Status>> + Send + 'static,
) -> Body {
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
