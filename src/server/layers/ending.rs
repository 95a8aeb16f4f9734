//! The body of a response that may have to end before it is whole.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use super::failed;
use crate::error::Error;
use crate::server::within::as_long_as;

/// A body that ends with a failure as soon as there is one, unless it has ended by then.
pub struct Ending {
    inner: Body,
    /// There until it has come.
    failure: Option<BoxFuture<'static, Error>>,
}

impl Ending {
    /// This body until this failure.
    pub fn new(inner: Body, failure: BoxFuture<'static, Error>) -> Self {
        Ending { inner, failure: Some(failure) }
    }
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(Poll::Ready(error)) =
            this.failure.as_mut().map(|failure| failure.as_mut().poll(context))
        else {
            return Pin::new(&mut this.inner).poll_frame(context);
        };
        this.failure = None;
        if http_body::Body::is_end_stream(&this.inner) {
            return Poll::Ready(None);
        }
        this.inner = Body::empty();
        Poll::Ready(Some(failed(error)))
    }

    as_long_as!(inner);
}
