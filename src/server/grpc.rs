//! The gRPC listener.

use std::future::Future;
use std::net::SocketAddr;

use futures::FutureExt;
use http::{Request, Response};
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower::ServiceExt;

use super::layers::refuse;
use super::listener::{Answer, Arriving};
use super::stack::Stack;
use crate::error::Error;

/// What answers by gRPC.
#[derive(Clone)]
pub struct Grpc(pub Stack);

impl Answer for Grpc {
    type Body = Body;

    fn answer(&self, mut request: Request<Arriving>, peer: SocketAddr) -> impl Future<Output = Response<Body>> + Send + 'static {
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: Some(peer) });
        let answer = self.0.clone().oneshot(request.map(Body::new));
        answer.map(|answer| answer.unwrap_or_else(|error| refuse(Error::internal(error))))
    }
}
