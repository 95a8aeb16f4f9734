//! The frame of layers that do something before a call, after it, or in its place.

use std::future::Future;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

/// What a layer does around a call.
pub trait Around: Clone + Send + Sync + 'static {
    /// Answers the request, by way of the service within or without it.
    fn around<S>(self, request: Request<Body>, inner: S) -> impl Future<Output = Result<Response<Body>, S::Error>> + Send
    where
        S: Inner;
}

/// The service within, ready to be called once.
pub trait Inner: Service<Request<Body>, Response = Response<Body>, Future: Send, Error: Send> + Send + 'static {}
impl<S: Service<Request<Body>, Response = Response<Body>, Future: Send, Error: Send> + Send + 'static> Inner for S {}

/// A layer that does this around each call.
#[derive(Clone)]
pub struct AroundLayer<A>(pub A);

impl<A: Clone, S> Layer<S> for AroundLayer<A> {
    type Service = AroundService<A, S>;

    fn layer(&self, inner: S) -> Self::Service {
        AroundService { around: self.0.clone(), inner }
    }
}

/// See [`AroundLayer`].
#[derive(Clone)]
pub struct AroundService<A, S> {
    around: A,
    inner: S,
}

impl<A: Around, S: Inner + Clone> Service<Request<Body>> for AroundService<A, S> {
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The instance that was asked for its readiness is the one to call.
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        self.around.clone().around(request, inner).boxed()
    }
}
