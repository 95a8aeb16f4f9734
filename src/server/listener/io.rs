//! A socket that notes the bytes that pass, and comes back when the protocol is done with it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::activity::Activity;
use super::heads::Heads;
use super::refusal::{Refusal, Refuse};

/// A socket in use.
pub struct Socket {
    /// There until this is dropped.
    stream: Option<TcpStream>,
    activity: Arc<Activity>,
    heads: Heads,
    refusal: Refusal,
    back: Option<oneshot::Sender<TcpStream>>,
}

impl Socket {
    /// Notes the bytes that pass in `activity`, and has `refuse` respond to bytes that are not a request; the receiver has the stream once
    /// the socket is dropped.
    pub fn new(
        stream: TcpStream,
        activity: Arc<Activity>,
        refuse: Refuse,
    ) -> (Self, oneshot::Receiver<TcpStream>) {
        let (back, returned) = oneshot::channel();
        let (heads, refusal) = (Heads::default(), Refusal::new(refuse));
        (Socket { stream: Some(stream), activity, heads, refusal, back: Some(back) }, returned)
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("the stream is taken by the drop alone"))
    }

    fn sent(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.sent(taken(&poll));
        poll
    }

    /// Has the connection closed where the peer has left while its request is dealt with. Over HTTP/1.1 the protocol reads nothing meanwhile, so that it does
    /// not find out where some of the request is still to be read.
    fn look_for_peer(&mut self) {
        if self.activity.is_http2() || !self.activity.is_busy() {
            return;
        }
        let ready =
            self.stream.as_ref().and_then(|stream| stream.ready(Interest::READABLE).now_or_never());
        if ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed())) {
            self.activity.cut();
        }
    }

    /// Whether the protocol writes a refusal of its own, or something behind one.
    fn is_refusal(&mut self, bytes: &[u8]) -> bool {
        let is_outside = !self.activity.is_answering() && !self.activity.is_http2();
        let is_refusal =
            self.refusal.is_made() || is_outside && self.refusal.replaces(bytes, &self.heads);
        if !is_refusal {
            self.heads.forget();
        }
        is_refusal
    }

    /// Sends the replacement of a refusal, if there was one.
    fn poll_refusal(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Socket { stream: Some(stream), activity, refusal, .. } = self else {
            return Poll::Ready(Ok(()));
        };
        while let Some(left) = refusal.left() {
            let poll = Pin::new(&mut *stream).poll_write(context, left);
            activity.sent(taken(&poll));
            match ready!(poll)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => left.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// How many bytes were taken of what was to be sent; none if it has to wait.
fn taken(poll: &Poll<io::Result<usize>>) -> Option<usize> {
    match poll {
        Poll::Ready(sent) => Some(*sent.as_ref().unwrap_or(&0)),
        Poll::Pending => None,
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
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = self.stream().poll_read(context, buffer);
        if matches!(poll, Poll::Ready(Ok(()))) && buffer.capacity() > before {
            let bytes = &buffer.filled()[before..];
            self.activity.received(bytes);
            if !self.activity.is_http2() && self.heads.say_twice(bytes) {
                self.activity.confuse();
            }
        }
        poll
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_refusal(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let poll = self.stream().poll_write(context, bytes);
        self.sent(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_refusal(bytes.first().map_or(&[], |first| first)) {
            return Poll::Ready(Ok(bytes.iter().map(|part| part.len()).sum()));
        }
        let poll = self.stream().poll_write_vectored(context, bytes);
        self.sent(poll)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look_for_peer();
        ready!(self.poll_refusal(context))?;
        let poll = self.stream().poll_flush(context);
        if matches!(poll, Poll::Ready(Ok(()))) {
            self.activity.flushed();
        }
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(context))?;
        self.stream().poll_shutdown(context)
    }
}
