//! `offboard bench detach`: how many detaches a second a running service does.
//!
//! Each client has a member of its own, which it detaches and attaches again; the attaches are not timed. The portfolios take turns, so
//! that other work on the machine affects all of them alike.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::cli::client::{Server, credential};
use crate::cli::output::print;
use crate::error::{Error, Result};
use crate::proto::v1::portfolio_service_client::PortfolioServiceClient;
use crate::proto::v1::{AttachEntityRequest, DetachEntityRequest, PortfolioView};

/// Arguments of `bench detach`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The protocol to call by; --server is its address
    #[arg(long, default_value = "grpc")]
    protocol: Protocol,

    #[command(flatten)]
    server: Server,

    /// Secret of a key with the scope `portfolios:write`
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: String,

    /// A portfolio and members of it, one for each client: `ID=MEMBER,MEMBER`; may be given more than once
    #[arg(long = "portfolio", required = true)]
    portfolios: Vec<String>,

    /// How many clients are at work at once
    #[arg(long, default_value_t = 1)]
    clients: usize,

    /// How often each portfolio has its turn
    #[arg(long, default_value_t = 9)]
    rounds: usize,

    /// How much of the portfolio each answer shows
    #[arg(long, default_value = "full")]
    view: View,

    /// How many detaches each client does in a turn
    #[arg(long, default_value_t = 200)]
    detaches: usize,
}

/// A way into the service.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    /// gRPC
    Grpc,
    /// The REST gateway
    Rest,
}

/// How much of a portfolio an answer shows.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum View {
    /// All but the members
    Basic,
    /// All of it, with the ids of up to 1,000 members
    Full,
}

impl View {
    fn wanted(self) -> i32 {
        match self {
            View::Basic => PortfolioView::Basic.into(),
            View::Full => PortfolioView::Full.into(),
        }
    }

    fn query(self) -> &'static str {
        match self {
            View::Basic => "?view=basic",
            View::Full => "",
        }
    }
}

/// Prints each portfolio with its median rate.
pub async fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut caller = Caller::connect(&arguments)?;
    let parsed = arguments.portfolios.iter().map(|argument| Portfolio::parse(argument, arguments.clients));
    let mut portfolios = parsed.collect::<Result<Vec<_>>>()?;
    for portfolio in &portfolios {
        // Connections are made, statements prepared and pages read before anything counts.
        portfolio.turn(&mut caller, arguments.clients, arguments.detaches.min(50)).await?;
    }
    for round in 0..arguments.rounds {
        for place in 0..portfolios.len() {
            let place = (place + round) % portfolios.len();
            let rate = portfolios[place].turn(&mut caller, arguments.clients, arguments.detaches).await?;
            portfolios[place].rates.push(rate);
        }
    }
    for portfolio in &mut portfolios {
        portfolio.rates.sort_by(f64::total_cmp);
        print(format_args!("{} {:.0}", portfolio.id, portfolio.rates[portfolio.rates.len() / 2]))?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Portfolio {
    id: String,
    members: Vec<String>,
    rates: Vec<f64>,
}

impl Portfolio {
    fn parse(argument: &str, clients: usize) -> Result<Portfolio> {
        let (id, members) = argument.split_once('=').ok_or_else(|| wrong("must be ID=MEMBER,MEMBER".to_owned()))?;
        let members: Vec<String> = members.split(',').map(str::to_owned).collect();
        if members.len() < clients {
            return Err(wrong(format!("{id} has fewer members than there are clients")));
        }
        Ok(Portfolio { id: id.to_owned(), members, rates: Vec::new() })
    }

    /// All clients detach and attach; returns the detaches a second.
    async fn turn(&self, caller: &mut Caller, clients: usize, detaches: usize) -> Result<f64> {
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
                Ok::<_, Error>(detaches as f64 / spent.as_secs_f64())
            }
        });
        Ok(try_join_all(work).await?.iter().sum())
    }
}

#[derive(Clone)]
enum Caller {
    Grpc { client: PortfolioServiceClient<Channel>, bearer: MetadataValue<Ascii>, view: View },
    Rest { client: Client<HttpConnector, Full<Bytes>>, server: String, bearer: String, view: View },
}

impl Caller {
    fn connect(arguments: &Arguments) -> Result<Caller> {
        let (server, view) = (&arguments.server, arguments.view);
        Ok(match arguments.protocol {
            Protocol::Grpc => {
                let client = PortfolioServiceClient::new(server.endpoint()?.connect_lazy());
                Caller::Grpc { client, bearer: credential(&arguments.key)?, view }
            }
            Protocol::Rest if server.is_tls() => {
                return Err(Error::invalid("--server", "invalid", "must be http://HOST:PORT with --protocol rest"));
            }
            Protocol::Rest => {
                let (client, bearer) = (Client::builder(TokioExecutor::new()).build_http(), format!("Bearer {}", arguments.key));
                Caller::Rest { client, server: server.server.clone(), bearer, view }
            }
        })
    }

    async fn detach(&mut self, portfolio: &str, entity: &str) -> Result<()> {
        match self {
            Caller::Grpc { client, bearer, view } => {
                let message = DetachEntityRequest { portfolio_id: portfolio.to_owned(), entity_id: entity.to_owned(), view: view.wanted() };
                client.detach_entity(with_key(message, bearer)).await.map_err(refused)?;
                Ok(())
            }
            Caller::Rest { view, .. } => {
                let path = format!("/v1/portfolios/{portfolio}/entities/{entity}{}", view.query());
                self.send("DELETE", &path, String::new()).await
            }
        }
    }

    async fn attach(&mut self, portfolio: &str, entity: &str) -> Result<()> {
        match self {
            Caller::Grpc { client, bearer, view } => {
                let message = AttachEntityRequest { portfolio_id: portfolio.to_owned(), entity_id: entity.to_owned(), view: view.wanted() };
                client.attach_entity(with_key(message, bearer)).await.map_err(refused)?;
                Ok(())
            }
            Caller::Rest { .. } => {
                // Where the body is the message, the view is a member of it; an attach is not timed.
                let body = format!("{{\"entity_id\":\"{entity}\"}}");
                self.send("POST", &format!("/v1/portfolios/{portfolio}/entities"), body).await
            }
        }
    }

    async fn send(&self, method: &str, path: &str, body: String) -> Result<()> {
        let Caller::Rest { client, server, bearer, .. } = self else { return Err(Error::internal("gRPC has no paths")) };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{server}{path}"))
            .header("authorization", bearer)
            .header("content-type", "application/json")
            .body(Full::new(body.into()))
            .map_err(Error::internal)?;
        let response = client.request(request).await.map_err(Error::internal)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(Error::internal)?.to_bytes();
        if status != http::StatusCode::OK {
            return Err(Error::unavailable(format!("{method} {path}: {status} {}", String::from_utf8_lossy(&body))));
        }
        Ok(())
    }
}

fn with_key<T>(message: T, bearer: &MetadataValue<Ascii>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer.clone());
    request
}

fn wrong(description: String) -> Error {
    Error::invalid("--portfolio", "invalid", description)
}

fn refused(status: tonic::Status) -> Error {
    Error::unavailable(format!("The service refused: {}", status.message()))
}
