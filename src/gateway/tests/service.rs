//! A gRPC service written without any generated code, behind a gateway.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage, Value};
use tonic::{Status, Streaming};
use tower::{Service, ServiceExt, service_fn};

use crate::error::{Code, Error};
use crate::gateway::codec::DynamicCodec;
use crate::gateway::{Gateway, Options};

/// Compiles the protos of the tests, with the custom options kept.
pub fn pool(files: &[&str]) -> DescriptorPool {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut compiler =
        protox::Compiler::new([format!("{root}/proto"), format!("{root}/src/gateway/tests")])
            .unwrap();
    compiler.include_imports(true).open_files(files).unwrap();
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
}

/// The service, and the request of its last call.
#[derive(Clone)]
pub struct Sample {
    pool: DescriptorPool,
    pub seen: Arc<Mutex<Received>>,
}

#[derive(Default)]
pub struct Received {
    pub metadata: HeaderMap,
    pub peer: Option<SocketAddr>,
    pub messages: usize,
    pub failure: Option<String>,
}

impl Service<Request<tonic::body::Body>> for Sample {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        *self.seen.lock().unwrap() =
            Received { metadata: request.headers().clone(), peer, ..Received::default() };
        if request.headers().get("authorization").is_some_and(|value| value == "Bearer wrong") {
            let status =
                Status::from(Error::new(Code::InvalidCredentials, "The key is not known."));
            return Box::pin(async move { Ok(status.into_http()) });
        }
        let (service, method) = request.uri().path()[1..].split_once('/').unwrap();
        let service = self.pool.get_service_by_name(service).unwrap();
        let method = service.methods().find(|candidate| candidate.name() == method).unwrap();
        let name = method.name().to_owned();
        let mut grpc = tonic::server::Grpc::new(DynamicCodec::new(method.input()));
        let (output, seen) = (method.output(), Arc::clone(&self.seen));
        Box::pin(async move {
            Ok(match name.as_str() {
                "Upload" => {
                    grpc.client_streaming(
                        service_fn(move |request| {
                            upload(request, output.clone(), Arc::clone(&seen))
                        }),
                        request,
                    )
                    .await
                }
                "SendPieces" => {
                    grpc.streaming(
                        service_fn(move |request| send_pieces(request, output.clone())),
                        request,
                    )
                    .await
                }
                "Follow" => {
                    grpc.server_streaming(
                        service_fn(move |request| follow(request, output.clone())),
                        request,
                    )
                    .await
                }
                "Watch" => {
                    grpc.server_streaming(
                        service_fn(move |request| watch(request, output.clone())),
                        request,
                    )
                    .await
                }
                _ => {
                    grpc.unary(
                        service_fn(move |request| unary(name.clone(), request, output.clone())),
                        request,
                    )
                    .await
                }
            })
        })
    }
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).unwrap().as_str().unwrap().to_owned()
}

async fn unary(
    name: String,
    request: tonic::Request<DynamicMessage>,
    output: MessageDescriptor,
) -> Result<tonic::Response<DynamicMessage>, Status> {
    let message = request.into_inner();
    let mut response = tonic::Response::new(message);
    let metadata = response.metadata_mut();
    match name.as_str() {
        "Make" => {
            metadata.insert("x-http-code", "201".parse().unwrap());
            metadata.insert("location", "/orders/1".parse().unwrap());
            metadata.insert_bin("x-internal-bin", tonic::metadata::MetadataValue::from_bytes(b"x"));
        }
        "Send" => return Ok(tonic::Response::new(sent(response.get_ref(), &output))),
        "Echo" => {
            let file = response.into_inner();
            let mut echo = DynamicMessage::new(output);
            echo.set_field_by_name("file", Value::Message(file));
            return Ok(tonic::Response::new(echo));
        }
        "Done" => drop(metadata.insert("x-http-code", "204".parse().unwrap())),
        "Fail" => {
            let (code, text) = (text(response.get_ref(), "code"), text(response.get_ref(), "text"));
            assert_ne!(code, "panic", "asked to");
            let code = Code::from_reason(&code).unwrap();
            let mut status = Status::from(
                Error::new(code, text).with("current_state", "onboarding").caused_by("secret"),
            );
            status.metadata_mut().insert("x-ratelimit-limit", "10".parse().unwrap());
            return Err(status);
        }
        _ => {}
    }
    assert_eq!(response.get_ref().descriptor(), output);
    Ok(response)
}

async fn upload(
    request: tonic::Request<Streaming<DynamicMessage>>,
    output: MessageDescriptor,
    seen: Arc<Mutex<Received>>,
) -> Result<tonic::Response<DynamicMessage>, Status> {
    let mut messages = request.into_inner();
    loop {
        match messages.message().await {
            Ok(Some(_)) => seen.lock().unwrap().messages += 1,
            Ok(None) => break,
            Err(status) => {
                seen.lock().unwrap().failure = Some(status.message().to_owned());
                return Err(status);
            }
        }
    }
    let mut response = DynamicMessage::new(output);
    response.set_field_by_name("received", Value::I64(seen.lock().unwrap().messages as i64));
    Ok(tonic::Response::new(response))
}

/// The value that was sent, after its name.
fn sent(request: &DynamicMessage, output: &MessageDescriptor) -> DynamicMessage {
    let file = request.get_field_by_name("file").unwrap().into_owned();
    let file = file.as_message().unwrap();
    let data = file.get_field_by_name("data").unwrap();
    let mut name = text(request, "name");
    if request.get_field_by_name("loud").unwrap().as_bool().unwrap() {
        name.make_ascii_uppercase();
    }
    let mut answer = DynamicMessage::new(output.clone());
    let content_type = text(file, "content_type");
    answer.set_field_by_name(
        "content_type",
        Value::String(content_type.replace("text/plain", "text/csv")),
    );
    answer.set_field_by_name(
        "data",
        Value::Bytes([name.as_bytes(), b":", data.as_bytes().unwrap()].concat().into()),
    );
    answer
}

/// Each piece as it comes. `fail` is a piece that ends the stream.
async fn send_pieces(
    request: tonic::Request<Streaming<DynamicMessage>>,
    output: MessageDescriptor,
) -> Result<tonic::Response<Orders>, Status> {
    let pieces = request.into_inner().map(move |piece| {
        let answer = sent(&piece?, &output);
        let data = answer.get_field_by_name("data").unwrap().into_owned();
        if data.as_bytes().unwrap().ends_with(b"fail") {
            Err(Error::unavailable("No more.").into())
        } else {
            Ok(answer)
        }
    });
    Ok(tonic::Response::new(pieces.boxed()))
}

type Orders = Pin<Box<dyn Stream<Item = Result<DynamicMessage, Status>> + Send>>;

async fn watch(
    request: tonic::Request<DynamicMessage>,
    output: MessageDescriptor,
) -> Result<tonic::Response<Orders>, Status> {
    let message = request.into_inner();
    let count = message.get_field_by_name("count").unwrap().as_i32().unwrap();
    let orders = futures::stream::iter(0..count).map(move |number| {
        let mut order = DynamicMessage::new(output.clone());
        order.set_field_by_name("item_count", Value::I64(number.into()));
        Ok(order)
    });
    let end = text(&message, "end");
    let end = futures::stream::iter((!end.is_empty()).then_some(end)).map(|end| {
        assert_ne!(end, "panic", "asked to");
        Err(Error::new(Code::from_reason(&end).unwrap(), "The end.").into())
    });
    Ok(tonic::Response::new(orders.chain(end).boxed()))
}

/// News with and without an order, each at its place.
async fn follow(
    request: tonic::Request<DynamicMessage>,
    output: MessageDescriptor,
) -> Result<tonic::Response<Orders>, Status> {
    let count = request.into_inner().get_field_by_name("count").unwrap().as_i32().unwrap();
    let news = futures::stream::iter(0..count).map(move |number| {
        let mut news = DynamicMessage::new(output.clone());
        news.set_field_by_name("place", Value::String(format!("p{number}")));
        if number % 2 == 1 {
            let order =
                output.get_field_by_name("order").unwrap().kind().as_message().unwrap().clone();
            news.set_field_by_name("order", Value::Message(DynamicMessage::new(order)));
        }
        Ok(news)
    });
    Ok(tonic::Response::new(news.boxed()))
}

/// A gateway with the sample services behind it.
pub struct TestGateway {
    pub gateway: Gateway<Sample>,
    pub seen: Arc<Mutex<Received>>,
}

/// A response, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl TestGateway {
    pub fn new() -> TestGateway {
        TestGateway::of(pool(&["sample.proto"]))
    }

    /// A gateway with all services of these descriptors.
    pub fn of(pool: DescriptorPool) -> TestGateway {
        let seen = Arc::default();
        let sample = Sample { pool: pool.clone(), seen: Arc::clone(&seen) };
        let options = Options { max_body_bytes: 4096, ..Options::default() };
        TestGateway { gateway: Gateway::new(pool, sample, options).unwrap(), seen }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.gateway.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub async fn request(&self, method: &str, uri: &str, body: impl Into<Body>) -> Answer {
        self.send(Request::builder().method(method).uri(uri).body(body.into()).unwrap()).await
    }
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// `field: code` of every fault, after checks of the rest of the problem.
    pub fn faults(&self) -> Vec<String> {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], self.status.as_u16());
        assert_eq!(document["request_id"], self.header("x-request-id"));
        let errors = document["errors"].as_array().unwrap();
        errors
            .iter()
            .map(|error| {
                format!("{}: {}", error["field"].as_str().unwrap(), error["code"].as_str().unwrap())
            })
            .collect()
    }
}
