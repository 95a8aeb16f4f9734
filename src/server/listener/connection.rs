//! One connection, from its first byte to its last.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Answer;
use super::activity::{Activity, NextCheck};
use super::discard;
use super::io::Socket;
use super::patience::Patience;
use super::permits::PermitHandle;
use super::proxy_header;
use super::refusal::{Refuse, Unreadable};
use super::requests::Requests;
use crate::limits::listeners::{CONNECTIONS_PER_ADDRESS, IDLE_TIME, IDLE_TIME_WITHOUT_KEY};
use crate::limits::proxies::PROXY_HEADER_TIME;
use crate::server::client::{Client, Proxies};
use crate::telemetry::Seldom;

/// How long a client of HTTP/2 may take to acknowledge that its connection is about to close, where no call is on it.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a client may take to read the end of its last response.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How often it is looked whether the caller of a request is still there.
const TICK: Duration = Duration::from_secs(1);
/// As long as any.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// A connection that was accepted.
pub struct Connection<A> {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    /// True if it begins with the PROXY protocol.
    pub is_announced: bool,
    pub proxies: Proxies,
    pub activity: Arc<Activity>,
    pub permit: PermitHandle,
    pub answer: A,
    pub builder: auto::Builder<TokioExecutor>,
    pub patience: Patience,
    pub age: (Option<Duration>, Option<Duration>),
    pub closing: CancellationToken,
    /// The listener, and when it last logged a client that speaks TLS.
    pub tls: (&'static str, Arc<Mutex<Seldom>>),
}

/// How a connection ended.
#[derive(PartialEq)]
enum Ended {
    /// By the protocol.
    ByItself,
    /// By our decision.
    Cut,
}

impl<A: Answer> Connection<A> {
    /// Serves its requests until it ends.
    pub async fn run(mut self) {
        let Some(client) = self.client().await else { return };
        let activity = self.activity;
        let refuse = refuse(self.answer.clone(), client.counted, activity.clone(), self.tls);
        let (socket, returned) = Socket::new(self.stream, activity.clone(), refuse);
        let requests = Requests::new(
            self.answer,
            (client, self.peer.port(), self.proxies),
            (activity.clone(), self.permit),
            self.closing.clone(),
        );
        let ended = {
            let mut protocol = pin!(self.builder.serve_connection(TokioIo::new(socket), requests));
            let mut goes_away = false;
            let mut look = pin!(sleep_until(Instant::now() + self.patience.head));
            let mut age = pin!(sleep_until(Instant::now() + self.age.0.unwrap_or(NEVER)));
            let mut is_old = false;
            let mut tick = pin!(sleep_until(Instant::now() + TICK));
            loop {
                tokio::select! {
                    // Arrived bytes count before the decision that nothing has arrived.
                    biased;
                    result = protocol.as_mut() => {
                        if let Err(error) = result {
                            tracing::debug!(%error, "a connection ended early");
                        }
                        break Ended::ByItself;
                    }
                    () = activity.is_cut() => break Ended::Cut,
                    () = self.closing.cancelled(), if !goes_away => {
                        goes_away = true;
                        // Of the requests so far none was the last.
                        let _ = activity.none_left().now_or_never();
                        protocol.as_mut().graceful_shutdown();
                        // HTTP/1.1 has no farewell: a connection that has not sent a request by now has sent none.
                        let farewell = if activity.is_http2() { FAREWELL } else { Duration::ZERO };
                        look.as_mut().reset(Instant::now() + farewell);
                    }
                    () = activity.none_left(), if goes_away => look.as_mut().reset(Instant::now() + LAST_WORDS),
                    // The socket is looked at while the protocol continues.
                    () = while_busy(&activity, tick.as_mut()) => tick.as_mut().reset(Instant::now() + TICK),
                    () = look.as_mut() => match activity.due(&self.patience) {
                        _ if goes_away && !activity.is_busy() && !activity.is_unread() => break Ended::Cut,
                        NextCheck::At(at) => look.as_mut().reset(at.min(Instant::now() + if goes_away { LAST_WORDS } else { NEVER })),
                        NextCheck::Over(limit) => {
                            limit.reached();
                            tracing::debug!(limit = limit.name, peer = %self.peer, "a connection took too long");
                            let is_idle = [IDLE_TIME.name, IDLE_TIME_WITHOUT_KEY.name].contains(&limit.name);
                            if !is_idle || !activity.is_http2() {
                                break Ended::Cut;
                            }
                            goes_away = true;
                            let _ = activity.none_left().now_or_never();
                            protocol.as_mut().graceful_shutdown();
                            look.as_mut().reset(Instant::now() + FAREWELL);
                        }
                    },
                    () = age.as_mut() => match self.age.1 {
                        Some(_) if is_old => break Ended::Cut,
                        grace => {
                            is_old = true;
                            protocol.as_mut().graceful_shutdown();
                            age.as_mut().reset(Instant::now() + grace.unwrap_or(NEVER));
                        }
                    },
                }
            }
        };
        if ended == Ended::ByItself
            && !activity.has_ended()
            && !activity.is_http2()
            && let Ok(stream) = returned.await
        {
            tokio::select! {
                () = discard::connection(stream, &self.closing) => {}
                () = activity.is_cut() => {}
            }
        }
    }
}

impl<A> Connection<A> {
    /// Where it comes from. None if it is to be closed: a proxy does not say it, or not in time, or the client has its part of the connections.
    async fn client(&mut self) -> Option<Client> {
        if !self.is_announced {
            return Some(Client::at(self.peer.ip()));
        }
        let proxy = self.peer.ip();
        let said = tokio::select! {
            said = timeout(self.patience.head, proxy_header::read(&mut self.stream, proxy)) => said,
            () = self.activity.is_cut() => return None,
            () = self.closing.cancelled() => return None,
        };
        let client = match said {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                self.report(&error.to_string());
                return None;
            }
            Err(_) => {
                PROXY_HEADER_TIME.reached();
                self.report("its PROXY protocol does not come");
                return None;
            }
        };
        match self.permit.arrive(client.counted) {
            Ok(closed) => closed.map(|_| CONNECTIONS_PER_ADDRESS.reached()),
            Err(_) => {
                CONNECTIONS_PER_ADDRESS.reached();
                return None;
            }
        };
        Some(client)
    }

    /// Says that a connection of a proxy was closed: either side is set wrongly.
    fn report(&self, reason: &str) {
        let (listener, reported) = &self.tls;
        if let Some(times) = reported.lock().unwrap_or_else(PoisonError::into_inner).report() {
            let proxy = self.peer.ip();
            tracing::warn!(listener, %proxy, reason, times, "closed a connection of a trusted proxy");
        }
    }
}

/// Waits for the tick, as long as a request of HTTP/1.1 is dealt with.
async fn while_busy(activity: &Activity, mut tick: Pin<&mut Sleep>) {
    poll_fn(|context| {
        if activity.is_busy() && !activity.is_http2() {
            Future::poll(tick.as_mut(), context)
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// The function that responds to bytes that are not a request.
fn refuse<A: Answer>(
    answer: A,
    address: IpAddr,
    activity: Arc<Activity>,
    tls: (&'static str, Arc<Mutex<Seldom>>),
) -> Refuse {
    Box::new(move |status, is_length, begun| {
        let unreadable = Unreadable { status, is_length, is_tls: activity.is_tls(), begun };
        let (listener, reported) = &tls;
        if unreadable.is_tls
            && let Some(times) = reported.lock().unwrap_or_else(PoisonError::into_inner).report()
        {
            tracing::warn!(listener, %address, times, "a client speaks TLS, and the listener does not");
        }
        answer.refuse(&unreadable)
    })
}
