//! The requests of a connection, from their heads to the last byte of their responses.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower::BoxError;

use super::Answer;
use super::activity::Activity;
use super::discard;
use super::permits::{Crowded, PermitHandle};
use crate::error::Left;
use crate::limits::listeners::{AWAITED_REST, UNREAD_TIME};
use crate::limits::responses::Cut;
use crate::server::client::{Client, Proxies};

/// How long a refusal waits for the rest of its request. A client that reads it earlier may end its request short of the length that it has given,
/// and the HTTP library resets the stream for that, with what has not been sent of the refusal.
const BEFORE_REFUSAL: Duration = Duration::from_secs(2);

/// How a request is arriving: among the extensions of every request of a listener.
#[derive(Clone, Debug)]
pub struct Arrival {
    connection: Arc<Activity>,
    permit: PermitHandle,
    is_whole: Arc<AtomicBool>,
    /// True if its caller has shown a valid key.
    has_key: Arc<AtomicBool>,
}

impl Arrival {
    /// Returns whether all of the request is there, its body included.
    pub fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Relaxed)
    }

    /// Returns whether the request may be one that says twice how its body ends, by a length that nobody sees any more.
    pub fn is_confusing(&self) -> bool {
        self.connection.is_confusing()
    }

    /// Notes that the caller has shown a valid key of this realm: its connection is kept before those of others, and is one of its realm's. Fails
    /// where the realm has its share of connections.
    pub fn prove(&self, realm: i32) -> Result<(), Crowded> {
        self.permit.own(realm)?;
        if !self.has_key.swap(true, Ordering::Relaxed) {
            self.connection.prove();
        }
        Ok(())
    }

    /// Notes that the caller has shown none, or one that is not valid any more.
    pub fn disprove(&self) {
        if self.connection.disprove() {
            self.permit.disown();
        }
    }

    /// Closes the connection that the request came by, with all that is on it.
    pub fn cut(&self) {
        self.connection.cut();
    }
}

/// The body of a request, as it arrives.
#[derive(Debug)]
pub struct Arriving {
    is_http2: bool,
    /// There until it is dropped.
    inner: Option<Incoming>,
    is_whole: Arc<AtomicBool>,
    /// Where the rest of a request is sent that nobody reads, if the response is not to be lost.
    rest: Option<oneshot::Sender<Incoming>>,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some((rest, inner)) = self
            .rest
            .take()
            .zip(self.inner.take())
            .filter(|_| !self.is_whole.load(Ordering::Relaxed))
        {
            // Without a response, nothing can be lost by closing.
            let _ = rest.send(inner);
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(inner) = self.inner.as_mut() else { return Poll::Ready(None) };
        let poll = Pin::new(&mut *inner).poll_frame(context);
        if matches!(poll, Poll::Ready(None | Some(Err(_)))) || inner.is_end_stream() {
            self.is_whole.store(true, Ordering::Relaxed);
        }
        poll.map_err(
            |error| if self.has_left(&error) { Left(error.into()).into() } else { error.into() },
        )
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Arriving {
    /// Returns whether a body that breaks off does so since its sender has left. Over HTTP/2 nobody reads a response in any case.
    fn has_left(&self, error: &hyper::Error) -> bool {
        let is_malformed = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
        };
        self.is_http2
            || !error.source().and_then(|cause| cause.downcast_ref()).is_some_and(is_malformed)
    }
}

/// Serves the requests of one connection.
pub struct Requests<A> {
    answer: A,
    /// The client of the connection, and the port that it comes from.
    client: Client,
    port: u16,
    proxies: Proxies,
    activity: Arc<Activity>,
    permit: PermitHandle,
    cut: Cut,
    closing: CancellationToken,
}

impl<A: Answer> Requests<A> {
    /// Those of this client, or of those whom it names if it is one of the proxies, noted in `activity`.
    pub fn new(
        answer: A,
        (client, port, proxies): (Client, u16, Proxies),
        (activity, permit): (Arc<Activity>, PermitHandle),
        closing: CancellationToken,
    ) -> Self {
        let connection = activity.clone();
        let cut = Cut::new(move || {
            UNREAD_TIME.reached();
            connection.cut();
        });
        Requests { answer, client, port, proxies, activity, permit, cut, closing }
    }
}

impl<A: Answer> hyper::service::Service<Request<Incoming>> for Requests<A> {
    type Response = Response<Answering<A::Body>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let is_http2 = request.version() == Version::HTTP_2;
        let running = Running::begin(&self.activity, is_http2);
        let is_whole = Arc::new(AtomicBool::new(request.body().is_end_stream()));
        let may_be_left = !request.body().is_end_stream() && (!is_http2 || A::WAITS_FOR_REST);
        let (rest, left) = may_be_left.then(oneshot::channel).unzip();
        let comes_soon = discard::comes_soon(&request);
        let mut request = request.map(|inner| Arriving {
            is_http2,
            inner: Some(inner),
            is_whole: is_whole.clone(),
            rest,
        });
        let has_key = running.has_key.clone();
        let (connection, permit) = (self.activity.clone(), self.permit.clone());
        let client = self.proxies.client(self.client, request.headers());
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(self.cut.clone());
        request.extensions_mut().insert(Arrival {
            connection,
            permit,
            is_whole: is_whole.clone(),
            has_key,
        });
        let (left, left_open) = if is_http2 { (left, None) } else { (None, left) };
        let is_there = is_whole.clone();
        let mut left = left.map(|rest| Rest {
            is_whole,
            discarded: discard::body(rest, self.closing.clone()).boxed(),
        });
        let answer = self.answer.answer(request, SocketAddr::new(client.counted, self.port));
        let answered = async move {
            let mut answer = answer.await;
            if is_trailers_only(answer.headers()) {
                left = None;
            }
            let is_refusal = answer.status().is_client_error() || answer.status().is_server_error();
            if is_refusal
                && let Some(rest) = left_open
                && !(comes_soon && discard::soon(rest).await)
                && !is_there.load(Ordering::Relaxed)
            {
                AWAITED_REST.reached();
                // The library closes the connection, and a client that does not learn of it sends its next request in vain.
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            if is_refusal
                && let Some(rest) = &mut left
                && timeout(BEFORE_REFUSAL, &mut rest.discarded).await.is_ok()
            {
                left = None;
            }
            Ok(answer.map(|inner| Answering { inner: Some(inner), left, _running: running }))
        };
        answered.boxed()
    }
}

/// Returns whether a response of gRPC is over with its headers, which then have to end the stream: clients take no others for the end, and
/// they do not mind that it ends before their request.
fn is_trailers_only(headers: &HeaderMap) -> bool {
    headers.contains_key(Status::GRPC_STATUS)
}

/// A request that is being served.
struct Running {
    connection: Arc<Activity>,
    has_key: Arc<AtomicBool>,
}

impl Running {
    fn begin(activity: &Arc<Activity>, is_http2: bool) -> Self {
        activity.begin(is_http2);
        Running { connection: activity.clone(), has_key: Arc::default() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.connection.end(self.has_key.load(Ordering::Relaxed));
    }
}

/// How much of its request a response may leave unread.
struct Rest {
    is_whole: Arc<AtomicBool>,
    discarded: BoxFuture<'static, ()>,
}

/// The body of a response: while it is there, its request is not over.
pub struct Answering<B> {
    /// There until it has ended.
    inner: Option<B>,
    left: Option<Rest>,
    _running: Running,
}

impl<B: Body + Unpin> Body for Answering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if let Some(inner) = &mut self.inner {
            if let Some(frame) = ready!(Pin::new(inner).poll_frame(context)) {
                return Poll::Ready(Some(frame));
            }
            // A response that reads its request while it is sent leaves the unread rest.
            self.inner = None;
        }
        if let Some(left) = &mut self.left {
            ready!(left.discarded.as_mut().poll(context));
            self.left = None;
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        let nothing_left =
            self.left.as_ref().is_none_or(|left| left.is_whole.load(Ordering::Relaxed));
        nothing_left && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
