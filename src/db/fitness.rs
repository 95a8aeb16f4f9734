//! Checks whether a database can be used at all: its encoding, and a pooler in between.
//!
//! A session of ours is more than its transactions: it has settings, prepared statements and a lock now and then. A pooler that gives each
//! transaction another backend breaks all three, some without a word. So it is found out before anything is done.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::result::Error as Diesel;
use diesel::sql_types::Integer;

use super::fault::is_on_another_backend;
use super::options::Options;
use super::refused::Refused;
use super::session::{self, Session};
use crate::error::Result;

/// How many further sessions are opened, at most, to find two that share a backend. A pooler gives the second the backend that the first has just
/// left, or the first another one at its next transaction, unless others happen to call at the same moment.
const SESSIONS: usize = 4;

/// The same as [`check`], and fails with [`Refused::Denied`] if the server lets nobody in: for the start, when that is a mistake and no outage.
pub fn check_at_start(options: &Options) -> Result<(), Refused> {
    match check(options) {
        Err(Refused::Unreachable(error)) => {
            Err(session::denied(options).map_or(Refused::Unreachable(error), Refused::Denied))
        }
        checked => checked,
    }
}

/// Fails with [`Refused::Unfit`] if the database cannot be used as it is. Opens up to six connections, and one where no pooler is in between.
pub fn check(options: &Options) -> Result<(), Refused> {
    check_from(options, session::open(options)?).map(drop)
}

/// The same from a first connection, which is given back. Opens up to five more, and none where no pooler is in between.
pub(super) fn check_from(options: &Options, first: Session) -> Result<Session, Refused> {
    // A pooler makes up what it says of the backend at the start, before there is one.
    if first.reported == first.backend { Ok(first) } else { check_pooler(options, first) }
}

/// Two sessions that are open at the same time have two backends, each the same all the time. Where the second keeps its own by a transaction, the first
/// cannot have it unless they share.
fn check_pooler(options: &Options, mut first: Session) -> Result<Session, Refused> {
    let unfit = || Refused::Unfit(session::SHARED.to_owned());
    let unreachable = |error| match error {
        error if is_on_another_backend(&error) => unfit(),
        error => Refused::Unreachable(diesel::ConnectionError::CouldntSetupConfiguration(error)),
    };
    let mut others = Vec::new();
    for _ in 0..SESSIONS {
        let before = backend(&mut first).map_err(unreachable)?;
        let mut other = match session::open(options) {
            Ok(other) => other,
            Err(Refused::Unfit(sentence)) => return Err(Refused::Unfit(sentence)),
            Err(Refused::Denied(sentence)) => return Err(Refused::Denied(sentence)),
            // No backend is free, or not in time: as far as could be found out.
            Err(Refused::Unreachable(_) | Refused::Crowded | Refused::Queued) => return Ok(first),
        };
        match other.connection.batch_execute("BEGIN").and_then(|()| backend(&mut other)) {
            Ok(theirs) if theirs == before => return Err(unfit()),
            Ok(_) => {}
            // Statement mode knows no transactions, and ends the session.
            Err(Diesel::DatabaseError(..)) => return Err(unfit()),
            Err(error) => return Err(unreachable(error)),
        }
        others.push(other);
        if backend(&mut first).map_err(unreachable)? != before || first.backend != before {
            return Err(unfit());
        }
    }
    Ok(first)
}

fn backend(session: &mut Session) -> QueryResult<i32> {
    // Not a statement of ours: those are prepared, and a pooler may know them on another backend.
    diesel::select(diesel::dsl::sql::<Integer>("pg_backend_pid()"))
        .get_result(&mut session.connection)
}
