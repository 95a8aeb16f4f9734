//! A caller of the service, through one of its two listeners.

use prost_reflect::DynamicMessage;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;
use tonic::transport::Channel;

use super::server::{Addresses, Key, Server};
use super::stream::MessageStream;
use super::{grpc, rest};

/// A way into the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// The REST gateway.
    Rest,
}

/// The response of a method.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The message, in the one spelling.
    pub json: Value,
    /// The HTTP status, by REST.
    pub http: Option<u16>,
    /// HTTP headers or gRPC metadata.
    pub headers: Vec<(String, String)>,
}

/// The refusal of a method.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The code of the catalogue, in lower snake case.
    pub code: String,
    /// The HTTP status, by REST.
    pub http: Option<u16>,
    /// The status code, by gRPC.
    pub grpc: Option<tonic::Code>,
    /// Its message.
    pub message: String,
    /// The extension members of the code.
    pub members: Map<String, Value>,
    /// Every fault of the request.
    pub faults: Vec<Fault>,
    /// The id under which the log has the request.
    pub request_id: Option<String>,
    /// HTTP headers or gRPC metadata.
    pub headers: Vec<(String, String)>,
}

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, in snake case.
    pub field: String,
    /// Its kind, in lower snake case.
    pub code: String,
    /// A sentence.
    pub description: String,
}

/// A caller with a key.
#[derive(Clone)]
pub struct Client {
    pub(super) addresses: Addresses,
    pub(super) secret: String,
    pub(super) org: String,
    protocol: Protocol,
    channel: OnceCell<Channel>,
}

impl Client {
    /// A caller of a server.
    pub fn new(server: &Server, key: &Key, protocol: Protocol) -> Client {
        Client {
            addresses: server.addresses,
            secret: key.secret.clone(),
            org: key.org.clone(),
            protocol,
            channel: OnceCell::new(),
        }
    }

    /// The same caller, by proxies at these addresses.
    pub fn by(&self, addresses: Addresses) -> Client {
        Client { addresses, channel: OnceCell::new(), ..self.clone() }
    }

    /// The same caller with another secret.
    pub fn with_secret(&self, secret: &str) -> Client {
        Client { secret: secret.to_owned(), ..self.clone() }
    }

    /// The listener.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Calls a method, such as `PortfolioService/DetachEntity`, with a request in the one spelling.
    pub async fn call(&self, method: &str, request: Value) -> Result<Answer, Failure> {
        self.call_with(method, request, &[]).await
    }

    /// Calls a method with more headers (metadata, by gRPC); names in lower case.
    pub async fn call_with(
        &self,
        method: &str,
        request: Value,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        match self.protocol {
            Protocol::Grpc => grpc::call(self, method, &request, headers).await,
            Protocol::Rest => rest::call(self, method, &request, headers).await,
        }
    }

    /// Calls a method by gRPC of a server that may be lost meanwhile: none where it is lost before it has answered.
    pub async fn attempt(
        &self,
        method: &str,
        request: &Value,
        headers: &[(&str, &str)],
    ) -> Option<Result<Answer, Failure>> {
        match grpc::attempt(self, method, request, headers).await {
            Ok(answer) => Some(Ok(answer)),
            Err(status) if status.details().is_empty() => None,
            Err(status) => Some(Err(grpc::failure(&status))),
        }
    }

    /// Imports entities as one stream. The answer is the summary, with the results as `results`.
    pub async fn import(&self, entities: &[Value]) -> Result<Answer, Failure> {
        self.import_with(entities, &[]).await
    }

    /// Imports entities with more headers.
    pub async fn import_with(
        &self,
        entities: &[Value],
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        let requests: Vec<Value> =
            entities.iter().map(|entity| json!({ "entity": entity })).collect();
        self.import_requests(&requests, "", headers).await
    }

    /// Imports by requests; by REST, where only their entities are sent, with a query.
    pub async fn import_requests(
        &self,
        requests: &[Value],
        query: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        let method = "EntityService/ImportEntities";
        let (mut answers, headers) = match self.protocol {
            Protocol::Grpc => grpc::exchange(self, method, requests, headers).await?,
            Protocol::Rest => rest::exchange(self, method, requests, query, headers).await?,
        };
        let mut summary = answers
            .pop()
            .and_then(|mut last| last["summary"].as_object_mut().map(std::mem::take))
            .expect("a summary comes last");
        let results = answers.into_iter().map(|mut answer| answer["result"].take()).collect();
        summary.insert("results".to_owned(), Value::Array(results));
        Ok(Answer { json: Value::Object(summary), http: None, headers })
    }

    /// Sends a message as it is, through the gRPC listener.
    pub async fn send(
        &self,
        method: &str,
        message: DynamicMessage,
    ) -> Result<DynamicMessage, tonic::Status> {
        grpc::send(self, method, message).await
    }

    /// Calls a method that answers with a stream, to be read while it is open. By REST it is lines of JSON, or server-sent events with the header
    /// `accept: text/event-stream`.
    pub async fn stream(
        &self,
        method: &str,
        request: Value,
        headers: &[(&str, &str)],
    ) -> Result<MessageStream, Failure> {
        match self.protocol {
            Protocol::Grpc => grpc::open(self, method, &request, headers).await,
            Protocol::Rest => rest::open(self, method, &request, headers).await,
        }
    }

    /// The connection for gRPC. It is made in the runtime that first uses it.
    pub(super) async fn channel(&self) -> Channel {
        self.channel.get_or_init(|| async { grpc::connect(self.addresses.grpc) }).await.clone()
    }
}

impl Answer {
    /// A member of the message: `answer.get("current_state.number_of_processed_objects")`; fails if there is none.
    pub fn get(&self, path: &str) -> &Value {
        path.split('.').fold(&self.json, |value, name| {
            value.get(name).unwrap_or_else(|| panic!("no `{name}` of `{path}` in {}", self.json))
        })
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

impl Failure {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// All that must be the same for two callers who may not learn a difference: everything but headers and request id.
    pub fn reported(&self) -> Value {
        let faults: Vec<_> = self
            .faults
            .iter()
            .map(|fault| json!([fault.field, fault.code, fault.description]))
            .collect();
        let grpc = self.grpc.map(|code| format!("{code:?}"));
        json!({"code": self.code, "http": self.http, "grpc": grpc, "message": self.message, "members": self.members, "faults": faults})
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
}
