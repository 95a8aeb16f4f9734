//! Counts calls, and refuses those that are too many.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tonic::body::Body;

use super::around::{Around, Inner};
use super::refuse;
use crate::access::Caller;
use crate::error::Error;
use crate::jobs::Traffic;
use crate::limits::requests::CALLS;

/// Returns `unavailable` to calls past a number at once. It comes after authentication: only calls with a key count, so that callers
/// without one take no capacity from those who have. A call counts until the last byte of its response. Clones share one count, so all
/// listeners do.
#[derive(Clone, Debug)]
pub struct Load {
    permits: Arc<Semaphore>,
    traffic: Traffic,
}

impl Load {
    /// At most `limit` calls at once. All are counted in `traffic`.
    pub fn new(limit: usize, traffic: Traffic) -> Self {
        Load { permits: Arc::new(Semaphore::new(limit)), traffic }
    }
}

impl Around for Load {
    async fn around<S: Inner>(
        self,
        request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        if request.extensions().get::<Caller>().is_none() {
            return inner.call(request).await;
        }
        self.traffic.note();
        let Ok(permit) = self.permits.try_acquire_owned() else {
            CALLS.reached();
            return Ok(refuse(Error::unavailable(
                "Too many calls at once; try again in a moment.",
            )));
        };
        let answer = inner.call(request).await?;
        Ok(answer.map(|body| {
            Body::new(body.map_frame(move |frame| {
                // Keeps the permit until the body is dropped.
                let _ = &permit;
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
    use crate::access::{Key, Presented};
    use crate::server::layers::testing::{answering, ok, request};
    use crate::server::layers::{AroundLayer, code_of};

    fn caller() -> Caller {
        let key = Key::example(&[]);
        key.admit(Presented::example(), chrono::Utc::now()).expect("a key that has not ended")
    }

    async fn call<S>(service: &S, with_key: bool) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible>
            + Clone,
    {
        let mut request = request("/a.B/C");
        if with_key {
            request.extensions_mut().insert(caller());
        }
        service.clone().oneshot(request).await.expect("infallible")
    }

    #[tokio::test]
    async fn calls_past_the_limit_are_refused_until_an_answer_has_ended() {
        let layer = AroundLayer(Load::new(1, Traffic::default()));
        let (one_protocol, other_protocol) =
            (layer.layer(answering(ok)), layer.layer(answering(ok)));
        let first = call(&one_protocol, true).await;
        assert_eq!(code_of(first.headers()), None, "served; its status is in the trailers");

        let refused = call(&other_protocol, true).await;
        let status = Status::from_header_map(refused.headers()).expect("a status");
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_details_retry_info().is_some());

        first.into_body().collect().await.expect("a body");
        assert_eq!(code_of(call(&other_protocol, true).await.headers()), None);
    }

    #[tokio::test]
    async fn calls_without_a_key_take_no_permit_of_those_with_one() {
        let service = AroundLayer(Load::new(1, Traffic::default())).layer(answering(ok));
        let open = [call(&service, false).await, call(&service, false).await];
        assert_eq!(code_of(call(&service, true).await.headers()), None);
        drop(open);
    }
}
