//! Checks the database for readiness and health: every second, on a connection and a thread of its own, so that neither a pool that is used
//! up nor a runtime that is busy makes a replica look dead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::backoff::pause;
use super::fault::Fault;
use super::fitness;
use super::migrations::{SchemaState, schema_state};
use super::options::Options;
use super::outage::{self, Opener};
use super::refused::Refused;
use super::reserved_connection::ReservedConnection;
use super::session::{self, Session};
use crate::error::{Code, Error};

const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often the connection is glanced at in between.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a statement of a check may take.
const CHECK_TIME: Duration = Duration::from_secs(2);
/// How often what was found is judged.
const JUDGE_EVERY: Duration = Duration::from_millis(200);
/// A database that takes longer than this to fail a check does not respond.
const AT_ONCE: Duration = Duration::from_secs(1);
/// A check that is older says nothing of now.
const FRESH: Duration = Duration::from_secs(4);

/// The message if the session of the probes is the last one that the server accepts.
const NO_ROOM: &str = "The database lets no session of calls in: as many are open as the role, the database or the server may have.";

/// The state of the database for this replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseState {
    /// Its schema.
    pub schema: SchemaState,
    /// It follows another database, and takes no changes for that long.
    pub standby: bool,
    /// It takes no changes, for whatever reason.
    pub read_only: bool,
}

/// The checks of a database. Cheap to clone; they end when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Probe {
    verdict: watch::Receiver<Option<Verdict>>,
    _stop: Arc<DropGuard>,
}

/// Why the database cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be reached, or does not respond.
    Unreachable,
    /// It has no room for another session, or none for calls.
    Crowded,
    /// It lets nobody in by this address.
    Denied,
    /// It can be reached, and cannot be used as it is.
    Unfit,
    /// It fails what it is asked.
    Failing,
}

/// A trouble, with a sentence for operators.
pub type Troubled = (Trouble, String);

#[derive(Clone, Debug)]
struct ProbeResult {
    at: Instant,
    found: Result<DatabaseState, Troubled>,
    /// The cause, for the log.
    cause: String,
}

/// The judgement that readiness, health and the log share.
type Verdict = Result<DatabaseState, Troubled>;

impl Probe {
    /// Starts to check, over a connection at this place.
    pub fn spawn(reserved: ReservedConnection) -> std::io::Result<Probe> {
        let (found, results) = watch::channel(None);
        let (judged, verdict) = watch::channel(None);
        let stop = CancellationToken::new();
        let (stopped, over) = (stop.clone(), stop.clone());
        let options = Options {
            statement_timeout: CHECK_TIME,
            lock_timeout: CHECK_TIME,
            ..reserved.options().clone()
        };
        std::thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || check_on(&reserved, &options, &found, &stopped))?;
        // Of its own: a check may hang.
        std::thread::Builder::new()
            .name("judge".to_owned())
            .spawn(move || judge(&results, &judged, &over))?;
        Ok(Probe { verdict, _stop: Arc::new(stop.drop_guard()) })
    }

    /// The state of the database, by a check of the last seconds; else a sentence for operators that says why that is not known. Waits for the first
    /// check alone.
    pub async fn check(&self) -> Verdict {
        let mut verdict = self.verdict.clone();
        let lost = |_| (Trouble::Failing, "is not checked any more".to_owned());
        let judged = verdict.wait_for(Option::is_some).await.map_err(lost)?.clone();
        judged.unwrap_or_else(|| Err(silent()))
    }
}

fn silent() -> Troubled {
    (Trouble::Unreachable, "does not respond".to_owned())
}

/// Judges what was found, again and again, and logs each change. A check that failed counts until the next one is over, however long that takes;
/// one that did not says nothing of now once it is old.
fn judge(
    results: &watch::Receiver<Option<ProbeResult>>,
    judged: &watch::Sender<Option<Verdict>>,
    stop: &CancellationToken,
) {
    let begun = Instant::now();
    let mut counted: Option<Instant> = None;
    while !stop.is_cancelled() {
        let result = results.borrow().clone();
        let found = match result {
            Some(ProbeResult { found: Err(troubled), cause, .. }) => Some((Err(troubled), cause)),
            Some(ProbeResult { at, found, cause }) if at.elapsed() < FRESH => Some((found, cause)),
            None if begun.elapsed() < FRESH => None,
            _ => Some((Err(silent()), "it does not respond".to_owned())),
        };
        if let Some((verdict, cause)) = found {
            if verdict.is_ok() {
                outage::succeeded(Opener::Probe);
                counted = None;
            } else if counted.is_none_or(|counted| counted.elapsed() >= CHECK_EVERY) {
                outage::failed(Opener::Probe, cause);
                counted = Some(Instant::now());
            }
            judged.send_replace(Some(verdict));
        }
        pause(JUDGE_EVERY, stop);
    }
}

fn check_on(
    reserved: &ReservedConnection,
    options: &Options,
    latest: &watch::Sender<Option<ProbeResult>>,
    stop: &CancellationToken,
) {
    let mut session = None;
    let mut fit = false;
    // Whether the last connection was ended since nothing came back on it.
    let mut silenced = false;
    while !stop.is_cancelled() {
        let begun = Instant::now();
        fit = fit && !reserved.is_suspect();
        let checked = check((reserved, stop), options, (&mut session, &mut silenced), &mut fit);
        let (found, cause) = match checked {
            Ok(condition) => (Ok(condition), String::new()),
            Err((trouble, error)) => {
                // Where calls alone are shut out, the probes are not.
                if trouble != Trouble::Crowded {
                    session = None;
                }
                let cause = error.cause_chain().unwrap_or_else(|| error.message().to_owned());
                let reported = match trouble {
                    Trouble::Crowded if silenced => Err(silent()),
                    // Who refuses does so at once.
                    Trouble::Unreachable if begun.elapsed() > AT_ONCE => Err(silent()),
                    // A cause is nothing for probes, which need no key.
                    _ if error.code() == Code::Internal => {
                        Err((trouble, "cannot be used".to_owned()))
                    }
                    _ => Err((trouble, error.message().to_owned())),
                };
                (reported, cause)
            }
        };
        silenced = silenced && found.is_err();
        latest.send_replace(Some(ProbeResult { at: Instant::now(), found, cause }));
        wait(session.as_ref(), stop);
    }
}

/// Waits for the next check; not for long where the connection has ended, since others wait until there is another one.
fn wait(session: Option<&Session>, stop: &CancellationToken) {
    let until = Instant::now() + CHECK_EVERY;
    while Instant::now() < until
        && !stop.is_cancelled()
        && !session.is_some_and(|session| session.vitals.has_ended())
    {
        pause(GLANCE, stop);
    }
}

fn check(
    (reserved, stop): (&ReservedConnection, &CancellationToken),
    options: &Options,
    (session, silenced): (&mut Option<Session>, &mut bool),
    fit: &mut bool,
) -> Result<DatabaseState, (Trouble, Error)> {
    if !*fit {
        let checked =
            reserved.open(options, stop).and_then(|first| fitness::check_from(options, first));
        match checked {
            Ok(checked) => *session = Some(checked),
            Err(error) => {
                if matches!(error, Refused::Unfit(_)) {
                    reserved.finds_it_fit(false);
                }
                return Err(refused(error));
            }
        }
        reserved.finds_it_fit(true);
        *fit = true;
    }
    // A connection that has ended says nothing of the database, but a new one does.
    if let Some(open) = session {
        if let Ok(condition) = state(open) {
            return if reserved.shuts_out_the_pool(options) {
                Err((Trouble::Crowded, Error::unavailable(NO_ROOM)))
            } else {
                Ok(condition)
            };
        }
        *silenced = *silenced || open.vitals.is_given_up();
        *fit = open.vitals.ended() != Some(Fault::Shared);
    }
    let open = session.insert(reserved.open(options, stop).map_err(refused)?);
    state(open).map_err(|error| {
        *fit = *fit && open.vitals.ended() != Some(Fault::Shared);
        (
            if error.code() == Code::Unavailable { Trouble::Unreachable } else { Trouble::Failing },
            error,
        )
    })
}

fn refused(refused: Refused) -> (Trouble, Error) {
    let trouble = match refused {
        Refused::Unreachable(_) => Trouble::Unreachable,
        Refused::Crowded | Refused::Queued => Trouble::Crowded,
        Refused::Denied(_) => Trouble::Denied,
        Refused::Unfit(_) => Trouble::Unfit,
    };
    (trouble, refused.into())
}

fn state(session: &mut Session) -> Result<DatabaseState, Error> {
    let facts = session::ask(&mut session.connection)?;
    let schema = schema_state(&mut session.connection)?;
    Ok(DatabaseState { schema, standby: facts.standby, read_only: facts.read_only })
}
