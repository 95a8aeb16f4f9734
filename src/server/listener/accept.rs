//! Accepting, also where the process may open no more files.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};

use crate::limits::Limit;
use crate::limits::listeners::OPEN_FILES;
use crate::telemetry::Seldom;

/// How long a listener without a reserve waits before it tries again to accept.
const PAUSE: Duration = Duration::from_millis(250);
/// How long one with a reserve does.
const PAUSE_WITH_RESERVE: Duration = Duration::from_millis(20);

/// A connection.
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: SocketAddr,
}

/// A listener, and the reserve for when the process may open no more files.
pub struct Acceptor {
    listener: TcpListener,
    name: &'static str,
    reserve: Reserve,
    out_of_files: Seldom,
    full: Seldom,
}

impl Acceptor {
    /// A listener that keeps so many files in reserve.
    pub fn new(listener: TcpListener, name: &'static str, reserve: usize) -> Self {
        Acceptor {
            listener,
            name,
            reserve: Reserve::of(reserve),
            out_of_files: Seldom::default(),
            full: Seldom::default(),
        }
    }

    /// The next connection. May be dropped at any time.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.reserve.fill();
                    return Accepted { stream, peer };
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    OPEN_FILES.reached();
                    if let Some(times) = self.out_of_files.report() {
                        tracing::error!(listener = self.name, %error, times, "cannot accept connections; callers wait");
                    }
                    // A descriptor taken from the reserve becomes the connection.
                    if !self.reserve.take() {
                        tokio::time::sleep(if self.reserve.size > 0 {
                            PAUSE_WITH_RESERVE
                        } else {
                            PAUSE
                        })
                        .await;
                        self.reserve.fill();
                    }
                }
            }
        }
    }

    /// Notes that a connection was closed since there were too many: the one from here, or another that gave way to it.
    pub fn full(&mut self, peer: SocketAddr, limit: &Limit, gave_way: bool) {
        limit.reached();
        if let Some(times) = self.full.report() {
            let (listener, limit, address) = (self.name, limit.name, peer.ip());
            tracing::warn!(listener, limit, %address, gave_way, times, "closed a connection: there are too many");
        }
    }
}

/// Returns whether it is the one connection that failed, and not the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
        || matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EPROTO | Errno::EPERM))
}

/// Files that are open for nothing, so that there is something to close when another one is needed.
struct Reserve {
    files: Vec<File>,
    size: usize,
}

impl Reserve {
    fn of(size: usize) -> Self {
        let mut reserve = Reserve { files: Vec::new(), size };
        reserve.fill();
        reserve
    }

    fn fill(&mut self) {
        while self.files.len() < self.size {
            let Ok(file) = File::open("/dev/null") else { return };
            self.files.push(file);
        }
    }

    fn take(&mut self) -> bool {
        self.files.pop().is_some()
    }
}

/// Raises how many files the process may open to what the system lets it, up to a number that is enough, and returns that.
pub fn open_files() -> u64 {
    const ENOUGH: u64 = 65_536;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return ENOUGH };
    let wanted = hard.min(ENOUGH);
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
        wanted
    } else {
        soft
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_used_up_and_filled_again() {
        let mut reserve = Reserve::of(2);
        assert_eq!([reserve.take(), reserve.take(), reserve.take()], [true, true, false]);
        reserve.fill();
        assert!(reserve.take());
    }

    #[test]
    fn a_connection_that_failed_is_not_a_listener_that_failed() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno as i32);
        assert!(
            is_of_the_connection(&error(Errno::ECONNABORTED))
                && is_of_the_connection(&error(Errno::EPROTO))
        );
        assert!(
            !is_of_the_connection(&error(Errno::EMFILE))
                && !is_of_the_connection(&error(Errno::ENFILE))
        );
    }
}
