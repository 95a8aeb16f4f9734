//! A running service as `bulk-delete` speaks to it.

use clap::Args;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::cli::client::{Server, credential};
use crate::error::Result;
use crate::proto::v1::bulk_delete_service_client::BulkDeleteServiceClient;

/// A page of a thousand tasks, each with a hundred ids of what failed.
const LARGEST_ANSWER: usize = 64 << 20;

/// The service, and the caller's key.
#[derive(Args, Clone, Debug)]
pub struct Connection {
    #[command(flatten)]
    server: Server,

    /// Secret of a key with the scopes `entities:read` and `entities:delete`, and `entities:delete_hard` for --hard
    #[arg(long, env = "OFFBOARD_KEY", hide_env_values = true)]
    key: String,
}

/// A connected service.
#[derive(Clone)]
pub struct Service {
    /// Its client.
    pub client: BulkDeleteServiceClient<Channel>,
    credential: MetadataValue<Ascii>,
}

impl Connection {
    /// Connects.
    pub async fn open(&self) -> Result<Service> {
        let credential = credential(&self.key)?;
        let client = BulkDeleteServiceClient::new(self.server.connect().await?);
        Ok(Service { client: client.max_decoding_message_size(LARGEST_ANSWER), credential })
    }
}

impl Service {
    /// A request with the key.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.credential.clone());
        request
    }
}
