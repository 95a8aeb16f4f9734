//! Makes a failure of a panic, so that one bad call costs no other.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use super::around::{Around, Inner};
use super::refuse;
use crate::error::{Error, panic_text};
use crate::server::within::as_long_as;

/// Returns `internal` when the service panics: before its response, or in the middle of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Panics;

impl Around for Panics {
    async fn around<S: Inner>(
        self,
        request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        // The state of a panicked call is dropped with it; what calls share is behind locks and transactions, which handle panics.
        match AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind().await {
            Ok(Ok(answer)) => Ok(answer.map(|inner| Body::new(GuardedBody { inner }))),
            Ok(Err(error)) => Err(error),
            Err(panic) => Ok(refuse(error_of(&*panic))),
        }
    }
}

/// The body of a response, which ends with `internal` should it panic.
struct GuardedBody {
    inner: Body,
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let inner = &mut self.inner;
        catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(context))).unwrap_or_else(
            |panic| {
                // A future that panicked must not be polled again.
                self.inner = Body::empty();
                let mut trailers = HeaderMap::new();
                let status = Status::from(error_of(&*panic));
                Poll::Ready(Some(
                    status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)),
                ))
            },
        )
    }

    as_long_as!(inner);
}

fn error_of(panic: &(dyn Any + Send)) -> Error {
    Error::internal(format!("panic: {}", panic_text(panic)))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, StreamBody};
    use tonic_types::StatusExt;
    use tower::{Layer, Service, ServiceExt};

    use super::*;
    use crate::server::layers::testing::{answering, ended_by, ok, request};
    use crate::server::layers::{AroundLayer, Failures, RequestIds, code_of};
    use crate::telemetry::LogFormat;
    use crate::telemetry::testing::Capture;

    #[tokio::test]
    async fn a_panic_becomes_internal_with_the_request_id_and_the_next_call_works() {
        let capture = Capture::start("info", LogFormat::Json);
        let service = tower::service_fn(async |request: Request<Body>| {
            assert!(request.uri().path() != "/a.B/Panic", "table hunter2 is on fire");
            Ok::<_, Infallible>(ok())
        });
        let mut service = AroundLayer(RequestIds)
            .layer(AroundLayer(Failures::new(4, None)).layer(AroundLayer(Panics).layer(service)));

        let answer = service
            .ready()
            .await
            .expect("ready")
            .call(request("/a.B/Panic"))
            .await
            .expect("infallible");
        let status = Status::from_header_map(answer.headers()).expect("a status");
        assert_eq!(status.code(), tonic::Code::Internal);
        let details = status.get_error_details();
        assert_eq!(details.error_info().expect("info").reason, "INTERNAL");
        let id = &details.request_info().expect("request info").request_id;
        assert_eq!(answer.headers()["x-request-id"], id.as_str());
        assert!(!format!("{status:?}").contains("hunter2"));
        assert!(capture.text().contains("hunter2"), "the log has the cause");

        let answer = service
            .ready()
            .await
            .expect("ready")
            .call(request("/a.B/Fine"))
            .await
            .expect("infallible");
        let body = answer.into_body().collect().await.expect("a body");
        assert_eq!(code_of(body.trailers().expect("trailers")), Some(tonic::Code::Ok));
    }

    #[tokio::test]
    async fn a_panic_before_the_first_await_is_caught_too() {
        let service = AroundLayer(Panics).layer(answering(|| panic!("at once")));
        let answer = service.oneshot(request("/a.B/C")).await.expect("infallible");
        assert_eq!(code_of(answer.headers()), Some(tonic::Code::Internal));
    }

    #[tokio::test]
    async fn a_panic_in_the_middle_of_a_stream_ends_it_with_internal() {
        let broken = || {
            let frames = futures::stream::iter([1, 2]).map(|n| {
                assert!(n < 2, "mid-stream");
                Ok::<_, Status>(Frame::data(Bytes::from_static(&[0; 5])))
            });
            let mut answer = ended_by(HeaderMap::new());
            *answer.body_mut() = Body::new(StreamBody::new(frames));
            answer
        };
        use futures::StreamExt;
        let answer = AroundLayer(Panics)
            .layer(answering(broken))
            .oneshot(request("/a.B/C"))
            .await
            .expect("infallible");
        let body = answer.into_body().collect().await.expect("a body that ends");
        let trailers = body.trailers().expect("trailers").clone();
        assert_eq!(code_of(&trailers), Some(tonic::Code::Internal));
        assert_eq!(body.to_bytes().len(), 5);
    }
}
