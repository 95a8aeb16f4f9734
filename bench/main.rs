//! `offboard-bench`: what a running service does in a second. `script/bench` calls it; it is not shipped with the service.

mod caller;
mod detach;
mod events;
mod gateway;
mod meter;
mod offboard;
mod pace;
mod unary;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Measure what a running service does in a second.
#[derive(Parser, Debug)]
#[command(name = "offboard-bench", version, about, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand, Debug)]
enum Measure {
    /// Detach members of portfolios and attach them again
    Detach(detach::Arguments),
    /// Watch events come while entities are created
    Events(events::Arguments),
    /// Compare REST with gRPC
    Gateway(gateway::Arguments),
    /// Request the offboarding of many entities
    Offboard(offboard::Arguments),
    /// Detach members of portfolios at a steady pace
    Pace(pace::Arguments),
    /// Make single calls of one kind
    Unary(unary::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().measure {
        Measure::Detach(arguments) => detach::run(arguments).await,
        Measure::Events(arguments) => events::run(arguments).await,
        Measure::Gateway(arguments) => gateway::run(arguments).await,
        Measure::Offboard(arguments) => offboard::run(arguments).await,
        Measure::Pace(arguments) => pace::run(arguments).await,
        Measure::Unary(arguments) => unary::run(arguments).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("offboard-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The service that is measured, and the key of the calls.
#[derive(Args, Clone, Debug)]
struct Server {
    /// Where the service is
    #[arg(long, default_value = "http://127.0.0.1:50051", value_name = "URL")]
    server: String,

    /// Secret of a key with the scopes of the calls
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: String,
}

impl Server {
    /// A connection by gRPC.
    async fn connect(&self) -> Result<Channel> {
        Ok(Endpoint::from_shared(self.server.clone())?.connect().await?)
    }

    /// The content of each call.
    fn bearer(&self) -> Result<MetadataValue<Ascii>> {
        bearer(&self.key)
    }
}

fn bearer(key: &str) -> Result<MetadataValue<Ascii>> {
    Ok(format!("Bearer {key}").parse()?)
}

fn with_key<T>(message: T, bearer: &MetadataValue<Ascii>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer.clone());
    request
}

/// A percentile of times in ascending order, in milliseconds; 0 where there are none.
fn percentile(times: &[Duration], percent: usize) -> f64 {
    times
        .get((times.len() * percent / 100).min(times.len().saturating_sub(1)))
        .map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}

fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
