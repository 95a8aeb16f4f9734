//! `offboard bench pace`: how long detaches take that come at a steady pace, whatever else the service does.

use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::future::try_join_all;
use tokio::time::Instant;
use tonic::Request;
use tonic::transport::Channel;

use crate::cli::client::{Server, credential};
use crate::cli::output::print;
use crate::error::{Error, Result};
use crate::proto::v1::DetachEntityRequest;
use crate::proto::v1::portfolio_service_client::PortfolioServiceClient;

/// Arguments of `bench pace`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    server: Server,

    /// Secret of a key with the scope `portfolios:write`
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: String,

    /// How many detaches a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
}

/// Detaches the members that standard input names, `PORTFOLIO MEMBER` a line, and prints their number and the 50th and 99th percentile of
/// their times in milliseconds. A time runs from the moment at which the call should start, so that a service that stalls also pays for the
/// calls that it delays.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let members = members()?;
    let (channel, bearer) = (arguments.server.connect().await?, credential(&arguments.key)?);
    let (start, gap) = (Instant::now(), Duration::from_secs(1) / arguments.rate);
    let calls = (0_u32..).zip(members).map(|(n, message)| {
        let (client, bearer) = (PortfolioServiceClient::new(channel.clone()), bearer.clone());
        tokio::spawn(call(client, bearer, message, start + gap * n))
    });
    let mut times = try_join_all(calls).await.map_err(Error::internal)?.into_iter().collect::<Result<Vec<_>>>()?;
    times.sort();
    let percentile = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1_000.0;
    print(format_args!("{} {:.2} {:.2}", times.len(), percentile(50), percentile(99)))?;
    Ok(ExitCode::SUCCESS)
}

fn members() -> Result<Vec<DetachEntityRequest>> {
    let wrong = || Error::invalid("standard input", "invalid", "must be lines of PORTFOLIO MEMBER");
    let lines = std::io::stdin().lock().lines().map(|line| {
        let line = line.map_err(Error::internal)?;
        let (portfolio, member) = line.split_once(' ').ok_or_else(wrong)?;
        Ok(DetachEntityRequest { portfolio_id: portfolio.to_owned(), entity_id: member.to_owned(), ..Default::default() })
    });
    let members = lines.collect::<Result<Vec<_>>>()?;
    if members.is_empty() { Err(wrong()) } else { Ok(members) }
}

async fn call(
    mut client: PortfolioServiceClient<Channel>,
    bearer: tonic::metadata::MetadataValue<tonic::metadata::Ascii>,
    message: DetachEntityRequest,
    due: Instant,
) -> Result<Duration> {
    tokio::time::sleep_until(due).await;
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer);
    let answer = client.detach_entity(request).await;
    answer.map_err(|status| Error::unavailable(format!("The service refused: {}", status.message())))?;
    Ok(due.elapsed())
}
