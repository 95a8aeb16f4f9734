//! Completes every failure, whatever its origin, to the form that the error catalogue promises.

use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, HelpLink, StatusExt};

use super::around::{Around, Inner};
use super::code_of;
use super::request_id::RequestId;
use crate::error::{self, Error, LEFT, Left, Violation};

/// How the gRPC library's words for a connection begin that ended in the middle of a message.
const GONE: &str = "h2 protocol error: error reading a body from connection";

/// How the gRPC library begins to report a message that it cannot read. It calls that `INTERNAL`, but it is the caller's doing.
const UNREADABLE: &[&str] = &[
    "failed to decode Protobuf message",
    "protocol error: received message",
    "Error decompressing",
    "Unexpected EOF decoding",
    "Missing request message",
    GRPC_WEB,
];

/// The beginning of the error of its part for gRPC-Web, when the text form is not valid base64, or breaks off.
const GRPC_WEB: &str = "tonic-web: ";

/// How many bytes of faults a failure reports over a network. gRPC puts them into the trailers, of which clients take 8 or 16 KiB in all:
/// past that some give up the whole connection. Base64 makes them a third longer.
const FAULT_BYTES: usize = 4 << 10;

/// Adds `google.rpc.RequestInfo` to every failure, in headers and in trailers, and a `google.rpc.Help` that links to what its code means,
/// where the service knows how it is reached. Gives those that the gRPC library makes itself, such as for a method that does not exist, the
/// `google.rpc.ErrorInfo` of the catalogue, and a message that reports nothing of our insides. Over a network, of very many faults as many
/// are reported as fit.
#[derive(Clone, Debug)]
pub struct Failures {
    message_limit: usize,
    public_url: Option<Arc<str>>,
}

impl Failures {
    /// `message_limit` is the size of the largest message that the services take, in bytes; `public_url` is where callers reach the REST
    /// listener, which has a page of every code.
    pub fn new(message_limit: usize, public_url: Option<&str>) -> Self {
        Failures {
            message_limit,
            public_url: public_url.map(|url| url.trim_end_matches('/').into()),
        }
    }
}

impl Around for Failures {
    async fn around<S: Inner>(
        self,
        request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let completion = Completion {
            request_id: request.extensions().get().cloned(),
            message_limit: self.message_limit,
            public_url: self.public_url,
            // The gateway calls in process.
            is_from_network: request.extensions().get::<TcpConnectInfo>().is_some(),
        };
        let mut answer = inner.call(request).await?;
        if code_of(answer.headers()).is_some() {
            completion.complete(answer.headers_mut());
            // The gRPC library leaves the status here as well, as it was.
            answer.extensions_mut().remove::<Status>();
            return Ok(answer);
        }
        Ok(answer.map(|body| {
            Body::new(body.map_frame(move |mut frame| {
                if let Some(trailers) = frame.trailers_mut() {
                    completion.complete(trailers);
                }
                frame
            }))
        }))
    }
}

/// The parts with which the failure of a call is completed.
struct Completion {
    request_id: Option<RequestId>,
    message_limit: usize,
    public_url: Option<Arc<str>>,
    is_from_network: bool,
}

impl Completion {
    /// Replaces the status in headers or trailers, if it is a failure.
    fn complete(&self, headers: &mut HeaderMap) {
        let Some(status) =
            Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
        else {
            return;
        };
        let known =
            status.get_details_error_info().is_some_and(|info| info.domain == error::DOMAIN);
        let status = if known { status } else { self.adopt(&status) };
        let mut details = status.get_error_details();
        if let Some(RequestId(id)) = &self.request_id {
            details.set_request_info(id, "");
        }
        if let Some(link) = self.help(&details) {
            details.set_help(vec![link]);
        }
        if self.is_from_network {
            shorten(&mut details);
        }
        let complete = Status::with_error_details(status.code(), status.message(), details);
        headers.remove(Status::GRPC_MESSAGE);
        headers.remove(Status::GRPC_STATUS_DETAILS);
        if complete.add_header(headers).is_err() {
            tracing::error!(code = ?complete.code(), "the details of a failure do not fit into a header");
        }
    }

    fn help(&self, details: &ErrorDetails) -> Option<HelpLink> {
        let code = error::Code::from_reason(&details.error_info()?.reason)?;
        let url = self.public_url.as_deref()?;
        Some(HelpLink::new(
            format!("What `{code}` means, and what to do about it"),
            format!("{url}/errors/{code}"),
        ))
    }

    /// Makes a status of the catalogue of one that is not.
    fn adopt(&self, foreign: &Status) -> Status {
        let code = foreign.code();
        let reported = |otherwise: &str| {
            if foreign.message().is_empty() {
                otherwise.to_owned()
            } else {
                foreign.message().to_owned()
            }
        };
        match code {
            Code::Internal | Code::Unknown if is_gone(foreign.message()) => {
                tracing::debug!(
                    reason = foreign.message(),
                    "a caller left before its message had come whole"
                );
                Left::error().into()
            }
            Code::Internal
                if UNREADABLE.iter().any(|beginning| foreign.message().starts_with(beginning)) =>
            {
                tracing::debug!(reason = foreign.message(), "a message cannot be read");
                let message = match foreign.message().starts_with(GRPC_WEB) {
                    true => {
                        "The body is not base64, or breaks off; `application/grpc-web-text` is base64 of whole messages."
                    }
                    false => "The message cannot be read as one that this method takes.",
                };
                Error::new(error::Code::ValidationFailed, message).into()
            }
            Code::Internal | Code::Unknown | Code::DataLoss => {
                Error::internal(foreign.message()).into()
            }
            Code::OutOfRange | Code::ResourceExhausted => {
                let message = format!(
                    "The message is larger than the {} bytes that this service takes.",
                    self.message_limit
                );
                Error::new(error::Code::PayloadTooLarge, message)
                    .with("limit_bytes", self.message_limit)
                    .into()
            }
            Code::Unavailable => {
                Error::unavailable(reported("The service cannot answer for now.")).into()
            }
            // Messages about the request. The code stays, since callers know what the library means by it.
            _ => {
                let meant = error::Code::from_grpc(code);
                let otherwise = if code == Code::Unimplemented {
                    "There is no such method."
                } else {
                    meant.title()
                };
                let status = Status::from(Error::new(meant, reported(otherwise)));
                Status::with_error_details(code, status.message(), status.get_error_details())
            }
        }
    }
}

/// Returns whether the gRPC library, or its part for gRPC-Web, says that the caller has left.
fn is_gone(message: &str) -> bool {
    message.starts_with(GONE) || message.strip_prefix(GRPC_WEB).unwrap_or(message) == LEFT
}

/// Leaves as many faults as fit, and says how many more there were.
fn shorten(details: &mut ErrorDetails) {
    let Some(request) = details.bad_request() else { return };
    let faults = &request.field_violations;
    let mut bytes = 0;
    let fitting = faults.iter().take_while(|fault| {
        bytes += fault.field.len() + fault.description.len() + fault.reason.len();
        bytes <= FAULT_BYTES
    });
    let fitting = fitting.count();
    if fitting < faults.len() {
        let count = details
            .error_info()
            .and_then(|info| info.metadata.get(error::FAULT_COUNT)?.parse().ok())
            .unwrap_or(faults.len());
        let mut reported = faults[..fitting].to_vec();
        let Violation { field, code, description } = Violation::left_out(count - fitting);
        reported.push(FieldViolation {
            field,
            description,
            reason: code.to_ascii_uppercase(),
            localized_message: None,
        });
        details.set_bad_request(reported);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;
    use http_body_util::Full;
    use tonic::service::Routes;
    use tonic_health::pb::health_server::HealthServer;
    use tonic_types::ErrorDetails;
    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::server::layers::testing::{answering, ended_by, health, ok, request};
    use crate::server::layers::{AroundLayer, RequestIds, refuse};

    const LIMIT: usize = 64;

    async fn call<S>(service: S, mut request: Request<Body>) -> Response<Body>
    where
        S: Inner<Error = std::convert::Infallible> + Clone + Sync,
    {
        request.headers_mut().insert("x-request-id", HeaderValue::from_static("req-1"));
        AroundLayer(RequestIds)
            .layer(
                AroundLayer(Failures::new(LIMIT, Some("https://api.example.com/"))).layer(service),
            )
            .oneshot(request)
            .await
            .expect("infallible")
    }

    fn status(headers: &HeaderMap) -> (Status, ErrorDetails) {
        let status = Status::from_header_map(headers).expect("a status");
        let details = status.get_error_details();
        assert_eq!(details.request_info().map(|info| info.request_id.as_str()), Some("req-1"));
        (status, details)
    }

    fn reason(details: &ErrorDetails) -> &str {
        &details.error_info().expect("every failure has one").reason
    }

    /// A call of a real method of a real service, with these bytes for its message.
    fn check(message: &[u8]) -> Request<Body> {
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
        framed.extend(message);
        let mut request = request("/grpc.health.v1.Health/Check");
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        *request.body_mut() = Body::new(Full::new(Bytes::from(framed)));
        request
    }

    #[tokio::test]
    async fn a_failure_of_ours_keeps_its_details_and_gains_the_request_id() {
        let answer =
            call(answering(|| refuse(Error::not_found("entity", "e-1"))), request("/a.B/C")).await;
        let (status, details) = status(answer.headers());
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(reason(&details), "NOT_FOUND");
        assert_eq!(details.resource_info().expect("kept").resource_name, "e-1");
        assert_eq!(
            details.help().expect("a link").links[0].url,
            "https://api.example.com/errors/not_found"
        );
    }

    #[tokio::test]
    async fn a_caller_that_leaves_is_no_fault_of_the_service() {
        let answer =
            call(answering(|| Status::internal(GONE).into_http()), request("/a.B/C")).await;
        let (status, details) = status(answer.headers());
        assert_eq!((status.code(), reason(&details)), (Code::Cancelled, "CANCELED"));
    }

    #[test]
    fn of_very_many_faults_those_that_fit_are_reported() {
        let faults = |count: usize| {
            let fault = |n| FieldViolation {
                field: format!("requests[{n}].entity.type"),
                description: "x".repeat(60),
                ..Default::default()
            };
            let mut details =
                ErrorDetails::with_bad_request((0..count).map(fault).collect::<Vec<_>>());
            shorten(&mut details);
            details.bad_request().expect("faults").field_violations.clone()
        };
        assert_eq!(faults(20).len(), 20);
        let reported = faults(1_000);
        assert!((40..60).contains(&reported.len()), "{}", reported.len());
        let last = reported.last().expect("one");
        assert_eq!(
            (
                last.reason.as_str(),
                last.description.contains(&format!("{} more", 1_001 - reported.len()))
            ),
            ("TOO_MANY", true)
        );
    }

    #[tokio::test]
    async fn a_success_is_left_alone() {
        let answer = call(answering(ok), request("/a.B/C")).await;
        let body = answer.into_body().collect().await.expect("a body");
        let trailers = body.trailers().expect("trailers");
        assert_eq!(trailers.len(), 1);
        assert_eq!(trailers["grpc-status"], "0");
    }

    #[tokio::test]
    async fn a_failure_in_the_middle_of_a_stream_is_completed_in_the_trailers() {
        let mut trailers = HeaderMap::new();
        Status::from(Error::unavailable("The database is away."))
            .add_header(&mut trailers)
            .expect("a header");
        let answer = call(answering(move || ended_by(trailers.clone())), request("/a.B/C")).await;
        let body = answer.into_body().collect().await.expect("a body");
        let (status, details) = status(body.trailers().expect("trailers"));
        assert_eq!(status.message(), "The database is away.");
        assert!(details.retry_info().is_some());
    }

    #[tokio::test]
    async fn a_method_that_does_not_exist_is_unimplemented() {
        let (_, health) = health().await;
        for path in ["/no.Such/Thing", "/grpc.health.v1.Health/Nothing"] {
            let answer = call(health.clone(), request(path)).await;
            let (status, details) = status(answer.headers());
            assert_eq!(status.code(), Code::Unimplemented);
            assert_eq!(status.message(), "There is no such method.");
            assert_eq!(reason(&details), "METHOD_NOT_ALLOWED");
        }
    }

    #[tokio::test]
    async fn a_message_that_is_compressed_otherwise_is_unimplemented() {
        let (_, health) = health().await;
        let mut deflated = check(b"");
        deflated.headers_mut().insert("grpc-encoding", HeaderValue::from_static("deflate"));
        let answer = call(health, deflated).await;
        let (status, details) = status(answer.headers());
        assert_eq!((status.code(), reason(&details)), (Code::Unimplemented, "METHOD_NOT_ALLOWED"));
        assert!(status.message().contains("deflate"), "{}", status.message());
    }

    #[tokio::test]
    async fn a_message_that_cannot_be_read_is_the_callers_fault() {
        let (_, health) = health().await;
        let mut empty = check(b"");
        *empty.body_mut() = Body::empty();
        for request in [check(&[0xff; 3]), empty] {
            let answer = call(health.clone(), request).await;
            let (status, details) = status(answer.headers());
            assert_eq!(status.code(), Code::InvalidArgument);
            assert_eq!(reason(&details), "VALIDATION_FAILED");
            assert!(!status.message().contains("Protobuf"));
        }
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_names_the_limit() {
        let (_, server) = tonic_health::server::health_reporter();
        let small = Routes::new(limited(server, LIMIT));
        let answer = call(small, check(&[0; 2 * LIMIT])).await;
        let (status, details) = status(answer.headers());
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(reason(&details), "PAYLOAD_TOO_LARGE");
        assert_eq!(details.error_info().expect("info").metadata["limit_bytes"], "64");
    }

    fn limited<T: tonic_health::pb::health_server::Health>(
        server: HealthServer<T>,
        limit: usize,
    ) -> HealthServer<T> {
        server.max_decoding_message_size(limit)
    }

    #[tokio::test]
    async fn an_unknown_failure_reports_nothing_of_our_insides() {
        for foreign in [
            Status::internal("/srv/secret.rs broke"),
            Status::unknown("/srv/secret.rs"),
            Status::data_loss("/srv/secret.rs"),
        ] {
            let foreign = move || {
                Status::with_details(foreign.code(), foreign.message(), Bytes::new()).into_http()
            };
            let answer = call(answering(foreign), request("/a.B/C")).await;
            assert!(!format!("{answer:?}").contains("secret"));
            let (status, details) = status(answer.headers());
            assert_eq!(status.code(), Code::Internal);
            assert_eq!(reason(&details), "INTERNAL");
        }
    }

    #[tokio::test]
    async fn what_a_library_says_of_the_request_is_kept() {
        let answer = call(
            answering(|| Status::not_found("service not registered").into_http()),
            request("/a.B/C"),
        )
        .await;
        let (status, details) = status(answer.headers());
        assert_eq!(status.message(), "service not registered");
        assert_eq!(reason(&details), "NOT_FOUND");
    }
}
