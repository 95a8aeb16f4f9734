//! Bodies that are compressed on their way, by gzip (RFC 1952) or zstd (RFC 8878).

use std::error::Error as StdError;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_compression::Level;
use async_compression::tokio::bufread::{GzipDecoder, GzipEncoder, ZstdDecoder, ZstdEncoder};
use async_compression::zstd::{CParameter, DParameter};
use axum::body::Body;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::{ReaderStream, StreamReader};

use super::accept::{preferred, weighted};
use super::window::Windows;
use crate::limits::answers::{COMPRESSION, COMPRESSION_BYTES};
use crate::limits::bodies::{EMPTY_BYTES_AT_MOST, FREE_BODY_BYTES};
use crate::limits::responses::{Reservation, Responding};

/// Below this, in bytes, compression costs more than it saves: a response fits into one packet anyway.
pub const WORTHWHILE: u64 = 1024;
/// How far back a compressed request may refer, as a power of 2: 8 MiB, which RFC 8878 asks every decoder to take. It is memory of ours.
const WINDOW_LOG_MAX: u32 = 23;
/// How far back a compressed response refers, as a power of 2. The memory for it is there until the response is read.
const WINDOW_LOG: u32 = 16;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`.
    Gzip,
    /// `zstd`.
    Zstd,
}

const CODINGS: [(&str, Option<Coding>); 4] = [
    ("zstd", Some(Coding::Zstd)),
    ("gzip", Some(Coding::Gzip)),
    ("x-gzip", Some(Coding::Gzip)),
    ("identity", None),
];

impl Coding {
    /// The compression of the response: the one to which the caller gives the most weight, and zstd if the caller has no preference.
    pub fn accepted(headers: &HeaderMap) -> Option<Coding> {
        let mut listed = weighted(headers, header::ACCEPT_ENCODING);
        if listed.is_empty() {
            return None;
        }
        // Callers list their codings in no order, and mean none by it.
        listed.sort_by_key(|(name, _)| CODINGS.iter().position(|(known, _)| known == name));
        preferred(&listed, &CODINGS).copied().flatten()
    }

    /// The compression of a request's body. Fails if it is an unsupported one, or more than one.
    pub fn given(headers: &HeaderMap) -> Result<Option<Coding>, ()> {
        let Some(given) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
        let given = given.to_str().map_err(|_| ())?.trim().to_ascii_lowercase();
        CODINGS.iter().find(|(name, _)| *name == given).map(|(_, coding)| *coding).ok_or(())
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Zstd => "zstd",
        }
    }
}

/// A body that is not compressed as it declares, or breaks off.
#[derive(Debug, thiserror::Error)]
#[error("not {}", .coding.name())]
struct Mislabelled {
    coding: Coding,
    source: io::Error,
}

/// The compression that a body declares, if reading it showed that to be wrong.
pub fn mislabelled(error: &(dyn StdError + 'static)) -> Option<Coding> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(Mislabelled { coding, .. }) = error.downcast_ref() {
            return Some(*coding);
        }
        cause = error.source();
    }
    None
}

/// How much more has come of a compressed body than was made of it. Clones are one and the same.
///
/// A compressed body may be empty however long it is: empty parts one after the other, each of which is work.
#[derive(Clone, Debug, Default)]
pub struct Wire(Arc<OnWire>);

#[derive(Debug, Default)]
struct OnWire {
    more: AtomicUsize,
    /// How far back it refers.
    window: AtomicUsize,
    /// The result.
    made: AtomicUsize,
}

impl Wire {
    /// So many bytes were made of it. What cannot be compressed becomes a little larger.
    pub fn made(&self, bytes: usize) {
        self.0.more.store(self.0.more.load(Relaxed).saturating_sub(bytes + bytes / 32), Relaxed);
        self.0.made.fetch_add(bytes, Relaxed);
    }

    /// How many bytes its decoder keeps of what was made of it, or may well keep.
    pub fn window(&self) -> usize {
        let (made, window) = (self.0.made.load(Relaxed), self.0.window.load(Relaxed));
        if made > FREE_BODY_BYTES { window.min(1 << WINDOW_LOG_MAX) } else { 0 }
    }

    /// Returns whether more has come than may.
    pub fn is_over(&self) -> bool {
        self.0.more.load(Relaxed) > EMPTY_BYTES_AT_MOST
    }

    fn come(&self, bytes: usize) -> io::Result<()> {
        self.0.more.fetch_add(bytes, Relaxed);
        if self.is_over() {
            Err(io::Error::other("a compressed body of empty parts"))
        } else {
            Ok(())
        }
    }
}

/// The body of a request before its compression. It is decompressed as it is read, so that a limit on reading applies.
pub fn decompressed(body: Body, coding: Option<Coding>, wire: Wire) -> Body {
    let Some(coding) = coding else { return body };
    let mut windows = Windows::default();
    let data = body.into_data_stream().map(move |data| {
        let data = data.map_err(io::Error::other)?;
        if coding == Coding::Zstd {
            wire.0.window.store(windows.pass(&data), Relaxed);
        }
        wire.come(data.len()).map(|()| data)
    });
    let reader = StreamReader::new(data);
    match coding {
        Coding::Gzip => {
            let mut decoder = GzipDecoder::new(reader);
            decoder.multiple_members(true);
            read_as(coding, decoder)
        }
        Coding::Zstd => {
            let mut decoder =
                ZstdDecoder::with_params(reader, &[DParameter::window_log_max(WINDOW_LOG_MAX)]);
            decoder.multiple_members(true);
            read_as(coding, decoder)
        }
    }
}

/// The source of a decoder. Its own failures are distinguished from those of the body that it decodes.
fn read_as(coding: Coding, decoder: impl AsyncRead + Send + 'static) -> Body {
    let is_of_body =
        |error: &io::Error| error.get_ref().is_some_and(|cause| cause.is::<axum::Error>());
    Body::from_stream(ReaderStream::new(decoder).map_err(move |source| match is_of_body(&source) {
        true => axum::BoxError::from(source),
        false => Mislabelled { coding, source }.into(),
    }))
}

/// A response that may last as long as its caller wants: among its extensions. It is not compressed, since that would take memory for as long.
#[derive(Clone, Copy, Debug)]
pub struct Lasting;

/// The response compressed, if its caller takes that, it is worthwhile, and there is memory for it. What is there of a stream is passed on whenever nothing
/// more is.
pub fn compressed(
    mut answer: Response<Body>,
    coding: Option<Coding>,
    responding: &Responding,
) -> Response<Body> {
    if answer.extensions().get::<Lasting>().is_some() {
        return answer;
    }
    if answer.headers().contains_key(header::CONTENT_ENCODING) || !is_compressible(answer.headers())
    {
        return answer;
    }
    if answer.body().size_hint().upper().is_some_and(|size| size < WORTHWHILE) {
        return answer;
    }
    answer.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let Some(coding) = coding else { return answer };
    let Some(reserved) = responding.besides(COMPRESSION_BYTES) else {
        COMPRESSION.reached();
        return answer;
    };
    answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    answer.map(|body| {
        let reader = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        match coding {
            Coding::Gzip => read(GzipEncoder::with_quality(reader, Level::Fastest), reserved),
            Coding::Zstd => {
                let window = [CParameter::window_log(WINDOW_LOG)];
                read(
                    ZstdEncoder::with_quality_and_params(reader, Level::Fastest, &window),
                    reserved,
                )
            }
        }
    })
}

/// Bytes in another form than they are in. Blocks for as long as that takes. Fails if they are not in the form that is said.
pub fn converted(bytes: &Bytes, from: Option<Coding>, to: Option<Coding>) -> io::Result<Bytes> {
    let read = |mut reader: Pin<&mut (dyn AsyncRead + Send)>| {
        let mut read = Vec::new();
        let ended =
            reader.read_to_end(&mut read).now_or_never().expect("bytes in memory are there");
        ended.map(|_| Bytes::from(read))
    };
    let plain = match from {
        None => bytes.clone(),
        Some(Coding::Gzip) => read(pin!(GzipDecoder::new(bytes.as_ref())))?,
        Some(Coding::Zstd) => read(pin!(ZstdDecoder::new(bytes.as_ref())))?,
    };
    match to {
        None => Ok(plain),
        Some(Coding::Gzip) => read(pin!(GzipEncoder::with_quality(plain.as_ref(), Level::Default))),
        Some(Coding::Zstd) => read(pin!(ZstdEncoder::with_quality(plain.as_ref(), Level::Default))),
    }
}

fn read(reader: impl AsyncRead + Send + 'static, reserved: Reservation) -> Body {
    Body::from_stream(ReaderStream::new(reader).map(move |data| {
        // Until the body is dropped.
        let _ = &reserved;
        data
    }))
}

/// Text, but not events: a proxy may delay them if they are compressed.
fn is_compressible(headers: &HeaderMap) -> bool {
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.ends_with("json") || essence.starts_with("text/") && essence != "text/event-stream"
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http_body_util::BodyExt;

    use super::*;
    use crate::limits::responses::ResponseMemory;

    fn headers(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_caller_chooses_how_an_answer_is_compressed() {
        let accepted = |value| Coding::accepted(&headers(header::ACCEPT_ENCODING, value));
        assert_eq!(accepted("gzip, deflate, br, zstd"), Some(Coding::Zstd));
        assert_eq!(accepted("gzip;q=1.0, zstd;q=0.5"), Some(Coding::Gzip));
        for none in ["", "br", "gzip;q=0", "identity, gzip;q=0.5", "*"] {
            assert_eq!(accepted(none), None, "{none}");
        }
    }

    #[test]
    fn a_request_that_is_compressed_otherwise_is_distinguished() {
        let given = |value| Coding::given(&headers(header::CONTENT_ENCODING, value));
        assert_eq!(given("GZIP"), Ok(Some(Coding::Gzip)));
        assert_eq!((given("zstd"), given("identity")), (Ok(Some(Coding::Zstd)), Ok(None)));
        assert_eq!((given("br"), given("gzip, gzip")), (Err(()), Err(())));
    }

    #[tokio::test]
    async fn what_is_compressed_comes_back_and_what_is_small_stays() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            for (size, packed) in
                [(1023, None), (1024, Some(coding.name())), (5_000_000, Some(coding.name()))]
            {
                let mut answer = Response::new(Body::from("x".repeat(size)));
                answer.headers_mut().insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/problem+json"),
                );
                let answer = compressed(answer, Some(coding), &ResponseMemory::new(4 << 20).open());
                let reported = answer
                    .headers()
                    .get(header::CONTENT_ENCODING)
                    .map(|value| value.to_str().unwrap());
                assert_eq!(
                    (reported, answer.headers().contains_key(header::VARY)),
                    (packed, packed.is_some()),
                    "{size}"
                );
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                assert!(packed.is_none() || body.len() < size / 2);
                let back = decompressed(Body::from(body), packed.map(|_| coding), Wire::default())
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes();
                assert_eq!(back, "x".repeat(size));
            }
        }
    }

    #[tokio::test]
    async fn what_may_last_and_what_there_is_no_memory_for_is_not_compressed() {
        let memory = ResponseMemory::new(1 << 20);
        let coded = |lasts: bool| {
            let mut answer = Response::new(Body::from("x".repeat(5_000)));
            answer
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
            if lasts {
                answer.extensions_mut().insert(Lasting);
            }
            let answer = compressed(answer, Some(Coding::Zstd), &memory.open());
            (answer.headers().contains_key(header::CONTENT_ENCODING), answer)
        };
        assert!(!coded(true).0);
        let first = coded(false);
        assert!(first.0 && !coded(false).0, "there is memory for one");
        drop(first);
        assert!(coded(false).0);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_distinguished_from_one_that_is_not_what_it_says() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let whole = converted(&Bytes::from("x".repeat(5_000)), None, Some(coding)).unwrap();
            let reported = async |chunks: Vec<io::Result<Bytes>>| {
                let sent = Body::from_stream(futures::stream::iter(chunks));
                mislabelled(
                    &decompressed(sent, Some(coding), Wire::default()).collect().await.unwrap_err(),
                )
            };
            assert_eq!(reported(vec![Ok(Bytes::from_static(b"{\"name\":1}"))]).await, Some(coding));
            assert_eq!(
                reported(vec![Ok(whole.slice(..whole.len() / 2))]).await,
                Some(coding),
                "it ends within"
            );
            assert_eq!(
                reported(vec![Ok(whole.slice(..9)), Err(io::Error::other("reset"))]).await,
                None
            );
        }
    }

    #[test]
    fn events_and_bytes_are_left_alone() {
        for (media_type, compressible) in [
            ("application/json; charset=utf-8", true),
            ("application/x-ndjson", true),
            ("text/csv", true),
            ("text/event-stream", false),
            ("image/png", false),
        ] {
            assert_eq!(
                is_compressible(&headers(header::CONTENT_TYPE, media_type)),
                compressible,
                "{media_type}"
            );
        }
    }
}
