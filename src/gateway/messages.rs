//! The messages of a request, from its body.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use http_body_util::BodyExt;
use prost_reflect::DynamicMessage;
use tonic::Status;

use super::body::{Form, Reading, unreadable};
use super::faults::Faults;
use super::request::Target;
use crate::error::{Error, Violations};
use crate::limits::bodies::cost_of_message;

/// How long a body may be that is read at once, in bytes: well under a millisecond.
const LONG_BODY: usize = 64 << 10;

type Messages = BoxStream<'static, Result<DynamicMessage, Status>>;

/// The messages of a request. Nothing is read before the first is asked for.
pub fn messages(
    target: Target,
    form: Form,
    content_type: String,
    reading: Reading,
    found: Faults,
) -> Messages {
    let sends_many = target.binding.rpc.client_streaming;
    if found.taken_instead().is_some() {
        // Only now is it said why, for whoever asks for the message.
        return stream::once(async move { Err(found.unfit().unwrap_or_else(refusal)) }).boxed();
    }
    if sends_many && found.has_faults() {
        return stream::once(std::future::ready(Err(refusal()))).boxed();
    }
    if form == Form::Bytes && sends_many {
        return pieces(target, content_type, reading.body)
            .map_err(move |error| found.end(error))
            .boxed();
    }
    if form == Form::Bytes {
        let message = async move {
            let (body, _) = reading.whole(cost_of_message).await?;
            target.message_of_bytes(&content_type, body)
        };
        return stream::once(message).map_err(move |error| found.end(error)).boxed();
    }
    let target = Arc::new(target);
    if form == Form::Json {
        let document = async move {
            let (body, account) = match reading.whole_json().await {
                Ok(read) => read,
                Err(error) => return [Some(Err(found.end(error))), None],
            };
            if sends_many {
                let messages = line(target, found, (1, None), body).await;
                account.decoded();
                return messages;
            }
            let message = decoded(target, body).await;
            account.decoded();
            let message = message.map(|(message, faults)| {
                found.keep(&faults);
                message
            });
            [Some(message.map_err(|error| found.end(error))), None]
        };
        return stream::once(document)
            .flat_map(|messages| stream::iter(messages.into_iter().flatten()))
            .boxed();
    }
    let (mut failed, mut position) = (false, 0);
    let messages = reading.lines().then(move |read| {
        let (target, found) = (Arc::clone(&target), found.clone());
        position += 1;
        async move {
            match read {
                Ok((number, text)) => line(target, found, (position, Some(number)), text).await,
                Err(error) => [Some(Err(found.fail(error))), None],
            }
        }
    });
    // A stream ends with its first fault.
    let messages = messages.flat_map(|messages| stream::iter(messages.into_iter().flatten()));
    messages
        .take_while(move |message: &Result<_, Status>| {
            std::future::ready(!std::mem::replace(&mut failed, message.is_err()))
        })
        .boxed()
}

/// The messages of a streamed request: one for each piece of the body as it comes, and at least one, which has what path and query say.
fn pieces(
    target: Target,
    content_type: String,
    body: Body,
) -> impl Stream<Item = Result<DynamicMessage, Error>> + Send {
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
                Some(Err(error)) => return Some((Err(unreadable(error)), None)),
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

/// The message of a line, at this place of the stream and with this number in the body; and the end of the stream, if it has faults.
async fn line(
    target: Arc<Target>,
    found: Faults,
    (position, number): (i64, Option<u64>),
    text: Bytes,
) -> [Option<Result<DynamicMessage, Status>>; 2] {
    let numbered = Arc::clone(&target);
    let (mut message, faults) = match decoded(target, text).await {
        Ok(read) => read,
        Err(error) => return [Some(Err(found.end_behind(number, error))), None],
    };
    if let Some(number) = number {
        numbered.set_line(&mut message, number);
    }
    if faults.is_empty() {
        return [Some(Ok(message)), None];
    }
    found.end_at(position, number, faults);
    [Some(Ok(message)), Some(Err(refusal()))]
}

/// The message that a service gets instead of an unreadable one; the faults are reported by those who found them.
fn refusal() -> Status {
    crate::error::Form::refusal().into()
}

/// Reads the JSON of a message; where that may take long, off the threads that all calls share.
async fn decoded(target: Arc<Target>, body: Bytes) -> Result<(DynamicMessage, Violations), Error> {
    if body.len() <= LONG_BODY {
        return target.message(&body);
    }
    tokio::task::spawn_blocking(move || target.message(&body)).await.map_err(Error::internal)?
}
