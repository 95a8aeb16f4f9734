//! Gives every call an id: the caller's own if it is sane, and else a new one.

use http::{HeaderName, HeaderValue, Request, Response};
use tonic::body::Body;

use super::around::{Around, Inner};
use crate::gateway::request_id::sane_or_new;

/// Where the id is, in requests and in responses.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a call, among the extensions of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

/// Puts a [`RequestId`] among the extensions of each request, and `x-request-id` into each response.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestIds;

impl Around for RequestIds {
    async fn around<S: Inner>(
        self,
        mut request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let id = sane_or_new(request.headers().get(HEADER).and_then(|given| given.to_str().ok()));
        let header = HeaderValue::try_from(&id).expect("an id is ASCII letters, digits and marks");
        // The header too, so that nothing below can read another id than the extension's.
        request.headers_mut().insert(HEADER, header.clone());
        request.extensions_mut().insert(RequestId(id));
        let mut answer = inner.call(request).await?;
        answer.headers_mut().insert(HEADER, header);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::access::Secret;
    use crate::db::Mode;
    use crate::server::layers::AroundLayer;
    use crate::server::layers::testing::request;

    async fn ask(request: Request<Body>) -> (String, String) {
        let echo = tower::service_fn(async |request: Request<Body>| {
            let RequestId(id) =
                request.extensions().get().cloned().expect("the layer put it there");
            let mut answer = Response::new(Body::empty());
            answer.headers_mut().insert("x-seen", HeaderValue::try_from(id).expect("ASCII"));
            Ok::<_, Infallible>(answer)
        });
        let answer =
            AroundLayer(RequestIds).layer(echo).oneshot(request).await.expect("infallible");
        let header = |name: &str| answer.headers()[name].to_str().expect("ASCII").to_owned();
        (header("x-seen"), header("x-request-id"))
    }

    #[tokio::test]
    async fn the_callers_id_is_kept_and_answered() {
        let mut request = request("/a.B/C");
        request.headers_mut().insert(HEADER, HeaderValue::from_static("mine-1"));
        assert_eq!(ask(request).await, ("mine-1".to_owned(), "mine-1".to_owned()));
    }

    #[tokio::test]
    async fn a_key_of_ours_is_replaced() {
        for mode in Mode::ALL {
            let mut request = request("/a.B/C");
            let secret = Secret::generate(*mode).expect("randomness");
            request
                .headers_mut()
                .insert(HEADER, HeaderValue::try_from(secret.reveal()).expect("ASCII"));
            let (seen, answered) = ask(request).await;
            assert!(seen.starts_with("req_") && answered.starts_with("req_"), "{mode}");
        }
    }

    #[tokio::test]
    async fn an_id_that_is_not_sane_is_replaced() {
        let mut request = request("/a.B/C");
        request.headers_mut().insert(HEADER, HeaderValue::from_static("two words"));
        let (seen, answered) = ask(request).await;
        assert!(seen.starts_with("req_"), "{seen}");
        assert_eq!(seen, answered);
    }
}
