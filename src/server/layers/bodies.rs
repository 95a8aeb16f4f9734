//! Pays for the messages of calls out of the memory for bodies, before the gRPC library reads and decodes them.
//!
//! A message is passed on when all of it has arrived and is paid for. A compressed one is decompressed here, so that it is paid for as it
//! grows; the library sees it as if it had not been compressed.

use std::io;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use super::around::{Around, Inner};
use crate::access::Caller;
use crate::error::{Code, Error, Left};
use crate::limits::bodies::{cost_of_message, kept_of_message, unpacked};
use crate::limits::memory::{Account, BodyMemory};
use crate::limits::requests::MESSAGE_BYTES;

/// The length of the prefix of each message: whether it is compressed, and its length.
const HEADER: usize = 5;
/// How much is decompressed at a time, and then paid for.
const STEP: usize = 64 << 10;
/// How far back a compressed message may refer, as a power of 2, as for bodies of REST.
const WINDOW_LOG_MAX: u32 = 23;

/// Comes after the layer that finds the caller, whose realm pays.
#[derive(Clone, Debug)]
pub struct Bodies {
    budget: BodyMemory,
    message_limit: usize,
}

impl Bodies {
    /// Messages of at most `message_limit` bytes, paid for out of this budget.
    pub fn new(budget: BodyMemory, message_limit: usize) -> Self {
        Bodies { budget, message_limit }
    }
}

impl Around for Bodies {
    async fn around<S: Inner>(
        self,
        mut request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let realm = request.extensions().get::<Caller>().map(|caller| caller.realm.id());
        // The gateway reads bodies itself, and pays for them.
        let account = match request.extensions().get::<Account>().cloned() {
            Some(account) => account,
            None => {
                let account = self.budget.open();
                let coding = Coding::of(request.headers());
                let paid = Paid::new(
                    std::mem::take(request.body_mut()),
                    account.clone(),
                    coding,
                    self.message_limit,
                );
                *request.body_mut() = paid.into_body();
                request.extensions_mut().insert(account.clone());
                account
            }
        };
        account.charge_to(realm.unwrap_or_default());
        let answer = inner.call(request).await;
        // A call without a stream is done with its message by then; a stream has the account as well.
        drop(account);
        answer
    }
}

#[derive(Clone, Copy, Debug)]
enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Zstd => "zstd",
        }
    }

    /// The compression of a call's messages. The library refuses an unknown one.
    fn of(headers: &HeaderMap) -> Option<Coding> {
        match headers.get("grpc-encoding")?.as_bytes() {
            b"gzip" => Some(Coding::Gzip),
            b"zstd" => Some(Coding::Zstd),
            _ => None,
        }
    }
}

/// A body whose messages are paid for.
struct Paid {
    body: Body,
    account: Account,
    coding: Option<Coding>,
    limit: usize,
    /// Bytes that have arrived and are not processed yet.
    input: Bytes,
    /// The beginning of a message that has not arrived wholly.
    partial: BytesMut,
    /// When the first byte of that message arrived.
    begun: Option<Instant>,
    ended: bool,
}

impl Paid {
    fn new(body: Body, account: Account, coding: Option<Coding>, limit: usize) -> Self {
        Paid {
            body,
            account,
            coding,
            limit,
            input: Bytes::new(),
            partial: BytesMut::new(),
            begun: None,
            ended: false,
        }
    }

    fn into_body(self) -> Body {
        let frames = stream::try_unfold(self, |mut paid| async move {
            Ok::<_, Status>(paid.next().await?.map(|frame| (frame, paid)))
        });
        Body::new(StreamBody::new(Box::pin(frames)))
    }

    async fn next(&mut self) -> Result<Option<Frame<Bytes>>, Status> {
        loop {
            if let Some(message) = self.message() {
                let message = self.paid(message).await?;
                self.begun = (!self.input.is_empty()).then(Instant::now);
                return Ok(Some(Frame::data(message)));
            }
            if self.ended {
                // The library reports the fault of a message that does not end.
                let rest = self.partial.split().freeze();
                return Ok((!rest.is_empty()).then(|| Frame::data(rest)));
            }
            let next = self.body.frame();
            let frame = match self.begun {
                Some(begun) => self.account.in_time(begun, next).await?,
                None => next.await,
            };
            let frame = frame.transpose().map_err(|status| {
                if status.code() == tonic::Code::Cancelled { Left::status() } else { status }
            })?;
            match frame.map(Frame::into_data) {
                Some(Ok(data)) => {
                    self.begun.get_or_insert_with(Instant::now);
                    let arrived = data.len();
                    self.input = data;
                    self.account.receive(arrived, self.whole()).await?;
                }
                Some(Err(trailers)) => return Ok(Some(trailers)),
                None => self.ended = true,
            }
        }
    }

    /// The next message with its header, if all of it is there. Of one that is too large the header is passed on alone: the library refuses it by
    /// that.
    fn message(&mut self) -> Option<Bytes> {
        if self.partial.is_empty() && self.input.len() >= HEADER {
            let size = self.size(&self.input);
            if self.input.len() >= size {
                return Some(self.input.split_to(size));
            }
        }
        loop {
            let size = if self.partial.len() < HEADER { HEADER } else { self.size(&self.partial) };
            let is_whole =
                self.partial.len() >= HEADER && self.partial.len() == self.size(&self.partial);
            if is_whole {
                return Some(self.partial.split().freeze());
            }
            if self.input.is_empty() {
                return None;
            }
            let more = self.input.split_to(self.input.len().min(size - self.partial.len()));
            self.partial.extend_from_slice(&more);
        }
    }

    /// How large a message is with its header, which is there.
    fn size(&self, header: &[u8]) -> usize {
        let length =
            header[1..HEADER].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length > self.limit { HEADER } else { HEADER + length }
    }

    /// How large the message that is arriving will be at most, once its header is there.
    fn whole(&self) -> usize {
        let first: Vec<u8> = self.partial.iter().chain(&self.input).take(HEADER).copied().collect();
        match first.len() {
            HEADER if self.coding.is_some() && first[0] == 1 => {
                self.size(&first) + unpacked(self.size(&first)).min(self.limit)
            }
            HEADER => self.size(&first),
            _ => 0,
        }
    }

    /// Pays for what decoding a message costs, decompressed.
    async fn paid(&mut self, message: Bytes) -> Result<Bytes, Status> {
        let message = match self.coding.filter(|_| message[0] == 1 && message.len() > HEADER) {
            Some(coding) => self.decompressed(&message[HEADER..], coding).await?,
            None => message,
        };
        self.account.decode(cost_of_message(message.len()), kept_of_message(message.len())).await?;
        self.account.decoded();
        Ok(message)
    }

    async fn decompressed(&mut self, message: &[u8], coding: Coding) -> Result<Bytes, Status> {
        let whole = HEADER + message.len() + unpacked(HEADER + message.len()).min(self.limit);
        match coding {
            Coding::Gzip => self.read(GzipDecoder::new(message), coding, whole).await,
            Coding::Zstd => {
                self.read(
                    ZstdDecoder::with_params(
                        message,
                        &[DParameter::window_log_max(WINDOW_LOG_MAX)],
                    ),
                    coding,
                    whole,
                )
                .await
            }
        }
    }

    async fn read(
        &mut self,
        decoder: impl AsyncRead,
        coding: Coding,
        whole: usize,
    ) -> Result<Bytes, Status> {
        let mut decoder = std::pin::pin!(decoder);
        let mut read = BytesMut::zeroed(HEADER);
        loop {
            read.reserve(STEP);
            let step = decoder
                .read_buf(&mut (&mut read).limit(STEP))
                .await
                .map_err(|error| mislabelled(coding, error))?;
            if step == 0 {
                break;
            }
            self.account.receive(step, whole).await?;
            if read.len() - HEADER > self.limit {
                MESSAGE_BYTES.reached();
                let message = format!(
                    "The message is larger than the {} bytes that this service takes.",
                    self.limit
                );
                return Err(Error::new(Code::PayloadTooLarge, message)
                    .with("limit_bytes", self.limit)
                    .into());
            }
            // A long message gives way to other calls.
            tokio::task::yield_now().await;
        }
        let length = u32::try_from(read.len() - HEADER).unwrap_or(u32::MAX);
        read[1..HEADER].copy_from_slice(&length.to_be_bytes());
        Ok(read.freeze())
    }
}

fn mislabelled(coding: Coding, error: io::Error) -> Status {
    let message = format!(
        "The message is not {}, though `grpc-encoding` says so, or breaks off.",
        coding.name()
    );
    Error::new(Code::ValidationFailed, message).caused_by(error).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt;

    use super::*;

    fn budget() -> BodyMemory {
        BodyMemory::new(64 << 20, Duration::from_secs(5), Duration::from_secs(30))
    }

    fn frame(compressed: u8, message: &[u8]) -> Vec<u8> {
        [&[compressed][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    async fn passed(
        chunks: Vec<Vec<u8>>,
        coding: Option<Coding>,
        limit: usize,
    ) -> Result<Vec<u8>, Status> {
        let frames =
            stream::iter(chunks).map(|chunk| Ok::<_, Status>(Frame::data(Bytes::from(chunk))));
        let body = Paid::new(Body::new(StreamBody::new(frames)), budget().open(), coding, limit)
            .into_body();
        Ok(body.collect().await?.to_bytes().to_vec())
    }

    #[tokio::test]
    async fn messages_are_the_same_wherever_the_chunks_end() {
        let sent = [frame(0, b"abc"), frame(0, b""), frame(1, b"x"), frame(0, &[7; 300])].concat();
        for size in 1..sent.len() {
            let chunks = sent.chunks(size).map(<[u8]>::to_vec).collect();
            assert_eq!(passed(chunks, None, 1_000).await.unwrap(), sent, "{size}");
        }
    }

    #[tokio::test]
    async fn what_breaks_off_and_what_is_too_large_is_left_to_the_library() {
        assert_eq!(passed(vec![b"\0\0\0".to_vec()], None, 9).await.unwrap(), b"\0\0\0");
        assert_eq!(
            passed(vec![frame(0, b"abc")[..7].to_vec()], None, 9).await.unwrap(),
            &frame(0, b"abc")[..7]
        );
        assert_eq!(
            passed(vec![frame(0, &[0; 10])], None, 9).await.unwrap()[..5],
            frame(0, &[0; 10])[..5]
        );
    }

    #[tokio::test]
    async fn compressed_messages_become_plain_ones_up_to_the_limit() {
        let text = vec![b'x'; 100_000];
        let (mut gzip, mut zstd) = (Vec::new(), Vec::new());
        async_compression::tokio::bufread::GzipEncoder::new(&text[..])
            .read_to_end(&mut gzip)
            .await
            .unwrap();
        async_compression::tokio::bufread::ZstdEncoder::new(&text[..])
            .read_to_end(&mut zstd)
            .await
            .unwrap();
        for (coding, packed) in [(Coding::Gzip, gzip), (Coding::Zstd, zstd)] {
            let sent = [frame(1, &packed), frame(0, b"plain")].concat();
            let expected = [frame(0, &text), frame(0, b"plain")].concat();
            assert_eq!(passed(vec![sent.clone()], Some(coding), 100_000).await.unwrap(), expected);
            assert_eq!(
                passed(vec![sent], Some(coding), 99_999).await.unwrap_err().code(),
                tonic::Code::ResourceExhausted
            );
            let broken = passed(vec![frame(1, b"no such thing")], Some(coding), 100_000).await;
            let broken = broken.unwrap_err();
            assert_eq!(broken.code(), tonic::Code::InvalidArgument);
            assert!(broken.message().contains(coding.name()), "{broken:?}");
        }
    }
}
