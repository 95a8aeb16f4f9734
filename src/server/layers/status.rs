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
                Error::unavailable(reported("The service cannot respond for now.")).into()
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
mod tests;
