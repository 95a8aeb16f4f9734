//! `offboard-bench offboard`: requests the offboarding of many entities over gRPC, as fast as so many callers can.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use futures::future::try_join_all;
use tonic::transport::Channel;

use offboard::proto::v1::RequestOffboardingRequest;
use offboard::proto::v1::offboarding_service_client::OffboardingServiceClient;

use crate::{Result, Server, with_key};

/// How many callers share a connection.
const CALLERS_A_CONNECTION: usize = 16;

/// Arguments of `bench offboard`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    server: Server,

    /// How many entities; their ids are the prefix with the numbers from 1
    #[arg(long)]
    entities: usize,

    /// How the ids begin
    #[arg(long, default_value = "entity-")]
    prefix: String,

    /// How many callers are at work at once
    #[arg(long, default_value_t = 64, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=4096))]
    callers: usize,
}

/// Prints when the first request was sent, in seconds since 1970, and how many seconds all of them took.
pub async fn run(arguments: Arguments) -> Result<()> {
    let connections =
        (0..arguments.callers.div_ceil(CALLERS_A_CONNECTION)).map(|_| arguments.server.connect());
    let connections = try_join_all(connections).await?;
    let callers = arguments.callers;
    let (arguments, next) = (Arc::new(arguments), Arc::new(AtomicUsize::new(1)));

    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let started = Instant::now();
    let callers = (0..callers).map(|caller| {
        let client = OffboardingServiceClient::new(connections[caller % connections.len()].clone());
        tokio::spawn(call(client, arguments.clone(), next.clone()))
    });
    for ended in try_join_all(callers).await? {
        ended?;
    }
    println!("{:.3} {:.3}", since.as_secs_f64(), started.elapsed().as_secs_f64());
    Ok(())
}

/// One caller: sends the next request as soon as it has the response to the last.
async fn call(
    mut client: OffboardingServiceClient<Channel>,
    arguments: Arc<Arguments>,
    next: Arc<AtomicUsize>,
) -> Result<()> {
    let bearer = arguments.server.bearer()?;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number > arguments.entities {
            return Ok(());
        }
        let message = RequestOffboardingRequest {
            entity_id: format!("{}{number}", arguments.prefix),
            grace_period: None,
        };
        client.request_offboarding(with_key(message, &bearer)).await?;
    }
}
