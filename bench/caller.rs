//! Callers of either protocol, one connection each, whose bytes are counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use clap::ValueEnum;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use offboard::proto::object::Struct;
use offboard::proto::v1::entity_service_client::EntityServiceClient;
use offboard::proto::v1::portfolio_service_client::PortfolioServiceClient;
use offboard::proto::v1::{
    AttachEntityRequest, CreateEntityRequest, CreatePortfolioRequest, DetachEntityRequest,
    GetEntityRequest, NewEntity, PortfolioView,
};

use crate::{Result, bearer, with_key};

/// A way into the service.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Protocol {
    /// gRPC
    Grpc,
    /// The REST gateway
    Rest,
}

/// How much of a portfolio a response shows.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum View {
    /// All but the members
    Basic,
    /// All of it, with the ids of up to 1,000 members
    Full,
}

impl View {
    /// The view for a request, which leaves out that of all.
    fn wanted(self) -> i32 {
        match self {
            View::Basic => PortfolioView::Basic.into(),
            View::Full => PortfolioView::default().into(),
        }
    }

    fn query(self) -> &'static str {
        match self {
            View::Basic => "?view=basic",
            View::Full => "",
        }
    }
}

/// Counts the bytes of connections, both ways.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// How many bytes it were so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A caller with a connection of its own. It reads every response as its users would: into a message, or into the members of the JSON.
pub enum Caller {
    /// By gRPC.
    Grpc {
        /// The services.
        entities: EntityServiceClient<Channel>,
        /// The services.
        portfolios: PortfolioServiceClient<Channel>,
        /// The credentials.
        bearer: MetadataValue<Ascii>,
    },
    /// By REST.
    Rest {
        /// The connection.
        client: Client<Connector, Full<Bytes>>,
        /// Where the service is.
        server: String,
        /// The credentials.
        bearer: String,
    },
}

/// The client of a caller by gRPC.
type Clients<'c> =
    (EntityServiceClient<Channel>, PortfolioServiceClient<Channel>, &'c MetadataValue<Ascii>);

/// The members of an entity's JSON that its users read.
#[derive(Deserialize)]
#[expect(dead_code, reason = "what a user would read is read")]
struct Entity {
    id: String,
    r#type: String,
    state: String,
    attributes: serde_json::Map<String, serde_json::Value>,
    components: Vec<String>,
    portfolio_id: Option<String>,
    version: i64,
    created_at: String,
    updated_at: String,
}

/// The members of a portfolio's JSON that its users read.
#[derive(Deserialize)]
#[expect(dead_code, reason = "what a user would read is read")]
struct Portfolio {
    id: String,
    name: String,
    entity_ids: Vec<String>,
    entity_count: i64,
    version: i64,
    metadata: Option<serde_json::Map<String, serde_json::Value>>,
    created_at: String,
    updated_at: String,
}

impl Caller {
    /// Connects.
    pub async fn connect(
        protocol: Protocol,
        server: String,
        key: &str,
        meter: Meter,
    ) -> Result<Caller> {
        let connector = Connector(meter);
        Ok(match protocol {
            Protocol::Grpc => {
                let channel =
                    Endpoint::from_shared(server)?.connect_with_connector(connector).await?;
                let bearer = bearer(key)?;
                Caller::Grpc {
                    entities: EntityServiceClient::new(channel.clone()),
                    portfolios: PortfolioServiceClient::new(channel),
                    bearer,
                }
            }
            Protocol::Rest => Caller::Rest {
                client: Client::builder(TokioExecutor::new()).build(connector),
                server,
                bearer: format!("Bearer {key}"),
            },
        })
    }

    /// Reads an entity.
    pub async fn get(&self, entity_id: &str) -> Result<(), Status> {
        match self {
            Caller::Grpc { entities, bearer, .. } => {
                let message = GetEntityRequest { entity_id: entity_id.to_owned() };
                entities.clone().get_entity(with_key(message, bearer)).await.map(drop)
            }
            Caller::Rest { .. } => {
                self.send::<Entity>(
                    Method::GET,
                    &format!("/v1/entities/{entity_id}"),
                    String::new(),
                )
                .await
            }
        }
    }

    /// Takes an entity off a portfolio.
    pub async fn detach(
        &self,
        portfolio_id: &str,
        entity_id: &str,
        view: View,
    ) -> Result<(), Status> {
        match self {
            Caller::Grpc { portfolios, bearer, .. } => {
                let (portfolio_id, entity_id) = (portfolio_id.to_owned(), entity_id.to_owned());
                let message = DetachEntityRequest { portfolio_id, entity_id, view: view.wanted() };
                portfolios.clone().detach_entity(with_key(message, bearer)).await.map(drop)
            }
            Caller::Rest { .. } => {
                let path =
                    format!("/v1/portfolios/{portfolio_id}/entities/{entity_id}{}", view.query());
                self.send::<Portfolio>(Method::DELETE, &path, String::new()).await
            }
        }
    }

    /// Makes an entity a member of a portfolio. It is never timed.
    pub async fn attach(&self, portfolio_id: &str, entity_id: &str) -> Result<(), Status> {
        match self {
            Caller::Grpc { portfolios, bearer, .. } => {
                let (portfolio_id, entity_id) = (portfolio_id.to_owned(), entity_id.to_owned());
                let message = AttachEntityRequest { portfolio_id, entity_id, ..Default::default() };
                portfolios.clone().attach_entity(with_key(message, bearer)).await.map(drop)
            }
            Caller::Rest { .. } => {
                let body = format!("{{\"entity_id\":\"{entity_id}\"}}");
                self.send::<Portfolio>(
                    Method::POST,
                    &format!("/v1/portfolios/{portfolio_id}/entities"),
                    body,
                )
                .await
            }
        }
    }

    /// Makes a portfolio. By gRPC alone.
    pub async fn create_portfolio(&self, portfolio_id: &str) -> Result<(), Status> {
        let (_, mut portfolios, bearer) = self.clients()?;
        let message = CreatePortfolioRequest {
            portfolio_id: portfolio_id.to_owned(),
            name: portfolio_id.to_owned(),
            ..Default::default()
        };
        portfolios.create_portfolio(with_key(message, bearer)).await.map(drop)
    }

    /// Makes an entity with a handful of attributes. By gRPC alone.
    pub async fn create_entity(&self, entity_id: &str) -> Result<(), Status> {
        let (mut entities, _, bearer) = self.clients()?;
        let names = ["FirstName", "LastName", "City", "Country", "Specialty"];
        let members = names.map(|name| (name.to_owned(), "a value of some length".into()));
        let attributes =
            Some(Struct::from_json(&serde_json::Value::Object(members.into_iter().collect())));
        let entity = NewEntity {
            entity_id: entity_id.to_owned(),
            r#type: "configuration/entityTypes/HCP".to_owned(),
            attributes,
            ..Default::default()
        };
        entities
            .create_entity(with_key(CreateEntityRequest { entity: Some(entity) }, bearer))
            .await
            .map(drop)
    }

    fn clients(&self) -> Result<Clients<'_>, Status> {
        match self {
            Caller::Grpc { entities, portfolios, bearer } => {
                Ok((entities.clone(), portfolios.clone(), bearer))
            }
            Caller::Rest { .. } => Err(Status::unimplemented("only gRPC does this here")),
        }
    }

    async fn send<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(), Status> {
        let Caller::Rest { client, server, bearer } = self else {
            return Err(Status::unimplemented("gRPC has no paths"));
        };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{server}{path}"))
            .header("authorization", bearer);
        let request = if body.is_empty() {
            request
        } else {
            request.header("content-type", "application/json")
        };
        let failed =
            |error: &dyn std::error::Error| Status::unavailable(format!("{path}: {error}"));
        let request = request.body(Full::new(body.into())).map_err(|error| failed(&error))?;
        let response = client.request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| failed(&error))?.to_bytes();
        if !status.is_success() {
            return Err(Status::unavailable(format!(
                "{path}: {status} {}",
                String::from_utf8_lossy(&body)
            )));
        }
        serde_json::from_slice::<T>(&body).map(drop).map_err(|error| failed(&error))
    }
}

/// Makes connections that are counted.
#[derive(Clone, Debug)]
pub struct Connector(Meter);

impl Service<Uri> for Connector {
    type Response = TokioIo<Counted>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Counted>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let meter = self.0.clone();
        async move {
            let host = server.host().unwrap_or("127.0.0.1").trim_matches(['[', ']']).to_owned();
            let connection = TcpStream::connect((host, server.port_u16().unwrap_or(80))).await?;
            connection.set_nodelay(true)?;
            Ok(TokioIo::new(Counted { connection, meter }))
        }
        .boxed()
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub struct Counted {
    connection: TcpStream,
    meter: Meter,
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.connection).poll_read(context, buffer))?;
        self.meter.add(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.connection).poll_write(context, data))?;
        self.meter.add(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.connection).poll_write_vectored(context, data))?;
        self.meter.add(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}
