//! `offboard bench`: the throughput of a running service.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::error::Result;

mod callers;
mod detach;
mod events;
mod gateway;
mod offboard;
mod pace;

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand, Debug)]
enum Benchmark {
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
}

/// Measures an operation and prints the figures.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.benchmark {
        Benchmark::Detach(arguments) => detach::run(arguments).await,
        Benchmark::Events(arguments) => events::run(arguments).await,
        Benchmark::Gateway(arguments) => gateway::run(arguments).await,
        Benchmark::Offboard(arguments) => offboard::run(arguments).await,
        Benchmark::Pace(arguments) => pace::run(arguments).await,
    }
}
