//! `offboard-bench gateway`: what REST costs over gRPC.
//!
//! Both listeners serve the same calls on as many connections of the same client machine. They take turns, and begin in turn, so that what
//! else happens on the machine meets both alike. An attach that has to come between two detaches is not timed, and is by gRPC for both.

use std::time::{Duration, Instant};

use clap::Args;
use futures::future::try_join_all;
use tonic::{Code, Status};

use crate::caller::{Caller, Protocol, View};
use crate::meter::Meter;
use crate::{Result, median};

/// Arguments of `bench gateway`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Where the service speaks gRPC, without TLS, so that the bytes are those of the messages
    #[arg(long, default_value = "http://127.0.0.1:50051", value_name = "URL")]
    grpc: String,

    /// Where the service speaks REST, without TLS
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    rest: String,

    /// Secret of a key with the scopes `entities:read`, `entities:write` and `portfolios:write`
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: String,

    /// How many connections each listener has
    #[arg(long, default_value_t = 32, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    connections: usize,

    /// How often each listener has its turn
    #[arg(long, default_value_t = 9, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=999))]
    rounds: usize,

    /// How many calls of a kind each connection makes in a turn
    #[arg(long, default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    calls: usize,
}

/// The method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BenchedCall {
    Get,
    Detach,
}

/// The results of a turn.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Calls a second, all connections together.
    rate: f64,
    /// How long a call took, on average.
    call: Duration,
    /// The bytes on the network for a call, both ways.
    bytes: f64,
}

/// Prints the ratio of the rates, and what a call costs more.
pub async fn run(arguments: Arguments) -> Result<()> {
    let meters = [Meter::default(), Meter::default()];
    let open = |protocol, url: &str, meter: &Meter| {
        let callers = (0..arguments.connections)
            .map(|_| Caller::connect(protocol, url.to_owned(), &arguments.key, meter.clone()));
        try_join_all(callers.collect::<Vec<_>>())
    };
    let protocols = [
        open(Protocol::Grpc, &arguments.grpc, &meters[0]).await?,
        open(Protocol::Rest, &arguments.rest, &meters[1]).await?,
    ];
    // Its bytes are not counted with those of what is measured.
    let helpers = open(Protocol::Grpc, &arguments.grpc, &Meter::default()).await?;
    for (number, helper) in helpers.iter().enumerate() {
        prepare(helper, number).await?;
    }
    let bench = Bench { protocols, meters, helpers };
    for (benched, name) in [(BenchedCall::Get, "get"), (BenchedCall::Detach, "detach")] {
        let many = bench
            .compare(benched, arguments.connections, arguments.rounds, arguments.calls)
            .await?;
        let one = bench.compare(benched, 1, arguments.rounds, arguments.calls * 2).await?;
        let [grpc, rest] =
            [0, 1].map(|protocol| median(many.iter().map(|turns| turns[protocol].rate)));
        println!(
            "{name}: {grpc:.0} a second by gRPC, {rest:.0} by REST, on {} connections",
            arguments.connections
        );
        println!(
            "rest_over_grpc_{name}_ratio {:.2}",
            median(many.iter().map(|[grpc, rest]| rest.rate / grpc.rate))
        );
        println!(
            "{name}_added_bytes {:.0}",
            median(one.iter().map(|[grpc, rest]| rest.bytes - grpc.bytes))
        );
        let micros = one
            .iter()
            .map(|[grpc, rest]| (rest.call.as_secs_f64() - grpc.call.as_secs_f64()) * 1e6);
        println!("{name}_added_microseconds {:.0}", median(micros));
    }
    Ok(())
}

/// The portfolio and the entity of a connection: no two meet at a row.
fn portfolio(number: usize) -> String {
    format!("bench-portfolio-{number}")
}

fn entity(number: usize) -> String {
    format!("bench-entity-{number}")
}

async fn prepare(helper: &Caller, number: usize) -> Result<(), Status> {
    for made in [
        helper.create_portfolio(&portfolio(number)).await,
        helper.create_entity(&entity(number)).await,
    ] {
        made.or_else(
            |status| if status.code() == Code::AlreadyExists { Ok(()) } else { Err(status) },
        )?;
    }
    helper.attach(&portfolio(number), &entity(number), View::Full).await
}

/// Both listeners with their connections.
struct Bench {
    protocols: [Vec<Caller>; 2],
    meters: [Meter; 2],
    helpers: Vec<Caller>,
}

impl Bench {
    /// The turns of gRPC and of REST, round by round.
    async fn compare(
        &self,
        benched: BenchedCall,
        connections: usize,
        rounds: usize,
        calls: usize,
    ) -> Result<Vec<[Turn; 2]>> {
        // Connections are made, statements prepared and pages read before anything counts.
        for protocol in 0..2 {
            self.turn(benched, protocol, connections, calls.min(50)).await?;
        }
        let mut compared = Vec::with_capacity(rounds);
        for round in 0..rounds {
            let first = round % 2;
            let one = self.turn(benched, first, connections, calls).await?;
            let other = self.turn(benched, 1 - first, connections, calls).await?;
            compared.push(if first == 0 { [one, other] } else { [other, one] });
        }
        Ok(compared)
    }

    async fn turn(
        &self,
        benched: BenchedCall,
        protocol: usize,
        connections: usize,
        calls: usize,
    ) -> Result<Turn> {
        let before = self.meters[protocol].bytes();
        let work = (0..connections).map(|number| self.connection(benched, protocol, number, calls));
        let spent = try_join_all(work).await?;
        let all = (connections * calls) as f64;
        let rate = spent.iter().map(|spent| calls as f64 / spent.as_secs_f64()).sum();
        let call = spent.iter().sum::<Duration>().div_f64(all);
        Ok(Turn { rate, call, bytes: (self.meters[protocol].bytes() - before) as f64 / all })
    }

    /// Makes the calls of one connection, and reports how long they took.
    async fn connection(
        &self,
        benched: BenchedCall,
        protocol: usize,
        number: usize,
        calls: usize,
    ) -> Result<Duration> {
        let (caller, helper) = (&self.protocols[protocol][number], &self.helpers[number]);
        let (portfolio, entity) = (portfolio(number), entity(number));
        let mut spent = Duration::ZERO;
        for _ in 0..calls {
            let begun = Instant::now();
            match benched {
                BenchedCall::Get => caller.get(&entity).await?,
                BenchedCall::Detach => caller.detach(&portfolio, &entity, View::Full).await?,
            }
            spent += begun.elapsed();
            if benched == BenchedCall::Detach {
                helper.attach(&portfolio, &entity, View::Full).await?;
            }
        }
        Ok(spent)
    }
}
