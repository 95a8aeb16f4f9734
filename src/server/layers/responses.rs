//! Pays for the responses of calls out of the memory for responses, from when they are built until they are written.
//!
//! A response of one message is built here, before anybody reads it, so that it can still be refused. A response that passes through the
//! gateway, or a message of a stream that does, is paid for by the gateway once more as it is written there.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use tonic::Status;
use tonic::body::Body;

use super::around::{Around, Inner};
use super::methods::Methods;
use super::{failed, refuse};
use crate::access::Caller;
use crate::error::{Code, Error};
use crate::limits::answers::FREE_RESPONSE_BYTES;
use crate::limits::responses::{Cut, Responding, ResponseMemory};

/// How many times a message is in memory while the gateway makes JSON of it: as it was built, as it is read, and as JSON.
const COPIES_IN_GATEWAY: usize = 3;

/// Comes after the layer that finds the caller, whose realm pays.
#[derive(Clone, Debug)]
pub struct Responses {
    memory: ResponseMemory,
    methods: Methods,
}

impl Responses {
    /// Responses that are paid for out of this memory.
    pub fn new(memory: ResponseMemory, methods: Methods) -> Self {
        Responses { memory, methods }
    }
}

impl Around for Responses {
    async fn around<S: Inner>(
        self,
        mut request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let by_gateway = request.extensions().get::<Responding>().cloned();
        let copies = if by_gateway.is_some() { COPIES_IN_GATEWAY } else { 1 };
        let responding = by_gateway.unwrap_or_else(|| self.memory.open());
        responding
            .charge_to(request.extensions().get::<Caller>().map_or(0, |caller| caller.realm.id()));
        let method = self.methods.find(request.uri().path());
        let (streaming, only_reads) = method
            .map_or((false, true), |method| (method.streaming, method.only_reads || method.probe));
        if !only_reads && let Err(error) = responding.check() {
            return Ok(refuse(error));
        }
        let cut = request.extensions().get::<Cut>().cloned();
        request.extensions_mut().insert(responding.clone());
        let (parts, body) = inner.call(request).await?.into_parts();
        if streaming {
            let written = responding.written(body, failed, cut);
            return Ok(Response::from_parts(parts, Body::new(written)));
        }
        if body.is_end_stream() {
            return Ok(Response::from_parts(parts, body));
        }
        let mut body = Begun { first: None, rest: body };
        body.first = body.rest.frame().await;
        let bytes = body
            .first
            .as_ref()
            .and_then(|first| first.as_ref().ok()?.data_ref())
            .map_or(0, Bytes::len);
        if bytes <= FREE_RESPONSE_BYTES {
            return Ok(Response::from_parts(parts, Body::new(body)));
        }
        if let Err(error) = responding.built(copies * bytes).await {
            return Ok(refuse(if only_reads { error } else { unsaid() }));
        }
        let body = if copies == 1 {
            Body::new(responding.written(body, failed, cut))
        } else {
            Body::new(body)
        };
        Ok(Response::from_parts(parts, body))
    }
}

/// The failure of a call that has taken effect, and whose response has no room.
fn unsaid() -> Error {
    Error::new(
        Code::DeadlineExceeded,
        "The call has taken effect, and there is no room for its response; read what it changed.",
    )
}

/// A body of which the first frame was taken.
struct Begun {
    first: Option<Result<Frame<Bytes>, Status>>,
    rest: Body,
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http_body_util::Full;
    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::server::layers::testing::{answering, request};
    use crate::server::layers::{AroundLayer, code_of};

    const GET: &str = "/offboard.v1.EntityService/GetEntity";
    const CREATE: &str = "/offboard.v1.EntityService/CreateEntity";

    #[tokio::test(start_paused = true)]
    async fn a_response_is_built_and_paid_for_before_anybody_reads_it() {
        let memory = ResponseMemory::new(4 << 20);
        let layer = AroundLayer(Responses::new(memory.clone(), Methods::served()));
        let answer = || {
            let trailers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static("0"),
            )]);
            Response::new(Body::new(
                Full::new(Bytes::from(vec![0; 1 << 20]))
                    .with_trailers(std::future::ready(Some(Ok(trailers)))),
            ))
        };
        let stack = layer.layer(answering(answer));
        let call = async |path: &str| stack.clone().oneshot(request(path)).await.unwrap();
        let first = call(GET).await;
        let refused = call(GET).await;
        assert_eq!(code_of(refused.headers()), Some(tonic::Code::Unavailable));
        assert_eq!(
            code_of(call(CREATE).await.headers()),
            Some(tonic::Code::DeadlineExceeded),
            "it has taken effect"
        );
        let whole = first.into_body().collect().await.unwrap();
        assert_eq!(code_of(whole.trailers().unwrap()), Some(tonic::Code::Ok));
        assert_eq!(whole.to_bytes().len(), 1 << 20);
        let full = memory.open();
        full.expect(4 << 20).await.unwrap();
        assert_eq!(
            code_of(call(CREATE).await.headers()),
            Some(tonic::Code::Unavailable),
            "nothing is done"
        );
        drop(full);
        assert_eq!(code_of(call(GET).await.headers()), None, "it has begun");
    }
}
