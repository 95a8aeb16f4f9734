//! Ensures that nobody waits on the database for ever: a thread checks every connection of this process a few times a second.
//!
//! libpq waits for an answer without a limit, and TCP notices a peer that vanished but not one that keeps its sockets and passes nothing on. So
//!
//! - a statement that has been under way for some seconds is asked after: a new connection checks whether its backend is at work. If it is, all is
//!   well, however long it takes; if it is not, twice, the connection is given up;
//! - a statement beyond the session's own timeout, and a margin, is given up if nobody could be asked.
//!
//! A connection is given up by shutting its socket down, which ends the wait in libpq like any loss of a connection. So no thread is left behind.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Integer, Nullable};

use super::options::Options;
use super::refused::Refused;
use super::vitals::Vitals;
use crate::db::statement;
use crate::error::one_line;

const CHECK_EVERY: Duration = Duration::from_millis(250);
/// The statement timeout of the caller.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

static WATCHED: Mutex<Vec<Watched>> = Mutex::new(Vec::new());
static STARTED: Once = Once::new();
/// One connection asks at a time.
static ASKING: AtomicBool = AtomicBool::new(false);

/// How a connection is opened to ask over.
type Connect = fn(&Options) -> Result<PgConnection, Refused>;

struct Watched {
    vitals: Weak<Vitals>,
    options: Arc<Options>,
}

/// A statement that has been under way for long.
struct Suspect {
    vitals: Arc<Vitals>,
    backend: i32,
    statement: u64,
}

/// Watches a connection, from now until it is closed. Who asks after its statements opens another one by `connect`.
pub(super) fn watch(vitals: &Arc<Vitals>, options: &Options, connect: Connect) {
    watched().push(Watched { vitals: Arc::downgrade(vitals), options: Arc::new(options.clone()) });
    STARTED.call_once(|| {
        let started = std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || watch_all(connect));
        if let Err(error) = started {
            tracing::error!(%error, "nobody watches the connections to the database");
        }
    });
}

fn watched() -> std::sync::MutexGuard<'static, Vec<Watched>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "on a thread of its own, not on the runtime's")]
fn watch_all(connect: Connect) {
    loop {
        std::thread::sleep(CHECK_EVERY);
        let now = Instant::now();
        let alive: Vec<(Arc<Vitals>, Arc<Options>)> = {
            let mut watched = watched();
            watched.retain(|watched| watched.vitals.strong_count() > 0);
            watched
                .iter()
                .filter_map(|watched| Some((watched.vitals.upgrade()?, watched.options.clone())))
                .collect()
        };
        for (vitals, _) in alive.iter().filter(|(vitals, _)| vitals.is_overdue(now)) {
            vitals.give_up("the database keeps silent");
        }
        if !ASKING.load(Ordering::Acquire) {
            ask_after(&alive, now, connect);
        }
    }
}

/// Asks after the statements of one database that have been under way for long, if there are any, on a thread of its own.
fn ask_after(alive: &[(Arc<Vitals>, Arc<Options>)], now: Instant, connect: Connect) {
    let mut of: Option<Arc<Options>> = None;
    let mut suspects = Vec::new();
    for (vitals, options) in alive {
        if of.as_ref().is_some_and(|of| of.database_url != options.database_url) {
            continue;
        }
        let Some(backend) = vitals.backend() else { continue };
        if let Some(statement) = vitals.silent_statement(now) {
            suspects.push(Suspect { vitals: vitals.clone(), backend, statement });
            of.get_or_insert_with(|| options.clone());
        }
    }
    let Some(options) = of else { return };
    ASKING.store(true, Ordering::Release);
    let asked = std::thread::Builder::new().name("ask".to_owned()).spawn(move || {
        ask(&options, &suspects, connect);
        ASKING.store(false, Ordering::Release);
    });
    if asked.is_err() {
        ASKING.store(false, Ordering::Release);
    }
}

fn ask(options: &Options, suspects: &[Suspect], connect: Connect) {
    let options = Options {
        statement_timeout: ANSWER_WITHIN,
        lock_timeout: ANSWER_WITHIN,
        ..options.clone()
    };
    let asked = connect(&options).map_err(|error| error.to_string()).and_then(|mut connection| {
        judge(&mut connection, suspects).map_err(|error| error.to_string())
    });
    if let Err(error) = asked {
        tracing::debug!(cause = one_line(&error), "nobody can be asked what became of a statement");
    }
}

fn judge(connection: &mut PgConnection, suspects: &[Suspect]) -> QueryResult<()> {
    let backends: Vec<i32> = suspects.iter().map(|suspect| suspect.backend).collect();
    let at_work: HashSet<i32> = AtWork { backends: &backends }
        .load::<(i32,)>(connection)?
        .into_iter()
        .map(|(backend,)| backend)
        .collect();
    let given_up: Vec<&Suspect> = suspects
        .iter()
        .filter(|suspect| {
            suspect.vitals.found(suspect.statement, at_work.contains(&suspect.backend))
        })
        .collect();
    // Whatever they have locked is unlocked: they may wait for their next word for a minute.
    let backends: Vec<i32> = given_up.iter().map(|suspect| suspect.backend).collect();
    let ended = if backends.is_empty() {
        Ok(Vec::new())
    } else {
        EndBackends { backends: &backends }.load::<(Option<bool>,)>(connection)
    };
    given_up.iter().for_each(|suspect| {
        suspect.vitals.give_up("its backend is not at work on what it was sent")
    });
    ended.map(drop)
}

statement! {
    /// Ends backends that nobody can reach any more. Each is of our own role, and named so: a number may be another's by now.
    struct EndBackends<'a> { backends: &'a [i32] as Array<Integer> } -> (Nullable<Bool>,),
    "SELECT pg_terminate_backend(pid)
     FROM pg_stat_activity
     WHERE pid = ANY ({backends}) AND usename = current_user AND application_name = 'offboard' AND state <> 'active'"
}

statement! {
    /// Which of these backends are at work, or do not let us know.
    struct AtWork<'a> { backends: &'a [i32] as Array<Integer> } -> (Integer,),
    "SELECT pid
     FROM pg_stat_activity
     WHERE pid = ANY ({backends})
       AND state IS DISTINCT FROM 'idle' AND state IS DISTINCT FROM 'idle in transaction'
       AND state IS DISTINCT FROM 'idle in transaction (aborted)'"
}
