//! Bounds the calls that need no key: reflection and health.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use super::around::{Around, Inner};
use super::auth::peer;
use super::methods::Methods;
use super::{failed, refuse};
use crate::error::Error;
use crate::limits::Limit;
use crate::limits::allowance::Allowance;
use crate::limits::listeners::{
    HEALTH_CHECKS, HEALTH_CHECKS_AT_MOST, HEALTH_WATCHES, HEALTH_WATCHES_AT_MOST, REFLECTION_BYTES,
    REFLECTION_BYTES_AT_MOST, REFLECTION_STREAMS,
};
use crate::server::listener::Arrival;
use crate::server::tally::{Permit, Tally};
use crate::server::within::as_long_as;

/// How much longer than its time a call may be there, for its caller to read the end of the response.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Gives health and reflection permits of their own: they never take those of calls with a key, and one address never has them all. A caller
/// that does not read its response, so that the call cannot end when its time is over, loses its connection.
#[derive(Clone, Debug)]
pub struct Keyless {
    methods: Methods,
    reflection: Tally,
    watches: Tally,
    checks: Tally,
    /// The allowance that reflection has left.
    reflected: Allowance,
}

impl Keyless {
    /// At most so many streams of reflection at once.
    pub fn new(methods: Methods, reflection: usize) -> Self {
        Keyless {
            methods,
            reflection: Tally::new(reflection, reflection.div_ceil(4)),
            watches: Tally::new(HEALTH_WATCHES_AT_MOST, HEALTH_WATCHES_AT_MOST / 8),
            checks: Tally::new(HEALTH_CHECKS_AT_MOST, HEALTH_CHECKS_AT_MOST / 4),
            reflected: Allowance::new(REFLECTION_BYTES_AT_MOST, &REFLECTION_BYTES),
        }
    }

    fn permits(&self, path: &str, streaming: bool) -> (&Tally, &'static Limit) {
        match (path.starts_with(super::HEALTH), streaming) {
            (false, _) => (&self.reflection, &REFLECTION_STREAMS),
            (true, true) => (&self.watches, &HEALTH_WATCHES),
            (true, false) => (&self.checks, &HEALTH_CHECKS),
        }
    }
}

impl Around for Keyless {
    async fn around<S: Inner>(
        self,
        request: Request<Body>,
        mut inner: S,
    ) -> Result<Response<Body>, S::Error> {
        let path = request.uri().path();
        let method = self.methods.find(path);
        let Some((streaming, time)) =
            method.and_then(|method| Some((method.streaming, method.at_most?)))
        else {
            return inner.call(request).await;
        };
        let (tally, limit) = self.permits(path, streaming);
        let address = peer(request.extensions());
        let Ok(permit) = tally.enter(address) else {
            limit.reached();
            return Ok(refuse(Error::unavailable(
                "Too many calls without a key at once; try again in a moment.",
            )));
        };
        let arrival = request.extensions().get::<Arrival>().cloned();
        let overdue = Overdue(tokio::spawn(async move {
            tokio::time::sleep(time + LAST_WORDS).await;
            if let Some(arrival) = arrival {
                arrival.cut();
            }
        }));
        let reported = address
            .filter(|_| limit.name == REFLECTION_STREAMS.name)
            .map(|address| (self.reflected, address));
        let answer = inner.call(request).await?;
        Ok(answer
            .map(|inner| Body::new(Answer { inner, reported, _permit: permit, _overdue: overdue })))
    }
}

/// The body of a response, which has its permit until it is dropped.
struct Answer {
    inner: Body,
    /// The address that reflection responds to, and its allowance.
    reported: Option<(Allowance, IpAddr)>,
    _permit: Permit,
    _overdue: Overdue,
}

impl Answer {
    fn may_report(&self, frame: &Frame<Bytes>) -> Result<(), Error> {
        let (Some(data), Some((allowance, address))) = (frame.data_ref(), &self.reported) else {
            return Ok(());
        };
        allowance.report(*address, data.len() as u64)
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(reported)) = &frame
            && let Err(error) = self.may_report(reported)
        {
            self.inner = Body::empty();
            return Poll::Ready(Some(failed(error)));
        }
        Poll::Ready(frame)
    }

    as_long_as!(inner);
}

/// Ends a call that should be over, unless it is.
struct Overdue(tokio::task::JoinHandle<()>);

impl Drop for Overdue {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::extract::ConnectInfo;
    use tonic::Code;
    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::server::layers::testing::{answering, ok, request};
    use crate::server::layers::{AroundLayer, code_of};

    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

    fn from(host: u8, path: &str) -> Request<Body> {
        let mut request = request(path);
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([10, 0, 0, host], 7))));
        request
    }

    #[tokio::test]
    async fn who_needs_no_key_takes_no_permit_of_another_kind_and_one_address_not_all() {
        let service = AroundLayer(Keyless::new(Methods::served(), 8)).layer(answering(ok));
        let mut open = Vec::new();
        let mut call = async |host, path| {
            let answer = service.clone().oneshot(from(host, path)).await.expect("infallible");
            let code = code_of(answer.headers());
            open.push(answer);
            code
        };
        for host in 0..4 {
            for served in [None, None, Some(Code::Unavailable)] {
                assert_eq!(call(host, REFLECTION).await, served, "{host}");
            }
        }
        assert_eq!(call(9, REFLECTION).await, Some(Code::Unavailable), "all are taken");
        for path in [
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
            "/offboard.v1.EntityService/GetEntity",
            "/no.such/Method",
        ] {
            assert_eq!(call(0, path).await, None, "{path}");
        }
        open.clear();
        let again = service.clone().oneshot(from(9, REFLECTION)).await.expect("infallible");
        assert_eq!(code_of(again.headers()), None);
    }
}
