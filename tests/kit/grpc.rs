//! The gRPC listener: any method by its descriptor, in JSON.

use std::collections::HashMap;

use http::uri::PathAndQuery;
use offboard::error::{Code, MemberKind};
use offboard::gateway::DynamicCodec;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use serde_json::{Map, Value, json};
use tonic::client::Grpc;
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_types::StatusExt;

use super::client::{Answer, Client, Failure, Fault};
use super::spelling;
use super::stream::MessageStream;

/// Calls a method through the gRPC listener.
pub(super) async fn call(
    client: &Client,
    rpc: &str,
    message: &Value,
    headers: &[(&str, &str)],
) -> Result<Answer, Failure> {
    attempt(client, rpc, message, headers).await.map_err(|status| failure(&status))
}

/// The same, where the server may be lost before it answers: the status of a failure, be it of the service or of the connection.
pub(super) async fn attempt(
    client: &Client,
    rpc: &str,
    message: &Value,
    headers: &[(&str, &str)],
) -> Result<Answer, Status> {
    let method = spelling::method(rpc);
    let request =
        with_metadata(client, tokio_stream::iter([encode(message, method.input())]), headers);
    let mut grpc = ready(client, rpc).await;
    match grpc.client_streaming(request, path(&method), DynamicCodec::new(method.output())).await {
        Ok(response) => {
            let json = spelling::from_protocol(&decode(response.get_ref()), &method.output());
            Ok(Answer { json, http: None, headers: headers_of(response.metadata()) })
        }
        Err(status) => Err(status),
    }
}

/// Sends a message as it is.
pub(super) async fn send(
    client: &Client,
    rpc: &str,
    message: DynamicMessage,
) -> Result<DynamicMessage, Status> {
    let method = spelling::method(rpc);
    let request = with_metadata(client, message, &[]);
    ready(client, rpc)
        .await
        .unary(request, path(&method), DynamicCodec::new(method.output()))
        .await
        .map(tonic::Response::into_inner)
}

/// Sends a stream and reads the stream that answers it to its end.
pub(super) async fn exchange(
    client: &Client,
    rpc: &str,
    requests: &[Value],
    headers: &[(&str, &str)],
) -> Result<(Vec<Value>, Vec<(String, String)>), Failure> {
    let method = spelling::method(rpc);
    let messages: Vec<DynamicMessage> =
        requests.iter().map(|request| encode(request, method.input())).collect();
    let request = with_metadata(client, tokio_stream::iter(messages), headers);
    let response = ready(client, rpc)
        .await
        .streaming(request, path(&method), DynamicCodec::new(method.output()))
        .await;
    let (metadata, mut stream, _) = response.map_err(|status| failure(&status))?.into_parts();
    let mut answers = Vec::new();
    while let Some(message) = stream.message().await.map_err(|status| failure(&status))? {
        answers.push(spelling::from_protocol(&decode(&message), &method.output()));
    }
    Ok((answers, headers_of(&metadata)))
}

/// Calls a method that answers with a stream.
pub(super) async fn open(
    client: &Client,
    rpc: &str,
    request: &Value,
    headers: &[(&str, &str)],
) -> Result<MessageStream, Failure> {
    let method = spelling::method(rpc);
    let request = with_metadata(client, encode(request, method.input()), headers);
    let mut grpc = ready(client, rpc).await;
    match grpc.server_streaming(request, path(&method), DynamicCodec::new(method.output())).await {
        Ok(response) => {
            let headers = headers_of(response.metadata());
            Ok(MessageStream::grpc(response.into_inner(), method.output(), headers))
        }
        Err(status) => Err(failure(&status)),
    }
}

fn with_metadata<T>(client: &Client, message: T, headers: &[(&str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {}", client.secret);
    for (name, value) in
        std::iter::once(("authorization", bearer.as_str())).chain(headers.iter().copied())
    {
        request
            .metadata_mut()
            .insert(name.parse::<MetadataKey<_>>().unwrap(), value.parse().unwrap());
    }
    request
}

async fn ready(client: &Client, rpc: &str) -> Grpc<Channel> {
    let mut grpc = Grpc::new(client.channel().await);
    grpc.ready().await.unwrap_or_else(|error| panic!("{rpc}: {error:?}"));
    grpc
}

fn path(method: &MethodDescriptor) -> PathAndQuery {
    format!("/{}/{}", method.parent_service().full_name(), method.name()).parse().unwrap()
}

/// A connection to a server.
pub(super) fn connect(address: std::net::SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

fn encode(request: &Value, message: MessageDescriptor) -> DynamicMessage {
    let spelled = spelling::to_grpc(request, &message);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let name = message.name().to_owned();
    DynamicMessage::deserialize_with_options(message, spelled, &options)
        .unwrap_or_else(|error| panic!("no {name} is {request}: {error}"))
}

pub(super) fn decode(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

fn headers_of(metadata: &MetadataMap) -> Vec<(String, String)> {
    let headers = metadata.clone().into_headers();
    headers
        .iter()
        .map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect()
}

/// AIP-193 asks for this: whatever differs in a message from call to call is among the metadata too, so that no program has to read
/// sentences.
fn assert_reported_to_programs(code: Code, message: &str, metadata: &HashMap<String, String>) {
    // Of these the violations, or the position, say it all; or there is nothing that differs. What is known of values of entities, and from how many, is in
    // the violations of a suspect value.
    let elsewhere = [
        Code::ValidationFailed,
        Code::InvalidFilter,
        Code::AuthenticationRequired,
        Code::InvalidCredentials,
        Code::Unavailable,
        Code::SuspectValue,
    ];
    if elsewhere.contains(&code) {
        return;
    }
    let message = ["only a `Pending` one", "each for 24 hours"]
        .iter()
        .fold(message.to_owned(), |message, same| message.replace(same, ""));
    let quoted = message.split('`').skip(1).step_by(2);
    let numbers = message
        .split(|character: char| !character.is_ascii_digit())
        .filter(|digits| !digits.is_empty());
    for differs in quoted.chain(numbers) {
        let reported = metadata.values().any(|value| value.contains(differs));
        assert!(
            reported,
            "`{differs}` of {code} is not among the metadata {metadata:?}: {message}"
        );
    }
}

/// A status in the form of the problem document.
pub(super) fn failure(status: &Status) -> Failure {
    let details = status.get_error_details();
    let info =
        details.error_info().unwrap_or_else(|| panic!("the status has no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "offboard", "{status:?}");
    let code = Code::from_reason(&info.reason)
        .unwrap_or_else(|| panic!("no code of the catalogue: {status:?}"));
    assert_eq!(status.code(), code.grpc(), "{status:?}");
    assert_reported_to_programs(code, status.message(), &info.metadata);
    let mut members = Map::new();
    for (name, kind) in code.members() {
        if let Some(text) = info.metadata.get(*name) {
            members.insert((*name).to_owned(), member(text, *kind));
        }
    }
    let violations = details
        .bad_request()
        .map(|request| request.field_violations.as_slice())
        .unwrap_or_default();
    let faults = violations.iter().map(|violation| Fault {
        field: violation.field.clone(),
        code: violation.reason.to_ascii_lowercase(),
        description: violation.description.clone(),
    });
    let headers = headers_of(status.metadata());
    let request_id = details.request_info().map(|info| info.request_id.clone());
    let from_header =
        || headers.iter().find(|(name, _)| name == "x-request-id").map(|(_, value)| value.clone());
    Failure {
        code: code.name().to_owned(),
        http: None,
        grpc: Some(status.code()),
        message: status.message().to_owned(),
        members,
        faults: faults.collect(),
        request_id: request_id.or_else(from_header),
        headers,
    }
}

fn member(text: &str, kind: MemberKind) -> Value {
    match kind {
        MemberKind::Text => json!(text),
        MemberKind::Integer => {
            json!(text.parse::<i64>().unwrap_or_else(|_| panic!("{text:?} is no number")))
        }
        MemberKind::List => {
            serde_json::from_str(text).unwrap_or_else(|_| panic!("{text:?} is no list"))
        }
    }
}
