//! Calls in process: the gRPC of a call, without a connection.
//!
//! `tonic::client::Grpc` takes only existing messages. Here the request is a stream that may fail, and nothing of it is read before the
//! service asks for it. So a caller without a credential is refused before its body is read, and a fault in the middle of a stream reaches
//! the service as a failure of the stream, never as its end.

use std::error::Error as StdError;

use futures::Stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use prost_reflect::DynamicMessage;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{EncodeBody, Streaming};
use tower::{Service, ServiceExt};

use super::binding::Rpc;
use super::codec::DynamicCodec;

/// A response that has begun.
pub struct Answer {
    /// Its first metadata.
    pub metadata: HeaderMap,
    /// Its messages.
    pub messages: Streaming<DynamicMessage>,
}

/// Calls an RPC with the metadata and extensions, and waits until the response begins.
pub async fn call<S>(
    stack: S,
    rpc: &Rpc,
    metadata: HeaderMap,
    extensions: http::Extensions,
    messages: impl Stream<Item = Result<DynamicMessage, Status>> + Send + 'static,
) -> Result<Answer, Status>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let codec = DynamicCodec::new(rpc.output().clone());
    let mut request =
        Request::new(Body::new(EncodeBody::new_client(codec.clone(), messages, None, None)));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = rpc.path.clone().into();
    *request.headers_mut() = metadata;
    *request.extensions_mut() = extensions;
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    request
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));

    let response =
        stack.oneshot(request).await.map_err(|error| Status::from_error(error.into()))?;
    let (parts, body) = response.into_parts();
    // A response without messages has its status among its headers.
    let messages = match Status::from_header_map(&parts.headers) {
        Some(status) if status.code() != tonic::Code::Ok => return Err(status),
        Some(_) => Streaming::new_empty(codec, body),
        None => Streaming::new_response(codec, body, parts.status, None, Some(usize::MAX)),
    };
    Ok(Answer { metadata: parts.headers, messages })
}

impl Answer {
    /// The one message of an RPC that returns one, and all metadata.
    pub async fn only(mut self) -> Result<(HeaderMap, DynamicMessage), Status> {
        let message = self
            .messages
            .message()
            .await?
            .ok_or_else(|| Status::internal("the response has no message"))?;
        if let Some(trailers) = self.messages.trailers().await? {
            self.metadata.extend(trailers.into_headers());
        }
        Ok((self.metadata, message))
    }
}
