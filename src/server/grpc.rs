//! The gRPC listener.

use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body_util::Full;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower::ServiceExt;

use super::layers::{Asked, CommonHeaders, Failures, refuse, refused};
use super::listener::{Answer, Arriving, Unreadable};
use super::ports::{Port, is_grpc};
use super::stack::Stack;
use crate::error::Error;
use crate::gateway::{self, check_head};

/// Serves gRPC, and sends clients of any other protocol the address of the right listener.
#[derive(Clone)]
pub struct Grpc {
    /// The services.
    pub stack: Stack,
    /// Which listener this is.
    pub port: Port,
    /// Completes responses that are made without the layers.
    pub reported: CommonHeaders,
    /// The same, for failures.
    pub failures: Failures,
    /// Where the pages of errors are.
    pub base: String,
}

impl Grpc {
    fn problem(&self, asked: &Asked, headers: &HeaderMap, error: Error) -> Response<Bytes> {
        let mut answer = gateway::refusal(error, headers, &self.base);
        self.reported.complete(asked, answer.headers_mut());
        answer
    }

    /// The response to a client that does not speak gRPC.
    fn misdirected(&self, request: &Request<Arriving>) -> Response<Body> {
        let asked = Asked::by(request.headers(), request.extensions());
        let mut answer = self.problem(&asked, request.headers(), self.port.misdirected(request));
        if request.version() < Version::HTTP_2 {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer.map(|text| Body::new(Full::new(text)))
    }
}

impl Answer for Grpc {
    type Body = Body;

    const WAITS_FOR_REST: bool = false;

    fn answer(
        &self,
        mut request: Request<Arriving>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        request
            .extensions_mut()
            .insert(TcpConnectInfo { local_addr: None, remote_addr: Some(peer) });
        if request.version() < Version::HTTP_2 || !is_grpc(request.headers()) {
            return std::future::ready(self.misdirected(&request)).boxed();
        }
        let (parts, body) = request.into_parts();
        if let Err(error) = check_head(&parts) {
            let (reported, asked) =
                (self.reported.clone(), Asked::by(&parts.headers, &parts.extensions));
            let refused = refused(
                self.failures.clone(),
                Request::from_parts(parts, Body::empty()),
                error.into(),
            );
            let complete = move |mut answer: Response<Body>| {
                reported.complete(&asked, answer.headers_mut());
                answer
            };
            return refused.map(complete).boxed();
        }
        let answer = self.stack.clone().oneshot(Request::from_parts(parts, Body::new(body)));
        let answer: BoxFuture<'static, Response<Body>> = answer
            .map(|answer| answer.unwrap_or_else(|error| refuse(Error::internal(error))))
            .boxed();
        answer
    }

    fn refuse(&self, unreadable: &Unreadable) -> Response<Bytes> {
        self.problem(&Asked::default(), &HeaderMap::new(), self.port.unreadable(unreadable))
    }
}
