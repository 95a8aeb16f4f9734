//! The one loop that accepts connections, for all three listeners.
//!
//! Anybody who can reach a port can open connections to it and send nothing, or half of something. So each connection has a time for each
//! of its stages ([`activity`]), each listener a number of connections, and each address a part of them ([`permits`]). A process that may
//! open no more files says so in its log, and serves probes from a reserve.

mod accept;
mod activity;
mod client_frames;
mod connection;
mod discard;
mod heads;
mod io;
mod memory;
mod owners;
mod patience;
mod permits;
mod proxy_header;
mod refusal;
mod requests;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::BoxError;

pub use self::accept::open_files;
use self::accept::{Accepted, Acceptor};
use self::activity::Activity;
#[cfg(test)]
pub use self::heads::Begun;
pub use self::memory::give_back;
pub use self::patience::Patience;
use self::permits::Permits;
pub use self::refusal::Unreadable;
pub use self::requests::{Arrival, Arriving};
use super::client::Proxies;
use super::tally::Full;
use crate::limits::Limit;
use crate::limits::answers::MAX_HEADERS;
use crate::limits::listeners::{
    ADMIN_CONNECTIONS, ADMIN_CONNECTIONS_AT_MOST, ADMIN_CONNECTIONS_PER_ADDRESS_AT_MOST,
    CANCELED_STREAMS_AT_MOST, CONNECTIONS, CONNECTIONS_PER_ADDRESS, HEAD_BYTES_AT_MOST,
    HEADER_LIST_BYTES_AT_MOST, RESERVED_FILES, SEND_BUFFER_BYTES, STREAM_ERRORS_AT_MOST,
    STREAM_WINDOW_BYTES,
};
use crate::telemetry::Seldom;

/// How many headers are read of a request of HTTP/1.1; somewhat more than are taken, so that too many are refused with a reason.
const HEADERS_AT_MOST: usize = MAX_HEADERS + 28;

/// A protocol: it serves the requests of a listener.
pub trait Answer: Clone + Send + Sync + 'static {
    /// The body of a response.
    type Body: http_body::Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + Unpin + 'static;

    /// True if over HTTP/2, too, a response ends only when the rest of its request was read and discarded. gRPC clients do not need that: a
    /// call is over with its status, and its stream of messages may have no end.
    const WAITS_FOR_REST: bool = true;

    /// Serves a request of this peer: the address that limits count it by, which is its client's where that is known.
    fn answer(
        &self,
        request: Request<Arriving>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;

    /// Responds to bytes that are not a request, instead of the HTTP library, which would send its status and nothing else. The connection ends
    /// with it.
    fn refuse(&self, unreadable: &Unreadable) -> Response<Bytes>;
}

/// The settings of a listener.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name in the log: `gRPC`, `HTTP`, `admin`.
    pub name: &'static str,
    /// How many connections there may be.
    pub connections: Connections,
    /// How many streams a connection may have.
    pub streams: u32,
    /// How long each stage of a connection may take.
    pub patience: Patience,
    /// How often a silent HTTP/2 connection is asked whether anyone is there, if at all, and how long it may take to say so.
    pub keepalive: (Option<Duration>, Duration),
    /// When a connection takes no new calls, and how long those that it has may then take.
    pub age: (Option<Duration>, Option<Duration>),
    /// How many files are kept in reserve for when the process may open no more.
    pub reserve: usize,
    /// The proxies that are believed.
    pub proxies: Proxies,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// In all.
    pub in_all: usize,
    /// From one address.
    pub address: usize,
    /// Of one realm.
    pub realm: usize,
}

impl Options {
    /// Those of the admin listener: few connections, and a reserve.
    pub fn admin(patience: Patience) -> Self {
        Options {
            name: "admin",
            connections: Connections {
                in_all: ADMIN_CONNECTIONS_AT_MOST,
                address: ADMIN_CONNECTIONS_PER_ADDRESS_AT_MOST,
                // Nobody shows a key there.
                realm: ADMIN_CONNECTIONS_AT_MOST,
            },
            streams: 16,
            patience,
            keepalive: (None, Duration::from_secs(20)),
            age: (None, None),
            reserve: RESERVED_FILES,
            proxies: Proxies::none(),
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // The times of all stages are kept by the connection, which knows both protocols.
        builder
            .http1()
            .header_read_timeout(None::<Duration>)
            .max_buf_size(HEAD_BYTES_AT_MOST)
            .max_headers(HEADERS_AT_MOST);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(connection_window(self.streams))
            .max_pending_accept_reset_streams(CANCELED_STREAMS_AT_MOST)
            .max_local_error_reset_streams(STREAM_ERRORS_AT_MOST)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .keep_alive_interval(self.keepalive.0)
            .keep_alive_timeout(self.keepalive.1)
            .max_header_list_size(HEADER_LIST_BYTES_AT_MOST);
        builder
    }

    /// The limit that a connection too many has reached.
    fn limit(&self, full: Full) -> &'static Limit {
        match full {
            _ if self.reserve > 0 => &ADMIN_CONNECTIONS,
            Full::InAll => &CONNECTIONS,
            Full::Each => &CONNECTIONS_PER_ADDRESS,
        }
    }
}

/// The window of a connection, which is also what decides how many small frames it may send ahead.
///
/// The h2 library counts what the frames cost that it has received and nobody has read yet, as 256 bytes less their length each, and closes a
/// connection (`too_many_data_frames`) where they cost more than half of its window. A gRPC client may send each message as a frame of its own,
/// and the smallest message is a prefix of 5 bytes. So the window is twice what it costs to fill the windows of all streams with such messages:
/// whoever sends whole messages is never cut off, and whoever sends a byte a frame on all streams is. How many bytes are really sent ahead is
/// decided by the windows of the streams.
fn connection_window(streams: u32) -> u32 {
    const FRAME_COST: u64 = 256;
    const SMALLEST_MESSAGE: u64 = 5;
    const WINDOW_AT_MOST: u64 = (1 << 31) - 1;
    let frames = u64::from(streams) * (u64::from(STREAM_WINDOW_BYTES) / SMALLEST_MESSAGE + 1);
    (2 * frames * (FRAME_COST - SMALLEST_MESSAGE)).min(WINDOW_AT_MOST) as u32
}

/// Accepts connections and serves their requests, until it is asked to close; then until the present requests are done. Dropping it
/// closes every connection.
pub async fn serve<A: Answer>(
    listener: TcpListener,
    answer: A,
    options: Options,
    closing: CancellationToken,
) {
    let builder = options.builder();
    let Connections { in_all, address, realm } = options.connections;
    let permits = Permits::new(in_all, address, realm);
    let mut connections = JoinSet::new();
    let tls = Arc::new(Mutex::new(Seldom::default()));
    let mut acceptor = Acceptor::new(listener, options.name, options.reserve);
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => break,
            accepted = acceptor.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Accepted { stream, peer } = accepted;
        let activity = Arc::new(Activity::new());
        // Of whom it is, a proxy says first.
        let is_announced = options.proxies.announces(peer.ip());
        let address = (!is_announced).then(|| peer.ip());
        let (entered, full) = match permits.enter(address, &activity) {
            Ok((permit, full)) => (Some(permit), full),
            Err(full) => (None, Some(full)),
        };
        if let Some(full) = full {
            acceptor.full(peer, options.limit(full), entered.is_some());
        }
        let Some(permit) = entered else { continue };
        // The messages of a stream are small, and each is waited for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection delays what is small");
        }
        let connection = connection::Connection {
            stream,
            peer,
            is_announced,
            proxies: options.proxies.clone(),
            activity,
            permit: permit.handle(),
            answer: answer.clone(),
            builder: builder.clone(),
            patience: options.patience,
            age: options.age,
            closing: closing.clone(),
            tls: (options.name, tls.clone()),
        };
        connections.spawn(async move {
            connection.run().await;
            drop(permit);
            memory::closed();
        });
    }
    // Nobody is to be kept waiting by a port at which nobody accepts.
    drop(acceptor);
    while connections.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_sends_whole_messages_fits_on_every_stream_at_once() {
        for streams in [1, 100, 200, 1000] {
            let budget = u64::from(connection_window(streams)) / 2;
            let messages = u64::from(streams) * u64::from(STREAM_WINDOW_BYTES) / 5;
            assert!(
                messages * (256 - 5) <= budget || connection_window(streams) == i32::MAX as u32,
                "{streams}"
            );
        }
        assert!(
            u64::from(connection_window(200)) / 2 < 200 * u64::from(STREAM_WINDOW_BYTES) * 255,
            "a byte a frame on all is cut off"
        );
    }
}
