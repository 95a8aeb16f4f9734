//! The HTTP listener: REST, and gRPC-Web for callers who speak gRPC from a browser.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Instant;

use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use tonic::Status;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service, ServiceExt};

use super::compute::Compute;
use super::cors::Cors;
use super::framing;
use super::layers::{Asked, CommonHeaders, Failures, refuse, refused};
use super::listener::{Answer, Arriving, Unreadable};
use super::ports::{Port, is_grpc};
use super::stack::Stack;
use crate::error::Error;
use crate::gateway::{Gateway, MatchedRoute, check_head};
use crate::telemetry;

/// The protocol of the HTTP listener.
#[derive(Clone)]
pub struct HttpProtocol {
    gateway: Gateway<Stack>,
    web: GrpcWebService<Stack>,
    cors: Option<Cors>,
    compute: Compute,
    port: Port,
    reported: CommonHeaders,
    failures: Failures,
}

impl HttpProtocol {
    /// REST by the gateway, gRPC-Web by the stack, and both for pages of these origins. A response of neither is completed as theirs are.
    pub fn new(
        gateway: Gateway<Stack>,
        stack: Stack,
        cors: Option<Cors>,
        (port, reported, failures): (Port, CommonHeaders, Failures),
    ) -> Self {
        HttpProtocol {
            gateway,
            web: GrpcWebLayer::new().layer(stack),
            cors,
            compute: Compute::new(),
            port,
            reported,
            failures,
        }
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (reported, asked) =
            (self.reported.clone(), Asked::by(request.headers(), request.extensions()));
        let mut answer = self.answer_page(request).await;
        // A browser takes a body for what its media type says, whoever chose its content.
        answer
            .headers_mut()
            .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        reported.complete(&asked, answer.headers_mut());
        answer
    }

    /// Serves the request, and adds the headers that let a page of another origin read the response.
    async fn answer_page(self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if let Err(error) = framing::check(&parts) {
            let mut answer = self.gateway.refuse(parts.uri.path(), &parts.headers, error);
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return answer;
        }
        let Some(cors) = self.cors.clone() else {
            return self.route(Request::from_parts(parts, body)).await;
        };
        if let Some(answer) = cors.preflight(&parts) {
            return answer;
        }
        let reported = cors.headers(&parts.headers);
        let mut answer = self.route(Request::from_parts(parts, body)).await;
        for (name, value) in reported {
            answer.headers_mut().append(name, value);
        }
        answer
    }

    async fn route(self, request: Request<Body>) -> Response<Body> {
        if is_grpc_web(request.method(), request.headers()) {
            let (parts, body) = request.into_parts();
            if let Err(error) = check_head(&parts) {
                return self.refuse_call(parts, "application/grpc-web+proto", error.into()).await;
            }
            return self.web(Request::from_parts(parts, body)).await;
        }
        if is_grpc(request.headers()) {
            let status = self.port.not_grpc(request.uri().path());
            return self.refuse_call(request.into_parts().0, "application/grpc", status).await;
        }
        // A request is measured up to where the body of its response begins.
        let (started, method) = (Instant::now(), request.method().clone());
        let answer = self.rest(request).await;
        let route = answer.extensions().get().map_or("", |MatchedRoute(path)| path.as_str());
        telemetry::http_request(&method, route, answer.status().as_u16(), started.elapsed());
        answer
    }

    /// A refusal as gRPC and gRPC-Web have it: all in the headers.
    async fn refuse_call(
        self,
        parts: Parts,
        media_type: &'static str,
        status: Status,
    ) -> Response<Body> {
        let request = Request::from_parts(parts, tonic::body::Body::empty());
        let mut answer = refused(self.failures, request, status).await.map(Body::new);
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        answer
    }

    // Neither is async itself: the compiler cannot prove there that the error of the stack can be one.
    fn web(self, request: Request<Body>) -> BoxFuture<'static, Response<Body>> {
        let guard = self.compute.guard(&request);
        let answer = self
            .web
            .oneshot(request)
            .map(|answer| answer.unwrap_or_else(|error| refuse(Error::internal(error))));
        Compute::answer(guard, answer).map(|answer| answer.map(Body::new)).boxed()
    }

    fn rest(mut self, request: Request<Body>) -> BoxFuture<'static, Response<Body>> {
        let guard = self.compute.guard(&request);
        let answer =
            self.gateway.call(request).map(|answer| answer.unwrap_or_else(|never| match never {}));
        Compute::answer(guard, answer).map(|answer| answer.map(Body::new)).boxed()
    }
}

impl Answer for HttpProtocol {
    type Body = Body;

    fn answer(
        &self,
        mut request: Request<Arriving>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        request.extensions_mut().insert(ConnectInfo(peer));
        self.clone().answer(request.map(Body::new))
    }

    fn refuse(&self, unreadable: &Unreadable) -> Response<Bytes> {
        let mut answer = self.gateway.refuse_unread(
            &unreadable.begun.path,
            &unreadable.begun.headers,
            self.port.unreadable(unreadable),
        );
        self.reported.complete(&Asked::default(), answer.headers_mut());
        answer
    }
}

/// The calls of gRPC-Web are `POST`s with media types of their own.
fn is_grpc_web(method: &Method, headers: &HeaderMap) -> bool {
    let media_type =
        headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    *method == Method::POST && media_type.starts_with(b"application/grpc-web")
}
