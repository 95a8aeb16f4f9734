//! Answers of many messages, read while they are open.

use std::collections::VecDeque;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::{Value, json};

use super::client::Failure;
use super::{grpc, rest, spelling};

/// The messages of a stream. Dropping it hangs up.
pub struct MessageStream {
    source: Source,
    output: MessageDescriptor,
    headers: Vec<(String, String)>,
    last_id: Option<String>,
    signs_of_life: usize,
}

enum Source {
    Grpc(tonic::Streaming<DynamicMessage>),
    Rest { body: UnsyncBoxBody<Bytes, String>, frames: Frames, answer: Option<&'static str> },
}

impl MessageStream {
    pub(super) fn grpc(
        stream: tonic::Streaming<DynamicMessage>,
        output: MessageDescriptor,
        headers: Vec<(String, String)>,
    ) -> Self {
        MessageStream {
            source: Source::Grpc(stream),
            output,
            headers,
            last_id: None,
            signs_of_life: 0,
        }
    }

    pub(super) fn rest(
        body: UnsyncBoxBody<Bytes, String>,
        output: MessageDescriptor,
        answer: Option<&'static str>,
        headers: Vec<(String, String)>,
    ) -> Self {
        let is_events = headers
            .iter()
            .any(|(name, value)| name == "content-type" && value == "text/event-stream");
        let frames = if is_events { Frames::events() } else { Frames::lines() };
        MessageStream {
            source: Source::Rest { body, frames, answer },
            output,
            headers,
            last_id: None,
            signs_of_life: 0,
        }
    }

    /// The next message in the one spelling, or what the stream failed with; none at its end. Fails after half a minute of silence: a comment,
    /// too, breaks that.
    pub async fn next(&mut self) -> Option<Result<Value, Failure>> {
        match &mut self.source {
            Source::Grpc(stream) => match soon(stream.message()).await {
                Ok(message) => message.map(|message| {
                    Ok(spelling::from_protocol(&grpc::decode(&message), &self.output))
                }),
                Err(status) => Some(Err(grpc::failure(&status))),
            },
            Source::Rest { answer, .. } => {
                let answer = *answer;
                let frame = self.frame().await?;
                let value: Value = serde_json::from_str(&frame.data)
                    .unwrap_or_else(|error| panic!("no JSON ({error}): {}", frame.data));
                let problem = if frame.name.as_deref() == Some("error") {
                    Some(&value)
                } else {
                    only_error(&value)
                };
                Some(match problem {
                    Some(problem) => Err(rest::failure(problem, &self.headers)),
                    None => {
                        let value = answer.map(|member| json!({ member: value })).unwrap_or(value);
                        Ok(spelling::from_protocol(&value, &self.output))
                    }
                })
            }
        }
    }

    /// The next message; fails where the stream has failed or ended.
    pub async fn message(&mut self) -> Value {
        self.next()
            .await
            .expect("the stream goes on")
            .unwrap_or_else(|failure| panic!("the stream failed: {failure:#?}"))
    }

    /// The next frame of the REST listener: what the event is called, its id and its data, before they are read. None at the end.
    pub async fn frame(&mut self) -> Option<Frame> {
        let Source::Rest { body, frames, .. } = &mut self.source else {
            panic!("gRPC has no frames")
        };
        loop {
            if let Some(frame) = frames.next() {
                self.last_id = frame.id.clone();
                return Some(frame);
            }
            let read = soon(body.frame()).await?;
            frames.push(
                read.unwrap_or_else(|error| panic!("the stream broke off: {error}"))
                    .into_data()
                    .unwrap_or_default(),
            );
            self.signs_of_life = frames.signs_of_life;
        }
    }

    /// The id of the last server-sent event that had one: what a browser sends as `Last-Event-ID`.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// By REST, how many frames came that say nothing: empty lines, or events without data.
    pub fn signs_of_life(&self) -> usize {
        self.signs_of_life
    }

    /// The headers of the answer (metadata, by gRPC).
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// A header of the answer (metadata, by gRPC), by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

async fn soon<T>(reading: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(30), reading)
        .await
        .expect("the stream says something within half a minute")
}

/// The problem of a last line `{"error": problem}`.
fn only_error(value: &Value) -> Option<&Value> {
    let members = value.as_object()?;
    members.get("error").filter(|problem| members.len() == 1 && problem["request_id"].is_string())
}

/// A message on its way through the REST listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The type of the server-sent event.
    pub name: Option<String>,
    /// The last id that there was: its own, or one before it.
    pub id: Option<String>,
    /// The JSON.
    pub data: String,
}

/// Cuts a body into frames: lines of JSON, or server-sent events (HTML Living Standard, section 9.2).
pub struct Frames {
    is_events: bool,
    pending: Vec<u8>,
    open: Frame,
    ready: VecDeque<Frame>,
    signs_of_life: usize,
}

impl Frames {
    /// Of lines of JSON.
    pub fn lines() -> Frames {
        Frames {
            is_events: false,
            pending: Vec::new(),
            open: Frame::default(),
            ready: VecDeque::new(),
            signs_of_life: 0,
        }
    }

    /// Of server-sent events.
    pub fn events() -> Frames {
        Frames { is_events: true, ..Frames::lines() }
    }

    /// Adds what came.
    pub fn push(&mut self, bytes: impl AsRef<[u8]>) {
        self.pending.extend_from_slice(bytes.as_ref());
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8(line).expect("a body is UTF-8");
            self.line(line.trim_end_matches('\n'));
        }
    }

    /// Takes out the next frame that is whole.
    pub fn next(&mut self) -> Option<Frame> {
        self.ready.pop_front()
    }

    fn line(&mut self, line: &str) {
        if !self.is_events {
            match line {
                "" => self.signs_of_life += 1,
                line => self.ready.push_back(Frame { data: line.to_owned(), ..Frame::default() }),
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "" if line.is_empty() => {
                // The id stays until there is another one; without data it is not an event.
                let next = Frame { id: self.open.id.clone(), ..Frame::default() };
                let frame = std::mem::replace(&mut self.open, next);
                match frame.data.as_str() {
                    "" => self.signs_of_life += 1,
                    _ => self.ready.push_back(frame),
                }
            }
            "" => self.signs_of_life += 1,
            "event" => self.open.name = Some(value),
            "id" => self.open.id = Some(value),
            "data" => self.open.data.push_str(&value),
            other => panic!("no field of a server-sent event: {other}"),
        }
    }
}
