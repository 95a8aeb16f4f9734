//! A client of the service by gRPC and by REST, with one key, whose calls are shown on the stage.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic_types::StatusExt;

use super::Surprise;
use super::stage::Stage;
use crate::cli::client::{Server, credential};
use crate::cli::http::{Answer, send};
use crate::proto::v1::bulk_delete_service_client::BulkDeleteServiceClient;
use crate::proto::v1::entity_service_client::EntityServiceClient;
use crate::proto::v1::event_service_client::EventServiceClient;
use crate::proto::v1::portfolio_service_client::PortfolioServiceClient;
use crate::server::Addresses;

/// How long to follow something that works in the background.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between two checks of it.
const CALL_EVERY: Duration = Duration::from_millis(20);

/// A client with a key.
pub struct Caller {
    /// The stage on which its calls are shown.
    pub stage: Stage,
    /// Its organisation.
    pub org: String,
    /// The secret of its key.
    pub secret: String,
    /// Where REST is, as a URL.
    pub http_url: String,
    /// Where gRPC is, as host and port.
    pub grpc_addr: SocketAddr,
    channel: Channel,
    credential: MetadataValue<Ascii>,
}

impl Caller {
    /// Connects to both listeners of a service.
    pub async fn connect(
        stage: Stage,
        addresses: Addresses,
        org: &str,
        secret: &str,
    ) -> Result<Caller, Surprise> {
        let grpc_addr =
            addresses.grpc.ok_or_else(|| Surprise::new("the service has no gRPC listener"))?;
        let http_addr =
            addresses.http.ok_or_else(|| Surprise::new("the service has no REST listener"))?;
        let channel = Server::here(grpc_addr).connect().await?;
        let credential = credential(secret)?;
        let (org, secret) = (org.to_owned(), secret.to_owned());
        Ok(Caller {
            stage,
            org,
            secret,
            http_url: format!("http://{http_addr}"),
            grpc_addr,
            channel,
            credential,
        })
    }

    /// A gRPC request with the key.
    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", self.credential.clone());
        request
    }

    /// gRPC `EntityService`.
    pub fn entities(&self) -> EntityServiceClient<Channel> {
        EntityServiceClient::new(self.channel.clone())
    }

    /// gRPC `PortfolioService`.
    pub fn portfolios(&self) -> PortfolioServiceClient<Channel> {
        PortfolioServiceClient::new(self.channel.clone())
    }

    /// gRPC `EventService`.
    pub fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone())
    }

    /// gRPC `BulkDeleteService`.
    pub fn bulk_deletes(&self) -> BulkDeleteServiceClient<Channel> {
        BulkDeleteServiceClient::new(self.channel.clone())
    }

    /// Calls REST, shows the call and checks the status of its response.
    pub async fn rest(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        status: u16,
    ) -> Result<Answer, Surprise> {
        let shown = body.as_ref().map(|body| format!(" {body}")).unwrap_or_default();
        self.stage.call("REST", format_args!("{method} {path}{shown}"));
        let answer = self.quietly(method, path, body).await?;
        if answer.status.as_u16() != status {
            let body = String::from_utf8_lossy(&answer.body);
            return Err(Surprise::new(format!(
                "the service returned {} instead of {status}: {body}",
                answer.status
            )));
        }
        Ok(answer)
    }

    /// As [`Caller::rest`], for a call that must be refused with this code: shows why, and returns the problem document.
    pub async fn refused(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        status: u16,
        code: &str,
    ) -> Result<Value, Surprise> {
        let problem = self.rest(method, path, body, status).await?.json();
        let detail = problem["detail"].as_str().unwrap_or_default();
        self.stage
            .answer(status, format_args!("{code}: {}", detail.lines().next().unwrap_or_default()));
        super::same("the code of the problem", &problem["code"], &Value::from(code))?;
        Ok(problem)
    }

    /// Calls REST and shows nothing.
    pub async fn quietly(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, Surprise> {
        // The contract of `/v5` has a header of its own for the key.
        let (name, value) = if path.starts_with("/v5/") {
            ("apikey", self.secret.clone())
        } else {
            ("authorization", format!("Bearer {}", self.secret))
        };
        // One of the contracts has problem documents only for callers that name them.
        let mut headers = vec![(name, value.as_str()), ("accept", "application/problem+json")];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        Ok(send(method, &format!("{}{path}", self.http_url), &headers, body).await?)
    }
}

/// Calls `find` again and again until it finds the result.
pub async fn until<T>(
    what: &str,
    mut find: impl AsyncFnMut() -> Result<Option<T>, Surprise>,
) -> Result<T, Surprise> {
    let found = async {
        loop {
            if let Some(found) = find().await? {
                return Ok(found);
            }
            tokio::time::sleep(CALL_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .unwrap_or_else(|_| Err(Surprise::new(format!("waited {PATIENCE:?} in vain until {what}"))))
}

impl From<tonic::Status> for Surprise {
    fn from(status: tonic::Status) -> Surprise {
        let reason =
            status.get_error_details().error_info().map(|info| info.reason.to_ascii_lowercase());
        Surprise::new(format!(
            "the service returned {} ({}): {}",
            status.code(),
            reason.unwrap_or_default(),
            status.message()
        ))
    }
}
