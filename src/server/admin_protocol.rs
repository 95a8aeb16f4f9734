//! The routes of operators, as a listener needs them: every refusal is a problem document here as well.

use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use tower::ServiceExt;

use super::framing;
use super::layers::{Failures, refused};
use super::listener::{Answer, Arriving, Unreadable};
use super::ports::{Port, is_grpc};
use crate::error::{Code, Error};
use crate::gateway::{self, request_id};

/// The protocol of the admin listener.
#[derive(Clone)]
pub struct AdminProtocol {
    router: Router,
    port: Port,
    /// Where the pages of errors are.
    base: String,
}

impl AdminProtocol {
    /// These routes, at this port; the service is known as `public_url`.
    pub fn new(router: Router, port: Port, public_url: Option<&str>) -> Self {
        AdminProtocol {
            router,
            port,
            base: public_url.unwrap_or_default().trim_end_matches('/').to_owned(),
        }
    }

    fn problem(&self, headers: &HeaderMap, error: Error) -> Response<Body> {
        gateway::refusal(error, headers, &self.base).map(Body::from)
    }

    async fn route(self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if let Err(error) = framing::check(&parts) {
            let mut answer = self.problem(&parts.headers, error);
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return answer;
        }
        if is_grpc(&parts.headers) {
            let status = self.port.not_grpc(parts.uri.path());
            return refused(
                Failures::new(0, None),
                Request::from_parts(parts, tonic::body::Body::empty()),
                status,
            )
            .await
            .map(Body::new);
        }
        let headers = parts.headers.clone();
        let answer = self
            .router
            .clone()
            .oneshot(Request::from_parts(parts, body))
            .await
            .unwrap_or_else(|never| match never {});
        let error = match answer.status() {
            StatusCode::NOT_FOUND => Error::new(
                Code::NotFound,
                format!("No route has this path. {}", self.port.sentence()),
            ),
            StatusCode::METHOD_NOT_ALLOWED => {
                Error::new(Code::MethodNotAllowed, "This path takes GET, HEAD.")
            }
            _ => return answer,
        };
        let mut problem = self.problem(&headers, error);
        problem.headers_mut().extend(
            answer.headers().get(header::ALLOW).cloned().map(|allowed| (header::ALLOW, allowed)),
        );
        problem
    }
}

impl Answer for AdminProtocol {
    type Body = Body;

    fn answer(
        &self,
        mut request: Request<Arriving>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        request.extensions_mut().insert(ConnectInfo(peer));
        let given = request.headers().get(request_id::HEADER).cloned();
        let answer = self.clone().route(request.map(Body::new));
        async move {
            let mut answer = answer.await;
            let headers = answer.headers_mut();
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            if !headers.contains_key(request_id::HEADER) {
                let id =
                    request_id::sane_or_new(given.as_ref().and_then(|given| given.to_str().ok()));
                headers.extend(
                    HeaderValue::try_from(id)
                        .ok()
                        .map(|id| (http::HeaderName::from_static(request_id::HEADER), id)),
                );
            }
            answer
        }
    }

    fn refuse(&self, unreadable: &Unreadable) -> Response<Bytes> {
        gateway::refusal(self.port.unreadable(unreadable), &HeaderMap::new(), &self.base)
    }
}
