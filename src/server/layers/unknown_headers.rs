//! Refuses headers that protect a change and are misspelt, or that protect nothing by gRPC.

use http::{HeaderMap, Request, Response};
use tonic::body::Body;

use super::around::{Around, Inner};
use super::auth::Scopes;
use crate::error::{Form, Violations};
use crate::gateway::{misspelt, version};

/// Headers that a caller may expect to protect a gRPC call. For REST the gateway has checked them.
const OF_REST: [(&str, &str); 2] = [
    (
        "if-match",
        "is of REST; by gRPC `expected_version` of the message says at which version the thing must be",
    ),
    ("if-none-match", "is of REST alone"),
];

/// Notes them as faults of requests that change something.
#[derive(Clone, Debug)]
pub struct UnknownHeaders(pub Scopes);

impl Around for UnknownHeaders {
    async fn around<S: Inner>(
        self,
        mut request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        if self.0.changes(request.uri().path()) {
            let faults = faults(request.headers());
            Form::of(request.extensions_mut()).note(&faults);
        }
        inner.call(request).await
    }
}

fn faults(headers: &HeaderMap) -> Violations {
    let mut faults = misspelt::faults(headers.keys().map(|name| name.as_str()));
    let unkept =
        version::UNKEPT.map(|name| (name, "cannot be kept; `expected_version` of the message says at which version the thing must be"));
    for (name, reported) in OF_REST.into_iter().chain(unkept) {
        if headers.contains_key(name) {
            faults.add(name, "unsupported", reported);
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::HeaderValue;
    use prost_reflect::DescriptorPool;
    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::proto::DESCRIPTOR_SET;
    use crate::server::layers::AroundLayer;
    use crate::server::layers::testing::{ok, request};

    /// Returns whether a call with this header comes to its service as a request with faults.
    async fn is_refused(path: &str, header: &'static str) -> bool {
        let scopes =
            Scopes::declared(&DescriptorPool::decode(DESCRIPTOR_SET).expect("the descriptors"));
        let (reported, seen) = (
            std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)),
            std::sync::atomic::Ordering::Relaxed,
        );
        let spoilt = reported.clone();
        let service = tower::service_fn(move |mut request: Request<Body>| {
            spoilt.store(Form::of(request.extensions_mut()).is_spoilt(), seen);
            std::future::ready(Ok::<_, Infallible>(ok()))
        });
        let mut request = request(path);
        request.headers_mut().insert(header, HeaderValue::from_static("1"));
        AroundLayer(UnknownHeaders(scopes))
            .layer(service)
            .oneshot(request)
            .await
            .expect("infallible");
        reported.load(seen)
    }

    #[tokio::test]
    async fn a_misspelt_header_is_a_fault_of_what_changes_something() {
        const CHANGE: &str = "/offboard.v1.EntityService/UpdateEntity";
        for (header, refused) in [
            ("x-idempotency-key", true),
            ("if_match", true),
            ("if-match", true),
            ("idempotency-key", false),
            ("x-forwarded-for", false),
        ] {
            assert_eq!(is_refused(CHANGE, header).await, refused, "{header}");
        }
        for reading in
            ["/offboard.v1.EntityService/BatchGetEntities", "/grpc.health.v1.Health/Check"]
        {
            assert!(!is_refused(reading, "x-idempotency-key").await, "{reading}");
        }
    }
}
