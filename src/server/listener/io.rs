//! A socket that notes what passes, and comes back when the protocol is done with it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::activity::Activity;

/// A socket in use.
pub struct Socket {
    /// There until this is dropped.
    stream: Option<TcpStream>,
    activity: Arc<Activity>,
    back: Option<oneshot::Sender<TcpStream>>,
}

impl Socket {
    /// Notes what passes in `activity`; the receiver has the stream once the socket is dropped.
    pub fn new(stream: TcpStream, activity: Arc<Activity>) -> (Self, oneshot::Receiver<TcpStream>) {
        let (back, returned) = oneshot::channel();
        (Socket { stream: Some(stream), activity, back: Some(back) }, returned)
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("the stream is taken by the drop alone"))
    }

    fn sent(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.sent(poll.is_ready());
        poll
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            // Where nobody waits for it, it is closed.
            let _ = back.send(stream);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = self.stream().poll_read(context, buffer);
        if matches!(poll, Poll::Ready(Ok(()))) && buffer.capacity() > before {
            self.activity.received(&buffer.filled()[before..]);
        }
        poll
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = self.stream().poll_write(context, bytes);
        self.sent(poll)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let poll = self.stream().poll_write_vectored(context, bytes);
        self.sent(poll)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}
