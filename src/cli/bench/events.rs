//! `offboard bench events`: how soon after the response of a change a stream sends its event, and how many changes a second there are
//! meanwhile.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::future::try_join_all;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::cli::client::{Server, credential};
use crate::cli::output::print;
use crate::error::{Error, Result};
use crate::proto::v1::entity_service_client::EntityServiceClient;
use crate::proto::v1::event_service_client::EventServiceClient;
use crate::proto::v1::{CreateEntityRequest, NewEntity, WatchEventsRequest, WatchEventsResponse};

/// How long events may be under way behind the last change.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `bench events`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    server: Server,

    /// Secret of a key with the scopes `entities:write` and `events:read`
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: String,

    /// How many entities are created a second; 0 for as many as the connections can
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    rate: u32,

    /// How many connections create entities
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,

    /// For how many seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
}

/// Creates entities and watches them come, and prints how many changes there were a second, and the 50th and 99th percentile of the time from
/// the answer to the event, in milliseconds.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let bearer = credential(&arguments.key)?;
    let mut channels = Vec::new();
    for _ in 0..arguments.connections {
        channels.push(arguments.server.connect().await?);
    }
    let watcher = arguments.server.connect().await?;
    let mut request = Request::new(WatchEventsRequest { types: vec!["entity.created".to_owned()], ..Default::default() });
    request.metadata_mut().insert("authorization", bearer.clone());
    let mut stream = EventServiceClient::new(watcher).watch_events(request).await.map_err(refused)?.into_inner();
    // The first message shows that the stream has begun.
    stream.message().await.map_err(refused)?;
    let (reported, mut answered) = (report(stream), HashMap::new());
    let begun = Instant::now();
    let ends = begun + Duration::from_secs(arguments.seconds.into());
    let gap = (arguments.rate > 0).then(|| Duration::from_secs(1) * arguments.connections / arguments.rate);
    let run = uuid::Uuid::now_v7().simple().to_string();
    let callers = channels.into_iter().enumerate().map(|(number, channel)| {
        let first = begun + gap.unwrap_or_default() / arguments.connections * number as u32;
        tokio::spawn(create(channel, bearer.clone(), format!("bench-{run}-{number}"), (first, gap, ends)))
    });
    for changes in try_join_all(callers).await.map_err(Error::internal)? {
        answered.extend(changes?);
    }
    let rate = answered.len() as f64 / begun.elapsed().as_secs_f64();
    let arrived = wait(reported, answered.len()).await;
    let mut times: Vec<Duration> =
        answered.iter().filter_map(|(id, answer)| Some(arrived.get(id)?.saturating_duration_since(*answer))).collect();
    times.sort();
    if times.len() < answered.len() {
        return Err(Error::unavailable(format!("{} of {} events came.", times.len(), answered.len())));
    }
    let percentile = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).map_or(0.0, millis);
    print(format_args!("{rate:.1} {:.2} {:.2}", percentile(50), percentile(99)))?;
    Ok(ExitCode::SUCCESS)
}

fn millis(time: &Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn refused(status: Status) -> Error {
    Error::unavailable(format!("The service refused: {}", status.message()))
}

type Arrivals = tokio::sync::watch::Receiver<HashMap<String, Instant>>;

/// Creates entities on one connection, at its pace or one after the other; returns when each was answered.
async fn create(
    channel: Channel,
    bearer: MetadataValue<Ascii>,
    prefix: String,
    (first, gap, ends): (Instant, Option<Duration>, Instant),
) -> Result<Vec<(String, Instant)>> {
    let mut client = EntityServiceClient::new(channel);
    let mut answered = Vec::new();
    let mut due = first;
    while due < ends {
        sleep_until(due).await;
        let id = format!("{prefix}-{}", answered.len());
        let entity = NewEntity { entity_id: id.clone(), r#type: "HCP".to_owned(), ..Default::default() };
        let mut request = Request::new(CreateEntityRequest { entity: Some(entity) });
        request.metadata_mut().insert("authorization", bearer.clone());
        client.create_entity(request).await.map_err(refused)?;
        answered.push((id, Instant::now()));
        due = gap.map_or_else(Instant::now, |gap| due + gap);
    }
    Ok(answered)
}

/// Notes when each event came.
fn report(mut stream: Streaming<WatchEventsResponse>) -> Arrivals {
    let (sender, receiver) = tokio::sync::watch::channel(HashMap::new());
    tokio::spawn(async move {
        while let Ok(Some(message)) = stream.message().await {
            let now = Instant::now();
            if let Some(event) = message.event {
                sender.send_modify(|arrived| {
                    arrived.insert(event.subject, now);
                });
            }
        }
    });
    receiver
}

/// Waits until so many events have come, or no longer.
async fn wait(mut reported: Arrivals, count: usize) -> HashMap<String, Instant> {
    // The caller reports what is missing then.
    let _ = timeout(PATIENCE, reported.wait_for(|arrived| arrived.len() >= count)).await;
    reported.borrow().clone()
}
