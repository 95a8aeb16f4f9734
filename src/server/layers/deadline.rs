//! Ends calls that take too long.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use super::around::{Around, Inner};
use super::ending::Ending;
use super::methods::Methods;
use super::refuse;
use crate::db::deadline;
use crate::error::{Code, Error, Form};
use crate::gateway;
use crate::limits::requests::CALL_TIME;
use crate::server::within::as_long_as;

/// How much sooner than the caller gives up the response is sent, so that it still finds the caller waiting.
const MARGIN: Duration = Duration::from_millis(10);

/// Returns `deadline_exceeded` to a call that did not end in time, and drops the call. The database gets the caller's time limit as well.
///
/// A unary call has the time that its caller gives it in `grpc-timeout`, and at most the service's own; a streaming call has what its caller
/// gives it, to the end of its response, and otherwise as long as it wants: an import is as long as its data. Health and reflection, which need no
/// key, have a time of their own.
#[derive(Clone, Debug)]
pub struct Deadline {
    methods: Methods,
    maximum: Duration,
}

impl Deadline {
    /// `maximum` is the most time that a unary call has, and its time when the caller names none.
    pub fn new(methods: Methods, maximum: Duration) -> Self {
        Deadline { methods, maximum }
    }
}

impl Around for Deadline {
    async fn around<S: Inner>(
        self,
        mut request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let method = self.methods.find(request.uri().path());
        let (streaming, at_most) = (
            method.is_some_and(|method| method.streaming),
            method.and_then(|method| method.at_most),
        );
        let timeout = given(request.headers()).unwrap_or_else(|fault| {
            Form::of(request.extensions_mut()).note(&fault.into_violations());
            None
        });
        let given = match (timeout, at_most) {
            (Some(given), Some(at_most)) => Some(given.min(at_most)),
            (given, at_most) => given.or(at_most),
        };
        let Some(time) = given.filter(|given| streaming || *given <= self.maximum) else {
            // The service sets the same time limit for a call as its sessions do for each statement.
            return match streaming {
                true => inner.call(request).await,
                false => tokio::time::timeout(self.maximum, inner.call(request))
                    .await
                    .unwrap_or_else(|_| Ok(refuse(exceeded()))),
            };
        };
        let ends = Instant::now() + time;
        let answer = deadline::until(ends, async move { inner.call(request).await });
        let answer =
            tokio::time::timeout(time, answer).await.unwrap_or_else(|_| Ok(refuse(exceeded())))?;
        if !streaming {
            return Ok(answer);
        }
        let over = tokio::time::sleep(ends.saturating_duration_since(Instant::now()))
            .map(|()| exceeded())
            .boxed();
        Ok(answer.map(|inner| Body::new(Limited { inner: Ending::new(inner, over), ends })))
    }
}

fn exceeded() -> Error {
    CALL_TIME.reached();
    let message =
        "The call took longer than its deadline; what it did so far may or may not be done.";
    Error::new(Code::DeadlineExceeded, message)
}

/// The time that the caller gives, less what the response takes to it. Of two times the shorter counts: libraries of gRPC may set one of their own.
fn given(headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    let in_units = headers.get("grpc-timeout").map(|header| {
        gateway::grpc_timeout(header)
            .ok_or_else(|| Error::invalid("Grpc-Timeout", "invalid", gateway::UNITS))
    });
    // By REST the gateway has made the other one of it.
    let in_seconds = headers.get("x-request-timeout").map(|header| {
        gateway::request_timeout(header)
            .ok_or_else(|| Error::invalid("X-Request-Timeout", "invalid", gateway::SECONDS))
    });
    let given = in_units.transpose()?.into_iter().chain(in_seconds.transpose()?).min();
    Ok(given.map(|given| given - MARGIN.min(given / 10)))
}

/// The body of a response, of which each part is made with the deadline that the whole has.
struct Limited {
    inner: Ending,
    ends: Instant,
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        deadline::until_sync(this.ends, || {
            http_body::Body::poll_frame(Pin::new(&mut this.inner), context)
        })
    }

    as_long_as!(inner);
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt;
    use http::HeaderValue;
    use http_body_util::{BodyExt, StreamBody};
    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::server::layers::testing::{ok, request};
    use crate::server::layers::{AroundLayer, code_of};

    const UNARY: &str = "/offboard.v1.EntityService/GetEntity";
    const STREAMING: &str = "/offboard.v1.EntityService/ImportEntities";

    /// Calls a service that takes this long, in paused time.
    async fn call(
        path: &str,
        timeout: Option<&'static str>,
        takes: Duration,
    ) -> Option<tonic::Code> {
        let service = tower::service_fn(move |_: Request<Body>| {
            tokio::time::sleep(takes).map(|()| Ok::<_, Infallible>(ok()))
        });
        let mut request = request(path);
        if let Some(timeout) = timeout {
            request.headers_mut().insert("grpc-timeout", HeaderValue::from_static(timeout));
        }
        let service =
            AroundLayer(Deadline::new(Methods::served(), Duration::from_secs(60))).layer(service);
        code_of(service.oneshot(request).await.expect("infallible").headers())
    }

    const EXCEEDED: Option<tonic::Code> = Some(tonic::Code::DeadlineExceeded);
    const SERVED: Option<tonic::Code> = None;

    #[tokio::test(start_paused = true)]
    async fn the_callers_deadline_is_kept() {
        assert_eq!(call(UNARY, Some("500m"), Duration::from_millis(600)).await, EXCEEDED);
        assert_eq!(call(UNARY, Some("500m"), Duration::from_millis(400)).await, SERVED);
        assert_eq!(call(STREAMING, Some("1S"), Duration::from_secs(2)).await, EXCEEDED);
    }

    #[test]
    fn a_time_in_seconds_counts_as_well_and_the_shorter_of_two_does() {
        let given = |pairs: &[(&'static str, &'static str)]| {
            given(
                &pairs
                    .iter()
                    .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
                    .collect(),
            )
        };
        let millis = |pairs: &[(&'static str, &'static str)]| {
            given(pairs).unwrap().map(|time| time.as_millis())
        };
        assert_eq!(millis(&[("x-request-timeout", "2.5")]), Some(2_490));
        assert_eq!(millis(&[("x-request-timeout", "2.5"), ("grpc-timeout", "1S")]), Some(990));
        assert_eq!(millis(&[("x-request-timeout", "0.5"), ("grpc-timeout", "1S")]), Some(490));
        assert_eq!(millis(&[]), None);
        assert!(
            given(&[("x-request-timeout", "soon")]).is_err()
                && given(&[("x-request-timeout", "0")]).is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_comes_before_the_caller_gives_up() {
        assert_eq!(call(UNARY, Some("500m"), Duration::from_millis(495)).await, EXCEEDED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_unary_call_ends_by_the_services_own_deadline_at_the_latest() {
        assert_eq!(call(UNARY, None, Duration::from_secs(61)).await, EXCEEDED);
        assert_eq!(call(UNARY, Some("2H"), Duration::from_secs(61)).await, EXCEEDED);
        assert_eq!(call(UNARY, None, Duration::from_secs(59)).await, SERVED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_a_deadline_may_take_any_time() {
        assert_eq!(call(STREAMING, None, Duration::from_secs(3600)).await, SERVED);
    }

    #[tokio::test(start_paused = true)]
    async fn who_needs_no_key_has_a_time_whatever_it_asks_for() {
        const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        for timeout in [None, Some("2H")] {
            assert_eq!(call(REFLECTION, timeout, Duration::from_secs(61)).await, EXCEEDED);
            assert_eq!(call(REFLECTION, timeout, Duration::from_secs(59)).await, SERVED);
            assert_eq!(
                call("/grpc.health.v1.Health/Check", timeout, Duration::from_secs(6)).await,
                EXCEEDED
            );
            assert_eq!(
                call("/grpc.health.v1.Health/Watch", timeout, Duration::from_secs(3601)).await,
                EXCEEDED
            );
        }
        assert_eq!(call(REFLECTION, Some("1S"), Duration::from_secs(2)).await, EXCEEDED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_by_the_deadline_of_its_caller() {
        let endless = tower::service_fn(|_: Request<Body>| {
            let frames = futures::stream::repeat(())
                .then(|()| tokio::time::sleep(Duration::from_millis(100)));
            let frames = frames.map(|()| Ok::<_, Status>(Frame::data(Bytes::from_static(&[0; 5]))));
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::new(StreamBody::new(
                frames,
            )))))
        });
        let mut request = request(STREAMING);
        request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("1S"));
        let service =
            AroundLayer(Deadline::new(Methods::served(), Duration::from_secs(60))).layer(endless);
        let body = service
            .oneshot(request)
            .await
            .expect("infallible")
            .into_body()
            .collect()
            .await
            .expect("a body that ends");
        assert_eq!(code_of(body.trailers().expect("trailers")), EXCEEDED);
        assert_eq!(body.to_bytes().len(), 9 * 5);
    }
}
