//! Callers of either protocol, one connection each.

use bytes::Bytes;
use clap::ValueEnum;
use http::Method;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::json;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

use offboard::proto::object::Struct;
use offboard::proto::v1::entity_service_client::EntityServiceClient;
use offboard::proto::v1::offboarding_service_client::OffboardingServiceClient;
use offboard::proto::v1::portfolio_service_client::PortfolioServiceClient;
use offboard::proto::v1::{
    AttachEntityRequest, CancelOffboardingRequestRequest, CreateEntityRequest,
    CreatePortfolioRequest, DetachEntityRequest, GetEntityRequest, GetPortfolioRequest, NewEntity,
    PortfolioView, RequestOffboardingRequest,
};

use crate::meter::{Connector, Meter};
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

/// A caller with a connection of its own. It reads every response as its users would: into a message, or into the members of the JSON.
pub enum Caller {
    /// By gRPC.
    Grpc {
        /// The connection.
        channel: Channel,
        /// The credentials.
        bearer: MetadataValue<Ascii>,
    },
    /// By REST.
    Rest {
        /// The connection.
        client: Box<Client<Connector, Full<Bytes>>>,
        /// Where the service is.
        server: String,
        /// The credentials.
        bearer: String,
    },
}

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

/// The members of a request's JSON that its users read.
#[derive(Deserialize)]
struct Offboarding {
    id: String,
    #[expect(dead_code, reason = "what a user would read is read")]
    status: String,
}

const OFFBOARDINGS: &str = "/v1/offboarding/entities";

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
                Caller::Grpc { channel, bearer }
            }
            Protocol::Rest => Caller::Rest {
                client: Box::new(Client::builder(TokioExecutor::new()).build(connector)),
                server,
                bearer: format!("Bearer {key}"),
            },
        })
    }

    /// Reads an entity.
    pub async fn get(&self, entity_id: &str) -> Result<(), Status> {
        match self {
            Caller::Grpc { channel, bearer } => {
                let message = GetEntityRequest { entity_id: entity_id.to_owned() };
                EntityServiceClient::new(channel.clone())
                    .get_entity(with_key(message, bearer))
                    .await
                    .map(drop)
            }
            Caller::Rest { .. } => {
                let path = format!("/v1/entities/{entity_id}");
                self.send::<Entity>(Method::GET, &path, String::new()).await.map(drop)
            }
        }
    }

    /// Reads a portfolio.
    pub async fn get_portfolio(&self, portfolio_id: &str, view: View) -> Result<(), Status> {
        match self {
            Caller::Grpc { channel, bearer } => {
                let message = GetPortfolioRequest {
                    portfolio_id: portfolio_id.to_owned(),
                    view: view.wanted(),
                };
                PortfolioServiceClient::new(channel.clone())
                    .get_portfolio(with_key(message, bearer))
                    .await
                    .map(drop)
            }
            Caller::Rest { .. } => {
                let path = format!("/v1/portfolios/{portfolio_id}{}", view.query());
                self.send::<Portfolio>(Method::GET, &path, String::new()).await.map(drop)
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
            Caller::Grpc { channel, bearer } => {
                let (portfolio_id, entity_id) = (portfolio_id.to_owned(), entity_id.to_owned());
                let message = DetachEntityRequest { portfolio_id, entity_id, view: view.wanted() };
                PortfolioServiceClient::new(channel.clone())
                    .detach_entity(with_key(message, bearer))
                    .await
                    .map(drop)
            }
            Caller::Rest { .. } => {
                let path =
                    format!("/v1/portfolios/{portfolio_id}/entities/{entity_id}{}", view.query());
                self.send::<Portfolio>(Method::DELETE, &path, String::new()).await.map(drop)
            }
        }
    }

    /// Makes an entity a member of a portfolio.
    pub async fn attach(
        &self,
        portfolio_id: &str,
        entity_id: &str,
        view: View,
    ) -> Result<(), Status> {
        match self {
            Caller::Grpc { channel, bearer } => {
                let (portfolio_id, entity_id) = (portfolio_id.to_owned(), entity_id.to_owned());
                let message = AttachEntityRequest { portfolio_id, entity_id, view: view.wanted() };
                PortfolioServiceClient::new(channel.clone())
                    .attach_entity(with_key(message, bearer))
                    .await
                    .map(drop)
            }
            Caller::Rest { .. } => {
                let body = match view {
                    View::Basic => json!({"entity_id": entity_id, "view": "basic"}),
                    View::Full => json!({"entity_id": entity_id}),
                };
                let path = format!("/v1/portfolios/{portfolio_id}/entities");
                self.send::<Portfolio>(Method::POST, &path, body.to_string()).await.map(drop)
            }
        }
    }

    /// Makes a portfolio. By gRPC alone.
    pub async fn create_portfolio(&self, portfolio_id: &str) -> Result<(), Status> {
        let Caller::Grpc { channel, bearer } = self else {
            return Err(Status::unimplemented("only gRPC does this here"));
        };
        let message = CreatePortfolioRequest {
            portfolio_id: portfolio_id.to_owned(),
            name: portfolio_id.to_owned(),
            ..Default::default()
        };
        PortfolioServiceClient::new(channel.clone())
            .create_portfolio(with_key(message, bearer))
            .await
            .map(drop)
    }

    /// Makes an entity with a handful of attributes.
    pub async fn create_entity(&self, entity_id: &str) -> Result<(), Status> {
        const TYPE: &str = "configuration/entityTypes/HCP";
        let names = ["FirstName", "LastName", "City", "Country", "Specialty"];
        let attributes = names.map(|name| (name.to_owned(), "a value of some length".into()));
        let attributes = serde_json::Value::Object(attributes.into_iter().collect());
        match self {
            Caller::Grpc { channel, bearer } => {
                let entity = NewEntity {
                    entity_id: entity_id.to_owned(),
                    r#type: TYPE.to_owned(),
                    attributes: Some(Struct::from_json(&attributes)),
                    ..Default::default()
                };
                let message = CreateEntityRequest { entity: Some(entity) };
                EntityServiceClient::new(channel.clone())
                    .create_entity(with_key(message, bearer))
                    .await
                    .map(drop)
            }
            Caller::Rest { .. } => {
                let body = json!({"entity_id": entity_id, "type": TYPE, "attributes": attributes});
                self.send::<Entity>(Method::POST, "/v1/entities", body.to_string()).await.map(drop)
            }
        }
    }

    /// Requests the offboarding of an entity, and returns the id of the request.
    pub async fn request_offboarding(&self, entity_id: &str) -> Result<String, Status> {
        match self {
            Caller::Grpc { channel, bearer } => {
                let message = RequestOffboardingRequest {
                    entity_id: entity_id.to_owned(),
                    grace_period: None,
                };
                let mut offboardings = OffboardingServiceClient::new(channel.clone());
                let request = offboardings.request_offboarding(with_key(message, bearer)).await?;
                Ok(request.into_inner().id)
            }
            Caller::Rest { .. } => {
                let body = json!({"entityId": entity_id}).to_string();
                let request = self.send::<Offboarding>(Method::POST, OFFBOARDINGS, body).await?;
                Ok(request.id)
            }
        }
    }

    /// Cancels a request.
    pub async fn cancel(&self, request_id: &str) -> Result<(), Status> {
        match self {
            Caller::Grpc { channel, bearer } => {
                let message = CancelOffboardingRequestRequest {
                    offboarding_request_id: request_id.to_owned(),
                };
                let mut offboardings = OffboardingServiceClient::new(channel.clone());
                offboardings.cancel_offboarding_request(with_key(message, bearer)).await.map(drop)
            }
            Caller::Rest { .. } => {
                let path = format!("{OFFBOARDINGS}/{request_id}/cancel");
                self.send::<Offboarding>(Method::PATCH, &path, String::new()).await.map(drop)
            }
        }
    }

    async fn send<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<T, Status> {
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
        serde_json::from_slice::<T>(&body).map_err(|error| failed(&error))
    }
}
