//! Counts calls, and refuses those that are too many, or too late.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::around::{Around, Inner};
use super::refuse;
use crate::error::Error;
use crate::jobs::Traffic;
use crate::limits::requests::CALLS;

/// The number of calls at once that suits most deployments: many times what a pool of connections can work on, so that only a queue
/// without an end is refused.
pub const DEFAULT_LIMIT: usize = 1024;

/// Answered in any case: an orchestrator that cannot ask how the service is would end it for being busy, which makes the others busier.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// Answers `unavailable` to calls past a number at once, and to every new call once the listeners close. A call counts until the last byte of
/// its answer. Clones share one count, so both doors do.
#[derive(Clone, Debug)]
pub struct Load {
    slots: Arc<Semaphore>,
    closing: CancellationToken,
    traffic: Traffic,
}

impl Load {
    /// At most `limit` calls at once, and none after `closing`, which is [`Drain::listeners`](crate::server::drain::Drain::listeners): calls
    /// still come in over connections that were open before. All are counted in `traffic`.
    pub fn new(limit: usize, closing: CancellationToken, traffic: Traffic) -> Self {
        Load { slots: Arc::new(Semaphore::new(limit)), closing, traffic }
    }
}

impl Around for Load {
    async fn around<S: Inner>(self, request: Request<Body>, mut inner: S) -> Result<Response<Body>, S::Error> {
        if request.uri().path().starts_with(HEALTH) {
            return inner.call(request).await;
        }
        self.traffic.note();
        if self.closing.is_cancelled() {
            return Ok(refuse(Error::unavailable("This replica is shutting down; another one will answer.")));
        }
        let Ok(slot) = self.slots.try_acquire_owned() else {
            CALLS.reached();
            return Ok(refuse(Error::unavailable("Too many calls at once; try again in a moment.")));
        };
        let answer = inner.call(request).await?;
        Ok(answer.map(|body| {
            Body::new(body.map_frame(move |frame| {
                // Holds the slot until the body is dropped.
                let _ = &slot;
                frame
            }))
        }))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tonic::{Code, Status};
    use tonic_types::StatusExt;
    use tower::{Layer, Service, ServiceExt};

    use super::*;
    use crate::server::layers::testing::{answering, ok, request};
    use crate::server::layers::{AroundLayer, code_of};

    async fn call<S>(service: &S, path: &str) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible> + Clone,
    {
        service.clone().oneshot(request(path)).await.expect("infallible")
    }

    #[tokio::test]
    async fn calls_past_the_limit_are_refused_until_an_answer_has_ended() {
        let layer = AroundLayer(Load::new(1, CancellationToken::new(), Traffic::default()));
        let (one_door, other_door) = (layer.layer(answering(ok)), layer.layer(answering(ok)));
        let first = call(&one_door, "/a.B/C").await;
        assert_eq!(code_of(first.headers()), None, "served; its status is in the trailers");

        let refused = call(&other_door, "/a.B/C").await;
        let status = Status::from_header_map(refused.headers()).expect("a status");
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_details_retry_info().is_some());

        first.into_body().collect().await.expect("a body");
        assert_eq!(code_of(call(&other_door, "/a.B/C").await.headers()), None);
    }

    #[tokio::test]
    async fn nothing_is_served_once_the_listeners_close_but_health() {
        let closing = CancellationToken::new();
        let service = AroundLayer(Load::new(8, closing.clone(), Traffic::default())).layer(answering(ok));
        assert_eq!(code_of(call(&service, "/a.B/C").await.headers()), None);
        closing.cancel();
        assert_eq!(code_of(call(&service, "/a.B/C").await.headers()), Some(Code::Unavailable));
        assert_eq!(code_of(call(&service, "/grpc.health.v1.Health/Check").await.headers()), None);
    }
}
