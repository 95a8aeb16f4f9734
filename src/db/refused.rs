//! Why there is no connection to the database.

use std::fmt;

use diesel::ConnectionError;

use crate::error::{Code, Error, one_line};

/// Why there is no connection.
#[derive(Debug)]
pub enum Refused {
    /// The database cannot be reached, or does not let us in.
    Unreachable(ConnectionError),
    /// The database cannot be used: a sentence for operators.
    Unfit(String),
    /// The server lets nobody in by this address, and says so: the same.
    Denied(&'static str),
    /// The server has no room for another session of ours.
    Crowded,
    /// It has let us in, and gives the session nothing to work with: a pooler that queues where a server would refuse, most likely.
    Queued,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Unreachable(error) => f.write_str(&one_line(&error.to_string())),
            Refused::Unfit(sentence) => f.write_str(sentence),
            Refused::Denied(sentence) => f.write_str(sentence),
            Refused::Crowded => {
                f.write_str("the server lets no more sessions in: as many are open as the role, the database or the server may have")
            }
            Refused::Queued => f.write_str("a session was let in and got no response: a pooler has no more server sessions to give"),
        }
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for Error {
    /// For the person at the terminal and for the log; a caller of the service learns only that the database is unreachable.
    fn from(refused: Refused) -> Error {
        match refused {
            Refused::Unfit(sentence) => Error::new(Code::Unavailable, sentence),
            Refused::Denied(sentence) => Error::new(Code::PermissionDenied, sentence),
            crowded @ (Refused::Crowded | Refused::Queued) => {
                Error::unavailable("The database lets no more sessions in.").caused_by(crowded)
            }
            other => Error::unavailable("The database cannot be reached.").caused_by(other),
        }
    }
}
