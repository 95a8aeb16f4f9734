//! `offboard-bench pace`: how long detaches take that come at a steady pace, whatever else the service does.

use std::io::BufRead;
use std::time::Duration;

use clap::Args;
use futures::future::try_join_all;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use offboard::proto::v1::DetachEntityRequest;
use offboard::proto::v1::portfolio_service_client::PortfolioServiceClient;

use crate::{Result, Server, percentile, with_key};

/// Arguments of `bench pace`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    server: Server,

    /// How many detaches a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
}

/// Detaches the members that standard input names, `PORTFOLIO MEMBER` a line, and prints how many it were and the 50th and 99th percentile
/// of their times in milliseconds. A time runs from the moment at which the call is due, so that a service that stalls is not
/// excluded the calls that it keeps from being made.
pub async fn run(arguments: Arguments) -> Result<()> {
    let members = members()?;
    let (channel, bearer) = (arguments.server.connect().await?, arguments.server.bearer()?);
    let (start, gap) = (Instant::now(), Duration::from_secs(1) / arguments.rate);
    let calls = (0_u32..).zip(members).map(|(n, message)| {
        let (client, bearer) = (PortfolioServiceClient::new(channel.clone()), bearer.clone());
        tokio::spawn(call(client, bearer, message, start + gap * n))
    });
    let mut times = try_join_all(calls).await?.into_iter().collect::<Result<Vec<_>>>()?;
    times.sort();
    println!("{} {:.2} {:.2}", times.len(), percentile(&times, 50), percentile(&times, 99));
    Ok(())
}

fn members() -> Result<Vec<DetachEntityRequest>> {
    const WRONG: &str = "standard input must be lines of PORTFOLIO MEMBER";
    let lines = std::io::stdin().lock().lines().map(|line| {
        let line = line?;
        let (portfolio, member) = line.split_once(' ').ok_or(WRONG)?;
        Ok(DetachEntityRequest {
            portfolio_id: portfolio.to_owned(),
            entity_id: member.to_owned(),
            ..Default::default()
        })
    });
    let members = lines.collect::<Result<Vec<_>>>()?;
    if members.is_empty() { Err(WRONG.into()) } else { Ok(members) }
}

async fn call(
    mut client: PortfolioServiceClient<Channel>,
    bearer: MetadataValue<Ascii>,
    message: DetachEntityRequest,
    due: Instant,
) -> Result<Duration> {
    tokio::time::sleep_until(due).await;
    client.detach_entity(with_key(message, &bearer)).await?;
    Ok(due.elapsed())
}
