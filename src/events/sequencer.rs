//! Gives committed events their positions.
//!
//! Any replica does, whenever it wants to read new events, if it gets the advisory lock: there is no leader, and nothing to take over.
//! Readers that wait for events ask often; while there are none, a slow round keeps the backlog small.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::Connection;
use tokio::sync::Mutex;

use crate::db::outage::warn_of;
use crate::db::{Db, Work};
use crate::error::Result;
use crate::events::marks_queries::{self, Marks, Rights};
use crate::events::model::Row;
use crate::events::queries as reading;
use crate::events::sequencer_queries::{self as queries, HistoryCheck, SentRow};

/// How many rows get their positions in one transaction.
const AT_ONCE: i64 = 2_000;
/// How often a replica sees to it while nobody waits.
const ROUND: Duration = Duration::from_secs(1);
/// How often it is checked whether the database is still on the same history, though nothing happens.
const CHECK_HISTORY_EVERY: Duration = Duration::from_secs(5);
/// How soon to ask again while another replica has the lock.
const BUSY: Duration = Duration::from_millis(3);

/// Gives events their positions. Cheap to clone.
#[derive(Clone)]
pub struct Sequencer(Arc<Inner>);

struct Inner {
    db: Db,
    /// The turn to run a round.
    turn: Mutex<()>,
    /// How many rounds have begun.
    begun: AtomicU64,
    /// The last round that came to the end of what there was.
    ended: AtomicU64,
    seen: SyncMutex<ProcessState>,
}

/// The state of the sequencer in this process.
#[derive(Debug, Default)]
struct ProcessState {
    rights: Option<Rights>,
    /// When the history was last checked.
    checked: Option<Instant>,
    /// The last row that was sent to anybody.
    sent: Option<SentRow>,
}

/// The outcome of one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoundEnd {
    /// Every row that was visible has a position.
    Done,
    /// There is more.
    More,
    /// Another replica has the lock.
    Busy,
}

impl Sequencer {
    /// One on this database.
    pub fn new(db: Db) -> Self {
        let (turn, begun, ended, seen) = Default::default();
        Sequencer(Arc::new(Inner { db, turn, begun, ended, seen }))
    }

    /// Keeps at it slowly until it is dropped.
    pub async fn run(self) {
        loop {
            if let Err(error) = self.catch_up().await {
                warn_of!(error, "cannot give events their positions");
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    /// Returns when everything that was committed before the call has a position.
    pub async fn catch_up(&self) -> Result<()> {
        let asked = self.0.begun.load(Ordering::SeqCst);
        let _turn = self.0.turn.lock().await;
        // A round that began later than we asked did it for us.
        if self.0.ended.load(Ordering::SeqCst) > asked {
            return Ok(());
        }
        loop {
            let this = self.0.begun.fetch_add(1, Ordering::SeqCst) + 1;
            match self.round().await? {
                RoundEnd::Done => {
                    self.0.ended.store(this, Ordering::SeqCst);
                    return Ok(());
                }
                RoundEnd::More => {}
                RoundEnd::Busy => tokio::time::sleep(BUSY).await,
            }
        }
    }

    /// Remembers the last row that was sent to anybody, so that a database that has lost it is found out.
    pub fn remember_sent(&self, row: &Row) {
        let sent = &mut self.seen().sent;
        // A list of old events says nothing of new ones.
        if sent.is_none_or(|last| last.position < row.position()) {
            *sent = Some(SentRow {
                position: row.position(),
                history: row.cursor().history(),
                id: row.id,
            });
        }
    }

    async fn round(&self) -> Result<RoundEnd> {
        let (rights, sent, checks) = {
            let seen = self.seen();
            (
                seen.rights,
                seen.sent,
                seen.checked.is_none_or(|at| at.elapsed() >= CHECK_HISTORY_EVERY),
            )
        };
        let done = self.0.db.run(move |connection| round(connection, rights, sent, checks)).await;
        let mut seen = self.seen();
        match done {
            Ok((round, rights, check)) => {
                if round != RoundEnd::Busy && (checks || round == RoundEnd::More) {
                    seen.checked = Some(Instant::now());
                }
                seen.rights = Some(rights);
                match check {
                    Some(HistoryCheck::Begun(reason)) => {
                        // The rows sent so far are of the history before.
                        seen.sent = None;
                        tracing::info!(reason = reason.as_str(), "a history of events begins");
                    }
                    // Another replica may have begun it.
                    Some(HistoryCheck::Same(present)) => {
                        seen.sent = seen.sent.filter(|sent| present == Some(sent.history))
                    }
                    Some(HistoryCheck::Noted) | None => {}
                }
                Ok(round)
            }
            Err(error) => {
                // It may be another database by now.
                (seen.rights, seen.checked) = (None, None);
                Err(error)
            }
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, ProcessState> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Round = (RoundEnd, Rights, Option<HistoryCheck>);

fn round(
    connection: &mut diesel::PgConnection,
    rights: Option<Rights>,
    sent: Option<SentRow>,
    checks: bool,
) -> Work<Round> {
    let rights = match rights {
        Some(rights) if !checks => rights,
        _ => marks_queries::rights(connection)?,
    };
    if !checks && !queries::is_due(connection)? {
        return Ok((RoundEnd::Done, rights, None));
    }
    let marks = marks_queries::marks(connection, rights)?;
    connection.transaction(|connection| {
        give(connection, &marks, sent).map(|(round, check)| (round, rights, check))
    })
}

fn give(
    connection: &mut diesel::PgConnection,
    marks: &Marks,
    sent: Option<SentRow>,
) -> Work<(RoundEnd, Option<HistoryCheck>)> {
    if !queries::try_lock(connection)? {
        return Ok((RoundEnd::Busy, None));
    }
    // Positions are given by a transaction that has written nothing before.
    let check = queries::see_to_history(connection, marks, sent)?;
    let is_done = matches!(check, HistoryCheck::Same(_))
        && queries::give_positions(connection, AT_ONCE)? < AT_ONCE;
    Ok((if is_done { RoundEnd::Done } else { RoundEnd::More }, Some(check)))
}

/// Gives every committed row its position, on a connection of one's own.
pub fn catch_up(connection: &mut diesel::PgConnection) -> Work<()> {
    while round(connection, None, None, true)?.0 != RoundEnd::Done {}
    Ok(())
}

/// Begins a history at the next position, whatever the database says of itself, and returns which that is.
pub fn begin_history(connection: &mut diesel::PgConnection) -> Work<i64> {
    let rights = marks_queries::rights(connection)?;
    let marks = marks_queries::marks(connection, rights)?;
    connection.transaction(|connection| {
        queries::lock(connection)?;
        queries::begin_history(connection, &marks, queries::Reason::Forced)?;
        Ok(reading::histories(connection)?.last + 1)
    })
}
