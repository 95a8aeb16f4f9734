//! Gives the calls of one key and one realm their share, and no more.
//!
//! Calls and streams are counted apart: streams last, and many of them cost little. Everything further in finds its party by
//! [`shares::current`], so that connections of the pool, too, are shared out among realms.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;

use super::around::{Around, Inner};
use super::methods::Methods;
use super::refuse;
use crate::access::Caller;
use crate::error::{Code, Error};
use crate::limits::Limit;
use crate::limits::requests::CALLS;
use crate::limits::shares::{
    KEY_CALLS, KEY_STREAMS, REALM_CALLS, REALM_STREAMS, STREAM_SILENCE, STREAMS,
};
use crate::server::within::as_long_as;
use crate::shares::{self, Budget, Full, Party, Permit};

/// How soon a caller that has its share of calls may come again: calls are short.
const AFTER_CALLS: Duration = Duration::from_secs(1);
/// The same for streams, which last.
const AFTER_STREAMS: Duration = Duration::from_secs(10);

/// Refuses calls of a key or a realm that has its share of calls or streams, and ends streams of requests whose caller has fallen silent.
/// Comes after the layer that finds the caller. Clones share their counts, so all listeners do.
#[derive(Clone, Debug)]
pub struct Share {
    methods: Methods,
    calls: Budget,
    streams: Budget,
    silence: Duration,
}

impl Share {
    /// Permits for calls and for streams, and how long the caller of a stream of requests may send nothing.
    pub fn new(methods: Methods, calls: Budget, streams: Budget, silence: Duration) -> Self {
        Share { methods, calls, streams, silence }
    }

    fn enter(&self, caller: &Caller, streams: bool) -> Result<Permit, Error> {
        let (budget, thing, retry_after) = if streams {
            (&self.streams, "streams", AFTER_STREAMS)
        } else {
            (&self.calls, "calls", AFTER_CALLS)
        };
        budget.enter(caller.realm.id(), caller.key_id).map_err(|full| {
            limit(full, streams).reached();
            let owner = match full {
                Full::Key => "This key",
                Full::Realm => "The organisation of this key",
                Full::All => {
                    return Error::unavailable(format!(
                        "Too many {thing} at once; try again in a moment."
                    ));
                }
            };
            let message = format!(
                "{owner} has as many {thing} at once as it may; end some, or try again later."
            );
            Error::new(Code::RateLimitExceeded, message).retry_after(retry_after)
        })
    }
}

fn limit(full: Full, streams: bool) -> &'static Limit {
    match (full, streams) {
        (Full::Key, false) => &KEY_CALLS,
        (Full::Realm, false) => &REALM_CALLS,
        (Full::All, false) => &CALLS,
        (Full::Key, true) => &KEY_STREAMS,
        (Full::Realm, true) => &REALM_STREAMS,
        (Full::All, true) => &STREAMS,
    }
}

impl Around for Share {
    async fn around<S: Inner>(
        self,
        request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let Some(caller) = request.extensions().get::<Caller>() else {
            return inner.call(request).await;
        };
        let path = request.uri().path();
        let method = self.methods.find(path);
        let (streams, sends_many) =
            method.map_or((false, false), |method| (method.streaming, method.sends_many));
        let permit = match self.enter(caller, streams) {
            Ok(permit) => permit,
            Err(error) => return Ok(refuse(error)),
        };
        let party = Party {
            realm: caller.realm.id(),
            key: caller.key_id,
            kind: Arc::from(path),
            streams,
            heavy: shares::computes_long(),
        };
        let silence = self.silence;
        let request = if sends_many {
            request.map(|body| Body::new(Awaited { inner: body, silence, waits: None }))
        } else {
            request
        };
        let answer = shares::of(party.clone(), async move { inner.call(request).await }).await?;
        Ok(answer.map(|inner| Body::new(Shared { inner, party, _permit: permit })))
    }
}

/// The body of a response, which is made for a party and keeps its permit.
struct Shared {
    inner: Body,
    party: Party,
    _permit: Permit,
}

impl http_body::Body for Shared {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        shares::of_sync(&this.party, || Pin::new(&mut this.inner).poll_frame(context))
    }

    as_long_as!(inner);
}

/// The body of a request, which fails when it is waited for in vain. While the service does not ask for more, its caller need not send any.
struct Awaited {
    inner: Body,
    silence: Duration,
    waits: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Awaited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            this.waits = None;
            return Poll::Ready(frame);
        }
        let silence = this.silence;
        let waits = this
            .waits
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + silence)));
        if waits.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        STREAM_SILENCE.reached();
        this.inner = Body::empty();
        this.waits = None;
        let message = format!(
            "Nothing was sent for {} s; what a response was sent for has taken effect.",
            silence.as_secs_f64()
        );
        Poll::Ready(Some(Err(Error::new(Code::DeadlineExceeded, message)
            .with("seconds", silence.as_secs_f64())
            .into())))
    }

    as_long_as!(inner);
}
