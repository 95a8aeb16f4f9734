//! Services for the tests of layers.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tower::Service;

/// A request to a method, without a message.
pub(crate) fn request(path: &str) -> Request<Body> {
    Request::post(path).body(Body::empty()).expect("a path")
}

/// A service that responds to every call so.
pub(crate) fn answering(
    answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
+ Clone
+ Send
+ Sync
+ 'static {
    tower::service_fn(move |_: Request<Body>| std::future::ready(Ok(answer())))
}

/// A good response with one empty message.
pub(crate) fn ok() -> Response<Body> {
    ended_by(HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]))
}

/// One empty message, and then these trailers.
pub(crate) fn ended_by(trailers: HeaderMap) -> Response<Body> {
    let message = Full::new(Bytes::from_static(&[0; 5]));
    Response::new(Body::new(message.with_trailers(std::future::ready(Some(Ok(trailers))))))
}

/// The health service, a real one of tonic, which serves.
pub(crate) async fn health() -> (HealthReporter, Routes) {
    let (reporter, server) = tonic_health::server::health_reporter();
    (reporter, Routes::new(server))
}
