//! Reads and discards the rest of a request that has its response already, up to a bound.
//!
//! Closing a socket with unread bytes resets it, and a reset takes the response away from a client that has not read it yet (RFC 9112,
//! section 9.6). Over HTTP/2 a stream that ends before its request does is reset (RFC 9113, section 8.1), and clients that are still
//! sending take that for a failure.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::limits::listeners::{
    AWAITED_REST_BYTES, DISCARDED_BYTES, DISCARDED_BYTES_AT_MOST, DISCARDED_SECONDS,
};

/// How long a client that has its response before it has sent everything may be silent.
const SILENCE: Duration = Duration::from_secs(5);
/// As how many bytes a frame counts at least.
const FRAME: usize = 64;
/// How long a refusal by HTTP/1.1 waits for a small rest, so that the connection can be used again.
const SOON: Duration = Duration::from_millis(250);
/// How long it may continue where the listener closes.
const FAREWELL: Duration = Duration::from_secs(1);

/// The rest on a connection of HTTP/1.1 after its last response.
pub async fn connection(mut stream: TcpStream, closing: &CancellationToken) {
    // The client learns that there is nothing more to come.
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut left = DISCARDED_BYTES_AT_MOST;
    let read = async {
        while let Ok(Ok(())) = timeout(SILENCE, stream.readable()).await {
            // A buffer only while there is something to read.
            let mut buffer = vec![0; 64 * 1024];
            match stream.read(&mut buffer).await {
                Ok(read @ 1..) if read < left => left -= read,
                Ok(1..) => {
                    DISCARDED_BYTES.reached();
                    return;
                }
                _ => return,
            }
        }
    };
    in_time(read, closing).await;
}

/// Returns whether the rest of a request is small and on its way: who expects to be asked for it sends none before.
pub fn comes_soon(request: &Request<Incoming>) -> bool {
    request.body().size_hint().exact().is_some_and(|size| size <= AWAITED_REST_BYTES)
        && !request.headers().contains_key(header::EXPECT)
}

/// Reads such a rest to its end. Returns whether it came in time.
pub async fn soon(rest: oneshot::Receiver<Incoming>) -> bool {
    let read = async {
        let Ok(mut body) = rest.await else { return false };
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    timeout(SOON, read).await.unwrap_or(false)
}

/// The rest of the body of a request of HTTP/2, once nobody reads it any more: that may be a moment after its response was given.
pub async fn body(rest: oneshot::Receiver<Incoming>, closing: CancellationToken) {
    let mut left = DISCARDED_BYTES_AT_MOST;
    let read = async {
        let Ok(Ok(mut body)) = timeout(SILENCE, rest).await else { return };
        while let Ok(Some(Ok(frame))) = timeout(SILENCE, body.frame()).await {
            // A frame is work, also an empty one.
            let read = frame.data_ref().map_or(0, Bytes::len).max(FRAME);
            if read >= left {
                DISCARDED_BYTES.reached();
                return;
            }
            left -= read;
        }
    };
    in_time(read, &closing).await;
}

async fn in_time(read: impl Future<Output = ()>, closing: &CancellationToken) {
    let ends = async {
        tokio::select! {
            () = closing.cancelled() => tokio::time::sleep(FAREWELL).await,
            () = tokio::time::sleep(Duration::from_secs(DISCARDED_SECONDS)) => DISCARDED_BYTES.reached(),
        }
    };
    tokio::select! {
        () = read => {}
        () = ends => {}
    }
}
