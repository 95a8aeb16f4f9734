//! `offboard bench offboard`: requests the offboarding of many entities over gRPC, as fast as so many callers can.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use futures::future::try_join_all;
use tonic::Request;
use tonic::transport::Channel;

use crate::cli::client::{Server, credential};
use crate::cli::output::print;
use crate::error::{Error, Result};
use crate::proto::v1::RequestOffboardingRequest;
use crate::proto::v1::offboarding_service_client::OffboardingServiceClient;

/// How many callers share a connection.
const CALLERS_A_CONNECTION: usize = 16;

/// Arguments of `bench offboard`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    server: Server,

    /// Secret of a key with the scope `entities:offboard`
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: String,

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
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let connections = (0..arguments.callers.div_ceil(CALLERS_A_CONNECTION)).map(|_| arguments.server.connect());
    let connections = try_join_all(connections).await?;
    let callers = arguments.callers;
    let (arguments, next) = (Arc::new(arguments), Arc::new(AtomicUsize::new(1)));

    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Error::internal)?;
    let started = Instant::now();
    let callers = (0..callers).map(|caller| {
        let client = OffboardingServiceClient::new(connections[caller % connections.len()].clone());
        tokio::spawn(call(client, arguments.clone(), next.clone()))
    });
    for ended in try_join_all(callers).await.map_err(Error::internal)? {
        ended?;
    }
    print(format_args!("{:.3} {:.3}", since.as_secs_f64(), started.elapsed().as_secs_f64()))?;
    Ok(ExitCode::SUCCESS)
}

/// One caller: sends the next request as soon as the last is answered.
async fn call(mut client: OffboardingServiceClient<Channel>, arguments: Arc<Arguments>, next: Arc<AtomicUsize>) -> Result<()> {
    let bearer = credential(&arguments.key)?;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number > arguments.entities {
            return Ok(());
        }
        let message = RequestOffboardingRequest { entity_id: format!("{}{number}", arguments.prefix), grace_period: None };
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", bearer.clone());
        let answer = client.request_offboarding(request).await;
        answer.map_err(|status| Error::unavailable(format!("The service refused: {}", status.message())))?;
    }
}
