//! The layers that every call passes on its way to a capability, and its response on the way back: one file a layer.
//!
//! The gRPC listener and the gateway use one and the same stack, so that nothing of this exists twice. From the outside in:
//!
//! 1. [`request_id`] gives the call an id, that everything below refers to;
//! 2. [`common_headers`] adds the headers that every response has and that a refusal of the layers below may lack;
//! 3. [`trace`] makes its span, its measurement and its line in the log, and so must see the response as the caller gets it;
//! 4. [`status`] completes every failure, whatever its origin, to the form that the error catalogue promises;
//! 5. [`panic`] makes a failure of a panic;
//! 6. [`closing`] refuses calls that come too late, and ends those that would be cut off;
//! 7. [`keyless`] bounds calls that need no key;
//! 8. [`deadline`] ends calls that take too long;
//! 9. [`address_rate`] refuses an address that calls too often without a valid key;
//! 10. [`auth`] authenticates the caller, and checks the scope of the method;
//! 11. [`load`] refuses calls above the limit;
//! 12. [`rate_limit`] refuses a key or a realm that calls too often;
//! 13. [`api_version`] finds the version that the call speaks;
//! 14. [`share`] refuses calls beyond the share of a key or a realm, and sets the party for everything further in;
//! 15. [`idempotency`] reads how often the call may take effect, which the caller's key is part of;
//! 16. [`bodies`] pays for the messages of the call, which the caller's realm has a share for;
//! 17. [`responses`] pays for the response of the call, until it is written;
//! 18. [`unknown_headers`] refuses headers that are nearly those that protect a change;
//! 19. [`forms`] has nothing done for a request that could not be read wholly, and reports what those above have found wrong with its headers.

mod address_rate;
mod api_version;
mod around;
pub(crate) mod auth;
mod bodies;
mod closing;
mod common_headers;
mod deadline;
mod ending;
mod forms;
mod idempotency;
mod keyless;
mod load;
mod methods;
mod panic;
mod rate_limit;
mod request_id;
mod responses;
mod share;
mod status;
#[cfg(test)]
mod testing;
mod trace;
mod unknown_headers;

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, ServiceExt};

use crate::error::Error;

pub use address_rate::AddressRate;
pub use api_version::Version;
pub use around::AroundLayer;
pub use auth::{Auth, Authorize, REFLECTION, Scopes};
pub use bodies::Bodies;
pub use closing::Closing;
pub use common_headers::{Asked, CommonHeaders};
pub use deadline::Deadline;
pub use forms::Forms;
pub use idempotency::Idempotency;
pub use keyless::Keyless;
pub use load::Load;
pub use methods::Methods;
pub use panic::Panics;
pub use rate_limit::RateLimit;
pub use request_id::{RequestId, RequestIds};
pub use responses::Responses;
pub use share::Share;
pub use status::Failures;
pub use trace::Trace;
pub use unknown_headers::UnknownHeaders;

/// How the paths of health begin. It is served in any case: an orchestrator that cannot ask how the service is would end it for being busy,
/// which makes the others busier.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// The response that a layer gives in place of the service: the error as a gRPC response without a message.
pub fn refuse(error: Error) -> Response<Body> {
    Status::from(error).into_http()
}

/// The response to a request that is refused before any layer, completed as those further in are.
pub async fn refused(failures: Failures, request: Request<Body>, status: Status) -> Response<Body> {
    let refusing = tower::service_fn(move |_: Request<Body>| {
        std::future::ready(Ok::<_, Infallible>(status.clone().into_http()))
    });
    let answer =
        AroundLayer(RequestIds).layer(AroundLayer(failures).layer(refusing)).oneshot(request).await;
    answer.unwrap_or_else(|never| match never {})
}

/// The end of a response that has begun, and fails.
fn failed(error: Error) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    Status::from(error).add_header(&mut trailers).map(|()| Frame::trailers(trailers))
}

/// The gRPC status in headers or trailers.
fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}
