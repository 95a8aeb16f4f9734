//! The end of the process, in an order in which no caller notices it.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use futures::future::select_all;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::limits::requests::LAST_WORDS_MILLIS;

/// How far the process is on its way to its end. It only ever advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// All is well.
    Serving,
    /// Readiness and gRPC health say no, so that load balancers look elsewhere. Every call is still served, since they need a while to notice.
    Draining,
    /// Listeners take no new connections and no new calls; those that run are finished.
    ClosingListeners,
    /// No caller is left. Workers stop at the end of the chunk they are at.
    StoppingWorkers,
    /// Nobody uses the database any more; its pool can be closed.
    Stopped,
}

/// How long the way may take. What takes longer is left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// For load balancers to notice that the process is not ready.
    pub notice: Duration,
    /// The time for everything after that: running calls, workers, and the very end.
    pub in_all: Duration,
}

/// The least time of each step, also if no time was left or given: idle connections then end at once, instead of at no time.
const LEAST: Duration = Duration::from_millis(250);

/// The parts of the time that calls leave to others, and of which workers leave a half to the very end.
const LEFT_BY_CALLS: u32 = 5;

/// Calls are ended so long before they would be cut off, so that their callers get an error. Where there is little time, a quarter of it.
const LAST_WORDS: Duration = Duration::from_millis(LAST_WORDS_MILLIS);

/// Where everyone learns how far the process is. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    listeners: CancellationToken,
    calls: CancellationToken,
    workers: CancellationToken,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// All is well.
    pub fn new() -> Self {
        Drain {
            phase: watch::Sender::new(Phase::Serving),
            listeners: CancellationToken::new(),
            calls: CancellationToken::new(),
            workers: CancellationToken::new(),
        }
    }

    /// How far the process is now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Notifies of every change of the phase.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Waits until the process is as far as this, or farther.
    pub fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + 'static {
        // The sender is kept, so that the wait cannot end by losing it.
        let drain = self.clone();
        async move {
            let _ = drain.watch().wait_for(|now| *now >= phase).await;
        }
    }

    /// Cancelled when listeners are to close; `listeners().cancelled_owned()` is what servers take for their graceful shutdown.
    pub fn listeners(&self) -> CancellationToken {
        self.listeners.clone()
    }

    /// Cancelled when calls that still run are to end, with a last word for their callers, before they are cut off.
    pub fn calls(&self) -> CancellationToken {
        self.calls.clone()
    }

    /// Cancelled when workers are to stop at the end of their chunk.
    pub fn workers(&self) -> CancellationToken {
        self.workers.clone()
    }

    /// Advances to a phase; does nothing if the process is that far already.
    pub fn advance(&self, phase: Phase) {
        let moved = self.phase.send_if_modified(|now| {
            let forward = phase > *now;
            *now = phase.max(*now);
            forward
        });
        if !moved {
            return;
        }
        tracing::info!(?phase, "shutting down");
        if phase >= Phase::ClosingListeners {
            self.listeners.cancel();
        }
        if phase >= Phase::StoppingWorkers {
            self.workers.cancel();
        }
    }

    /// Drains the process, each step when the one before is done or has used up its time: `listeners` ends when the last call has,
    /// `workers` when the last worker has. The caller then closes the rest, and has until the returned instant.
    pub async fn run(
        &self,
        grace: Grace,
        listeners: impl Future<Output = ()>,
        workers: impl Future<Output = ()>,
    ) -> Instant {
        self.advance(Phase::Draining);
        tokio::time::sleep(grace.notice).await;
        self.advance(Phase::ClosingListeners);
        let now = Instant::now();
        let (ends, left) = (now + grace.in_all, grace.in_all / LEFT_BY_CALLS);
        let cut = (ends - left).max(now + LEAST);
        let mut listeners = pin!(listeners);
        if timeout_at(cut - LAST_WORDS.min((cut - now) / 4), listeners.as_mut()).await.is_err() {
            tracing::warn!("calls that did not end in time are ended");
            self.calls.cancel();
            if timeout_at(cut, listeners).await.is_err() {
                tracing::info!(
                    "connections are closed although their callers have not read the end of the last response"
                );
            }
        }
        self.advance(Phase::StoppingWorkers);
        if timeout_at((ends - left / 2).max(Instant::now() + LEAST), workers).await.is_err() {
            tracing::warn!(
                "jobs that did not reach the end of a chunk in time are left to another replica"
            );
        }
        self.advance(Phase::Stopped);
        ends.max(Instant::now() + LEAST)
    }
}

/// The signals that ask the process to end, from the moment this is made: every one that would end it and can be taken over, but for those of faults.
#[derive(Debug)]
pub struct Signals(Vec<(&'static str, Signal)>);

impl Signals {
    /// Takes over what the signals do, for the rest of the process. Where whoever started it has SIGHUP ignored, as `nohup` does, that stays so.
    pub fn install() -> io::Result<Self> {
        let named = [
            ("SIGTERM", SignalKind::terminate()),
            ("SIGINT", SignalKind::interrupt()),
            ("SIGHUP", SignalKind::hangup()),
            ("SIGQUIT", SignalKind::quit()),
            ("SIGUSR1", SignalKind::user_defined1()),
            ("SIGUSR2", SignalKind::user_defined2()),
            ("SIGALRM", SignalKind::alarm()),
        ];
        let ignored = ignored_signals();
        let taken = named.into_iter().filter(|(_, kind)| {
            *kind != SignalKind::hangup() || ignored & 1 << (kind.as_raw_value() - 1) == 0
        });
        taken.map(|(name, kind)| Ok((name, signal(kind)?))).collect::<io::Result<_>>().map(Signals)
    }

    /// Waits for the signal that asks for an orderly end. To be followed by [`Drain::run`].
    pub async fn first_signal(&mut self) {
        let name = self.next().await;
        tracing::info!(signal = name, "shutting down; a second signal ends the process at once");
    }

    /// Waits, after [`Signals::first_signal`], for the one that asks to end at once.
    pub async fn second_signal(&mut self) {
        let name = self.next().await;
        tracing::warn!(signal = name, "ending at once");
    }

    /// Waits for a signal that ends a command other than `serve`, and returns what a shell takes for its exit code.
    pub async fn ends(&mut self) -> i32 {
        let name = self.next().await;
        128 + name.parse::<nix::sys::signal::Signal>().map_or(0, |signal| signal as i32)
    }

    async fn next(&mut self) -> &'static str {
        let each = self.0.iter_mut().map(|(name, signal)| {
            Box::pin(async move {
                signal.recv().await;
                *name
            })
        });
        select_all(each).await.0
    }
}

/// The signals that this process was started to ignore, a bit for each; none where that cannot be read.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(ignored.trim(), 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures::FutureExt;
    use nix::sys::signal::{Signal, raise};

    use super::*;

    const GRACE: Grace = Grace { notice: Duration::from_secs(5), in_all: Duration::from_secs(30) };

    #[tokio::test(start_paused = true)]
    async fn readiness_turns_first_then_listeners_close_then_workers_stop() {
        let drain = Drain::new();
        let (listeners, workers) = (drain.listeners(), drain.workers());
        let seen = drain.clone();
        let calls = async {
            assert_eq!(seen.phase(), Phase::ClosingListeners);
            assert!(seen.listeners().is_cancelled() && !seen.workers().is_cancelled());
        };
        let seen = drain.clone();
        let jobs = async {
            assert_eq!(seen.phase(), Phase::StoppingWorkers);
            assert!(seen.workers().is_cancelled());
        };
        let running = tokio::spawn({
            let drain = drain.clone();
            async move { drain.reached(Phase::Draining).await }
        });
        assert_eq!(drain.phase(), Phase::Serving);
        let at_first = async {
            running.await.expect("no panic");
            assert!(!listeners.is_cancelled(), "calls are served while load balancers look away");
        };
        tokio::join!(drain.run(GRACE, calls, jobs), at_first);
        assert_eq!(drain.phase(), Phase::Stopped);
        assert!(workers.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_ends_is_left_behind() {
        let drain = Drain::new();
        let started = Instant::now();
        let last_words = tokio::spawn(drain.calls().cancelled_owned().map(|()| Instant::now()));
        let ends = drain.run(GRACE, pending(), pending()).await;
        assert_eq!(
            (last_words.await.expect("no panic") - started).as_secs(),
            5 + 23,
            "a second before they are cut off"
        );
        assert_eq!(drain.phase(), Phase::Stopped);
        assert_eq!((ends - started).as_secs(), 35, "one time for all");
        assert_eq!(
            (ends - Instant::now()).as_secs(),
            3,
            "of which a part is left for the very end"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_time_what_is_idle_still_ends() {
        let drain = Drain::new();
        let grace = Grace { notice: Duration::ZERO, in_all: Duration::ZERO };
        let idle = || tokio::time::sleep(LEAST / 2);
        let (listeners, workers) = (std::cell::Cell::new(false), std::cell::Cell::new(false));
        let ends = drain
            .run(grace, idle().map(|()| listeners.set(true)), idle().map(|()| workers.set(true)))
            .await;
        assert!(
            listeners.get()
                && workers.get()
                && ends > Instant::now()
                && !drain.calls().is_cancelled()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_way_is_gone_forward_alone() {
        let drain = Drain::new();
        drain.run(GRACE, ready(()), ready(())).await;
        drain.advance(Phase::Draining);
        assert_eq!(drain.phase(), Phase::Stopped);
        drain.reached(Phase::Draining).await;
    }

    #[tokio::test]
    async fn a_signal_is_not_lost_when_it_comes_before_anyone_waits() {
        let mut signals = Signals::install().expect("handlers");
        for signal in [
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGALRM,
        ] {
            raise(signal).expect("a signal");
            signals.first_signal().await;
        }
        raise(Signal::SIGINT).expect("a signal");
        signals.second_signal().await;
    }
}
