//! Plain HTTP, `curl` and `grpcurl`.

use std::net::SocketAddr;
use std::process::Command;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; fails if it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:?} {}", self.text()))
    }

    /// Reads what `curl -i` prints: a head for each answer, of which the last counts (before it: `100 Continue`), then the body.
    fn of_curl(printed: &[u8]) -> Reply {
        let mut rest = printed;
        loop {
            let end = rest
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
                .expect("curl prints a head");
            let head = std::str::from_utf8(&rest[..end]).unwrap();
            rest = &rest[end + 4..];
            let mut lines = head.split("\r\n");
            let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
            if status < 200 {
                continue;
            }
            let headers = lines.filter_map(|line| line.split_once(':'));
            let headers = headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            return Reply { status, headers, body: rest.to_vec() };
        }
    }
}

/// Sends one HTTP request.
pub async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Reply {
    let (mut reply, body) = open(address, method, path, headers, body).await;
    reply.body = body.collect().await.unwrap().to_bytes().to_vec();
    reply
}

/// Sends one HTTP request and returns the head of the answer, without its body, and the body as it comes.
pub async fn open(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (Reply, UnsyncBoxBody<Bytes, String>) {
    let mut request =
        ::http::Request::builder().method(method).uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let response =
        client.request(request).await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
    let (head, body) = response.into_parts();
    let headers = head.headers.iter().map(|(name, value)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let reply =
        Reply { status: head.status.as_u16(), headers: headers.collect(), body: Vec::new() };
    (reply, body.map_err(|error| error.to_string()).boxed_unsync())
}

/// Runs `curl` with arguments, as a caller would; fails if there was no answer.
pub fn curl(arguments: &[&str]) -> Reply {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--max-time", "30"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "curl {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Reply::of_curl(&output.stdout)
}

/// Runs `grpcurl` with arguments; returns what it printed, or, if it failed, what it complained of.
pub fn grpcurl(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("grpcurl")
        .args(["-plaintext", "-max-time", "30"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}
