//! The publisher to NATS JetStream.
//!
//! A message is a CloudEvent in the structured mode of the NATS protocol binding: the whole event is the payload, so that a consumer that
//! stores or passes on the payload alone loses nothing, and a message reads as the event does that was asked for over REST.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::context::{
    ContextBuilder, PublishAckFuture, PublishError, PublishErrorKind,
};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{Context, stream};
use async_nats::{ConnectOptions, Event as Happening, ServerAddr};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::sync::watch;

use crate::error::{Error, Result, Violations};
use crate::events::publisher::{CONTENT_TYPE, Failure, Message, Published, Publisher};
use crate::events::taken::Taken;
use crate::limits::events::READ_BACK;

/// How many messages may be on their way without being acknowledged.
const WINDOW: usize = 256;
/// How long the server may take to acknowledge a message, or to answer about the stream.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a batch waits for a connection before it fails.
const CONNECTED_WITHIN: Duration = Duration::from_secs(1);
/// For how long the stream knows the ids of its messages, so that what comes again is dropped. For a stream that we make.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(2 * 60);
/// For how long a stream that we make keeps messages: as long as events are kept here.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The characters that a token of a subject may have as it is: no separator, no wildcard, no space, and only ASCII.
const TOKEN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// Where to publish, and how.
#[derive(Clone)]
pub struct NatsSettings {
    /// One or more URLs, with commas between them.
    pub url: String,
    /// A file with a user's JWT and seed.
    pub credentials_file: Option<PathBuf>,
    /// Root certificates that are trusted instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// The first tokens of every subject.
    pub subject_prefix: String,
    /// The stream that takes the messages.
    pub stream: String,
    /// Create the stream if it does not exist.
    pub create_stream: bool,
}

/// Publishes to a stream of NATS JetStream.
pub struct NatsPublisher {
    context: Context,
    subject_prefix: String,
    stream: String,
    create_stream: bool,
    connected: watch::Receiver<bool>,
    stream_is_there: AtomicBool,
}

impl NatsSettings {
    /// Checks what can be checked of them without a server.
    pub fn check(&self) -> Result<()> {
        let mut faults = Violations::new();
        if let Some(file) = &self.credentials_file {
            let read = std::fs::read_to_string(file)
                .and_then(|text| ConnectOptions::with_credentials(&text).map(drop));
            if read.is_err() {
                // The faults of it may be the seed.
                faults.add(
                    "--nats-credentials-file",
                    "invalid",
                    format!("{} has no JWT and seed of a NATS user", file.display()),
                );
            }
        }
        faults.check_with(servers(&self.url).map(drop))
    }
}

impl NatsPublisher {
    /// A publisher with these settings. Connects in the background and as often as need be, so a server that is unreachable is not a
    /// failure; a URL or a file that cannot be read is.
    pub async fn new(settings: NatsSettings) -> Result<Self> {
        let (servers, user) = servers(&settings.url)?;
        let (is_connected, connected) = watch::channel(false);
        let mut options = ConnectOptions::new()
            .name("offboard")
            .retry_on_initial_connect()
            .event_callback(move |happening| {
                match happening {
                    Happening::Connected => is_connected.send_replace(true),
                    Happening::Disconnected | Happening::Closed => is_connected.send_replace(false),
                    _ => false,
                };
                std::future::ready(())
            });
        if let Some((user, password)) = user {
            options = options.user_and_password(user, password);
        }
        if let Some(file) = &settings.credentials_file {
            let unreadable = |error| {
                Error::unavailable("--nats-credentials-file cannot be read.").caused_by(error)
            };
            options = options.credentials_file(file).await.map_err(unreadable)?;
        }
        if let Some(file) = settings.ca_file {
            options = options.add_root_certificates(file);
        }
        let client = options
            .connect(servers)
            .await
            .map_err(|error| Error::unavailable("--nats-url cannot be used.").caused_by(error))?;
        let context = ContextBuilder::new().timeout(ANSWER_WITHIN).build(client);
        let NatsSettings { subject_prefix, stream, create_stream, .. } = settings;
        Ok(NatsPublisher {
            context,
            subject_prefix,
            stream,
            create_stream,
            connected,
            stream_is_there: AtomicBool::new(false),
        })
    }

    /// Makes the stream unless it exists, or is not ours to make. An existing stream stays as it is.
    async fn see_to_stream(&self) -> Result<(), Failure> {
        if !self.create_stream || self.stream_is_there.load(Ordering::Relaxed) {
            return Ok(());
        }
        let config = stream::Config {
            name: self.stream.clone(),
            description: Some("Events of offboard".to_owned()),
            subjects: vec![format!("{}.>", self.subject_prefix)],
            storage: stream::StorageType::File,
            discard: stream::DiscardPolicy::Old,
            max_age: KEPT,
            duplicate_window: DUPLICATE_WINDOW,
            ..stream::Config::default()
        };
        let made =
            tokio::time::timeout(ANSWER_WITHIN, self.context.get_or_create_stream(config)).await;
        match made {
            Ok(Ok(_)) => self.stream_is_there.store(true, Ordering::Relaxed),
            Ok(Err(error)) => return Err(Failure { code: "no_stream", cause: error.to_string() }),
            Err(_) => {
                return Err(Failure {
                    code: "timeout",
                    cause: "the server does not respond about the stream".to_owned(),
                });
            }
        }
        Ok(())
    }

    async fn send(&self, message: &Message) -> Result<PublishAckFuture, PublishError> {
        let subject = subject(&self.subject_prefix, message);
        let envelope = || {
            PublishMessage::build()
                .header("content-type", CONTENT_TYPE)
                .message_id(&message.id)
                .expected_stream(&self.stream)
        };
        match self.context.send_publish(subject.clone(), envelope().payload(message.body())).await {
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                tracing::warn!(
                    event = message.id,
                    "an event is larger than the server's max_payload; it is published without its data"
                );
                self.context
                    .send_publish(subject, envelope().payload(message.body_without_data()))
                    .await
            }
            sent => sent,
        }
    }

    /// Waits for the oldest acknowledgement, or until the connection is lost.
    async fn acknowledged(
        &self,
        acks: &mut FuturesOrdered<impl Future<Output = Result<(), Failure>>>,
    ) -> Result<(), Failure> {
        let mut connected = self.connected.clone();
        tokio::select! {
            biased;
            ack = acks.next() => ack.unwrap_or(Ok(())),
            _ = connected.wait_for(|connected| !connected) => Err(disconnected()),
        }
    }

    /// Waits for a connection, for a moment.
    async fn is_connected(&self) -> Result<(), Failure> {
        let mut connected = self.connected.clone();
        let connected =
            tokio::time::timeout(CONNECTED_WITHIN, connected.wait_for(|connected| *connected));
        if matches!(connected.await, Ok(Ok(_))) { Ok(()) } else { Err(disconnected()) }
    }

    async fn publish_all(
        &self,
        messages: &[Message],
        acknowledged: &mut usize,
    ) -> Result<(), Failure> {
        self.is_connected().await?;
        self.see_to_stream().await?;
        let mut acks = FuturesOrdered::new();
        for message in messages {
            if acks.len() == WINDOW {
                self.acknowledged(&mut acks).await?;
                *acknowledged += 1;
            }
            let ack = self.send(message).await;
            acks.push_back(async move {
                let ack = ack.map_err(failure)?;
                ack.await.map(drop).map_err(failure)
            });
        }
        while !acks.is_empty() {
            self.acknowledged(&mut acks).await?;
            *acknowledged += 1;
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Publisher for NatsPublisher {
    fn name(&self) -> &'static str {
        "nats"
    }

    async fn publish(&self, messages: &[Message]) -> Published {
        let mut acknowledged = 0;
        let outcome = self.publish_all(messages, &mut acknowledged).await;
        if outcome.is_err() {
            // It may have been deleted, or the server may be another one.
            self.stream_is_there.store(false, Ordering::Relaxed);
        }
        Published { acknowledged, failure: outcome.err() }
    }

    async fn taken_since(&self, time: DateTime<Utc>) -> Result<Taken, Failure> {
        let unreadable = |error: &dyn std::fmt::Display| Failure {
            code: "unreadable",
            cause: format!("the stream cannot be read: {error}"),
        };
        self.is_connected().await?;
        self.see_to_stream().await?;
        let mut taken = Taken::default();
        let stream = match self.context.get_stream_no_info(&self.stream).await {
            Ok(stream) => stream,
            Err(error) => return Err(unreadable(&error)),
        };
        let nanos = i128::from(time.timestamp_nanos_opt().unwrap_or_default());
        let start_time =
            async_nats::datetime::from_nanos(nanos).map_err(|error| unreadable(&error))?;
        let config = OrderedConfig {
            headers_only: true,
            filter_subject: format!("{}.>", self.subject_prefix),
            deliver_policy: DeliverPolicy::ByStartTime { start_time },
            ..OrderedConfig::default()
        };
        let consumer = match stream.create_consumer(config).await {
            Ok(consumer) => consumer,
            Err(error) => return Err(unreadable(&error)),
        };
        let mut left = consumer.cached_info().num_pending;
        let mut messages = consumer.messages().await.map_err(|error| unreadable(&error))?;
        while left > 0 {
            let next = tokio::time::timeout(ANSWER_WITHIN, messages.next()).await;
            let message = match next {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Err(unreadable(&error)),
                Ok(None) => return Err(unreadable(&"it ends too early")),
                Err(elapsed) => return Err(unreadable(&elapsed)),
            };
            left = message.info().map_err(|error| unreadable(&error))?.pending;
            let id = message.headers.as_ref().and_then(|headers| headers.get(NATS_MESSAGE_ID));
            if !id.is_none_or(|id| taken.add(id.as_str())) {
                READ_BACK.reached();
                break;
            }
        }
        Ok(taken)
    }
}

fn disconnected() -> Failure {
    Failure { code: "disconnected", cause: "there is no connection to a server".to_owned() }
}

fn failure(error: PublishError) -> Failure {
    let code = match error.kind() {
        PublishErrorKind::StreamNotFound => "no_stream",
        PublishErrorKind::TimedOut => "timeout",
        PublishErrorKind::BrokenPipe => "disconnected",
        PublishErrorKind::MaxPayloadExceeded => "too_large",
        _ => "rejected",
    };
    Failure { code, cause: error.to_string() }
}

/// `PREFIX.ORG.MODE.TYPE`, where the type has a point of its own: `offboard.acme.live.entity.created`.
fn subject(prefix: &str, message: &Message) -> String {
    format!(
        "{prefix}.{}.{}.{}",
        utf8_percent_encode(&message.org, TOKEN),
        message.mode,
        message.event_type
    )
}

type UserAndPassword = (String, String);

/// The servers of a list of URLs, and the user and password of the first that has some. The URLs are kept without them, because the client
/// logs URLs.
fn servers(urls: &str) -> Result<(Vec<ServerAddr>, Option<UserAndPassword>)> {
    // Neither the URL nor its fault: both may contain the password.
    const FORM: &str =
        "must be one or more URLs such as nats://user:password@host:4222 or tls://host:4222";
    let bad = || Error::invalid("--nats-url", "invalid", FORM);
    let mut servers = Vec::new();
    let mut user = None;
    for given in urls.split(',').map(str::trim) {
        let mut url = url::Url::parse(given).map_err(|_| bad())?;
        if !matches!(url.scheme(), "nats" | "tls") || !url.has_host() {
            return Err(bad());
        }
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        if user.is_none() && !url.username().is_empty() {
            user = Some((plain(url.username()), plain(url.password().unwrap_or_default())));
        }
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| bad())?;
        servers.push(ServerAddr::from_url(url).map_err(|_| bad())?);
    }
    Ok((servers, user))
}

#[cfg(test)]
mod tests {
    use percent_encoding::utf8_percent_encode;

    use super::{TOKEN, servers};

    #[test]
    fn an_organisation_is_one_token_whatever_it_is_called() {
        for (org, token) in [
            ("acme", "acme"),
            ("a.b", "a%2Eb"),
            ("*", "%2A"),
            (">", "%3E"),
            ("x y%", "x%20y%25"),
            ("a_-~Z9", "a_-~Z9"),
        ] {
            assert_eq!(utf8_percent_encode(org, TOKEN).to_string(), token);
        }
    }

    #[test]
    fn user_and_password_are_taken_out_of_the_urls() {
        let (found, user) = servers("nats://a:4222, tls://us%40er:pass%2Fword@b").expect("URLs");
        assert_eq!(user, Some(("us@er".to_owned(), "pass/word".to_owned())));
        let found: Vec<_> = found
            .iter()
            .map(|server| (server.host(), server.port(), server.tls_required()))
            .collect();
        assert_eq!(found, [("a", 4222, false), ("b", 4222, true)]);
    }

    #[test]
    fn a_bad_url_is_refused_without_being_reported() {
        for bad in [
            "",
            "hunter2",
            "http://user:hunter2@host",
            "nats://user:hunter2@",
            "nats://a,,nats://b",
        ] {
            let error = servers(bad).expect_err("no URL of NATS");
            assert!(
                error.message().starts_with("--nats-url: must be")
                    && !format!("{error:?}").contains("hunter2"),
                "{error:?}"
            );
        }
    }
}
