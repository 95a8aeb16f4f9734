//! One request, as far as it could be read, and its response: a status, headers and a body, or a refusal.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use prost_reflect::DynamicMessage;
use tonic::Status;
use tonic_types::StatusExt;

use super::binding::Binding;
use super::plain::Refusals;
use super::problem::{Problem, Spelling};
use super::{Shared, body, headers, json, plus, request_id};
use crate::error::{Code, Error};
use crate::limits::responses::Responding;

/// The context of a response: the settings, and the id and the rule of the request if they are known.
#[derive(Clone)]
pub struct Exchange {
    pub shared: Arc<Shared>,
    pub request_id: String,
    /// The form of refusals.
    pub refusals: Refusals,
    pub binding: Option<Arc<Binding>>,
    /// The query parameters with a `+` in their values.
    pub with_plus: Arc<[String]>,
    /// True if the update mask is made of what the body names.
    pub mask_is_made: Arc<AtomicBool>,
    /// The memory of the response.
    pub responding: Responding,
}

impl Exchange {
    /// Writes the JSON of a message of the response.
    pub fn write(
        &self,
        binding: &Binding,
        message: &DynamicMessage,
        out: &mut Vec<u8>,
    ) -> Result<(), Status> {
        let rpc = &binding.rpc;
        let written = match binding.response_body {
            Some(index) => json::encode_field(
                &rpc.schema,
                &rpc.schema.message(rpc.output).fields[index],
                message,
                out,
            ),
            None if !binding.answer_members.is_empty() => {
                json::encode_some(&rpc.schema, rpc.output, &binding.answer_members, message, out)
            }
            None => json::encode_value(&rpc.schema, &rpc.output_shape, message, out),
        };
        Ok(written.map_err(Error::internal)?)
    }

    /// The problem document of a status.
    pub fn problem_of(&self, status: &Status) -> Problem {
        // Our own failures were logged when they were made; what comes from a library would be lost.
        if status.code() == tonic::Code::Unknown
            || status.code() == tonic::Code::Internal && status.get_details_error_info().is_none()
        {
            let cause = status.source().map(ToString::to_string);
            tracing::error!(
                request_id = self.request_id,
                message = status.message(),
                cause,
                "call failed"
            );
        }
        let mut problem = Problem::new(status, &self.request_id, &self.shared.base, self);
        if !self.with_plus.is_empty() {
            plus::explain(&mut problem.document, &self.with_plus);
        }
        problem
    }

    /// The response that is a refusal.
    pub fn problem(&self, status: &Status) -> Response<Body> {
        let problem = self.problem_of(status);
        let (mut headers, _) = self.headers(status.metadata().as_ref());
        headers.extend(problem.headers);
        let (media_type, text) =
            self.refusals.written(problem.status, problem.document, &mut headers);
        self.respond(
            problem.status,
            headers,
            Some(HeaderValue::from_static(media_type)),
            Body::from(text),
        )
    }

    /// The headers and the status of a response with this metadata.
    pub fn headers(&self, metadata: &HeaderMap) -> (HeaderMap, Option<StatusCode>) {
        headers::from_metadata(metadata, &self.shared.base_path)
    }

    /// The response to a failure that the gateway found.
    pub fn refuse(&self, error: Error) -> Response<Body> {
        self.problem(&error.into())
    }

    /// The response to a method that the path does not take, or to `OPTIONS`.
    pub fn wrong_method(&self, method: &Method, allowed: &[Method]) -> Response<Body> {
        let list = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let mut response = if method == Method::OPTIONS {
            self.respond(StatusCode::NO_CONTENT, HeaderMap::new(), None, Body::empty())
        } else {
            self.refuse(Error::new(Code::MethodNotAllowed, format!("This path takes {list}.")))
        };
        response.headers_mut().insert(
            header::ALLOW,
            HeaderValue::try_from(list).expect("names of methods are fit for a header"),
        );
        response
    }

    /// The header that says which media types the route takes: `Accept-Post` (W3C Linked Data Platform), `Accept-Patch` (RFC 5789), or `Accept` (RFC 9110).
    pub fn media_types_taken(&self, method: &Method) -> (HeaderName, HeaderValue) {
        let is_stream = self.binding.as_ref().is_some_and(|binding| binding.rpc.client_streaming);
        let lines: &[&str] = if is_stream { &body::ALL_JSON_LINES } else { &[] };
        let taken = [lines, &["application/json"]].concat().join(", ");
        let name = match *method {
            Method::POST => HeaderName::from_static("accept-post"),
            Method::PATCH => HeaderName::from_static("accept-patch"),
            _ => header::ACCEPT,
        };
        (name, HeaderValue::try_from(taken).expect("media types are fit for a header"))
    }

    /// A response with the headers that every one has.
    pub fn respond(
        &self,
        status: StatusCode,
        headers: HeaderMap,
        media_type: Option<HeaderValue>,
        body: Body,
    ) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        let headers = response.headers_mut();
        if let Some(media_type) = media_type {
            headers.insert(header::CONTENT_TYPE, media_type);
        }
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        headers.insert(request_id::HEADER, self.request_id_header());
        response
    }

    /// The id of the request, as a header.
    pub fn request_id_header(&self) -> HeaderValue {
        HeaderValue::try_from(&self.request_id).expect("a sane id is fit for a header")
    }
}

/// The header that says by what a body may be compressed (RFC 9110, section 15.5.16).
pub fn codings_taken() -> (HeaderName, HeaderValue) {
    (header::ACCEPT_ENCODING, HeaderValue::from_static("zstd, gzip"))
}

impl Spelling for Exchange {
    /// A mask that the caller has not sent is its body, of which it was made.
    fn field(&self, path: &str) -> String {
        match &self.binding {
            Some(binding) if self.mask_is_made.load(Relaxed) && binding.is_update_mask(path) => {
                "body".to_owned()
            }
            Some(binding) => binding.spell(path),
            None => path.to_owned(),
        }
    }

    fn name(&self, fault: &str, name: &str) -> String {
        self.binding
            .as_ref()
            .map_or_else(|| name.to_owned(), |binding| binding.spell_in(fault, name))
    }
}
