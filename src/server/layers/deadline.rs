//! Ends calls that take too long.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use super::methods::Methods;
use super::refuse;
use crate::error::{Code, Error};

/// How much sooner than the caller gives up it is answered, so that the answer still finds it waiting.
const MARGIN: Duration = Duration::from_millis(10);

/// Answers `deadline_exceeded` to a call whose answer has not begun in time, and drops the call.
///
/// A unary call has the time that its caller gives it in `grpc-timeout`, and at most the service's own; a streaming call has what its caller
/// gives it, and otherwise as long as it wants: an import is as long as its data.
#[derive(Clone, Debug)]
pub struct DeadlineLayer {
    methods: Methods,
    maximum: Duration,
}

impl DeadlineLayer {
    /// `maximum` is the most time that a unary call has, and what it has when its caller says nothing.
    pub fn new(methods: Methods, maximum: Duration) -> Self {
        DeadlineLayer { methods, maximum }
    }

    /// The time that a call has.
    fn time_for(&self, path: &str, headers: &HeaderMap) -> Option<Duration> {
        let given = headers.get("grpc-timeout").and_then(|header| parse(header.to_str().ok()?));
        let given = given.map(|time| time - MARGIN.min(time / 10));
        if self.methods.find(path).is_some_and(|method| method.streaming) {
            return given;
        }
        Some(given.map_or(self.maximum, |time| time.min(self.maximum)))
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner, deadline: self.clone() }
    }
}

/// See [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineService<S> {
    inner: S,
    deadline: DeadlineLayer,
}

impl<S> Service<Request<Body>> for DeadlineService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let time = self.deadline.time_for(request.uri().path(), request.headers());
        let answer = self.inner.call(request);
        let Some(time) = time else { return answer.boxed() };
        async move {
            tokio::time::timeout(time, answer).await.unwrap_or_else(|_| {
                let message = "The call took longer than its deadline; what it did so far may or may not be done.";
                Ok(refuse(Error::new(Code::DeadlineExceeded, message)))
            })
        }
        .boxed()
    }
}

/// Reads `grpc-timeout`: at most 8 digits and a unit, as the specification of gRPC over HTTP/2 has it.
fn parse(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::HeaderValue;
    use tower::ServiceExt;

    use super::*;
    use crate::server::layers::code_of;
    use crate::server::layers::testing::{ok, request};

    const UNARY: &str = "/offboard.v1.EntityService/GetEntity";
    const STREAMING: &str = "/offboard.v1.EntityService/ImportEntities";

    /// Calls a service that takes this long, in paused time.
    async fn call(path: &str, timeout: Option<&'static str>, takes: Duration) -> Option<tonic::Code> {
        let service = tower::service_fn(move |_: Request<Body>| tokio::time::sleep(takes).map(|()| Ok::<_, Infallible>(ok())));
        let mut request = request(path);
        if let Some(timeout) = timeout {
            request.headers_mut().insert("grpc-timeout", HeaderValue::from_static(timeout));
        }
        let service = DeadlineLayer::new(Methods::served(), Duration::from_secs(60)).layer(service);
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

    #[test]
    fn a_timeout_is_read_as_the_specification_has_it() {
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse("3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse("99999999u"), Some(Duration::from_micros(99_999_999)));
        for wrong in ["", "S", "1", "+1S", "100000000S", "1x", "1é", "-1S"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
