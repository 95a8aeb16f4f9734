//! `offboard-bench unary`: a turn of single calls of one kind: how many a second, how long one takes, and what it costs the processors of the
//! service and of its database.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use futures::future::try_join_all;
use tokio::sync::Barrier;

use crate::caller::{Caller, Protocol, View};
use crate::meter::Meter;
use crate::{Result, Server, percentile};

/// How many calls each connection makes before anything counts.
const WARM_UP: usize = 10;
/// How often a second Linux counts the time of processors.
const TICKS: f64 = 100.0;

/// Arguments of `bench unary`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// What is called
    #[arg(long)]
    call: Call,

    /// Through which listener; --server is where that is
    #[arg(long, default_value = "grpc")]
    protocol: Protocol,

    #[command(flatten)]
    server: Server,

    /// How many connections there are, each with one call at a time
    #[arg(long, default_value_t = 32, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    connections: usize,

    /// How long the calls go on, in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,

    /// How the ids of the entities begin; their numbers follow
    #[arg(long)]
    entities: String,

    /// The number of the first entity. Connection n has entity n, but for calls that use up their entities: those take the next one each
    #[arg(long, default_value_t = 0)]
    first: usize,

    /// The number behind that of the last entity
    #[arg(long, default_value_t = usize::MAX)]
    end: usize,

    /// The portfolio of all connections; without it, connection n has one whose id begins with `--portfolios` and ends with n
    #[arg(long)]
    portfolio: Option<String>,

    /// How the ids of portfolios begin
    #[arg(long, default_value = "portfolio-")]
    portfolios: String,

    /// How many requests each connection makes, to cancel them
    #[arg(long, default_value_t = 200)]
    requests: usize,

    /// The process of the service
    #[arg(long)]
    service: u32,

    /// The first process of the database
    #[arg(long)]
    database: u32,
}

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Call {
    /// `GetEntity`
    Get,
    /// `GetPortfolio` without its members
    PortfolioBasic,
    /// `GetPortfolio` with its members
    PortfolioFull,
    /// `DetachEntity` and `AttachEntity` in turn
    Change,
    /// `RequestOffboarding`; each entity once
    Request,
    /// `CancelOffboardingRequest`; each entity once
    Cancel,
    /// `CreateEntity`; each id once
    Create,
}

/// Prints calls a second, the median and the 99th percentile in milliseconds, the microseconds of processor for each call of the service and of
/// the database, and the number of the first entity that was not used up.
pub async fn run(arguments: Arguments) -> Result<()> {
    let Server { server, key } = &arguments.server;
    let connecting = (0..arguments.connections)
        .map(|_| Caller::connect(arguments.protocol, server.clone(), key, Meter::default()));
    let callers = try_join_all(connecting).await?;
    let turn = Arc::new(Turn {
        next: AtomicUsize::new(arguments.first),
        ready: Barrier::new(arguments.connections + 1),
        arguments,
    });
    let calls = callers
        .into_iter()
        .enumerate()
        .map(|(number, caller)| tokio::spawn(turn.clone().connection(number, caller)));
    let calls: Vec<_> = calls.collect();
    turn.ready.wait().await;
    let Arguments { service, database, .. } = turn.arguments;
    let (begun, before) = (Instant::now(), (ticks_of(service)?, ticks_below(database)?));
    let mut times = Vec::new();
    for ended in try_join_all(calls).await? {
        times.extend(ended?);
    }
    let spent = begun.elapsed().as_secs_f64();
    let after = (ticks_of(service)?, ticks_below(database)?);
    times.sort_unstable();
    let count = times.len() as f64;
    let micros =
        |before: u64, after: u64| after.saturating_sub(before) as f64 / TICKS * 1e6 / count;
    println!(
        "{:.0} {:.3} {:.3} {:.1} {:.1} {}",
        count / spent,
        percentile(&times, 50),
        percentile(&times, 99),
        micros(before.0, after.0),
        micros(before.1, after.1),
        turn.next.load(Ordering::Relaxed)
    );
    Ok(())
}

/// What the connections of a turn share.
struct Turn {
    arguments: Arguments,
    next: AtomicUsize,
    ready: Barrier,
}

impl Turn {
    /// The calls of one connection, and how long each of them took.
    async fn connection(self: Arc<Self>, number: usize, caller: Caller) -> Result<Vec<Duration>> {
        let mut connection =
            Connection { turn: &self, number, caller, member: true, requests: Vec::new() };
        let prepared = connection.prepare().await;
        // The others do not wait in vain.
        self.ready.wait().await;
        prepared?;
        let (begun, mut times) = (Instant::now(), Vec::new());
        let end = Duration::from_secs_f64(self.arguments.seconds);
        while begun.elapsed() < end || !connection.member {
            let called = Instant::now();
            if !connection.call().await? {
                break;
            }
            times.push(called.elapsed());
        }
        Ok(times)
    }

    /// An entity that no other call has.
    fn unused(&self) -> Option<String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.arguments.end).then(|| self.entity(number))
    }

    fn entity(&self, number: usize) -> String {
        format!("{}{number}", self.arguments.entities)
    }
}

/// One connection.
struct Connection<'t> {
    turn: &'t Turn,
    number: usize,
    caller: Caller,
    /// Whether its entity is a member of its portfolio.
    member: bool,
    requests: Vec<String>,
}

impl Connection<'_> {
    /// Makes what the calls need, and the first few of them.
    async fn prepare(&mut self) -> Result<()> {
        if self.turn.arguments.call != Call::Cancel {
            for _ in 0..WARM_UP {
                self.call().await?;
            }
            return Ok(());
        }
        for _ in 0..self.turn.arguments.requests {
            let Some(entity) = self.turn.unused() else { break };
            self.requests.push(self.caller.request_offboarding(&entity).await?);
        }
        Ok(())
    }

    /// Makes one call. False if there is nothing left to call for.
    async fn call(&mut self) -> Result<bool> {
        let (turn, caller) = (self.turn, &self.caller);
        let entity = || turn.entity(turn.arguments.first + self.number);
        let portfolio = || match &turn.arguments.portfolio {
            Some(one) => one.clone(),
            None => format!("{}{}", turn.arguments.portfolios, self.number),
        };
        match turn.arguments.call {
            Call::Get => caller.get(&entity()).await?,
            Call::PortfolioBasic => caller.get_portfolio(&portfolio(), View::Basic).await?,
            Call::PortfolioFull => caller.get_portfolio(&portfolio(), View::Full).await?,
            Call::Change => {
                if self.member {
                    caller.detach(&portfolio(), &entity(), View::Basic).await?;
                } else {
                    caller.attach(&portfolio(), &entity(), View::Basic).await?;
                }
                self.member = !self.member;
            }
            Call::Cancel => {
                let Some(request) = self.requests.pop() else { return Ok(false) };
                caller.cancel(&request).await?;
            }
            Call::Request | Call::Create => {
                let Some(entity) = turn.unused() else { return Ok(false) };
                match turn.arguments.call {
                    Call::Request => caller.request_offboarding(&entity).await.map(drop)?,
                    _ => caller.create_entity(&entity).await?,
                }
            }
        }
        Ok(true)
    }
}

/// The fields of `/proc/PID/stat` behind the name of the process.
fn stat(process: u32) -> Result<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = text.rsplit_once(')').ok_or("no process name")?;
    Ok(fields.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect())
}

/// The processor time of a process so far.
fn ticks_of(process: u32) -> Result<u64> {
    let fields = stat(process)?;
    Ok(fields[11] + fields[12])
}

/// The processor time of a process and of its children so far, also of those that have ended.
fn ticks_below(process: u32) -> Result<u64> {
    let own = stat(process)?;
    let mut ticks = own[11..15].iter().sum();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that ends meanwhile is counted with its parent the next time.
        if let Ok(fields) = stat(child)
            && fields[1] == u64::from(process)
        {
            ticks += fields[11] + fields[12];
        }
    }
    Ok(ticks)
}
