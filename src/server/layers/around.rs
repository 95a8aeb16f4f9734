//! The frame of layers that do something before a call, after it, or in its place.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

/// The work of a layer around a call.
pub trait Around: Clone + Send + Sync + 'static {
    /// Serves the request, by way of the service within or without it.
    fn around<S>(
        self,
        request: Request<Body>,
        inner: S,
    ) -> impl Future<Output = Result<Response<Body>, S::Error>> + Send
    where
        S: Inner;
}

/// The service within, to be called once.
pub trait Inner:
    Service<Request<Body>, Response = Response<Body>, Future: Send, Error: Send> + Send + 'static
{
}
impl<
    S: Service<Request<Body>, Response = Response<Body>, Future: Send, Error: Send> + Send + 'static,
> Inner for S
{
}

/// A layer that does this around each call.
#[derive(Clone)]
pub struct AroundLayer<A>(pub A);

impl<A: Clone, S> Layer<S> for AroundLayer<A> {
    type Service = AroundService<A, S>;

    fn layer(&self, inner: S) -> Self::Service {
        AroundService(Arc::new((self.0.clone(), inner)))
    }
}

/// See [`AroundLayer`]. Clones share the inner service, so that a call costs one more reference for each layer and not a copy of all
/// layers.
pub struct AroundService<A, S>(Arc<(A, S)>);

impl<A, S> Clone for AroundService<A, S> {
    fn clone(&self) -> Self {
        AroundService(self.0.clone())
    }
}

impl<A: Around, S: Inner + Clone + Sync> Service<Request<Body>> for AroundService<A, S> {
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    /// Always ready, as the services and all layers are: a call that has to wait does so within itself.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (around, inner) = &*self.0;
        around.clone().around(request, inner.clone()).boxed()
    }
}
