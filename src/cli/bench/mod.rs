//! `offboard bench`: what a running service does in a second.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::error::Result;

mod detach;
mod doors;
mod events;
mod gateway;
mod offboard;
mod pace;

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand, Debug)]
enum Act {
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

/// Measures an act and prints the figures.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.act {
        Act::Detach(arguments) => detach::run(arguments).await,
        Act::Events(arguments) => events::run(arguments).await,
        Act::Gateway(arguments) => gateway::run(arguments).await,
        Act::Offboard(arguments) => offboard::run(arguments).await,
        Act::Pace(arguments) => pace::run(arguments).await,
    }
}
