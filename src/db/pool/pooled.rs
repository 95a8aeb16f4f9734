//! One connection of the pool: when it is tested, and when it may be used again.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use diesel::Connection;
use diesel::connection::{SimpleConnection, TransactionManager};
use diesel::pg::PgConnection;

use super::Inner;
use crate::db::fail::Fail;
use crate::db::refused::Refused;
use crate::db::session::{self, Session};
use crate::db::vitals::SocketState;

/// A connection that was idle for longer than this is tested before it is used again.
const IDLE_BEFORE_TEST: Duration = Duration::from_secs(5);
/// How long such a test may take.
const TEST_TIME: Duration = Duration::from_secs(3);
/// A connection that is older is closed after its use: its backend's memory grows with what it has seen, and a new one may lead to another server.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 60);

/// A connection with what the pool knows of it.
pub(super) struct Pooled {
    pub(super) session: Session,
    pub(super) used: Instant,
    /// How many connections had been lost when this one was opened or last tested.
    pub(super) losses: u64,
    /// The `statement_timeout` of the session.
    allowance: Duration,
}

impl Pooled {
    pub(super) fn open(inner: &Inner) -> Result<Self, Refused> {
        let losses = inner.losses.load(Ordering::Acquire);
        let session = session::open(&inner.options)?;
        Ok(Pooled {
            session,
            used: Instant::now(),
            losses,
            allowance: inner.options.statement_timeout,
        })
    }

    /// Gives the statements to come this much time.
    pub(super) fn allow(&mut self, allowance: Duration) -> Result<(), Fail> {
        if allowance != self.allowance {
            self.session
                .connection
                .batch_execute(&format!("SET statement_timeout = {}", allowance.as_millis()))?;
            self.allowance = allowance;
        }
        self.session.vitals.allow(allowance);
        Ok(())
    }

    /// Returns whether it can be used again, as far as can be known before it is. A round trip each time would cost up to a fifth of the
    /// throughput, so only what is doubtful makes one.
    pub(super) fn is_usable(&mut self, losses: u64) -> bool {
        let doubtful = match self.session.vitals.socket_state() {
            SocketState::Closed => return false,
            SocketState::Words => true,
            SocketState::Quiet => self.losses != losses || self.used.elapsed() > IDLE_BEFORE_TEST,
        };
        if !doubtful {
            return true;
        }
        self.session.vitals.allow(TEST_TIME);
        // Not the empty statement, which diesel takes for an error.
        let usable = self.session.connection.batch_execute("SELECT 1").is_ok();
        (self.losses, self.used) = (losses, Instant::now());
        usable && self.session.vitals.ended().is_none()
    }

    /// Returns whether it may be kept for the next call.
    pub(super) fn is_whole(&mut self) -> bool {
        type Manager = <PgConnection as Connection>::TransactionManager;
        let idle = matches!(
            Manager::transaction_manager_status_mut(&mut self.session.connection)
                .transaction_depth(),
            Ok(None)
        );
        idle && self.session.vitals.ended().is_none() && self.session.vitals.age() < LONGEST_LIFE
    }
}
