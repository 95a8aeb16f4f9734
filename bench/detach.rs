//! `offboard-bench detach`: how many detaches a second a running service does.
//!
//! Each client has a member of its own, which it detaches and attaches again; the attaches are not timed. The portfolios take turns, so that what
//! else happens on the machine meets all of them alike.

use std::time::{Duration, Instant};

use clap::Args;
use futures::future::try_join_all;

use crate::caller::{Caller, Protocol, View};
use crate::meter::Meter;
use crate::{Result, Server, median};

/// Arguments of `bench detach`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Through which listener; --server is where that is
    #[arg(long, default_value = "grpc")]
    protocol: Protocol,

    #[command(flatten)]
    server: Server,

    /// A portfolio and members of it, one for each client: `ID=MEMBER,MEMBER`; may be given more than once
    #[arg(long = "portfolio", required = true)]
    portfolios: Vec<String>,

    /// How many clients are at work at once
    #[arg(long, default_value_t = 1)]
    clients: usize,

    /// How often each portfolio has its turn
    #[arg(long, default_value_t = 9)]
    rounds: usize,

    /// How much of the portfolio each response shows
    #[arg(long, default_value = "full")]
    view: View,

    /// How many detaches each client does in a turn
    #[arg(long, default_value_t = 200)]
    detaches: usize,
}

/// Prints each portfolio with its median rate.
pub async fn run(arguments: Arguments) -> Result<()> {
    let Server { server, key } = &arguments.server;
    let callers = (0..arguments.clients)
        .map(|_| Caller::connect(arguments.protocol, server.clone(), key, Meter::default()));
    let callers = try_join_all(callers).await?;
    let parsed =
        arguments.portfolios.iter().map(|argument| Portfolio::parse(argument, arguments.clients));
    let mut portfolios = parsed.collect::<Result<Vec<_>>>()?;
    for portfolio in &portfolios {
        // Connections are made, statements prepared and pages read before anything counts.
        portfolio.turn(&callers, arguments.view, arguments.detaches.min(50)).await?;
    }
    for round in 0..arguments.rounds {
        for place in 0..portfolios.len() {
            let place = (place + round) % portfolios.len();
            let rate = portfolios[place].turn(&callers, arguments.view, arguments.detaches).await?;
            portfolios[place].rates.push(rate);
        }
    }
    for portfolio in portfolios {
        println!("{} {:.0}", portfolio.id, median(portfolio.rates));
    }
    Ok(())
}

struct Portfolio {
    id: String,
    members: Vec<String>,
    rates: Vec<f64>,
}

impl Portfolio {
    fn parse(argument: &str, clients: usize) -> Result<Portfolio> {
        let (id, members) =
            argument.split_once('=').ok_or("--portfolio must be ID=MEMBER,MEMBER")?;
        let members: Vec<String> = members.split(',').map(str::to_owned).collect();
        if members.len() < clients {
            return Err(format!("{id} has fewer members than there are clients").into());
        }
        Ok(Portfolio { id: id.to_owned(), members, rates: Vec::new() })
    }

    /// All clients detach and attach; returns the detaches a second.
    async fn turn(&self, callers: &[Caller], view: View, detaches: usize) -> Result<f64> {
        let work = self.members.iter().zip(callers).map(async |(member, caller)| {
            let mut spent = Duration::ZERO;
            for _ in 0..detaches {
                let begun = Instant::now();
                caller.detach(&self.id, member, view).await?;
                spent += begun.elapsed();
                caller.attach(&self.id, member, View::Full).await?;
            }
            Ok::<_, tonic::Status>(detaches as f64 / spent.as_secs_f64())
        });
        Ok(try_join_all(work).await?.iter().sum())
    }
}
