//! The REST listener: a request is put together as its contract says, sent, and its answer read.

use http_body_util::BodyExt;
use serde_json::{Map, Value};

use super::client::{Answer, Client, Failure, Fault};
use super::http::{self, Reply, http};
use super::routes::{Body, Credential, Route};
use super::spelling;
use super::stream::MessageStream;

/// A request, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The HTTP method.
    pub method: &'static str,
    /// The path with the query.
    pub target: String,
    /// The body, if there is one.
    pub body: Option<Value>,
    /// How to show the key.
    pub credential: Credential,
}

/// The request that a contract's caller sends for a method, from the one spelling. A path that needs a tenant which the request does not
/// name gets `org`.
pub fn prepare(rpc: &str, request: &Value, org: &str) -> Prepared {
    let rpc = rpc.trim_start_matches("offboard.v1.");
    let descriptor = spelling::method(rpc);
    let members = request.as_object().expect("a request is an object");
    let route = Route::fitting(rpc, |member| members.contains_key(member));

    let mut members: Map<String, Value> = members.clone();
    let path = fill(&route.path, &mut members, org);
    let spelled = match Value::Object(members) {
        members if route.camel_case => spelling::to_camel_case(&members, &descriptor.input()),
        members => members,
    };
    let Value::Object(mut rest) = spelled else { unreachable!("an object stays one") };
    let body = match &route.body {
        Body::Rest => Some(Value::Object(std::mem::take(&mut rest))),
        Body::Member(member) => rest.remove(member),
        Body::None | Body::Lines(_) => None,
    };
    let query = query(&rest);
    Prepared {
        method: route.method,
        target: format!("{path}{query}"),
        body,
        credential: route.credential,
    }
}

/// Puts members into the braces of a path and takes them out of the request.
fn fill(path: &str, members: &mut Map<String, Value>, org: &str) -> String {
    let mut filled = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').expect("a brace is closed");
        let value = match (members.remove(name), name) {
            (Some(value), _) => text(&value),
            (None, "tenant") => org.to_owned(),
            (None, _) => panic!("the request has no `{name}`, which {path} needs"),
        };
        filled.push_str(before);
        filled.push_str(&encode(&value));
        rest = after;
    }
    filled + rest
}

/// Members as a query; a list as one parameter for each value, a message as one for each member of its own.
fn query(members: &Map<String, Value>) -> String {
    fn add(name: &str, value: &Value, pairs: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| add(name, item, pairs)),
            Value::Object(members) => members
                .iter()
                .for_each(|(member, value)| add(&format!("{name}.{member}"), value, pairs)),
            value => pairs.push(format!("{}={}", encode(name), encode(&text(value)))),
        }
    }
    let mut pairs = Vec::new();
    members.iter().for_each(|(name, value)| add(name, value, &mut pairs));
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Calls a method through the REST listener.
pub(super) async fn call(
    client: &Client,
    rpc: &str,
    request: &Value,
    headers: &[(&str, &str)],
) -> Result<Answer, Failure> {
    let prepared = prepare(rpc, request, &client.org);
    let body = prepared.body.as_ref().map(Value::to_string);
    let content_type = body.as_ref().map(|_| "application/json");
    let reply = send(client, &prepared, content_type, body.unwrap_or_default(), headers).await;
    read(&reply, rpc)
}

/// Calls a method that takes a stream and answers with one: each item is a request, each line an answer.
pub(super) async fn exchange(
    client: &Client,
    rpc: &str,
    requests: &[Value],
    query: &str,
    headers: &[(&str, &str)],
) -> Result<(Vec<Value>, Vec<(String, String)>), Failure> {
    let route = Route::first(rpc);
    let Body::Lines(member) = &route.body else { panic!("{rpc} takes no stream") };
    let lines: String =
        requests.iter().map(|request| format!("{}\n", request[member.as_str()])).collect();
    let prepared = Prepared {
        method: route.method,
        target: format!("{}{query}", route.path),
        body: None,
        credential: route.credential,
    };
    let reply = send(client, &prepared, Some("application/x-ndjson"), lines, headers).await;
    if reply.status >= 300 {
        return read(&reply, rpc).map(|answer| (vec![answer.json], answer.headers));
    }
    let output = spelling::method(rpc).output();
    let mut answers = Vec::new();
    for line in reply.text().lines() {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"));
        if let Some(problem) = line.get("error") {
            return Err(failure(problem, &reply.headers));
        }
        answers.push(spelling::from_protocol(&line, &output));
    }
    Ok((answers, reply.headers.clone()))
}

/// Calls a method that answers with a stream.
pub(super) async fn open(
    client: &Client,
    rpc: &str,
    request: &Value,
    headers: &[(&str, &str)],
) -> Result<MessageStream, Failure> {
    let prepared = prepare(rpc, request, &client.org);
    assert!(prepared.body.is_none(), "a request for a stream has no body");
    let (name, value) = credential(client, &prepared);
    let mut all = vec![(name, value.as_str())];
    all.extend(accept(headers));
    all.extend(headers);
    let (mut reply, body) =
        http::open(client.addresses.http, prepared.method, &prepared.target, &all, "").await;
    if reply.status >= 300 {
        reply.body = body.collect().await.unwrap().to_bytes().to_vec();
        return Err(read(&reply, rpc).unwrap_err());
    }
    let member = Route::first(rpc).answer.as_deref();
    Ok(MessageStream::rest(body, spelling::method(rpc).output(), member, reply.headers))
}

async fn send(
    client: &Client,
    request: &Prepared,
    content_type: Option<&str>,
    body: String,
    headers: &[(&str, &str)],
) -> Reply {
    let (name, value) = credential(client, request);
    let mut all = vec![(name, value.as_str())];
    all.extend(content_type.map(|content_type| ("content-type", content_type)));
    all.extend(accept(headers));
    all.extend(headers);
    http(client.addresses.http, request.method, &request.target, &all, body).await
}

/// Every failure is read from a problem document, also by the contract that has them only for those who name them.
fn accept(headers: &[(&str, &str)]) -> Option<(&'static str, &'static str)> {
    let is_named = headers.iter().any(|(name, _)| *name == "accept");
    (!is_named).then_some(("accept", "application/problem+json"))
}

fn credential(client: &Client, request: &Prepared) -> (&'static str, String) {
    match request.credential {
        Credential::ApiKey => ("apikey", client.secret.clone()),
        Credential::Bearer => ("authorization", format!("Bearer {}", client.secret)),
    }
}

fn read(reply: &Reply, rpc: &str) -> Result<Answer, Failure> {
    let request_id = reply.header("x-request-id").map(str::to_owned);
    assert!(request_id.is_some(), "every answer has an x-request-id: {reply:?}");
    if reply.status == 204 {
        assert_eq!(
            (reply.text().as_str(), reply.header("content-type")),
            ("", None),
            "204 has no content"
        );
        return Ok(Answer {
            json: Value::Object(Map::new()),
            http: Some(reply.status),
            headers: reply.headers.clone(),
        });
    }
    if reply.status < 300 {
        let json = match &Route::first(rpc.trim_start_matches("offboard.v1.")).answer {
            Some(member) => Value::Object(Map::from_iter([(member.clone(), reply.json())])),
            None => reply.json(),
        };
        let json = spelling::from_protocol(&json, &spelling::method(rpc).output());
        return Ok(Answer { json, http: Some(reply.status), headers: reply.headers.clone() });
    }
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{}", reply.text());
    let problem = reply.json();
    assert_eq!(problem["status"], reply.status, "{problem}");
    Err(failure(&problem, &reply.headers))
}

/// The failure in a problem document, of a response with these headers.
pub(super) fn failure(problem: &Value, headers: &[(String, String)]) -> Failure {
    let word = |name: &str| {
        problem[name]
            .as_str()
            .unwrap_or_else(|| panic!("the problem has no `{name}`: {problem}"))
            .to_owned()
    };
    let request_id =
        headers.iter().find(|(name, _)| name == "x-request-id").map(|(_, value)| value.clone());
    assert_eq!(Some(word("request_id")), request_id, "{problem}");
    let standard = [
        "type",
        "title",
        "status",
        "code",
        "detail",
        "doc_url",
        "request_id",
        "errors",
        "instance",
    ];
    let members = problem.as_object().expect("a problem is an object").iter();
    let members = members
        .filter(|(name, _)| !standard.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()));
    let faults = problem["errors"].as_array().into_iter().flatten().map(|fault| Fault {
        field: spelling::snake_case(fault["field"].as_str().unwrap_or_default()),
        code: fault["code"].as_str().unwrap_or_default().to_owned(),
        description: fault["description"].as_str().unwrap_or_default().to_owned(),
    });
    Failure {
        code: word("code"),
        http: problem["status"].as_u64().and_then(|status| u16::try_from(status).ok()),
        grpc: None,
        message: word("detail"),
        members: members.collect(),
        faults: faults.collect(),
        request_id,
        headers: headers.to_vec(),
    }
}
