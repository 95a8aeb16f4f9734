//! Requests the offboarding of many entities over gRPC, as fast as so many callers can, and prints when the first request was sent, in seconds
//! since 1970, and how many seconds all of them took. `script/bench jobs` runs it against the real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use futures::future::try_join_all;
use offboard::proto::v1::RequestOffboardingRequest;
use offboard::proto::v1::offboarding_service_client::OffboardingServiceClient;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Client = OffboardingServiceClient<Channel>;

/// Requests offboardings, and tells how fast.
#[derive(Parser)]
struct Options {
    /// Where the server is: `http://HOST:PORT`.
    #[arg(long)]
    server: String,
    /// The key.
    #[arg(long, env = "OFFBOARD_KEY")]
    key: String,
    /// How many entities; their ids are the prefix with the numbers from 1.
    #[arg(long)]
    entities: usize,
    /// How the ids begin.
    #[arg(long, default_value = "entity-")]
    prefix: String,
    /// How many callers are at work at once; sixteen share a connection.
    #[arg(long, default_value_t = 64)]
    callers: usize,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let endpoint = Endpoint::from_shared(options.server.clone())?;
    let connections = try_join_all((0..options.callers.div_ceil(16)).map(|_| endpoint.connect())).await?;
    let options = Arc::new(options);
    let next = Arc::new(AtomicUsize::new(1));

    let (since, started) = (SystemTime::now().duration_since(UNIX_EPOCH)?, Instant::now());
    let callers = (0..options.callers).map(|caller| {
        let client = OffboardingServiceClient::new(connections[caller % connections.len()].clone());
        tokio::spawn(call(client, options.clone(), next.clone()))
    });
    for ended in try_join_all(callers).await? {
        ended?;
    }
    println!("{:.3} {:.3}", since.as_secs_f64(), started.elapsed().as_secs_f64());
    Ok(())
}

/// One caller: sends the next request as soon as the last is answered.
async fn call(mut client: Client, options: Arc<Options>, next: Arc<AtomicUsize>) -> Result<(), Failure> {
    let bearer: tonic::metadata::MetadataValue<_> = format!("Bearer {}", options.key).parse()?;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number > options.entities {
            return Ok(());
        }
        let message = RequestOffboardingRequest { entity_id: format!("{}{number}", options.prefix), grace_period: None };
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", bearer.clone());
        client.request_offboarding(request).await?;
    }
}
