//! The bodies of requests: their media types, and their bytes, never more of them than is allowed.

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, stream};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::compression::{self, Coding, Wire};
use crate::error::{Code, Error, Left};
use crate::limits::bodies::{
    BLANK_BYTES, BLANK_BYTES_AT_MOST, EMPTY_BYTES, cost_of_json, kept_of_json, unpacked,
};
use crate::limits::memory::Account;
use crate::limits::requests::MESSAGE_BYTES;

/// The form of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON document.
    Json,
    /// JSON documents, one a line.
    JsonLines,
    /// Bytes of any kind.
    Bytes,
}

/// The media types of a stream of documents.
pub const JSON_LINES: &str = "application/x-ndjson";

/// All media types that the body of a stream of documents may have, besides `application/json`.
pub const ALL_JSON_LINES: [&str; 3] = [JSON_LINES, "application/jsonl", "application/x-jsonlines"];

/// The form that the headers of a request declare; none declared is JSON, or lines of it where the route takes a stream.
pub fn form(headers: &HeaderMap, is_stream: bool) -> Result<Form, Error> {
    let unsupported = || {
        let wanted =
            if is_stream { "application/x-ndjson or application/json" } else { "application/json" };
        Error::new(Code::UnsupportedMediaType, format!("The body must be {wanted}, in UTF-8."))
    };
    let Some(declared) = headers.get(header::CONTENT_TYPE) else {
        return Ok(if is_stream { Form::JsonLines } else { Form::Json });
    };
    let declared = declared.to_str().map_err(|_| unsupported())?.to_ascii_lowercase();
    let mut parts = declared.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let mut charsets = parts.filter_map(|part| part.strip_prefix("charset="));
    if charsets.any(|charset| !matches!(charset.trim_matches('"'), "utf-8" | "utf8" | "us-ascii")) {
        return Err(unsupported());
    }
    match essence {
        _ if is_stream && ALL_JSON_LINES.contains(&essence) => Ok(Form::JsonLines),
        // A type with the suffix `+json` says what its members mean, as a patch does, which may not be what they mean here.
        "application/json" => Ok(Form::Json),
        _ => Err(unsupported()),
    }
}

/// How the body of a request is compressed.
pub fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Error> {
    Coding::given(headers).map_err(|()| {
        Error::new(
            Code::UnsupportedMediaType,
            "The body may be compressed by gzip or zstd, and by nothing else.",
        )
    })
}

/// How much of a body is read before other calls have their turn.
const STEP: usize = 16 << 10;

/// A body that is read for an account, and no further than to a limit.
pub struct Reading {
    /// The body.
    pub body: Body,
    /// The account that pays for the bytes that are read.
    pub account: Account,
    /// How large the body, or a line of it, may be.
    pub limit: usize,
    /// How large it says to be, or may well become.
    pub likely: usize,
    /// The part that has arrived.
    wire: Wire,
    /// How much of it was read in one step.
    step: usize,
}

impl Reading {
    /// A body as it was sent, which may be compressed.
    pub fn new(sent: Body, coding: Option<Coding>, account: Account, limit: usize) -> Self {
        let bytes = sent.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
        let likely = match (coding, bytes) {
            (_, None) => limit,
            (None, Some(bytes)) => bytes.min(limit),
            (Some(_), Some(bytes)) => unpacked(bytes).min(limit),
        };
        let wire = Wire::default();
        Reading {
            body: compression::decompressed(sent, coding, wire.clone()),
            account,
            limit,
            likely,
            wire,
            step: 0,
        }
    }

    /// Reads a body that is not larger than the limit, and pays for what decoding it costs. One that declares to be larger is not read at all.
    pub async fn whole(
        mut self,
        cost: impl FnOnce(usize) -> usize,
    ) -> Result<(Bytes, Account), Error> {
        let body = self.read().await?;
        self.account.decode(cost(body.len()), 0).await?;
        Ok((body, self.account))
    }

    /// The same for a body that is JSON.
    pub async fn whole_json(mut self) -> Result<(Bytes, Account), Error> {
        let body = self.read().await?;
        self.account.decode(cost_of_json(&body), 0).await?;
        Ok((body, self.account))
    }

    async fn read(&mut self) -> Result<Bytes, Error> {
        if self.body.size_hint().lower() > self.limit as u64 {
            return Err(too_large(self.limit));
        }
        let (begun, mut read) = (Instant::now(), BytesMut::new());
        while let Some(data) = self.next(Some(begun)).await? {
            if read.len() + data.len() > self.limit {
                return Err(too_large(self.limit));
            }
            self.account.receive(data.len(), self.likely).await?;
            if read.is_empty() && self.body.is_end_stream() {
                return Ok(data);
            }
            read.extend_from_slice(&data);
        }
        Ok(read.freeze())
    }

    /// The lines of a body that are not blank, each with its number from 1 and paid for. No line may be larger than the limit; the body may.
    pub fn lines(self) -> impl Stream<Item = Result<(u64, Bytes), Error>> + Send {
        let lines = Lines {
            reading: self,
            buffer: BytesMut::new(),
            searched: 0,
            number: 0,
            blank: 0,
            begun: None,
            ended: false,
        };
        stream::try_unfold(lines, |mut lines| async move {
            let Some((number, line)) = lines.next().await? else { return Ok(None) };
            lines.reading.account.decode(cost_of_json(&line), kept_of_json(&line)).await?;
            lines.reading.account.decoded();
            Ok(Some(((number, line), lines)))
        })
    }

    fn over() -> Error {
        EMPTY_BYTES.reached();
        Error::invalid(
            "body",
            "empty",
            "expands too little for its compressed length: it has very many empty parts",
        )
    }

    /// The next data of a body; its trailers are of no interest. A body that has begun must continue.
    async fn next(&mut self, begun: Option<Instant>) -> Result<Option<Bytes>, Error> {
        loop {
            let next = self.body.frame();
            let frame = match begun {
                Some(begun) => self.account.in_time(begun, next).await?,
                None => next.await,
            };
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| {
                if self.wire.is_over() { Self::over() } else { unreadable(error) }
            })?;
            if let Ok(data) = frame.into_data() {
                self.wire.made(data.len());
                self.step += data.len();
                if self.step > STEP {
                    // Compressed bytes are all there at once. The reader yields to other calls, and lets the caller end this one.
                    self.step = 0;
                    tokio::task::yield_now().await;
                }
                return Ok(Some(data));
            }
        }
    }
}

struct Lines {
    reading: Reading,
    buffer: BytesMut,
    /// How much of the buffer is known to contain no end of line.
    searched: usize,
    number: u64,
    /// How many bytes the blank lines had.
    blank: usize,
    /// When the line began that has not ended yet.
    begun: Option<Instant>,
    ended: bool,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<(u64, Bytes)>, Error> {
        loop {
            let line = match self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                Some(position) => {
                    let line = self.buffer.split_to(self.searched + position).freeze();
                    self.buffer.advance(1);
                    line
                }
                None if self.ended && self.buffer.is_empty() => return Ok(None),
                None if self.ended => self.buffer.split().freeze(),
                None => {
                    self.searched = self.buffer.len();
                    self.fill().await?;
                    continue;
                }
            };
            self.searched = 0;
            self.begun = None;
            self.number += 1;
            if line.len() > self.reading.limit {
                return Err(self.line_too_large());
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some((self.number, line)));
            }
            self.blank += line.len() + 1;
            if self.blank > BLANK_BYTES_AT_MOST {
                BLANK_BYTES.reached();
                let description =
                    format!("has more than {BLANK_BYTES_AT_MOST} bytes of blank lines");
                return Err(
                    Error::invalid("body", "too_long", description).with("line", self.number)
                );
            }
        }
    }

    async fn fill(&mut self) -> Result<(), Error> {
        if self.buffer.len() > self.reading.limit {
            self.number += 1;
            return Err(self.line_too_large());
        }
        if self.begun.is_none() && !self.buffer.is_empty() {
            self.begun = Some(Instant::now());
        }
        match self.reading.next(self.begun).await? {
            Some(data) => {
                // The messages that end with these bytes are processed before more is read.
                let unfinished = data.iter().rev().take_while(|byte| **byte != b'\n').count();
                self.buffer.extend_from_slice(&data);
                self.reading.account.receive(unfinished, self.reading.likely).await?;
                self.reading.account.keep(self.reading.wire.window()).await?;
            }
            None => self.ended = true,
        }
        Ok(())
    }

    fn line_too_large(&self) -> Error {
        MESSAGE_BYTES.reached();
        let message = format!(
            "Line {} of the body is larger than the {} bytes that this service takes.",
            self.number, self.reading.limit
        );
        Error::new(Code::PayloadTooLarge, message)
            .with("limit_bytes", self.reading.limit)
            .with("line", self.number)
    }
}

/// The fault of a body that cannot be read to its end.
pub fn unreadable(error: axum::Error) -> Error {
    if Left::caused(&error) {
        return Left::error().caused_by(error);
    }
    let fault = match compression::mislabelled(&error) {
        Some(coding) => {
            let description = format!(
                "is not {}, though `Content-Encoding` says so, or breaks off",
                coding.name()
            );
            Error::invalid("body", "invalid_encoding", description)
        }
        None => Error::invalid("body", "incomplete", "could not be read to its end"),
    };
    fault.caused_by(error)
}

fn too_large(limit: usize) -> Error {
    MESSAGE_BYTES.reached();
    Error::new(
        Code::PayloadTooLarge,
        format!("The body is larger than the {limit} bytes that this service takes."),
    )
    .with("limit_bytes", limit)
}

#[cfg(test)]
mod tests;
