//! The state of a connection, seen from outside: whether a statement is under way on it and since when, the effects of the present work in
//! the database, and whether it may be used again.

use std::fmt;
use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diesel::connection::{DebugQuery, Instrumentation, InstrumentationEvent};
use pq_sys::Cancel;

use crate::db::fault::{Fault, fault};
use crate::db::outage;
use crate::db::reading::only_reads;
use crate::limits::database::SILENCE;
use crate::telemetry::{Seldom, StatementTracer};

/// How much later than the database itself we end a statement, at least and at most; in between, as much later as it was given.
const MARGIN: (Duration, Duration) =
    (Duration::from_secs(2), Duration::from_secs(crate::limits::database::SILENCE_SECONDS));
/// How long a statement is under way before its backend is asked after; how long until it is asked again if it was at work, and if it was not.
const ASK_AFTER: Duration = Duration::from_secs(2);
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(crate::limits::database::SILENCE_SECONDS);
const CHECK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Counts connections that are given up: where one is, often all are.
static GIVEN_UP: LazyLock<Mutex<Seldom>> = LazyLock::new(Mutex::default);

/// The state of one connection, shared by who uses it and by the watchdog.
pub(super) struct Vitals {
    /// The connection's socket, to check and to shut down. A Unix socket as well: what is called here does the same for both.
    socket: Option<TcpStream>,
    /// The process id of the backend; 0 until it is known.
    backend: AtomicI32,
    opened: Instant,
    /// The handle that ends its statements from outside.
    cancel: Mutex<Option<Cancel>>,
    life: Mutex<Life>,
}

struct Life {
    /// The statement timeout of the session; zero means none.
    allowance: Duration,
    statement: u64,
    running: Option<Running>,
    ended: Option<Fault>,
    /// Whether it was ended from here, since nothing came back.
    given_up: bool,
    /// Whether a statement was cancelled since this was last asked.
    cancelled: bool,
    trace: Trace,
}

#[derive(Clone, Copy)]
struct Running {
    /// When the statement was sent, or its backend last said that it is at work.
    alive: Instant,
    asked: Instant,
    /// Its backend was at work on it when it was asked after.
    at_work: bool,
    doubts: u32,
}

/// Effects that the present work may have left in the database.
#[derive(Default)]
struct Trace {
    /// Within a transaction.
    open: bool,
    /// The transaction is being ended.
    closing: bool,
    /// Something was, or may have been, committed.
    lasting: bool,
}

/// The state of the socket of a connection that is not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketState {
    /// Nothing has come.
    Quiet,
    /// Something has come that nobody asked for: the last words of a backend, most likely.
    Words,
    /// The peer has closed it.
    Closed,
}

impl Vitals {
    /// Of a connection that is just being made, with this long for each statement.
    pub(super) fn new(socket: OwnedFd, cancel: Option<Cancel>, allowance: Duration) -> Self {
        let now = Instant::now();
        // The session is not set up yet, and a peer that accepts and then keeps silent must not block us either.
        let running = Some(Running { alive: now, asked: now, at_work: false, doubts: 0 });
        let life = Life {
            allowance,
            statement: 0,
            running,
            ended: None,
            given_up: false,
            cancelled: false,
            trace: Trace::default(),
        };
        Vitals {
            socket: Some(TcpStream::from(socket)),
            backend: AtomicI32::new(0),
            opened: now,
            cancel: Mutex::new(cancel),
            life: Mutex::new(life),
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session is set up, by the backend with this process id.
    pub(super) fn established(&self, backend: i32) {
        self.backend.store(backend, Ordering::Relaxed);
        self.life().running = None;
    }

    /// The process id of the backend, once it is known.
    pub(super) fn backend(&self) -> Option<i32> {
        Some(self.backend.load(Ordering::Relaxed)).filter(|backend| *backend != 0)
    }

    /// How old the connection is.
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Statements to come have this long.
    pub(super) fn allow(&self, allowance: Duration) {
        self.life().allowance = allowance;
    }

    /// The work at hand begins.
    pub(super) fn begin(&self) {
        self.life().trace = Trace::default();
    }

    /// The work at hand is over, and with it whatever statement it had under way.
    pub(super) fn finish(&self) {
        self.life().running = None;
    }

    /// Returns whether the work at hand can have left nothing in the database, so that it may be done again.
    ///
    /// That is certain of a transaction whose `COMMIT` was not sent, since a server that loses its client rolls back, and of a statement
    /// that only reads. It is not of a statement on its own that writes, nor of a `COMMIT`: either may have been carried out when the
    /// connection broke.
    pub(super) fn left_nothing(&self) -> bool {
        !self.life().trace.lasting
    }

    /// Why the connection must not be used again.
    pub(super) fn ended(&self) -> Option<Fault> {
        self.life().ended
    }

    /// Whether it was ended from here, since nothing came back on it.
    pub(super) fn is_given_up(&self) -> bool {
        self.life().given_up
    }

    /// Checks the socket of a connection that is not in use. Costs a system call and no round trip.
    pub(super) fn socket_state(&self) -> SocketState {
        let Some(socket) = &self.socket else { return SocketState::Quiet };
        match socket.peek(&mut [0]) {
            Ok(0) => SocketState::Closed,
            Ok(_) => SocketState::Words,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                SocketState::Quiet
            }
            Err(_) => SocketState::Closed,
        }
    }

    /// Returns whether its peer has ended it, as far as the socket shows: by closing it, or by an error that nobody has read yet, which is
    /// its last word where nothing was asked. Within TLS only the former shows.
    pub(super) fn has_ended(&self) -> bool {
        let mut first = [0];
        let is_idle = self.life().running.is_none();
        match self.socket.as_ref().map(|socket| socket.peek(&mut first)) {
            Some(Ok(0)) => true,
            Some(Ok(_)) => is_idle && first == *b"E",
            Some(Err(error)) => {
                !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
            }
            None => false,
        }
    }

    /// Ends the connection from outside: a thread that waits in libpq for its peer fails at once.
    pub(super) fn give_up(&self, why: &str) {
        {
            let mut life = self.life();
            if life.ended.is_none() {
                life.ended = Some(Fault::Unreachable);
            }
            (life.running, life.given_up) = (None, true);
        }
        SILENCE.reached();
        if outage::lasts() {
            tracing::debug!(
                backend = self.backend(),
                why,
                "a connection to the database is given up"
            );
        } else if let Some(times) = GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner).report()
        {
            tracing::warn!(
                backend = self.backend(),
                why,
                times,
                "a connection to the database is given up"
            );
        }
        if let Some(socket) = &self.socket {
            // One that is closed already has nobody waiting.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Asks the server to end the present statement, if there is one. A transaction that is being ended is left to its end: its outcome is
    /// decided, and one that waits for a standby would be done without it. Waits until the server has handled it, so that no later
    /// statement is hit.
    pub(super) fn cancel(&self) {
        {
            let mut life = self.life();
            if life.running.is_none() || life.trace.closing {
                return;
            }
            life.cancelled = true;
        }
        let mut cancel = self.cancel.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = cancel.as_mut().is_some_and(Cancel::send);
        tracing::debug!(
            backend = self.backend(),
            asked,
            "a statement is cancelled that nobody waits for"
        );
    }

    /// Returns whether a statement was cancelled since this was last asked.
    pub(super) fn take_cancelled(&self) -> bool {
        std::mem::take(&mut self.life().cancelled)
    }

    /// Returns whether the statement under way should long have been ended by the database.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let life = self.life();
        let margin = life.allowance.clamp(MARGIN.0, MARGIN.1);
        !life.allowance.is_zero()
            && life
                .running
                .is_some_and(|running| now.duration_since(running.alive) > life.allowance + margin)
    }

    /// The statement under way, if it has been for so long that its backend should be asked whether it is at work.
    pub(super) fn silent_statement(&self, now: Instant) -> Option<u64> {
        let mut life = self.life();
        let statement = life.statement;
        let running = life.running.as_mut()?;
        let patience = match running {
            Running { doubts: 1.., .. } => CHECK_AGAIN_AFTER,
            Running { at_work: true, .. } => ASK_AGAIN_AFTER,
            _ => ASK_AFTER,
        };
        let due = now.duration_since(running.asked.max(running.alive)) > patience;
        due.then(|| {
            running.asked = now;
            statement
        })
    }

    /// Takes up whether another connection found the backend at work. A backend that was not at work, twice, has answered what we still wait
    /// for: then this returns true, and the connection is to be given up.
    pub(super) fn found(&self, statement: u64, at_work: bool) -> bool {
        // The answer is here, and waits for its thread to have its turn.
        let answered = self.socket_state() == SocketState::Words;
        let mut life = self.life();
        let same = life.statement == statement;
        let Some(running) = life.running.as_mut().filter(|_| same) else { return false };
        if at_work || answered {
            *running =
                Running { alive: Instant::now(), asked: Instant::now(), at_work: true, doubts: 0 };
        } else {
            running.doubts += 1;
        }
        running.doubts >= 2
    }

    fn start(&self) {
        let now = Instant::now();
        let mut life = self.life();
        life.statement += 1;
        life.running = Some(Running { alive: now, asked: now, at_work: false, doubts: 0 });
    }

    fn done(&self, query: &dyn DebugQuery, error: Option<&diesel::result::Error>) {
        let mut life = self.life();
        life.running = None;
        if life.trace.closing {
            life.trace = Trace { lasting: life.trace.lasting, ..Trace::default() };
        } else if !life.trace.open {
            life.trace.lasting = life.trace.lasting || !only_reads(query);
        }
        if let Some(fault @ (Fault::Unreachable | Fault::Shared | Fault::ReadOnly)) =
            error.map(fault)
            && life.ended.is_none()
        {
            life.ended = Some(fault);
        }
    }
}

/// Keeps the vitals of a connection true, and traces its statements.
pub(super) struct Monitor {
    vitals: std::sync::Arc<Vitals>,
    tracer: StatementTracer,
}

impl Monitor {
    /// Of a connection.
    pub(super) fn new(vitals: std::sync::Arc<Vitals>) -> Self {
        Monitor { vitals, tracer: StatementTracer::default() }
    }
}

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vitals").field("backend", &self.backend()).finish_non_exhaustive()
    }
}

impl Instrumentation for Monitor {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match &event {
            InstrumentationEvent::StartQuery { .. } => self.vitals.start(),
            InstrumentationEvent::FinishQuery { query, error, .. } => {
                self.vitals.done(*query, *error)
            }
            InstrumentationEvent::BeginTransaction { depth, .. } if depth.get() == 1 => {
                self.vitals.life().trace.open = true
            }
            InstrumentationEvent::CommitTransaction { depth, .. } if depth.get() == 1 => {
                let mut life = self.vitals.life();
                (life.trace.closing, life.trace.lasting) = (true, true);
            }
            InstrumentationEvent::RollbackTransaction { depth, .. } if depth.get() == 1 => {
                self.vitals.life().trace.closing = true
            }
            _ => {}
        }
        self.tracer.on_connection_event(event);
    }
}

#[cfg(test)]
mod tests;
