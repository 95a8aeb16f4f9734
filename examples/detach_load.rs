//! Detaches members of portfolios and attaches them again, and tells how many detaches a second there were in each portfolio. `script/bench
//! portfolio` runs it against the real server.
//!
//! Each client has a member of its own. The attaches are not timed. The portfolios take turns, so that what else happens on the machine meets
//! all of them alike.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use futures::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use offboard::proto::v1::portfolio_service_client::PortfolioServiceClient;
use offboard::proto::v1::{AttachEntityRequest, DetachEntityRequest};
use tonic::Request;
use tonic::transport::Channel;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Detaches and attaches, and tells how fast.
#[derive(Parser)]
struct Options {
    /// Through which door.
    #[arg(long)]
    door: Door,
    /// Where the server is: `http://HOST:PORT`.
    #[arg(long)]
    server: String,
    /// The key.
    #[arg(long, env = "OFFBOARD_KEY")]
    key: String,
    /// A portfolio and members of it, one for each client: `ID=MEMBER,MEMBER,…`. May be given more than once.
    #[arg(long = "portfolio")]
    portfolios: Vec<String>,
    /// How many clients are at work at once.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// How often each portfolio has its turn.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How many detaches each client does in a turn.
    #[arg(long, default_value_t = 200)]
    detaches: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Door {
    Grpc,
    Rest,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let mut caller = Caller::connect(&options)?;
    let parsed = options.portfolios.iter().map(|argument| Portfolio::parse(argument, options.clients));
    let mut portfolios = parsed.collect::<Result<Vec<_>, _>>()?;
    for portfolio in &portfolios {
        // Connections are made, statements prepared and pages read before anything counts.
        portfolio.turn(&mut caller, options.clients, options.detaches.min(50)).await?;
    }
    for round in 0..options.rounds {
        for place in 0..portfolios.len() {
            let place = (place + round) % portfolios.len();
            let rate = portfolios[place].turn(&mut caller, options.clients, options.detaches).await?;
            portfolios[place].rates.push(rate);
        }
    }
    for portfolio in &mut portfolios {
        portfolio.rates.sort_by(f64::total_cmp);
        println!("{} {:.0}", portfolio.id, portfolio.rates[portfolio.rates.len() / 2]);
    }
    Ok(())
}

struct Portfolio {
    id: String,
    members: Vec<String>,
    rates: Vec<f64>,
}

impl Portfolio {
    fn parse(argument: &str, clients: usize) -> Result<Portfolio, Failure> {
        let (id, members) = argument.split_once('=').ok_or("a portfolio is given as ID=MEMBER,MEMBER")?;
        let members: Vec<String> = members.split(',').map(str::to_owned).collect();
        if members.len() < clients {
            return Err(format!("{id} has fewer members than there are clients").into());
        }
        Ok(Portfolio { id: id.to_owned(), members, rates: Vec::new() })
    }

    /// All clients detach and attach; returns the detaches a second.
    async fn turn(&self, caller: &mut Caller, clients: usize, detaches: usize) -> Result<f64, Failure> {
        let work = self.members[..clients].iter().map(|member| {
            let mut caller = caller.clone();
            async move {
                let mut spent = Duration::ZERO;
                for _ in 0..detaches {
                    let begun = Instant::now();
                    caller.detach(&self.id, member).await?;
                    spent += begun.elapsed();
                    caller.attach(&self.id, member).await?;
                }
                Ok::<_, Failure>(detaches as f64 / spent.as_secs_f64())
            }
        });
        Ok(try_join_all(work).await?.iter().sum())
    }
}

#[derive(Clone)]
enum Caller {
    Grpc { client: PortfolioServiceClient<Channel>, bearer: String },
    Rest { client: Client<HttpConnector, Full<Bytes>>, server: String, bearer: String },
}

impl Caller {
    fn connect(options: &Options) -> Result<Caller, Failure> {
        let (bearer, server) = (format!("Bearer {}", options.key), options.server.clone());
        Ok(match options.door {
            Door::Grpc => Caller::Grpc { client: PortfolioServiceClient::new(Channel::from_shared(server)?.connect_lazy()), bearer },
            Door::Rest => Caller::Rest { client: Client::builder(TokioExecutor::new()).build_http(), server, bearer },
        })
    }

    async fn detach(&mut self, portfolio: &str, entity: &str) -> Result<(), Failure> {
        match self {
            Caller::Grpc { client, bearer } => {
                let message = DetachEntityRequest { portfolio_id: portfolio.to_owned(), entity_id: entity.to_owned() };
                client.detach_entity(with_key(message, bearer)?).await?;
                Ok(())
            }
            Caller::Rest { .. } => self.send("DELETE", &format!("/v1/portfolios/{portfolio}/entities/{entity}"), String::new()).await,
        }
    }

    async fn attach(&mut self, portfolio: &str, entity: &str) -> Result<(), Failure> {
        match self {
            Caller::Grpc { client, bearer } => {
                let message = AttachEntityRequest { portfolio_id: portfolio.to_owned(), entity_id: entity.to_owned() };
                client.attach_entity(with_key(message, bearer)?).await?;
                Ok(())
            }
            Caller::Rest { .. } => {
                let body = format!("{{\"entity_id\":\"{entity}\"}}");
                self.send("POST", &format!("/v1/portfolios/{portfolio}/entities"), body).await
            }
        }
    }

    async fn send(&self, method: &str, path: &str, body: String) -> Result<(), Failure> {
        let Caller::Rest { client, server, bearer } = self else { return Err("gRPC has no paths".into()) };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{server}{path}"))
            .header("authorization", bearer)
            .header("content-type", "application/json")
            .body(Full::new(body.into()))?;
        let response = client.request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status != http::StatusCode::OK {
            return Err(format!("{method} {path}: {status} {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(())
    }
}

fn with_key<T>(message: T, bearer: &str) -> Result<Request<T>, Failure> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer.parse()?);
    Ok(request)
}
