//! The one place where a failure of the database becomes an [`Error`].

use diesel::result::{DatabaseErrorKind, Error as Diesel};

use crate::error::{Code, Error};

/// What a failed statement asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Lost a race that the database resolved by giving up: the same work may simply be done again.
    Conflict,
    /// Ran into the statement timeout.
    Timeout,
    /// A row stayed locked for longer than the lock timeout.
    Locked,
    /// The connection is gone or could not be had.
    Away,
    /// Cannot make anything of a regular expression that a filter has.
    Expression,
    /// A key is there already; the constraint's name where the database told it.
    Duplicate,
    /// Everything else.
    Other,
}

/// Sorts a failure. diesel does not hand on the SQLSTATE of every error, so the rest is told by the message, which is in English:
/// each connection asks for that, and warns where it may not. In another language it is `Other`.
pub fn fault(error: &Diesel) -> Fault {
    match error {
        Diesel::DatabaseError(kind, information) => match kind {
            DatabaseErrorKind::SerializationFailure => Fault::Conflict,
            DatabaseErrorKind::UniqueViolation => Fault::Duplicate,
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => Fault::Away,
            _ => match information.message() {
                "deadlock detected" => Fault::Conflict,
                "canceling statement due to statement timeout" => Fault::Timeout,
                "canceling statement due to lock timeout" => Fault::Locked,
                // SQLSTATE 2201B: when it is read, and when it is tried on a text.
                message if message.starts_with("invalid regular expression") || message.starts_with("regular expression failed") => {
                    Fault::Expression
                }
                message if is_gone(message) => Fault::Away,
                _ => Fault::Other,
            },
        },
        Diesel::BrokenTransactionManager => Fault::Away,
        _ => Fault::Other,
    }
}

fn is_gone(message: &str) -> bool {
    [
        "server closed the connection",
        "terminating connection",
        "the database system is",
        "no connection to the server",
        "SSL connection has been closed",
    ]
    .iter()
    .any(|sign| message.contains(sign))
}

impl From<Diesel> for Error {
    fn from(error: Diesel) -> Error {
        match fault(&error) {
            Fault::Timeout => Error::new(Code::DeadlineExceeded, "The database did not answer in time.").caused_by(error),
            Fault::Conflict | Fault::Locked => Error::unavailable("Others are at work on the same thing; try again.").caused_by(error),
            Fault::Away => Error::unavailable("The database cannot be reached.").caused_by(error),
            Fault::Expression => {
                let message = "The database cannot use a regular expression of the filter; write it shorter, with less that is repeated.";
                Error::new(Code::InvalidFilter, message).caused_by(error)
            }
            Fault::Duplicate | Fault::Other => Error::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(message: &str) -> Error {
        Error::from(Diesel::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.to_owned())))
    }

    #[test]
    fn an_expression_that_the_database_cannot_use_is_a_fault_of_the_filter() {
        for message in ["invalid regular expression: regular expression is too complex", "regular expression failed: out of memory"] {
            assert_eq!(error(message).code(), Code::InvalidFilter, "{message}");
        }
        assert_eq!(error("invalid input syntax for type json").code(), Code::Internal);
    }
}
