//! `offboard-bench events`: how soon a stream reports a change after its response, and how many changes a second there are meanwhile.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use futures::future::try_join_all;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Streaming;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use offboard::proto::v1::entity_service_client::EntityServiceClient;
use offboard::proto::v1::event_service_client::EventServiceClient;
use offboard::proto::v1::{
    CreateEntityRequest, NewEntity, WatchEventsRequest, WatchEventsResponse,
};

use crate::{Result, Server, percentile, with_key};

/// How long events may be under way behind the last change.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `bench events`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    server: Server,

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
/// the response to the event, in milliseconds.
pub async fn run(arguments: Arguments) -> Result<()> {
    let bearer = arguments.server.bearer()?;
    let mut channels = Vec::new();
    for _ in 0..arguments.connections {
        channels.push(arguments.server.connect().await?);
    }
    let watcher = arguments.server.connect().await?;
    let request =
        WatchEventsRequest { types: vec!["entity.created".to_owned()], ..Default::default() };
    let mut stream = EventServiceClient::new(watcher)
        .watch_events(with_key(request, &bearer))
        .await?
        .into_inner();
    // The first message reports that it has begun.
    stream.message().await?;
    let (arrivals, mut answered) = (watch(stream), HashMap::new());
    let begun = Instant::now();
    let ends = begun + Duration::from_secs(arguments.seconds.into());
    let gap = (arguments.rate > 0)
        .then(|| Duration::from_secs(1) * arguments.connections / arguments.rate);
    let run = uuid::Uuid::now_v7().simple().to_string();
    let callers = channels.into_iter().enumerate().map(|(number, channel)| {
        let first = begun + gap.unwrap_or_default() / arguments.connections * number as u32;
        tokio::spawn(create(
            channel,
            bearer.clone(),
            format!("bench-{run}-{number}"),
            (first, gap, ends),
        ))
    });
    for changes in try_join_all(callers).await? {
        answered.extend(changes?);
    }
    let rate = answered.len() as f64 / begun.elapsed().as_secs_f64();
    let arrived = wait(arrivals, answered.len()).await;
    let mut times: Vec<Duration> = answered
        .iter()
        .filter_map(|(id, answer)| Some(arrived.get(id)?.saturating_duration_since(*answer)))
        .collect();
    times.sort();
    if times.len() < answered.len() {
        return Err(format!("{} of {} events came", times.len(), answered.len()).into());
    }
    println!("{rate:.1} {:.2} {:.2}", percentile(&times, 50), percentile(&times, 99));
    Ok(())
}

type Arrivals = tokio::sync::watch::Receiver<HashMap<String, Instant>>;

/// Creates entities on one connection, at its pace or one behind the other; reports when each had its response.
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
        let entity =
            NewEntity { entity_id: id.clone(), r#type: "HCP".to_owned(), ..Default::default() };
        client
            .create_entity(with_key(CreateEntityRequest { entity: Some(entity) }, &bearer))
            .await?;
        answered.push((id, Instant::now()));
        due = gap.map_or_else(Instant::now, |gap| due + gap);
    }
    Ok(answered)
}

/// Notes when each event came.
fn watch(mut stream: Streaming<WatchEventsResponse>) -> Arrivals {
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
async fn wait(mut arrivals: Arrivals, count: usize) -> HashMap<String, Instant> {
    // The caller reports those that are missing then.
    let _ = timeout(PATIENCE, arrivals.wait_for(|arrived| arrived.len() >= count)).await;
    arrivals.borrow().clone()
}
