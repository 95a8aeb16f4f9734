//! A real NATS server with JetStream, which can be killed and started again on what it has stored.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::Stream;
use futures::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::port::free_port;

/// A server on a port of its own; killed, and what it stored removed, at the end.
pub struct NatsServer {
    port: u16,
    arguments: Vec<String>,
    folder: TempDir,
    process: Option<Child>,
}

/// A message as a stream has it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its subject.
    pub subject: String,
    /// The header `Nats-Msg-Id`.
    pub id: String,
    /// The header `content-type`.
    pub content_type: String,
    /// Its payload, read as JSON.
    pub event: Value,
}

impl NatsServer {
    /// Starts a server.
    pub async fn start() -> NatsServer {
        NatsServer::start_with(&[]).await
    }

    /// Starts a server with more arguments.
    pub async fn start_with(arguments: &[&str]) -> NatsServer {
        let mut server = NatsServer::not_started(arguments);
        server.start_again().await;
        server
    }

    /// A server that is not there yet, on a port that is free now.
    pub fn not_started(arguments: &[&str]) -> NatsServer {
        let port = free_port();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        NatsServer { port, arguments, folder: TempDir::new().unwrap(), process: None }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts it, on what it has stored before, and waits until it answers.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let mut command = Command::new("nats-server");
        command
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                &self.port.to_string(),
                "--jetstream",
                "--store_dir",
            ])
            .arg(self.folder.path());
        command.args(["--log"]).arg(self.folder.path().join("log")).args(&self.arguments);
        let process =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.process =
            Some(process.expect("`nats-server` is on the PATH; script/bootstrap installs it"));
        for _ in 0..1500 {
            if std::fs::read_to_string(self.folder.path().join("log"))
                .is_ok_and(|log| log.contains("Server is ready"))
            {
                std::fs::remove_file(self.folder.path().join("log")).unwrap();
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nats-server does not get ready");
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.as_ref().expect("it runs").id().cast_signed()), signal)
            .unwrap();
    }

    /// A client of its JetStream.
    pub async fn jetstream(&self) -> async_nats::jetstream::Context {
        self.jetstream_as(async_nats::ConnectOptions::new()).await
    }

    /// A client of its JetStream that says who it is.
    pub async fn jetstream_as(
        &self,
        options: async_nats::ConnectOptions,
    ) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(options.connect(self.url()).await.unwrap())
    }

    /// A stream that is there, or `None`.
    pub async fn stream(&self, name: &str) -> Option<Stream> {
        self.jetstream().await.get_stream(name).await.ok()
    }

    /// How many messages a stream has; 0 if it is not there.
    pub async fn count(&self, stream: &str) -> usize {
        match self.stream(stream).await {
            Some(stream) => usize::try_from(stream.cached_info().state.messages).unwrap(),
            None => 0,
        }
    }

    /// Waits until a stream has this many messages, or more, and returns all of them in order; fails after half a minute.
    pub async fn messages(&self, stream: &str, count: usize) -> Vec<Stored> {
        for _ in 0..1500 {
            if self.count(stream).await >= count {
                return self.all(stream).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("waited in vain for {count} messages; there are {}", self.count(stream).await);
    }

    async fn all(&self, name: &str) -> Vec<Stored> {
        let count = self.count(name).await;
        let Some(stream) = self.stream(name).await else { return Vec::new() };
        let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
        let consumer = stream.create_consumer(config).await.unwrap();
        let mut all = Vec::new();
        while all.len() < count {
            let mut fetched =
                consumer.fetch().max_messages(count - all.len()).messages().await.unwrap();
            while let Some(message) = fetched.next().await {
                let message = message.unwrap();
                let headers = message.headers.as_ref().unwrap();
                let header = |name: &str| {
                    headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default()
                };
                all.push(Stored {
                    subject: message.subject.to_string(),
                    id: header("Nats-Msg-Id"),
                    content_type: header("content-type"),
                    event: serde_json::from_slice(&message.payload).unwrap(),
                });
            }
        }
        all
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
