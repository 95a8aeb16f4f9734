//! Checks the database for readiness and health: every second, on a connection and a thread of its own, so that neither a pool that is used
//! up nor a runtime that is busy makes a replica look dead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::fitness;
use super::listen::pause;
use super::migrations::{SchemaState, schema_state};
use super::options::Options;
use super::outage::{self, Opener};
use super::reserve::ReservedConnection;
use super::session::{self, Refused, Session};
use crate::error::{Code, Error};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the connection is glanced at in between.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a statement of a look may take.
const LOOK_TIME: Duration = Duration::from_secs(2);
/// A look that is older reports nothing of now.
const FRESH: Duration = Duration::from_secs(4);

/// The message if the session of the probes is the last one that the server accepts.
const NO_ROOM: &str = "The database lets no session of calls in: as many are open as the role, the database or the server may have.";

/// How the database stands to this replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseState {
    /// Its schema.
    pub schema: SchemaState,
    /// It follows another database, and takes no changes for that long.
    pub standby: bool,
    /// It takes no changes, for whatever reason.
    pub read_only: bool,
}

/// The looks at a database. Cheap to clone; they end when the last clone goes.
#[derive(Clone, Debug)]
pub struct Probe {
    latest: watch::Receiver<Option<ProbeResult>>,
    _stop: Arc<DropGuard>,
}

/// Why the database cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be reached, or does not answer.
    Away,
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
}

impl Probe {
    /// Starts to look, over a connection at this place.
    pub fn spawn(reserved: ReservedConnection) -> std::io::Result<Probe> {
        let (found, latest) = watch::channel(None);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let options = Options { statement_timeout: LOOK_TIME, lock_timeout: LOOK_TIME, ..reserved.options().clone() };
        std::thread::Builder::new().name("probe".to_owned()).spawn(move || look_on(&reserved, &options, &found, &stopped))?;
        Ok(Probe { latest, _stop: Arc::new(stop.drop_guard()) })
    }

    /// How the database stands, by a look of the last seconds; else a sentence for operators that says why that is not known. Waits for the first
    /// look alone.
    pub async fn check(&self) -> Result<DatabaseState, Troubled> {
        let mut latest = self.latest.clone();
        let gone = |_| (Trouble::Failing, "is not checked any more".to_owned());
        let look = latest.wait_for(Option::is_some).await.map_err(gone)?.clone();
        match look {
            Some(ProbeResult { at, found }) if at.elapsed() < FRESH => found,
            _ => Err((Trouble::Away, "does not answer".to_owned())),
        }
    }
}

fn look_on(reserved: &ReservedConnection, options: &Options, latest: &watch::Sender<Option<ProbeResult>>, stop: &CancellationToken) {
    let mut session = None;
    let mut fit = false;
    while !stop.is_cancelled() {
        let found = look((reserved, stop), options, &mut session, &mut fit).map_err(|(trouble, error)| {
            // Where calls alone are shut out, the probes are not.
            if trouble != Trouble::Crowded {
                session = None;
            }
            outage::failed(Opener::Probe, error.cause_chain().unwrap_or_else(|| error.message().to_owned()));
            // A cause is nothing for probes, which need no key.
            let reported = if error.code() == Code::Internal { "cannot be used".to_owned() } else { error.message().to_owned() };
            (trouble, reported)
        });
        if found.is_ok() {
            outage::succeeded(Opener::Probe);
        }
        latest.send_replace(Some(ProbeResult { at: Instant::now(), found }));
        wait(session.as_ref(), stop);
    }
}

/// Waits for the next look; not for long where the connection has ended, since others wait until there is another one.
fn wait(session: Option<&Session>, stop: &CancellationToken) {
    let until = Instant::now() + LOOK_EVERY;
    while Instant::now() < until && !stop.is_cancelled() && !session.is_some_and(|session| session.vitals.has_ended()) {
        pause(GLANCE, stop);
    }
}

fn look(
    (reserved, stop): (&ReservedConnection, &CancellationToken),
    options: &Options,
    session: &mut Option<Session>,
    fit: &mut bool,
) -> Result<DatabaseState, (Trouble, Error)> {
    if !*fit {
        let first = reserved.open(options, stop).map_err(refused)?;
        *session = Some(fitness::check_from(options, first).map_err(refused)?);
        *fit = true;
    }
    // A connection that has ended says nothing of the database, but a new one does.
    if let Some(open) = session
        && let Ok(state) = state(open)
    {
        return if reserved.shuts_out_the_pool(options) { Err((Trouble::Crowded, Error::unavailable(NO_ROOM))) } else { Ok(state) };
    }
    let state = state(session.insert(reserved.open(options, stop).map_err(refused)?));
    state.map_err(|error| (if error.code() == Code::Unavailable { Trouble::Away } else { Trouble::Failing }, error))
}

fn refused(refused: Refused) -> (Trouble, Error) {
    let trouble = match refused {
        Refused::Away(_) => Trouble::Away,
        Refused::Crowded => Trouble::Crowded,
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
