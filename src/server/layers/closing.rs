//! Refuses calls once the listeners close, and ends those that would be cut off.

use std::pin::pin;
use std::time::Duration;

use futures::FutureExt;
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::around::{Around, Inner};
use super::ending::Ending;
use super::methods::Methods;
use super::{HEALTH, refuse};
use crate::error::Error;
use crate::limits::listeners::{HEALTH_FAREWELL, HEALTH_FAREWELL_MILLIS};
use crate::limits::requests::LAST_WORDS;
use crate::server::listener::Arrival;

/// How long a watch of health stays once the listeners close, to report that nothing is served any more.
const FAREWELL: Duration = Duration::from_millis(HEALTH_FAREWELL_MILLIS);

/// Returns `unavailable` to every call that comes once the listeners close, over connections that were open before, and to calls of one message
/// that has not come whole by then: nothing was done of them. Health is served in any case.
///
/// Calls that run then have time to end. Those that have not when it is nearly over end with `unavailable`, so that none is cut off without a
/// word; streams that serve no caller with a key, such as watches of health, end at once.
#[derive(Clone, Debug)]
pub struct Closing {
    methods: Methods,
    closing: CancellationToken,
    ending: CancellationToken,
}

impl Closing {
    /// None after `closing`, which is [`Drain::listeners`](crate::server::drain::Drain::listeners), and an end to all by `ending`, which is
    /// [`Drain::calls`](crate::server::drain::Drain::calls).
    pub fn new(methods: Methods, closing: CancellationToken, ending: CancellationToken) -> Self {
        Closing { methods, closing, ending }
    }
}

impl Closing {
    /// Waits until a call that runs is to end, and says why it does.
    fn over(&self, probe: bool) -> impl Future<Output = Error> + Send + 'static {
        let (closing, ending) = (self.closing.clone(), self.ending.clone());
        async move {
            if probe {
                closing.cancelled().await;
                tokio::time::sleep(FAREWELL).await;
                HEALTH_FAREWELL.reached();
            } else {
                ending.cancelled().await;
                LAST_WORDS.reached();
            }
            Error::unavailable(
                "This replica is shutting down, and the call did not end in time; what it did so far may or may not be done.",
            )
        }
    }
}

impl Around for Closing {
    async fn around<S: Inner>(
        self,
        request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let path = request.uri().path();
        let (streaming, probe) = self
            .methods
            .find(path)
            .map_or((false, false), |method| (method.streaming, method.probe));
        if self.closing.is_cancelled() && !path.starts_with(HEALTH) {
            return Ok(refuse(ends()));
        }
        let arrival =
            request.extensions().get::<Arrival>().filter(|arrival| !arrival.is_whole()).cloned();
        let mut answer = pin!(inner.call(request));
        if streaming {
            let mut over = self.over(probe).boxed();
            return tokio::select! {
                biased;
                answer = answer => answer.map(|answer| answer.map(|body| Body::new(Ending::new(body, over)))),
                error = &mut over => Ok(refuse(error)),
            };
        }
        if let Some(arrival) = arrival.filter(|_| !probe) {
            tokio::select! {
                biased;
                answer = answer.as_mut() => return answer,
                () = self.closing.cancelled() => {}
            }
            if !arrival.is_whole() {
                return Ok(refuse(ends()));
            }
        }
        tokio::select! {
            biased;
            answer = answer => answer,
            error = self.over(probe) => Ok(refuse(error)),
        }
    }
}

fn ends() -> Error {
    Error::unavailable("This replica is shutting down; another one will respond.")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt;
    use tonic::Code;
    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::server::layers::testing::{answering, ok, request};
    use crate::server::layers::{AroundLayer, code_of};

    fn layer() -> (CancellationToken, CancellationToken, AroundLayer<Closing>) {
        let (closing, ending) = (CancellationToken::new(), CancellationToken::new());
        (
            closing.clone(),
            ending.clone(),
            AroundLayer(Closing::new(Methods::served(), closing, ending)),
        )
    }

    #[tokio::test]
    async fn nothing_is_served_once_the_listeners_close_but_health() {
        let (closing, _, layer) = layer();
        let service = layer.layer(answering(ok));
        let call = async |path| {
            code_of(service.clone().oneshot(request(path)).await.expect("infallible").headers())
        };
        assert_eq!(call("/a.B/C").await, None);
        closing.cancel();
        assert_eq!(call("/a.B/C").await, Some(Code::Unavailable));
        assert_eq!(call("/grpc.health.v1.Health/Check").await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_would_be_cut_off_ends_with_a_word() {
        let (closing, ending, layer) = layer();
        let never = layer.layer(tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, Infallible>>()
        }));
        let call = tokio::spawn(never.oneshot(request("/offboard.v1.EntityService/GetEntity")));
        tokio::time::sleep(Duration::from_secs(1)).await;
        closing.cancel();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!call.is_finished(), "it has time to end");
        ending.cancel();
        let answer = call.await.expect("no panic").expect("infallible");
        assert_eq!(code_of(answer.headers()), Some(Code::Unavailable));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_would_be_cut_off_ends_with_a_word_and_one_of_health_at_once() {
        let (closing, ending, layer) = layer();
        let endless = tower::service_fn(|_: Request<Body>| {
            let frames =
                futures::stream::pending::<Result<http_body::Frame<bytes::Bytes>, tonic::Status>>();
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::new(
                http_body_util::StreamBody::new(frames),
            ))))
        });
        let stream = |path| {
            let answer = layer.clone().layer(endless).oneshot(request(path));
            tokio::spawn(
                async move { answer.await.expect("infallible").into_body().collect().await },
            )
        };
        let (export, watch) = (
            stream("/offboard.v1.PortfolioService/ExportPortfolio"),
            stream("/grpc.health.v1.Health/Watch"),
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        closing.cancel();
        let ended = watch.await.expect("no panic").expect("a body that ends");
        assert_eq!(code_of(ended.trailers().expect("trailers")), Some(Code::Unavailable));
        assert!(!export.is_finished(), "it has time to end");
        ending.cancel();
        let ended = export.await.expect("no panic").expect("a body that ends");
        assert_eq!(code_of(ended.trailers().expect("trailers")), Some(Code::Unavailable));
    }
}
