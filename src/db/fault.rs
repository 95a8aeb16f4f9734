//! The one place where a failure of the database becomes an [`Error`].

use diesel::result::{DatabaseErrorKind, Error as Diesel};

use crate::error::{Code, Error};
use crate::limits::database::{LOCK_TIME, STATEMENT_TIME};

/// The consequence of a failed statement for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Lost a race that the database resolved by giving up: the same work may simply be done again.
    Conflict,
    /// Ran into the statement timeout.
    Timeout,
    /// A row stayed locked for longer than the lock timeout.
    Locked,
    /// The connection was lost or could not be opened.
    Unreachable,
    /// The backend knows nothing of what this session has prepared, or has something else by that name: another session has it too, or had it before.
    Shared,
    /// The database takes no changes: it follows another one, or its operator has said so.
    ReadOnly,
    /// The database has no room: its disk is full, its memory or its connections are used up.
    Exhausted,
    /// Cannot make anything of a regular expression that a filter has.
    Expression,
    /// Cannot store a text as it is.
    Text,
    /// The key exists already; the constraint's name where the database names it.
    Duplicate,
    /// The role may not do this.
    Denied,
    /// There is no such table or column: the schema is of another version.
    Missing,
    /// A trigger refuses it: none of ours raises anything.
    Raised,
    /// Everything else.
    Other,
}

/// The SQLSTATE of a failure; `None` of one that did not come from the server, such as a connection that broke.
///
/// diesel keeps it to itself. Our `pq-sys` hands it on where diesel asks libpq for the column, which makes this the only use of the column.
pub fn sqlstate(error: &Diesel) -> Option<&str> {
    match error {
        Diesel::DatabaseError(_, information) => information.column_name(),
        Diesel::RollbackErrorOnCommit { commit_error, .. } => sqlstate(commit_error),
        _ => None,
    }
}

/// Sorts a failure, by its number alone: messages are in the language of the server.
pub fn fault(error: &Diesel) -> Fault {
    match error {
        Diesel::DatabaseError(
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand,
            _,
        ) => Fault::Unreachable,
        // Also one that the service itself has found out, and has no number for.
        Diesel::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => Fault::Conflict,
        // A server numbers every error. One without was made by libpq, which has lost the connection or its thread.
        Diesel::DatabaseError(..) => sqlstate(error).map_or(Fault::Unreachable, by_number),
        Diesel::RollbackErrorOnCommit { commit_error, .. } => fault(commit_error),
        Diesel::BrokenTransactionManager => Fault::Unreachable,
        _ => Fault::Other,
    }
}

/// Sorts a number of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn by_number(sqlstate: &str) -> Fault {
    match sqlstate {
        "40001" | "40P01" => Fault::Conflict,
        "57014" => Fault::Timeout,
        "55P03" => Fault::Locked,
        "25006" => Fault::ReadOnly,
        "23505" => Fault::Duplicate,
        "2201B" => Fault::Expression,
        "22021" | "22P05" => Fault::Text,
        "42501" => Fault::Denied,
        "P0001" => Fault::Raised,
        "42P01" | "42703" => Fault::Missing,
        // An error of the disk; a full one among others, by where it strikes.
        "58030" => Fault::Exhausted,
        // Statements that are prepared or are not, and messages that do not fit what is: a pooler has given the session another backend.
        "42P05" | "26000" | "08P01" => Fault::Shared,
        // Shutdowns and timeouts of sessions.
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04" | "40003" => {
            Fault::Unreachable
        }
        _ if sqlstate.starts_with("08") => Fault::Unreachable,
        _ if sqlstate.starts_with("53") => Fault::Exhausted,
        _ => Fault::Other,
    }
}

/// Whether a statement is prepared that should not be, or is not that should: what a session has prepared is on another backend.
pub(super) fn is_on_another_backend(error: &Diesel) -> bool {
    // Poolers give the number of broken protocols to whatever fails between them and the server.
    fault(error) == Fault::Shared && sqlstate(error) != Some("08P01")
}

/// Whether a pooler has kept a session waiting for a backend until its own time for that was over. It has no number of its own, and no languages.
pub(super) fn is_out_of_turn(error: &Diesel) -> bool {
    matches!(error, Diesel::DatabaseError(_, reported) if sqlstate(error) == Some("08P01") && reported.message().contains("query_wait_timeout"))
}

/// Whether a statement gave up waiting for a lock: it has changed nothing.
pub fn is_locked(error: &Diesel) -> bool {
    fault(error) == Fault::Locked
}

/// Returns whether the database refuses what a statement would do to its rows, by a trigger or a constraint or because they are damaged: it
/// does so again, however often that is tried. The statement itself may be at fault as well.
pub fn is_refusal(error: &Diesel) -> bool {
    // A file that cannot be read is of many rows.
    let is_of_files = sqlstate(error).is_some_and(|number| number.starts_with("58"));
    !is_of_files
        && matches!(error, Diesel::DatabaseError(..))
        && matches!(
            fault(error),
            Fault::Other
                | Fault::Raised
                | Fault::Duplicate
                | Fault::Denied
                | Fault::Missing
                | Fault::Text
        )
}

/// A failure and its number, for the log.
#[derive(Debug)]
struct Numbered(Diesel);

impl std::fmt::Display for Numbered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match sqlstate(&self.0) {
            Some(number) => write!(f, "SQLSTATE {number}: {}", self.0),
            None => self.0.fmt(f),
        }
    }
}

impl std::error::Error for Numbered {}

impl From<Diesel> for Error {
    fn from(error: Diesel) -> Error {
        let (fault, cause) = (fault(&error), Numbered(error));
        match fault {
            Fault::Timeout => {
                STATEMENT_TIME.reached();
                Error::new(Code::DeadlineExceeded, "The database did not answer in time.")
                    .caused_by(cause)
            }
            Fault::Locked => {
                LOCK_TIME.reached();
                Error::unavailable("Others are at work on the same thing; try again.")
                    .caused_by(cause)
            }
            Fault::Conflict => {
                Error::unavailable("Others are at work on the same thing; try again.")
                    .caused_by(cause)
            }
            Fault::Unreachable | Fault::Shared => {
                Error::unavailable("The database cannot be reached.").caused_by(cause)
            }
            Fault::ReadOnly => {
                Error::unavailable("The database takes no changes for now.").caused_by(cause)
            }
            Fault::Exhausted => {
                Error::unavailable("The database has no room for this now.").caused_by(cause)
            }
            Fault::Expression => {
                let message = "The database cannot use a regular expression of the filter; write it shorter, with less that is repeated.";
                // Its place in nearly every request; code that knows better moves it.
                Error::invalid_filter("filter", message, [message.to_owned()]).caused_by(cause)
            }
            Fault::Text => Error::new(
                Code::ValidationFailed,
                "The request has a character that the database cannot store.",
            )
            .caused_by(cause),
            Fault::Denied => {
                let message =
                    "The role that the service has in the database lacks a right that it needs.";
                Error::unavailable(message).caused_by(cause)
            }
            Fault::Missing => {
                let message = "The database has not the schema of this version; `offboard migrate` brings it up to date.";
                Error::unavailable(message).caused_by(cause)
            }
            Fault::Raised => {
                let message = "A trigger of the database refuses what the call would do; the service's log says why.";
                Error::new(Code::RefusedByDatabase, message).caused_by(cause)
            }
            Fault::Duplicate | Fault::Other => Error::internal(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use diesel::result::DatabaseErrorInformation;

    use super::*;

    struct LocalizedError(&'static str);

    impl DatabaseErrorInformation for LocalizedError {
        fn message(&self) -> &str {
            "Verklemmung entdeckt"
        }
        fn details(&self) -> Option<&str> {
            None
        }
        fn hint(&self) -> Option<&str> {
            None
        }
        fn table_name(&self) -> Option<&str> {
            None
        }
        fn column_name(&self) -> Option<&str> {
            Some(self.0)
        }
        fn constraint_name(&self) -> Option<&str> {
            None
        }
        fn statement_position(&self) -> Option<i32> {
            None
        }
    }

    fn error(number: &'static str) -> Error {
        Error::from(Diesel::DatabaseError(
            DatabaseErrorKind::Unknown,
            Box::new(LocalizedError(number)),
        ))
    }

    #[test]
    fn a_number_says_what_a_caller_is_reported() {
        for (number, code) in [
            ("40001", Code::Unavailable),
            ("40P01", Code::Unavailable),
            ("55P03", Code::Unavailable),
            ("57014", Code::DeadlineExceeded),
            ("25006", Code::Unavailable),
            ("57P01", Code::Unavailable),
            ("57P03", Code::Unavailable),
            ("08006", Code::Unavailable),
            ("08P01", Code::Unavailable),
            ("26000", Code::Unavailable),
            ("42P05", Code::Unavailable),
            ("53100", Code::Unavailable),
            ("53300", Code::Unavailable),
            ("58030", Code::Unavailable),
            ("2201B", Code::InvalidFilter),
            ("22021", Code::ValidationFailed),
            ("22P02", Code::Internal),
            ("42501", Code::Unavailable),
            ("P0001", Code::RefusedByDatabase),
            ("42P01", Code::Unavailable),
        ] {
            assert_eq!(error(number).code(), code, "{number}");
        }
        assert_eq!(error("2201B").member("field"), Some("filter"));
        assert_eq!(error("53100").cause_chain().unwrap(), "SQLSTATE 53100: Verklemmung entdeckt");
    }

    #[test]
    fn what_has_no_number_is_a_connection_that_is_lost() {
        let lost = Diesel::DatabaseError(
            DatabaseErrorKind::Unknown,
            Box::new("la connexion est perdue".to_owned()),
        );
        assert_eq!(fault(&lost), Fault::Unreachable);
    }
}
