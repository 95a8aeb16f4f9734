//! The requests of a connection, from their heads to the last byte of their answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Answer;
use super::activity::Activity;

/// How a request is arriving: among the extensions of every request of a listener.
#[derive(Clone, Debug)]
pub struct Arrival {
    connection: Arc<Activity>,
    is_whole: Arc<AtomicBool>,
}

impl Arrival {
    /// Whether all of the request is there, its body included.
    pub fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Relaxed)
    }

    /// Whether the request may be one that says twice how its body ends, by a length that nobody sees any more.
    pub fn is_confusing(&self) -> bool {
        self.connection.is_confusing()
    }

    /// Closes the connection that the request came by, with all that is on it.
    pub fn cut(&self) {
        self.connection.cut();
    }
}

/// The body of a request, as it arrives.
#[derive(Debug)]
pub struct Arriving {
    inner: Incoming,
    is_whole: Arc<AtomicBool>,
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let poll = Pin::new(&mut self.inner).poll_frame(context);
        if matches!(poll, Poll::Ready(None)) || self.inner.is_end_stream() {
            self.is_whole.store(true, Ordering::Relaxed);
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Answers the requests of one connection.
pub struct Requests<A> {
    answer: A,
    peer: SocketAddr,
    activity: Arc<Activity>,
}

impl<A: Answer> Requests<A> {
    /// Those of this peer, noted in `activity`.
    pub fn new(answer: A, peer: SocketAddr, activity: Arc<Activity>) -> Self {
        Requests { answer, peer, activity }
    }
}

impl<A: Answer> hyper::service::Service<Request<Incoming>> for Requests<A> {
    type Response = Response<Answering<A::Body>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let running = Running::begin(&self.activity, request.version() == Version::HTTP_2);
        let is_whole = Arc::new(AtomicBool::new(request.body().is_end_stream()));
        let mut request = request.map(|inner| Arriving { inner, is_whole: is_whole.clone() });
        request.extensions_mut().insert(Arrival { connection: self.activity.clone(), is_whole });
        let answer = self.answer.answer(request, self.peer);
        answer.map(|answer| Ok(answer.map(|inner| Answering { inner, _running: running }))).boxed()
    }
}

/// A request that is being answered.
struct Running(Arc<Activity>);

impl Running {
    fn begin(activity: &Arc<Activity>, is_http2: bool) -> Self {
        activity.begin(is_http2);
        Running(activity.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The body of an answer: while it is there, its request is not over.
pub struct Answering<B> {
    inner: B,
    _running: Running,
}

impl<B: Body + Unpin> Body for Answering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
