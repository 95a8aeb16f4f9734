//! Refuses calls once the listeners close.

use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::around::{Around, Inner};
use super::methods::Methods;
use super::{HEALTH, refuse};
use crate::error::Error;
use crate::server::listener::Arrival;

/// Answers `unavailable` to every call that comes once the listeners close, over connections that were open before, and to calls of one message
/// that has not come whole by then: nothing was done of them. Health is answered in any case.
#[derive(Clone, Debug)]
pub struct Closing {
    methods: Methods,
    closing: CancellationToken,
}

impl Closing {
    /// None after `closing`, which is [`Drain::listeners`](crate::server::drain::Drain::listeners).
    pub fn new(methods: Methods, closing: CancellationToken) -> Self {
        Closing { methods, closing }
    }
}

impl Around for Closing {
    async fn around<S: Inner>(self, request: Request<Body>, mut inner: S) -> Result<Response<Body>, S::Error> {
        let path = request.uri().path();
        if path.starts_with(HEALTH) {
            return inner.call(request).await;
        }
        if self.closing.is_cancelled() {
            return Ok(refuse(ends()));
        }
        let streaming = self.methods.find(path).is_some_and(|method| method.streaming);
        let arrival = request.extensions().get::<Arrival>().filter(|arrival| !streaming && !arrival.is_whole()).cloned();
        let answer = inner.call(request);
        let Some(arrival) = arrival else { return answer.await };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answer = answer.as_mut() => return answer,
            () = self.closing.cancelled() => {}
        }
        if arrival.is_whole() { answer.await } else { Ok(refuse(ends())) }
    }
}

fn ends() -> Error {
    Error::unavailable("This replica is shutting down; another one will answer.")
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::server::layers::testing::{answering, ok, request};
    use crate::server::layers::{AroundLayer, code_of};

    #[tokio::test]
    async fn nothing_is_served_once_the_listeners_close_but_health() {
        let closing = CancellationToken::new();
        let service = AroundLayer(Closing::new(Methods::served(), closing.clone())).layer(answering(ok));
        let call = async |path| code_of(service.clone().oneshot(request(path)).await.expect("infallible").headers());
        assert_eq!(call("/a.B/C").await, None);
        closing.cancel();
        assert_eq!(call("/a.B/C").await, Some(Code::Unavailable));
        assert_eq!(call("/grpc.health.v1.Health/Check").await, None);
    }
}
