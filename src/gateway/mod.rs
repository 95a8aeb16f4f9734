//! HTTP and JSON to gRPC by the `google.api.http` rules of a descriptor set.
//!
//! The gateway knows no service by name. A new RPC that has a rule, in a service that declares a spelling (`offboard.v1.json_style`), has
//! its REST route, its place in the published document ([`openapi`]) and on the page that shows it, and its problem documents (RFC 9457),
//! with no Rust written. Calls pass the same tower stack that gRPC callers meet, in process. One request takes this way: [`route`] finds its
//! rule, [`request`] makes its message, [`call`] calls the service, and [`answering`] joins these steps and makes the response.

mod accept;
mod annotations;
mod answering;
mod answers;
mod binding;
mod bodies;
mod body;
mod call;
mod codec;
mod compression;
mod csv;
mod exchange;
mod faults;
mod head;
mod headers;
mod json;
mod mask;
mod messages;
pub(crate) mod misspelt;
mod opaque;
pub mod openapi;
mod pages;
mod percent;
mod plain;
mod plus;
mod problem;
mod raw;
mod request;
pub(crate) mod request_id;
mod route;
mod rules;
mod stream;
mod template;
#[cfg(test)]
mod tests;
pub(crate) mod version;
mod window;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use prost_reflect::DescriptorPool;
use tower::Service;

pub use self::answers::Answers;
use self::binding::Binding;
pub use self::bodies::Bodies;
pub use self::codec::DynamicCodec;
use self::exchange::Exchange;
pub use self::head::{check as check_head, headers_too_large, uri_too_long};
pub use self::headers::{SECONDS, UNITS, grpc_timeout, request_timeout};
use self::pages::Pages;
pub use self::plain::refusal;
use self::plain::{PlainPaths, Refusals, refusal_as};
use self::route::Router;
pub use self::rules::BuildError;
use crate::error::{Error, panic_text};
use crate::limits::allowance::Allowance;
use crate::limits::answers::FREE_RESPONSE_BYTES;
use crate::limits::listeners::{PAGE_BYTES, PAGE_BYTES_AT_MOST};
use crate::limits::memory::BodyMemory;
use crate::limits::responses::{Cut, Responding, ResponseMemory};

/// The settings of a gateway.
#[derive(Clone, Debug)]
pub struct Options {
    /// The public URL, such as `https://api.example.com/offboard`: the beginning of the links in problem documents, whose path is prepended
    /// to every other path in a response. Without it links are relative, as RFC 9457 allows.
    pub public_url: Option<String>,
    /// How large the body of a request may be and, where the body is a stream, how large a line of it, in bytes.
    pub max_body_bytes: usize,
    /// The memory for bodies.
    pub bodies: BodyMemory,
    /// The memory for responses.
    pub responses: ResponseMemory,
    /// The versions of the API that the header `Api-Version` may name, for the published document; any, if there are none.
    pub api_versions: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        let bodies = BodyMemory::new(96 << 20, Duration::from_secs(5), Duration::from_secs(30));
        let responses = ResponseMemory::new(48 << 20);
        Options {
            public_url: None,
            max_body_bytes: 4 * 1024 * 1024,
            bodies,
            responses,
            api_versions: Vec::new(),
        }
    }
}

/// The path of the rule by which a request was served, such as `/v1/entities/{entity_id}`: among the extensions of every response to a request
/// that had a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchedRoute(pub String);

/// The REST listener of a gRPC stack: a tower service that serves every request, also those that have no route.
#[derive(Clone, Debug)]
pub struct Gateway<S> {
    shared: Arc<Shared>,
    stack: S,
}

/// The shared context of all requests.
#[derive(Debug)]
struct Shared {
    router: Router<Arc<Binding>>,
    pages: Pages,
    /// How much of them an address may be sent.
    page_bytes: Allowance,
    options: Options,
    plain_paths: PlainPaths,
    /// `public_url` without a slash at its end.
    base: String,
    /// The path of `base`: empty, or `/` and more.
    base_path: String,
}

impl<S> Gateway<S> {
    /// Makes the routes of all rules in the descriptors. Fails if a rule is invalid: a path that is not a template, a missing field, a
    /// route that two RPCs claim.
    pub fn new(
        descriptors: DescriptorPool,
        stack: S,
        options: Options,
    ) -> Result<Self, BuildError> {
        let (descriptors, free) = opaque::opaque(&descriptors)?;
        let base =
            options.public_url.as_deref().unwrap_or_default().trim_end_matches('/').to_owned();
        let base_path = url::Url::parse(&base)
            .map(|url| url.path().trim_end_matches('/').to_owned())
            .unwrap_or_default();
        let router = rules::routes(&descriptors, &free, &base_path)?;
        let plain_paths = PlainPaths::of(&router);
        let pages = Pages::new(
            &openapi::of_routes(&descriptors, &router, &base, &options.api_versions),
            &base,
        );
        let page_bytes = Allowance::new(PAGE_BYTES_AT_MOST, &PAGE_BYTES);
        Ok(Gateway {
            shared: Arc::new(Shared {
                router,
                pages,
                page_bytes,
                options,
                plain_paths,
                base,
                base_path,
            }),
            stack,
        })
    }

    /// The response to a request, with this path and these headers, that is wrong before it is anything to be routed.
    pub fn refuse(&self, path: &str, headers: &HeaderMap, error: Error) -> Response<Body> {
        self.exchange(path, headers).refuse(error)
    }

    /// The response to what could not be read as a request, of which this path and these headers are known.
    pub fn refuse_unread(&self, path: &str, headers: &HeaderMap, error: Error) -> Response<Bytes> {
        refusal_as(
            Refusals::of(&self.shared.plain_paths, path, headers),
            error,
            headers,
            &self.shared.base,
        )
    }

    fn exchange(&self, path: &str, headers: &HeaderMap) -> Exchange {
        let given = headers.get(request_id::HEADER).and_then(|value| value.to_str().ok());
        let request_id = request_id::sane_or_new(given);
        let refusals = Refusals::of(&self.shared.plain_paths, path, headers);
        Exchange {
            shared: Arc::clone(&self.shared),
            request_id,
            refusals,
            binding: None,
            with_plus: Arc::default(),
            mask_is_made: Arc::default(),
            responding: self.shared.options.responses.open(),
        }
    }
}

/// A response that is of bytes which are there anyway: among its extensions.
#[derive(Clone, Copy, Debug)]
struct Prepared;

/// The response, of which what is large is paid for until it is written.
fn written(answer: Response<Body>, responding: &Responding, cut: Option<Cut>) -> Response<Body> {
    let size = answer.body().size_hint().exact();
    if answer.extensions().get::<Prepared>().is_some()
        || size.is_some_and(|size| size <= FREE_RESPONSE_BYTES as u64)
    {
        return answer;
    }
    let fails = |error: Error| Err(axum::Error::new(error));
    answer.map(|body| Body::new(responding.written(body, fails, cut)))
}

impl<S, B> Service<Request<B>> for Gateway<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<tonic::body::Body>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    /// Always ready: the readiness of the stack is waited for within the call.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let coding = compression::Coding::accepted(request.headers());
        let exchange = self.exchange(request.uri().path(), request.headers());
        let stack = self.stack.clone();
        let is_head = request.method() == Method::HEAD;
        let (responding, cut) =
            (exchange.responding.clone(), request.extensions().get::<Cut>().cloned());
        Box::pin(async move {
            let after_panic = exchange.clone();
            let answer = AssertUnwindSafe(exchange.answer(stack, request.map(Body::new)))
                .catch_unwind()
                .await;
            let answer = answer.unwrap_or_else(|panic| {
                after_panic
                    .refuse(Error::internal(format!("panic: {}", panic_text(panic.as_ref()))))
            });
            let answer = written(answer, &responding, cut);
            let answer = compression::compressed(answer, coding, &responding);
            Ok(if is_head { without_body(answer) } else { answer })
        })
    }
}

/// The response to a `HEAD`: that to a `GET` without its body, but with its length where that is known (RFC 9110, section 9.3.2).
fn without_body(mut answer: Response<Body>) -> Response<Body> {
    let may_have_a_body =
        !matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if let (true, Some(length)) = (may_have_a_body, answer.body().size_hint().exact()) {
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    answer.map(|_| Body::empty())
}
