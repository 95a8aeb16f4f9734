//! How a connection that comes before those of the pool is opened: in place of one of the pool's where the server has no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::db::backoff::pause;
use crate::db::options::Options;
use crate::db::pool::Db;
use crate::db::refused::Refused;
use crate::db::session::{self, Session};

/// How soon to try again after the pool has given one up, and how often.
const AGAIN: Duration = Duration::from_millis(100);
const TIMES: usize = 8;
/// A server that takes longer than this to refuse us does not respond.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The reservation of one such connection, which is wanted from the start.
pub struct ReservedConnection {
    db: Db,
    number: usize,
    shut_out: Arc<ShutOut>,
}

impl ReservedConnection {
    /// A reservation before those of this pool.
    pub fn before(db: &Db) -> Self {
        ReservedConnection { db: db.clone(), number: db.reserve().add(), shut_out: Arc::default() }
    }

    /// How the database is used.
    pub(super) fn options(&self) -> &Options {
        self.db.options()
    }

    /// Whether something has shown that a pooler shares backends since this was last asked.
    pub(super) fn is_suspect(&self) -> bool {
        self.db.take_suspicion()
    }

    /// Says whether the database can be used as it is. Where it cannot, the pool opens no connection and uses none.
    pub(super) fn finds_it_fit(&self, fit: bool) {
        self.db.set_fit(fit);
    }

    /// Opens the connection. Where the server has no room, the pool gives one of its own up, and this is tried again for a while.
    pub(super) fn open(
        &self,
        options: &Options,
        stop: &CancellationToken,
    ) -> Result<Session, Refused> {
        let want = |is_wanted| self.db.reserve().want(self.number, is_wanted);
        want(true);
        for attempt in 0..TIMES {
            let asked = Instant::now();
            match session::open(options) {
                Ok(session) => {
                    self.db.reserve().take(self.number, &session.vitals);
                    return Ok(session);
                }
                Err(Refused::Unreachable(error)) => {
                    // A server that refuses does so at once.
                    let refusal =
                        if asked.elapsed() > AT_ONCE { None } else { session::refusal(options) };
                    let refusal = refusal.unwrap_or(Refused::Unreachable(error));
                    if !matches!(refusal, Refused::Crowded) {
                        want(false);
                        return Err(refusal);
                    }
                    want(true);
                    // One for each call of this: others may be quicker to take what is given up.
                    if attempt == 0 {
                        self.db.give_one_up();
                    }
                }
                // It has waited for long.
                Err(Refused::Queued) if attempt == 0 => {
                    want(true);
                    self.db.give_one_up();
                }
                Err(refused) => {
                    want(false);
                    return Err(refused);
                }
            }
            pause(AGAIN, stop);
            if stop.is_cancelled() {
                break;
            }
        }
        Err(Refused::Crowded)
    }

    /// Whether the pool has no connection and the server has no room for one, as far as was found out: by opening one, where nobody who comes first is
    /// at it, on a thread of its own, since a pooler may keep it waiting.
    pub(super) fn shuts_out_the_pool(&self, options: &Options) -> bool {
        if !self.db.has_no_connection() {
            self.shut_out.found.store(false, Ordering::Release);
            return false;
        }
        if !self.db.reserve().goes_first() && !self.shut_out.asking.swap(true, Ordering::AcqRel) {
            let (shut_out, options) = (self.shut_out.clone(), options.clone());
            let asked = std::thread::Builder::new().name("crowd".to_owned()).spawn(move || {
                shut_out.found.store(is_crowded(&options), Ordering::Release);
                shut_out.asking.store(false, Ordering::Release);
            });
            if asked.is_err() {
                self.shut_out.asking.store(false, Ordering::Release);
            }
        }
        self.shut_out.found.load(Ordering::Acquire) && self.db.has_no_connection()
    }
}

/// Whether there is no room for another session.
fn is_crowded(options: &Options) -> bool {
    match session::open(options) {
        Err(Refused::Queued) => true,
        Err(Refused::Unreachable(_)) => matches!(session::refusal(options), Some(Refused::Crowded)),
        _ => false,
    }
}

/// Whether the pool is shut out, and whether that is being found out.
#[derive(Debug, Default)]
struct ShutOut {
    asking: AtomicBool,
    found: AtomicBool,
}
