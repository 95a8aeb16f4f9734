//! A service on its way up: its addresses are taken, and probes are served while its database is opened and migrated.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::admin::{self, AdminThread, Pulse, Readiness, Stage};
use super::admin_protocol::AdminProtocol;
use super::bound::Bound;
use super::listener::{self, Patience};
use super::ports::{Addresses, Port};
use crate::config::Serve;
use crate::error::{Error, Result};
use crate::limits::listeners::UNREAD_SECONDS;

/// A service on its way up.
pub struct Opening {
    pub(super) addresses: Addresses,
    pub(super) grpc: Option<TcpListener>,
    pub(super) http: Option<TcpListener>,
    pub(super) admin: AdminThread,
    /// The readiness that probes report.
    pub(super) readiness: watch::Sender<Readiness>,
    /// The task that shows that the threads of calls run.
    pub(super) pulse: JoinSet<()>,
    stage: watch::Sender<Stage>,
}

impl Opening {
    /// Serves probes at the addresses that were taken.
    pub fn of(
        bound: Bound,
        settings: &Serve,
        metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
    ) -> Result<Opening> {
        let Bound { grpc, http, admin } = bound;
        let addresses = Addresses {
            grpc: grpc
                .as_ref()
                .map(TcpListener::local_addr)
                .transpose()
                .map_err(Error::internal)?,
            http: http
                .as_ref()
                .map(TcpListener::local_addr)
                .transpose()
                .map_err(Error::internal)?,
            admin: admin.local_addr().map_err(Error::internal)?,
        };
        let (stage, stages) = watch::channel(Stage::Starting);
        let (readiness, current) = watch::channel(Readiness::of_start(stages));
        let (shown, mut pulse) = (Pulse::new(), JoinSet::new());
        pulse.spawn(shown.clone().beat());
        let router = admin::router(current.clone(), shown, metrics);
        let options =
            listener::Options::admin(Patience { idle_without_key: None, ..patience(settings) });
        let public_url = settings.public_url.as_deref();
        let protocol = AdminProtocol::new(router, Port::admin(&addresses, public_url), public_url);
        let admin =
            AdminThread::spawn(admin, protocol, current, options).map_err(Error::internal)?;
        Ok(Opening { addresses, grpc, http, admin, readiness, pulse, stage })
    }

    /// Where the service is reached.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Says how far the start is.
    pub fn reaches(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }
}

/// A time, or none where a setting is 0.
pub(super) fn given(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

/// How long connections are waited for.
pub(super) fn patience(settings: &Serve) -> Patience {
    let listeners = &settings.listeners;
    Patience {
        head: listeners.head_timeout,
        idle: given(listeners.idle_timeout),
        idle_without_key: given(listeners.idle_timeout_without_key),
        unread: Duration::from_secs(UNREAD_SECONDS),
    }
}
