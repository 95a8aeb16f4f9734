//! The memory that responses take from when they are built until they are written: one budget for all calls of the process.
//!
//! A caller that asks and does not read has its response wait in memory. So what is longer than a little is paid for, out of a part that a realm may have
//! half of; who finds no room waits a moment, and not with more than there is room for those that wait. A response is handed on piece by piece, each
//! with what was paid for it, which is given back when the piece is written. Whoever reads less than [`LEAST_READ`] in its time is not waited for:
//! what is left of the response is dropped; if what is on its way does not leave either, the connection is closed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use super::answers::{
    FREE_RESPONSE_BYTES, LEAST_READ, LEAST_READ_BYTES, RESPONSE_MEMORY, RESPONSE_WAIT_SECONDS,
};
use super::listeners::UNREAD_SECONDS;
use super::part::Part;
pub use super::part::Reservation;
use crate::error::{Code, Error, Result};
use crate::telemetry;

/// How large a piece is: no more than a frame of HTTP/2.
const PIECE: usize = 16 << 10;

/// Memory for responses. Clones share it.
#[derive(Clone, Debug)]
pub struct ResponseMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    built: Part,
    /// For those that are built and wait for room.
    waiting: Part,
}

impl ResponseMemory {
    /// So much memory.
    pub fn new(bytes: usize) -> Self {
        let (waiting, part) = (bytes / 4, |bytes| Part::new(bytes, telemetry::response_memory));
        ResponseMemory(Arc::new(Shared { built: part(bytes - waiting), waiting: part(waiting) }))
    }

    /// The account of a call of nobody yet.
    pub fn open(&self) -> Responding {
        Responding { memory: self.clone(), realm: Arc::default(), reserved: Arc::default() }
    }

    /// Reserves so much for what is built, or is about to be. What is large waits only if it is not built.
    async fn reserve(&self, realm: i32, bytes: usize, is_built: bool) -> Result<Reservation> {
        let Shared { built, waiting } = &*self.0;
        if let Some(reservation) = self.try_reserve(realm, bytes) {
            return Ok(reservation);
        }
        let _waiting = match is_built {
            true if bytes > waiting.share() => return Err(too_much()),
            true => Some(waiting.try_reserve(realm, bytes, waiting.share()).ok_or_else(too_much)?),
            false => None,
        };
        let reserved = built.reserve(realm, bytes, built.share());
        tokio::time::timeout(Duration::from_secs(RESPONSE_WAIT_SECONDS), reserved)
            .await
            .map_err(|_| too_much())
    }

    /// The same where there is room at once.
    fn try_reserve(&self, realm: i32, bytes: usize) -> Option<Reservation> {
        self.0.built.try_reserve(realm, bytes, self.0.built.share())
    }
}

fn too_much() -> Error {
    RESPONSE_MEMORY.reached();
    Error::unavailable("Too many large responses are built or read at once; try again in a moment.")
}

/// The memory of the response of one call. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Responding {
    memory: ResponseMemory,
    realm: Arc<AtomicI32>,
    reserved: Arc<Mutex<Option<Reservation>>>,
}

impl Responding {
    /// Whose call it is: what it has counts for this realm.
    pub fn charge_to(&self, realm: i32) {
        self.realm.store(realm, Relaxed);
    }

    /// Fails where the realm has no room for any response, so that nothing is done of which nothing can be said.
    pub fn check(&self) -> Result<()> {
        self.memory.try_reserve(self.realm(), FREE_RESPONSE_BYTES).map(drop).ok_or_else(too_much)
    }

    /// Reserves what a response costs that is about to be built.
    pub async fn expect(&self, bytes: usize) -> Result<()> {
        let reserved = self.memory.reserve(self.realm(), bytes, false).await?;
        *self.lock() = Some(reserved);
        Ok(())
    }

    /// A response is built, and costs so much until it is written.
    pub async fn built(&self, bytes: usize) -> Result<()> {
        let reserved = self.lock().take();
        let reserved = match reserved {
            Some(mut reserved) if reserved.bytes() >= bytes.min(self.memory.0.built.share()) => {
                reserved.shrink(bytes);
                reserved
            }
            reserved => {
                drop(reserved);
                self.memory.reserve(self.realm(), bytes, true).await?
            }
        };
        *self.lock() = Some(reserved);
        Ok(())
    }

    /// Reserves so much besides, if there is room at once.
    pub fn besides(&self, bytes: usize) -> Option<Reservation> {
        self.memory.try_reserve(self.realm(), bytes)
    }

    /// The body, of which what is large is paid for and handed on in pieces; by what is reserved, if it is so already. `fails` makes the end of one that
    /// fails, and `cut` closes the connection.
    pub fn written<B, E>(
        &self,
        body: B,
        fails: fn(Error) -> Result<Frame<Bytes>, E>,
        cut: Option<Cut>,
    ) -> Written<B, E>
    where
        B: Body<Data = Bytes, Error = E> + Unpin,
    {
        let left = body.size_hint().exact();
        Written {
            body,
            responding: self.clone(),
            fails,
            cut,
            left,
            reserving: None,
            pieces: None,
            ended: false,
        }
    }

    fn realm(&self) -> i32 {
        self.realm.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Reservation>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the connection that a request came by: among the extensions of every request of a listener.
#[derive(Clone)]
pub struct Cut(Arc<dyn Fn() + Send + Sync>);

impl Cut {
    /// By doing this.
    pub fn new(cut: impl Fn() + Send + Sync + 'static) -> Self {
        Cut(Arc::new(cut))
    }
}

/// A body that is paid for until it is written.
pub struct Written<B, E> {
    body: B,
    responding: Responding,
    fails: fn(Error) -> Result<Frame<Bytes>, E>,
    cut: Option<Cut>,
    /// How many bytes are left, if it is known.
    left: Option<u64>,
    /// Data that waits for room.
    reserving: Option<(Bytes, BoxFuture<'static, Result<Reservation>>)>,
    pieces: Option<Pieces>,
    ended: bool,
}

impl<B: Body<Data = Bytes, Error = E> + Unpin, E> Written<B, E> {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        loop {
            if let Some(pieces) = &mut self.pieces {
                match pieces.next() {
                    Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Ok(None) => self.pieces = None,
                    Err(error) => return Poll::Ready(Some(self.fail(error))),
                }
            }
            if let Some((_, reserving)) = &mut self.reserving {
                let reserved = ready!(reserving.as_mut().poll(context));
                let data = self.reserving.take().map(|(data, _)| data).unwrap_or_default();
                match reserved {
                    Ok(reserved) => {
                        self.pieces = Some(Pieces::new(data, reserved, self.cut.clone()))
                    }
                    Err(error) => return Poll::Ready(Some(self.fail(error))),
                }
                continue;
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
                self.ended = true;
                continue;
            };
            let data = match frame.map(Frame::into_data) {
                Ok(Ok(data)) if data.len() > FREE_RESPONSE_BYTES => data,
                Ok(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            let reserved = self.responding.lock().take();
            let (responding, bytes) = (self.responding.clone(), data.len());
            let reserving = async move {
                match reserved {
                    Some(reserved) => Ok(reserved),
                    None => responding.memory.reserve(responding.realm(), bytes, true).await,
                }
            };
            self.reserving = Some((data, reserving.boxed()));
        }
    }

    fn fail(&mut self, error: Error) -> Result<Frame<Bytes>, E> {
        (self.pieces, self.ended) = (None, true);
        (self.fails)(error)
    }
}

impl<B: Body<Data = Bytes, Error = E> + Unpin, E> Body for Written<B, E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let poll = self.poll_next(context);
        if let (Poll::Ready(Some(Ok(frame))), Some(left)) = (&poll, &mut self.left) {
            *left -= frame.data_ref().map_or(0, |data| data.len() as u64).min(*left);
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        let has_none = self.pieces.is_none() && self.reserving.is_none();
        has_none && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<B, E> Unpin for Written<B, E> {}

/// Data that is handed on piece by piece.
struct Pieces(Arc<Watch>);

/// The rest of the data, and how much of it is written.
struct Watch {
    rest: Mutex<VecDeque<(Vec<u8>, Option<Reservation>)>>,
    bytes: usize,
    written: AtomicUsize,
    /// Whether it was read too slowly.
    is_late: OnceLock<()>,
    /// Its supervisor.
    task: OnceLock<AbortHandle>,
}

/// A piece on its way.
struct Piece {
    data: Vec<u8>,
    watch: Arc<Watch>,
    _reservation: Option<Reservation>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.watch.written.fetch_add(self.data.len(), Relaxed);
    }
}

impl Pieces {
    fn new(data: Bytes, mut reservation: Reservation, cut: Option<Cut>) -> Self {
        let rest = data
            .chunks(PIECE)
            .map(|piece| (piece.to_vec(), reservation.split(piece.len())))
            .collect();
        let (written, is_late, task) = (AtomicUsize::new(0), OnceLock::new(), OnceLock::new());
        let watch =
            Arc::new(Watch { rest: Mutex::new(rest), bytes: data.len(), written, is_late, task });
        let watching = tokio::spawn(Watch::keep_watch(Arc::downgrade(&watch), cut));
        // It is made once.
        let _ = watch.task.set(watching.abort_handle());
        Pieces(watch)
    }

    /// The next piece; none behind the last.
    fn next(&mut self) -> Result<Option<Bytes>> {
        if self.0.is_late.get().is_some() {
            return Err(Error::new(Code::DeadlineExceeded, "The response was read too slowly."));
        }
        let next = self.0.lock().pop_front();
        Ok(next.map(|(data, _reservation)| {
            Bytes::from_owner(Piece { data, watch: Arc::clone(&self.0), _reservation })
        }))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.0.lock().clear();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Watch {
    /// Drops what is left of data that is read too slowly and, if what is on its way does not leave either, closes its connection.
    async fn keep_watch(watch: Weak<Watch>, cut: Option<Cut>) {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(UNREAD_SECONDS)).await;
            let Some(watch) = watch.upgrade() else { return };
            let written = watch.written.load(Relaxed);
            if written - before >= LEAST_READ_BYTES.min(watch.bytes - before) {
                before = written;
                continue;
            }
            if watch.is_late.set(()).is_ok() {
                LEAST_READ.reached();
                watch.lock().clear();
                before = written;
            } else {
                if let Some(Cut(cut)) = &cut {
                    cut();
                }
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Vec<u8>, Option<Reservation>)>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
